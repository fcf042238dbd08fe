"""What the harness costs: the timed loop of a run against a bare loop over the same training steps, epoch by epoch.

python benchmarks/harness_overhead.py [--rounds 15] [--dataset mnist --data-dir DIR]

Gauges go on and off once an epoch. An epoch of digits has ten steps, the worst case; for the small net one of 160 is
shown beside it, which tells the price of a step from that of an epoch.

overhead: of the harness's epoch over the bare one. Where steps are of a millisecond it moves by some percent from one
time to the next, with what the two leave to each other in caches and on the heap.
outside: the part of the harness's epoch that is neither step nor data by its own clock, which is steady.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bench import Progress
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Parts
from bench.metrics.accuracy import Accuracy
from bench.objectives.cross_entropy import CrossEntropy
from bench.runner import loop, setup
from bench.runner.state import Training

ASKED_FOR = ("alignment", "update-dependency")
CASES = [  # method, net, how many epochs' images make one
    ("backprop", "mlp", 1),
    ("backprop", "mlp", 16),
    ("backprop", "cnn", 1),
    ("noprop-dt", "denoiser", 1),
]
LEAST_S = 10.0  # that the pairs of one case take together, however short an epoch


def start(method: str, net: str, dataset: str, folder: Path | None) -> Training:
    catalog, device = Catalog(), torch.device("cpu")
    cls = catalog.methods[method].load()
    instruments = [entry.load() for name, entry in catalog.instruments.items() if name not in ASKED_FOR]
    parts = Parts(
        cls, catalog.nets[net].load(), catalog.dataset(dataset), tuple(instruments), CrossEntropy, (Accuracy,)
    )
    spec = RunSpec(
        method=method, method_settings=cls.Config().model_dump(), method_source="", net=net, net_settings={},
        net_source="", dataset=dataset, data_id="", seed=0, epochs=1, eval_draws=1, device="cpu",
    )  # fmt: skip
    loaded = load(parts.dataset, data_dir=folder)
    run = setup.set_up(spec, parts, setup.task_of(spec, parts, loaded, device), loaded, device)
    for gauge in run.gauges:
        gauge.settle()
    return run


def bare(run: Training, order: Tensor) -> None:
    size, steps = run.spec.batch_size, steps_of(run, order)
    for step in range(steps):
        batch = run.train.batch(order[step * size : (step + 1) * size])
        run.method.train_step(batch, Progress(step, steps, 0))


def harness(run: Training, order: Tensor) -> None:
    loop.train(run, order, steps_of(run, order), lambda: False)


def steps_of(run: Training, order: Tensor) -> int:
    return len(order) // run.spec.batch_size


def seconds(epoch: Callable[[Training, Tensor], None], run: Training, times: int) -> float:
    run.state.step = 0
    run.state.losses.clear()
    run.state.rule_metrics = None
    order = run.order().repeat(times)
    began = time.perf_counter()
    epoch(run, order)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of epochs, at least")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # thousands of steps on digits leave gradients too small for normal arithmetic
    print(
        f"{'method':10s} {'net':9s} {'steps':>5s} {'bare ms/step':>13s} {'harness ms/step':>16s} "
        f"{'overhead':>9s} {'outside':>8s}"
    )
    for method, net, times in CASES:
        run = start(method, net, asked.dataset, asked.data_dir)
        n_steps = steps_of(run, run.order().repeat(times))
        times_before = replace(run.clock.times)
        took: dict[Callable[[Training, Tensor], None], list[float]] = {bare: [], harness: []}
        while len(took[bare]) < asked.rounds or sum(took[bare]) + sum(took[harness]) < LEAST_S:
            for epoch in (bare, harness) if len(took[bare]) % 2 else (harness, bare):  # either is as often the second
                took[epoch].append(seconds(epoch, run, times))
        a, b = (statistics.median(took[epoch]) / n_steps * 1000 for epoch in (bare, harness))
        # neighbours share what the machine does just then, so their ratio tells more than that of the medians
        ratio = statistics.median(y / x for x, y in zip(took[bare], took[harness], strict=True))
        inside = run.clock.times.train_s + run.clock.times.data_s - times_before.train_s - times_before.data_s
        outside = 1 - inside / sum(took[harness])
        print(f"{method:10s} {net:9s} {n_steps:5d} {a:13.3f} {b:16.3f} {ratio - 1:9.2%} {outside:8.2%}")


if __name__ == "__main__":
    main()
