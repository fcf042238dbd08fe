"""Time of a relaxation beside that of its matrix products alone, on the mlp 3x256 at batch 64, 28x28 images.

    python benchmarks/relaxation.py [--rounds 40] [--steps 20] [--threads 1]

The suite asks for 1.2x at most: states of all layers lie in one memory, so that elementwise work is a few kernels for
all of them. `products` are those that every step has to make, W h + b and W^T d of each layer into memory that is there
already, in the same order; the first layer's are left out, whose input does not move. Rounds are interleaved, one
relaxation and its products in turn. `us a step` is the median over rounds, `x products` the median of the ratios within
a round, `x cpu` the same for the CPU time of the process; `x best` is the ratio of the least times, which neighbours on
a shared machine disturb least.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench import Seeds
from bench.catalog.catalog import Catalog
from bench.nets.mlp import MLP
from bench.testing.subject import image_task

BATCH_SIZE, N_CLASSES = 64, 10
TASK = image_task("mnist", N_CLASSES, (1, 28, 28), 50_000, MLP, {"width": 256, "depth": 3})
WARM_UP_ROUNDS = 3
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("predictive-coding", {}),
    ("predictive-coding", {"momentum": 0.35}),
    ("predictive-coding", {"energy": "cross-entropy"}),
    ("predictive-coding", {"prediction": "fixed"}),
    *(
        ("equilibrium-propagation", {"relaxation": relaxation, "loss": loss})
        for relaxation in ("synchronous", "asynchronous")
        for loss in ("mse", "ce")
    ),
)
Act = Callable[[], None]


def relaxation_of(name: str, settings: dict[str, Any], steps: int) -> tuple[Act, Act, list[nn.Linear]]:
    """A start of the states, a relaxation of so many steps, nudged where there is a choice, and the net's layers."""
    cls = Catalog().methods[name].load()
    method: Any = cls(TASK, cls.Config(**settings), device=torch.device("cpu"), seeds=Seeds(0, method=name))
    x, y = torch.randn(BATCH_SIZE, *TASK.input.shape), torch.randint(N_CLASSES, (BATCH_SIZE,))
    states = method._relaxation(x)
    if name == "predictive-coding":

        def start() -> None:
            states.start(x, y, 1.0)

        def relax() -> None:
            turn(states)
            for _ in range(steps):
                states.move()
                states.predict()
    else:
        nudge = nn.functional.one_hot(y, N_CLASSES).float(), torch.tensor(0.1)

        def start() -> None:
            states.start(x)

        def relax() -> None:
            turn(states)
            states.run(steps, nudge)

    return start, relax, [layer for layer in method.net.modules() if isinstance(layer, nn.Linear)]


def turn(states: Any) -> None:
    """What a start does for the sake of the steps that follow: W laid out the other way round."""
    for layer in states.layers[1:]:
        layer.rest(layer.transpose is not None)


def products_of(layers: list[nn.Linear], steps: int, *, forward: bool) -> Act:
    """The same products and nothing else. forward: also W h + b, not W^T d alone."""
    h = [torch.randn(BATCH_SIZE, layer.in_features) for layer in layers[1:]]
    a = [torch.zeros(BATCH_SIZE, layer.out_features) for layer in layers[1:]]
    below = [torch.zeros_like(part) for part in h]

    def multiply() -> None:
        for _ in range(steps):
            for layer, part, out in zip(layers[1:], a, below, strict=True):
                out.addmm_(part, layer.weight, alpha=0.5)
            if forward:
                for layer, part, out in zip(layers[1:], h, a, strict=True):
                    torch.addmm(layer.bias, part, layer.weight.t(), out=out)

    return multiply


def seconds(act: Act) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"{'method':<25}{'settings':<36}{'us a step':>10}{'x products':>12}{'x cpu':>8}{'x best':>8}")
    for name, settings in ROWS:
        start, relax, layers = relaxation_of(name, settings, args.steps)
        multiply = products_of(layers, args.steps, forward=settings.get("prediction") != "fixed")
        rounds = list[tuple[tuple[float, float], tuple[float, float]]]()
        for _ in range(WARM_UP_ROUNDS + args.rounds):
            start()  # untimed: states of one long relaxation would fade to numbers too small for fast arithmetic
            rounds.append((seconds(relax), seconds(multiply)))
        rounds = rounds[WARM_UP_ROUNDS:]
        wall, cpu = (statistics.median(ours[k] / alone[k] for ours, alone in rounds) for k in (0, 1))
        us = statistics.median(ours[0] for ours, _ in rounds) * 1e6 / args.steps
        best = min(ours[0] for ours, _ in rounds) / min(alone[0] for _, alone in rounds)
        chosen = " ".join(f"{key}={value}" for key, value in settings.items())
        print(f"{name:<25}{chosen:<36}{us:>10.0f}{wall:>12.2f}{cpu:>8.2f}{best:>8.2f}")


if __name__ == "__main__":
    main()
