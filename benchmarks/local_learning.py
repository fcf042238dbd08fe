"""Time of a training step of local and target rules beside backprop's, and what both retain for the way back.

    python benchmarks/local_learning.py [--rounds 15] [--threads 1] [--methods local-loss,cafo]

Every method of the families `local` and `target` that takes the net, at batch 128 of 28x28 images. The suite asks for
at most 1.15x backprop's time on the same net, plus that of what heads compute: `per FLOP` is the ratio of the times
over that of the FLOPs, where a rule needs more of them than backprop. A step of backprop goes before each step of
another rule, and ratios are taken within such a pair, so that a busy neighbour slows both alike; medians over rounds.
Every rule has a backprop of its own beside it: after hundreds of steps on one batch nothing is left to learn, and
numbers too small for normal arithmetic make backprop twice as slow.
Of backprop, the share of a forward pass in time and in FLOPs stands above the table: pooling and activations weigh more
forward than back, so that rules of two forward passes cannot reach 1 per FLOP.
On a cnn the tensors of a rule that takes images and their negatives as one batch are so large that glibc gives them
back to the system with each step, which clears them for the next: with MALLOC_MMAP_THRESHOLD_=4000000000 and
MALLOC_TRIM_THRESHOLD_=8000000000 in the environment it keeps them, and forward-forward falls from 1.2 to 2.0 per FLOP
to 1.04 to 1.16. Runs give them back, so that their times hold this for every rule.
`retained` is the peak of the bytes that autograd keeps in a step, as every record holds it.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from bench import Batch, Facts, Method, Progress, Seeds, Task
from bench.catalog.catalog import Catalog
from bench.measure.flops import counted
from bench.measure.retained import Retained
from bench.testing.subject import image_task

BATCH_SIZE = 128
WARM_UP_STEPS = 3
FAMILIES = ("local", "target")
NETS: dict[str, dict[str, Any]] = {"mlp": {"width": 1000, "depth": 3}, "cnn": {"width": 32, "depth": 3}}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "local-loss": [
        *({"loss": loss} for loss in ("pred", "sim", "predsim")),
        {"loss": "pred", "modules": 2},
        *({"loss": "pred", "gradient": gradient} for gradient in ("jvp", "spsa")),
    ],
    "cafo": [{"fit": "ce"}, {"fit": "lstsq"}],
    "loco": [{}, {"projection": 32}],
    "counter-current": [{"loss": "dot"}, {"loss": "cosine"}],
    "target-propagation": [{"rule": "dtp"}, *({"rule": "l-drl", "feedback_steps": steps} for steps in (1, 5))],
    "channel-goodness": [{"form": "cwcomp"}, {"form": "deeper-forward"}],
    "forward-forward": [
        {"predict_by": "head"},
        *({"predict_by": "goodness", "negatives": negatives} for negatives in ("wrong", "hard", "all")),
        {"recipe": "mean-goodness"},
    ],
}
PROGRESS = Progress(0, 1000, 0)
CATALOG = Catalog()


class Cost(NamedTuple):
    """Of one step."""

    flops: int
    retained: int


def task_on(net: str) -> Task:
    return image_task("mnist", 10, (1, 28, 28), 50_000, CATALOG.nets[net].load(), NETS[net])


def rows(task: Task, wanted: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Methods with their settings, as far as they take the task."""
    names = [name for name, entry in CATALOG.methods.items() if entry.card.get("family") in FAMILIES]
    for name in ["backprop-deep-supervision", *sorted(names)]:
        cls = CATALOG.methods[name].load()
        for settings in VARIANTS.get(name, [{}]) if not wanted or name in wanted else ():
            if cls.refuse(task, cls.Config(**settings), Facts("cpu", 1000, BATCH_SIZE)) is None:
                yield name, settings


def make(name: str, settings: dict[str, Any], task: Task) -> Method:
    cls = CATALOG.methods[name].load()
    made: Method = cls(task, cls.Config(**settings), device=torch.device("cpu"), seeds=Seeds(0, method=name))
    return made


def seconds(method: Method, batch: Batch) -> float:
    began = time.perf_counter()
    method.train_step(batch, PROGRESS)
    return time.perf_counter() - began


def cost(method: Method, batch: Batch) -> Cost:
    """Counted in a step of its own."""
    with counted() as work, Retained().watch(method, ()) as reading:
        method.train_step(batch, PROGRESS)
    return Cost(work.flops, int(reading()["retained_bytes"] or 0))


def forward_share(backprop: Method, batch: Batch, rounds: int) -> float:
    """Part of a step's time."""

    def once() -> float:
        began = time.perf_counter()
        with torch.no_grad():
            backprop.predict(batch.x)
        return time.perf_counter() - began

    for _ in range(WARM_UP_STEPS):
        seconds(backprop, batch)
        once()
    return statistics.median(once() / seconds(backprop, batch) for _ in range(rounds))


def forward_flops(backprop: Method, batch: Batch) -> int:
    with torch.no_grad(), counted() as work:
        backprop.predict(batch.x)
    return work.flops


def table(net: str, wanted: list[str], rounds: int) -> None:
    task = task_on(net)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH_SIZE, *task.input.shape, generator=generator)
    batch = Batch(images, torch.randint(task.output.size, (BATCH_SIZE,), generator=generator))
    backprop = make("backprop", {}, task)
    of_backprop = cost(backprop, batch)
    size = ", ".join(f"{key} {value}" for key, value in NETS[net].items())
    print(
        f"\n{net}, {size}: backprop retains {of_backprop.retained / 2**20:.2f} MiB, {of_backprop.flops / 1e9:.2f} GFLOP"
        f"; its forward pass is {forward_share(backprop, batch, rounds):.0%} of the time,"
        f" {forward_flops(backprop, batch) / of_backprop.flops:.0%} of the FLOPs"
    )
    print(f"{'method':<28}{'settings':<28}{'ms':>8}{'x time':>8}{'x FLOPs':>9}{'per FLOP':>10}{'MiB':>8}{'x MiB':>7}")
    for name, settings in rows(task, wanted):
        method, backprop = make(name, settings, task), make("backprop", {}, task)
        for _ in range(WARM_UP_STEPS):
            seconds(method, batch)
            seconds(backprop, batch)
        own = cost(method, batch)
        pairs = [(seconds(backprop, batch), seconds(method, batch)) for _ in range(rounds)]
        ratio = statistics.median(mine / theirs for theirs, mine in pairs)
        work = own.flops / of_backprop.flops
        shown = " ".join(f"{key}={value}" for key, value in settings.items())
        print(
            f"{name:<28}{shown:<28}{1e3 * statistics.median(mine for _, mine in pairs):>8.2f}{ratio:>8.2f}{work:>9.2f}"
            f"{ratio / max(work, 1.0):>10.2f}{own.retained / 2**20:>8.2f}{own.retained / of_backprop.retained:>7.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=[], help="these alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    for net in NETS:
        table(net, args.methods, args.rounds)


if __name__ == "__main__":
    main()
