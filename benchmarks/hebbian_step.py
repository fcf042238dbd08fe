"""Time of softhebb's layer step beside the layer's forward pass and the outer product that the rule cannot do without.

    python benchmarks/hebbian_step.py [--rounds 15] [--threads 1] [--batch-size 10] [--width 96] [--side 32]

The net is the paper's, `triangle`, on images of three channels. `forward` is all of a layer (batch norm, convolution,
Triangle, pooling), `outer` the sum over positions of y x^T; the suite asks for a step of 1.3x their sum at most, over
all layers. `products` are the two matrix products alone, the convolution and `outer`. Rounds are interleaved, one call
of each in turn, so that a busy neighbour slows all of them alike. Columns in ms are medians over rounds, `x` the median
of the ratios within a round, `x cpu` the same for the CPU time of the process, which neighbours disturb less.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from bench.methods._shared.bilinear import weight_gradient
from bench.methods.hebbian.softhebb import SoftHebb, filters
from bench.methods.hebbian.triangle import Triangle
from torch import Tensor

from bench import Seeds
from bench.testing.subject import image_task

Call = Callable[[], object]
WARM_UP_ROUNDS = 2


def calls(method: SoftHebb, k: int, h: Tensor) -> tuple[list[Call], Tensor]:
    """Forward pass, convolution, outer product and step of layer k on its input h; and its output."""
    block, conv = method.layers[k], filters(method.layers[k])
    seen: list[Tensor] = []
    hook = conv.register_forward_hook(lambda _, args, u: seen.extend((args[0], u.clone())))
    output = block(h)
    hook.remove()
    x, u = seen
    y = torch.randn_like(u)
    step: list[Call] = [lambda: block(h), lambda: conv(x), lambda: weight_gradient(conv, x, y)]
    return [*step, lambda: method.layer_step(k, h)], output


def seconds(act: Call) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 15), ("threads", 1), ("batch-size", 10), ("width", 96), ("side", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    task = image_task("shape", 10, (3, args.side, args.side), 50_000, Triangle, {"width": args.width})
    method = SoftHebb(task, SoftHebb.Config(), device=torch.device("cpu"), seeds=Seeds(0, method="softhebb"))
    method.layers.train()
    h = torch.randn(args.batch_size, *task.input.shape, generator=torch.Generator().manual_seed(0))
    acts: list[list[Call]] = []
    for k in range(len(method.layers)):
        of_layer, h = calls(method, k, h)
        acts.append(of_layer)
    for _ in range(WARM_UP_ROUNDS):
        for of_layer in acts:
            for act in of_layer:
                act()
    # by kind of time, layer, call and round
    rounds = [[[seconds(act) for act in of_layer] for of_layer in acts] for _ in range(args.rounds)]
    times = torch.tensor(rounds, dtype=torch.float64).permute(3, 1, 2, 0)
    times = torch.cat([times, times.sum(1, keepdim=True)], dim=1)

    heads = ("forward", "conv", "outer", "step")
    print(f"{'layer':<8}" + "".join(f"{head:>10}" for head in heads) + f"{'x':>8}{'x cpu':>8}{'x products':>12}")
    for k, (wall, cpu) in enumerate(zip(times[0], times[1], strict=True)):
        name = "all" if k == len(acts) else f"{k + 1}"
        ms = "".join(f"{statistics.median(of.tolist()) * 1e3:>10.2f}" for of in wall)
        both, used, products = (
            statistics.median((of[3] / (of[first] + of[2])).tolist()) for of, first in ((wall, 0), (cpu, 0), (cpu, 1))
        )
        print(f"{name:<8}{ms}{both:>8.2f}{used:>8.2f}{products:>12.2f}")


if __name__ == "__main__":
    main()
