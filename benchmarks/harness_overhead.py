"""What the harness costs: the timed loop of a run against a bare loop over the same training steps, epoch by epoch.

python benchmarks/harness_overhead.py [--rounds 15] [--dataset mnist --data-dir DIR]

An epoch of digits has ten steps, the worst case: gauges go on and off once an epoch.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench import Progress
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.runner import loop, setup
from bench.runner.state import Training
from bench.spec.identity import RunSpec
from bench.spec.plan import Parts

ASKED_FOR = ("alignment", "update-dependency")
CASES = [("backprop", "mlp"), ("backprop", "cnn"), ("noprop-dt", "denoiser")]


def start(method: str, net: str, dataset: str, folder: Path | None) -> Training:
    catalog, device = Catalog(), torch.device("cpu")
    cls = catalog.methods[method].load()
    instruments = [entry.load() for name, entry in catalog.instruments.items() if name not in ASKED_FOR]
    parts = Parts(cls, catalog.nets[net].load(), catalog.dataset(dataset), tuple(instruments))
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
    size, steps = run.spec.batch_size, run.steps_per_epoch
    for step in range(steps):
        batch = run.train.batch(order[step * size : (step + 1) * size])
        run.method.train_step(batch, Progress(step, steps, 0, 1, 0))


def harness(run: Training, order: Tensor) -> None:
    loop.train(run, order, run.steps_per_epoch, lambda: False)


def seconds(epoch: Callable[[Training, Tensor], None], run: Training) -> float:
    run.state.step = 0
    run.state.losses.clear()
    order = run.order()
    began = time.perf_counter()
    epoch(run, order)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of epochs; of short ones 20 each")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'method':12s} {'net':10s} {'bare ms/step':>13s} {'harness ms/step':>16s} {'overhead':>9s}")
    for method, net in CASES:
        run = start(method, net, asked.dataset, asked.data_dir)
        times: dict[Callable[[Training, Tensor], None], list[float]] = {bare: [], harness: []}
        short = net == "mlp" and run.steps_per_epoch < 100
        for k in range(asked.rounds * (20 if short else 1)):
            for epoch in (bare, harness) if k % 2 else (harness, bare):  # either is as often the second
                times[epoch].append(seconds(epoch, run))
        a, b = (statistics.median(times[epoch]) / run.steps_per_epoch * 1000 for epoch in (bare, harness))
        # neighbours share what the machine does just then, so their ratio tells more than that of the medians
        ratio = statistics.median(y / x for x, y in zip(times[bare], times[harness], strict=True))
        print(f"{method:12s} {net:10s} {a:13.3f} {b:16.3f} {ratio - 1:9.2%}")


if __name__ == "__main__":
    main()
