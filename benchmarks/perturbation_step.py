"""What a step of the perturbation methods costs, and what evaluating a population together saves.

    python benchmarks/perturbation_step.py

One thread, batch 128, CPU time, which other processes lengthen less than that of the clock. The steps compared are
run in turn (A B C A B C ...), so that what still does falls on all alike; medians of these rounds, and the median
of the ratios within a round. The suite asks for an
spsa step of at most 1.0x a backprop step on the cnn net, and for populations at least 3x faster than a
Python loop at 16 members on small nets. A member of full rank has weights of its own, so together or one by one
its products take the same arithmetic: there the gain is the overhead of small calls, which fades as nets grow.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from bench.methods._shared.directions import draw
from bench.methods.perturbation.evolution_strategies import EvolutionStrategies
from bench.methods.perturbation.low_rank_evolution import LowRankEvolution
from bench.methods.perturbation.population import apply, shaped
from bench.methods.perturbation.weight_perturbation import WeightPerturbation

from bench import Batch, Method, Progress, Seeds, Task
from bench.catalog.catalog import Catalog
from bench.testing.subject import image_task

BATCH_SIZE = 128
MEMBERS = 16
START = Progress(0, 1, 0)
CPU = torch.device("cpu")
Act = Callable[[], object]


def interleaved(acts: Mapping[str, Act], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each act in each round, after two rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for done in range(rounds + 2):
        for name, act in acts.items():
            began = time.process_time()
            act()
            if done >= 2:
                times[name].append(1000 * (time.process_time() - began))
    return times


def ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def task_of(net: str, side: int, **settings: Any) -> Task:
    return image_task("noise", 10, (1, side, side), 1000, Catalog().nets[net].load(), settings)


def batch_of(task: Task) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH_SIZE, *task.input.shape, generator=generator)
    return Batch(x, torch.randint(10, (BATCH_SIZE,), generator=generator))


def build(name: str, task: Task, **settings: Any) -> Any:
    cls: type[Method] = Catalog().methods[name].load()
    return cls(task, cls.Config(**settings), device=CPU, seeds=Seeds(0, CPU, method=name))


def in_turn(method: WeightPerturbation | EvolutionStrategies | LowRankEvolution, batch: Batch) -> Act:
    """The same step as a loop over members: move the weights, evaluate, move back; then the same estimate."""
    weights, c = list(method.net.parameters()), method.config
    paired = not isinstance(method, WeightPerturbation)

    def noise(p: torch.Tensor) -> torch.Tensor:
        if isinstance(method, LowRankEvolution) and p.dim() > 1:
            A, B = (torch.randn(n, method.config.rank, generator=method.noise) for n in p.flatten(1).shape)
            return (A @ B.T).view_as(p) / method.config.rank**0.5
        kind = "gaussian" if isinstance(method, LowRankEvolution) else method.config.directions
        return draw(p.shape, p, kind, method.noise)

    @torch.no_grad()
    def step() -> None:
        directions, losses = [], []
        for _ in range(MEMBERS // 2 if paired else MEMBERS):
            z = [noise(p) for p in weights]
            directions.append(z)
            for sign in (1, -1) if paired else (1,):
                for p, v in zip(weights, z, strict=True):
                    p.add_(v, alpha=sign * c.sigma)
                losses.append(F.cross_entropy(method.net(batch.x), batch.y))
                for p, v in zip(weights, z, strict=True):
                    p.sub_(v, alpha=sign * c.sigma)
        if isinstance(method, WeightPerturbation):
            votes = (torch.stack(losses) - F.cross_entropy(method.net(batch.x), batch.y)) / (MEMBERS * c.sigma)
        else:
            costs = shaped(torch.stack(losses), method.config.shaping).view(-1, 2)
            votes = (costs[:, 0] - costs[:, 1]) / (MEMBERS * c.sigma)
        estimates = [torch.zeros_like(p) for p in weights]
        for vote, z in zip(votes, directions, strict=True):
            for e, v in zip(estimates, z, strict=True):
                e.add_(vote * v)
        apply(method.optimizer, estimates)

    return step


def spsa_table(rounds: int) -> None:
    print("spsa against backprop, and where its time goes (ms; three draws and moves, two forward passes)\n")
    print(f"{'net':<16}{'directions':<12}{'backprop':>9}{'spsa':>9}{'ratio':>7}{'draw':>8}{'move':>8}{'forward':>9}")
    for label, task in {
        "cnn 28x28": task_of("cnn", 28),
        "mlp 28x28": task_of("mlp", 28),
        "mlp 1024 28x28": task_of("mlp", 28, width=1024),
        "mlp 8x8": task_of("mlp", 8),
    }.items():
        batch = batch_of(task)
        for directions in ("gaussian", "rademacher"):
            backprop, spsa = build("backprop", task), build("spsa", task, directions=directions)
            weights, generator = list(spsa.net.parameters()), torch.Generator()
            z = [torch.zeros_like(p) for p in weights]

            def draws() -> None:
                for p in weights * 3:  # noqa: B023
                    draw(p.shape, p, directions, generator)  # noqa: B023

            @torch.no_grad()
            def moves() -> None:
                for p, v in list(zip(weights, z, strict=True)) * 3:  # noqa: B023
                    p.add_(v.mul_(1e-3))

            @torch.no_grad()
            def forwards() -> None:
                for _ in range(2):
                    spsa._loss(batch)  # noqa: B023

            acts = {
                "backprop": lambda: backprop.train_step(batch, START),  # noqa: B023
                "spsa": lambda: spsa.train_step(batch, START),  # noqa: B023
                "draw": draws,
                "move": moves,
                "forward": forwards,
            }
            t = interleaved(acts, rounds)
            m = {name: statistics.median(of) for name, of in t.items()}
            print(
                f"{label:<16}{directions:<12}{m['backprop']:>9.2f}{m['spsa']:>9.2f}"
                f"{ratio(t['spsa'], t['backprop']):>7.2f}{m['draw']:>8.2f}{m['move']:>8.2f}{m['forward']:>9.2f}"
            )


def population_table(rounds: int) -> None:
    print(f"\na population of {MEMBERS} together against a Python loop over it (ms per step)\n")
    print(f"{'net':<16}{'method':<24}{'directions':<12}{'together':>10}{'loop':>10}{'faster':>8}")
    for label, task in {
        "mlp 32 8x8": task_of("mlp", 8, width=32),
        "mlp 8x8": task_of("mlp", 8),
        "mlp 32 28x28": task_of("mlp", 28, width=32),
        "mlp 28x28": task_of("mlp", 28),
        "cnn 8 8x8": task_of("cnn", 8, width=8),
    }.items():
        batch = batch_of(task)
        rows: list[tuple[str, dict[str, Any]]] = [
            (name, {size: count, "directions": kind})
            for name, size, count in (
                ("weight-perturbation", "k", MEMBERS),
                ("evolution-strategies", "pairs", MEMBERS // 2),
            )
            for kind in ("gaussian", "rademacher")
        ]
        for name, settings in [*rows, ("low-rank-evolution", {"pairs": MEMBERS // 2})]:
            together, apart = build(name, task, **settings), build(name, task, **settings)
            t = interleaved(
                {"together": lambda: together.train_step(batch, START), "loop": in_turn(apart, batch)},  # noqa: B023
                rounds,
            )
            print(
                f"{label:<16}{name:<24}{settings.get('directions', 'rank 1'):<12}"
                f"{statistics.median(t['together']):>10.2f}{statistics.median(t['loop']):>10.2f}"
                f"{ratio(t['loop'], t['together']):>8.2f}"
            )


def node_table(rounds: int) -> None:
    print("\nnode perturbation against backprop (ms per step)\n")
    print(f"{'net':<16}{'form':<24}{'backprop':>10}{'node':>10}{'ratio':>8}")
    for label, task in {"mlp 28x28": task_of("mlp", 28), "cnn 28x28": task_of("cnn", 28)}.items():
        batch = batch_of(task)
        for settings in ({}, {"directions": "rademacher"}, {"form": "activity"}, {"form": "iterative"}):
            backprop, node = build("backprop", task), build("node-perturbation", task, **settings)
            t = interleaved(
                {
                    "backprop": lambda: backprop.train_step(batch, START),  # noqa: B023
                    "node": lambda: node.train_step(batch, START),  # noqa: B023
                },
                rounds,
            )
            print(
                f"{label:<16}{' '.join(settings.values()) or 'noise':<24}{statistics.median(t['backprop']):>10.2f}"
                f"{statistics.median(t['node']):>10.2f}{ratio(t['node'], t['backprop']):>8.2f}"
            )


def main() -> None:
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    spsa_table(rounds)
    population_table(rounds)
    node_table(rounds)


if __name__ == "__main__":
    main()
