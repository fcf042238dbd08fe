"""What the harness costs: the timed loop of a run against a bare loop over the same training steps, interleaved.

python benchmarks/harness_overhead.py [--rounds 15]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from bench import Progress
from bench.plan import RunSpec
from bench.registry import Registry
from bench.runner import Place, Run
from bench.store import RunFolder

CASES = [("backprop", "mlp"), ("backprop", "cnn"), ("noprop-dt", "denoiser")]


def start(method: str, net: str, folder: Path) -> Run:
    cls = Registry()[method].load()
    spec = RunSpec(
        method=method, method_settings=cls.Config().model_dump(), method_source="", net=net, net_settings={},
        dataset="digits", data_id="", seed=0, epochs=1, batch_size=128, val_fraction=0.1, eval_draws=1, device="cpu",
    )  # fmt: skip
    return Run(spec, cls, Place(torch.device("cpu")), RunFolder(folder, "overhead", spec.run_id), lambda _: None)


def bare(run: Run) -> None:
    size, steps = run.spec.batch_size, run.steps_per_epoch
    order = run.train.order(run.seeds.order)
    for step in range(steps):
        batch = run.train.batch(order[step * size : (step + 1) * size])
        run.method.train_step(batch, Progress(step, steps, 0, 1, 0))


def harness(run: Run) -> None:
    run.at.epoch, run.losses = 0, []
    run._train_epoch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{'method':12s} {'net':10s} {'bare ms/step':>13s} {'harness ms/step':>16s} {'overhead':>9s}")
    with tempfile.TemporaryDirectory() as folder:
        for method, net in CASES:
            run = start(method, net, Path(folder))
            repeats = 20 if net == "mlp" else 1
            times: dict[str, list[float]] = {"bare": [], "harness": []}
            for _ in range(rounds):
                for name, loop in (("bare", bare), ("harness", harness)):
                    began = time.perf_counter()
                    for _ in range(repeats):
                        loop(run)
                    times[name].append((time.perf_counter() - began) / repeats / run.steps_per_epoch * 1000)
            a, b = (statistics.median(times[name]) for name in ("bare", "harness"))
            print(f"{method:12s} {net:10s} {a:13.3f} {b:16.3f} {b / a - 1:9.2%}")


if __name__ == "__main__":
    main()
