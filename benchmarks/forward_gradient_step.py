"""Time of a forward-gradient step against backprop's, and of k directions together against one after another.

    python benchmarks/forward_gradient_step.py

The suite asks for at most 1.6 times a backprop step (k = 1, cnn, batch 128 of 28x28) and for at least 3 times the
speed of a loop (k = 16, mlp). One thread; the candidates of a table take turns (A B A B ...), medians.
The loop is that of a user of torch: for each direction, draw it, torch.func.jvp of the mean loss, add c v.
`own loop` calls this repository's estimate k times at k = 1. The mlp is 64-w-w-10, of the width that is printed.
"""

import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from bench.methods.backprop.backprop import Backprop
from bench.methods.forward.forward_gradient import ForwardGradient, activity_estimate, weight_estimate
from bench.methods.forward.guided_forward_gradient import GuidedForwardGradient
from bench.methods.forward.local_forward_gradient import LocalForwardGradient
from torch import Tensor
from torch.func import functional_call, jvp

from bench import Batch, Method, Progress, Seeds, Task
from bench.nets.cnn import CNN
from bench.nets.localmixer import LocalMixer
from bench.nets.mlp import MLP

ROUNDS = 15
CPU = torch.device("cpu")
PROGRESS = Progress(0, 1, 0)


def medians(candidates: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds per call."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(ROUNDS + 1):
        for name, call in candidates.items():
            began = time.perf_counter()
            call()
            if turn:  # the first is warm-up
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(t) for name, t in times.items()}


def made(method: type[Method], task: Task, **settings: Any) -> Any:
    return method(task, method.Config(**settings), device=CPU, seeds=Seeds(0))


def images(task: Task, size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, *task.input.shape, generator=generator)
    return Batch(x, torch.randint(task.output.size, (size,), generator=generator))


def steps_against_backprop(task: Task, batch: Batch) -> None:
    methods = {"backprop": made(Backprop, task)}
    for name, cls in (("forward-gradient", ForwardGradient), ("local-forward-gradient", LocalForwardGradient)):
        for space in ("weight", "activity"):
            for directions in ("gaussian", "rademacher"):
                methods[f"{name} {space} {directions}"] = made(cls, task, space=space, directions=directions)
    for space in ("weight", "activity"):
        methods[f"guided-forward-gradient {space}"] = made(GuidedForwardGradient, task, space=space)
    ms = medians({name: partial(m.train_step, batch, PROGRESS) for name, m in methods.items()})
    print(f"\n{task.net} {task.input.shape}, batch {len(batch.y)}, k = 1: ms per training step, times backprop's")
    for name, value in ms.items():
        print(f"  {name:<45}{value:9.2f}{value / ms['backprop']:8.2f}")


def together_against_loop(task: Task, batch: Batch, k: int) -> None:
    print(f"\n{task.net} {dict(task.net_settings)} {task.input.shape}, batch {len(batch.y)}, k = {k}: ms per estimate")
    print(f"  {'':<25}{'together':>10}{'jvp loop':>10}{'own loop':>10}{'jvp gain':>10}{'own gain':>10}{'draws':>10}")
    for space, estimate in (("weight", weight_estimate), ("activity", activity_estimate)):
        for directions in ("gaussian", "rademacher"):
            m = made(ForwardGradient, task, space=space, directions=directions)
            candidates: dict[str, Callable[[], Any]] = {
                "together": partial(estimate, m.net, batch, k, m.draw),
                "own": partial(own_loop, estimate, m, batch, k),
            }
            if space == "weight":
                candidates["jvp"] = partial(jvp_loop, m, batch, k)
                candidates["draws"] = partial(m.draw, (k, sum(p.numel() for p in m.net.parameters())), batch.x)
            with torch.no_grad():
                ms = medians(candidates)
            jvp_ms, draws_ms = ms.get("jvp", math.nan), ms.get("draws", math.nan)
            print(
                f"  {space + ' ' + directions:<25}{ms['together']:10.2f}{jvp_ms:10.2f}{ms['own']:10.2f}"
                f"{jvp_ms / ms['together']:10.2f}{ms['own'] / ms['together']:10.2f}{draws_ms:10.2f}"
            )


def own_loop(estimate: Callable[..., Any], m: Any, batch: Batch, k: int) -> list[Tensor]:
    total = [torch.zeros_like(p) for p in m.net.parameters()]
    for _ in range(k):
        gradient = estimate(m.net, batch, 1, m.draw)[1]
        for held, p in zip(total, m.net.parameters(), strict=True):
            held += gradient[p] / k
    return total


def jvp_loop(m: Any, batch: Batch, k: int) -> dict[str, Tensor]:
    weights = {name: p.detach() for name, p in m.net.named_parameters()}
    total = {name: torch.zeros_like(p) for name, p in weights.items()}

    def loss(w: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(m.net, w, (batch.x,)), batch.y)

    for _ in range(k):
        v = {name: m.draw(tuple(p.shape), p) for name, p in weights.items()}
        slope = jvp(loss, (weights,), (v,))[1]
        for name, held in total.items():
            held += slope * v[name] / k
    return total


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.func's own use of torch.jit
    digits = ("digits", 10, (1, 8, 8), 1257)
    mnist = ("mnist", 10, (1, 28, 28), 60000)
    for task in (Task(*mnist, net) for net in (CNN, MLP, LocalMixer)):
        steps_against_backprop(task, images(task, 128))
    for width, size in ((32, 32), (32, 128), (256, 32), (256, 128)):
        task = Task(*digits, MLP, {"width": width})
        together_against_loop(task, images(task, size), k=16)


if __name__ == "__main__":
    main()
