"""Time of a training step of the feedback family and of backprop's controls beside backprop's, batch 128 of 28x28.

    python benchmarks/feedback_step.py [--rounds 15] [--threads 1]

The suite asks for 1.15x backprop's at most from feedback-alignment and direct-feedback-alignment. Rounds are
interleaved, one step of each method in turn (A B C A B C ...), so that a busy neighbour slows all of them alike.
`ms` is the median over rounds, `x backprop` the median of the ratios within a round, `x cpu` the same for the
CPU time of the process, which neighbours on a shared machine disturb less. One table on the cnn, one on the
mlp, one on the reversible net.
"""

import argparse
import statistics
import time
from typing import Any

import torch

from bench import Batch, Method, Net, Progress, Seeds, Task
from bench.catalog.catalog import Catalog
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.nets.reversible import Reversible
from bench.testing.subject import image_task

BATCH_SIZE = 128
WARM_UP_STEPS = 3
Rows = tuple[tuple[str, dict[str, Any]], ...]
ON_SHARED: Rows = (
    ("backprop", {}),
    *(("feedback-alignment", {"mode": mode}) for mode in ("fa", "usf", "brsf", "frsf")),
    ("kolen-pollack", {}),
    ("weight-mirror", {}),
    *(("direct-feedback-alignment", {"mode": mode}) for mode in ("dfa", "sdfa")),
    ("direct-kolen-pollack", {}),
    ("drtp", {}),
    ("backprop-checkpointed", {}),
    ("backprop-micro-batch", {}),
    ("backprop-deep-supervision", {}),
    ("backprop-last-layer", {}),
    ("random-features", {}),
)
ON_REVERSIBLE: Rows = (("backprop", {}), ("backprop-checkpointed", {}), ("backprop-reversible", {}))


def task_of(net: type[Net], **settings: Any) -> Task:
    return image_task("mnist", 10, (1, 28, 28), 50_000, net, settings)


def make(task: Task, name: str, settings: dict[str, Any]) -> Method:
    cls = Catalog().methods[name].load()
    return cls(task, cls.Config(**settings), device=torch.device("cpu"), seeds=Seeds(0, method=name))


def step_seconds(method: Method, batch: Batch) -> tuple[float, float]:
    """Wall and CPU seconds of one training step."""
    wall, cpu = time.perf_counter(), time.process_time()
    method.train_step(batch, Progress(0, 1, 0))
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(task: Task, rows: Rows, rounds: int) -> None:
    """Print the table of one net; its first row is what the others are compared with."""
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        torch.randn(BATCH_SIZE, *task.input.shape, generator=generator),
        torch.randint(task.output.size, (BATCH_SIZE,), generator=generator),
    )
    methods = [make(task, name, settings) for name, settings in rows]
    for _ in range(WARM_UP_STEPS):
        for method in methods:
            step_seconds(method, batch)
    taken = [[step_seconds(method, batch) for method in methods] for _ in range(rounds)]

    print(f"\n{task.net.name} {dict(task.net_settings)}")
    print(f"{'method':<28}{'mode':<6}{'ms':>9}{'x backprop':>12}{'x cpu':>8}")
    for (name, settings), times in zip(rows, zip(*taken, strict=True), strict=True):
        ratios = ([t[k] / first[k] for t, (first, *_) in zip(times, taken, strict=True)] for k in (0, 1))
        wall, cpu = map(statistics.median, ratios)
        ms = statistics.median(t for t, _ in times) * 1e3
        print(f"{name:<28}{settings.get('mode', ''):<6}{ms:>9.2f}{wall:>12.2f}{cpu:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    compare(task_of(CNN), ON_SHARED, args.rounds)
    compare(task_of(MLP), ON_SHARED, 10 * args.rounds)  # steps of a few milliseconds
    compare(task_of(Reversible, layers="conv", width=32, depth=4), ON_REVERSIBLE, args.rounds)


if __name__ == "__main__":
    main()
