"""What a run's precision, memory format and compilation do to a training step: which of them pay on this device.

    python benchmarks/compute_settings.py [--device cpu] [--width 32] [--hidden 256] [--rounds 5] [--threads 2]

NoProp's nets of Figure 6 on images of 1x28x28, batch 128, T = 10, and a cnn under backprop. Rounds are interleaved: a
step of each candidate in turn (A B C A B C ...); ms is the median over rounds, every ratio the median of the ratios to
the same method in float32 within a round. Compilation happens before the first round. tf32 needs a GPU.
"""

import argparse
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from statistics import median
from typing import Any

import torch

from bench import Batch, Method, Progress, Seeds
from bench.catalog.catalog import Catalog
from bench.measure.clock import synchronize
from bench.runner import compute
from bench.testing.subject import image_task

IMAGE_SHAPE, N_CLASSES, BATCH_SIZE = (1, 28, 28), 10, 128
START = Progress(0, 1, 0)
CATALOG = Catalog()


def methods(width: int, hidden: int) -> dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Name, net, its settings and the method's, by what the table calls them."""
    size = {"width": width, "hidden": hidden}
    dt = {"T": 10, **size}
    return {
        "backprop, cnn": ("backprop", "cnn", {}, {}),
        "backprop, denoiser": ("backprop", "denoiser", dt, {}),
        "noprop-dt loop": ("noprop-dt", "denoiser", dt, {"execution": "loop"}),
        "noprop-dt parallel": ("noprop-dt", "denoiser", dt, {"execution": "parallel"}),
        "noprop-dt stacked": ("noprop-dt", "denoiser", dt, {"execution": "stacked"}),
        "noprop-fm": ("noprop-fm", "denoiser-ct", {"T": 1000, **size}, {}),
    }


def made(name: str, net: str, size: dict[str, Any], settings: dict[str, Any], device: torch.device) -> Method:
    task = image_task("mnist", N_CLASSES, IMAGE_SHAPE, 60_000, CATALOG.nets[net].load(), size)
    cls = CATALOG.methods[name].load()
    return cls(task, cls.Config(**settings), device=device, seeds=Seeds(0, device, method=name))


def candidates(row: tuple[Any, ...], batch: Batch, device: torch.device) -> dict[str, Callable[[], object]]:
    """A step under each setting, of a method of its own."""

    def step(method: Method, precision: Callable[[], AbstractContextManager[None]]) -> None:
        with precision():
            method.train_step(batch, START)

    chosen = {name: made(*row, device) for name in ("float32", "bfloat16", "channels-last", "compile")}
    compute.to_channels_last(chosen["channels-last"])
    compute.compile_steps(chosen["compile"])
    if device.type == "cuda":
        chosen["tf32"] = made(*row, device)
    return {
        name: partial(
            step, method, partial(compute.precision, name if name in ("bfloat16", "tf32") else "float32", device)
        )
        for name, method in chosen.items()
    }


def seconds(act: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    act()
    synchronize(device)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH_SIZE, *IMAGE_SHAPE, generator=generator).to(args.device)
    batch = Batch(x, torch.arange(BATCH_SIZE, device=args.device) % N_CLASSES)
    print(f"{args.device}, {args.threads} threads, width {args.width}, {args.rounds} rounds; ms (x float32's speed)")
    for name, row in methods(args.width, args.hidden).items():
        acts = candidates(row, batch, args.device)
        for _ in range(2):
            for act in acts.values():
                act()
        rounds = [{what: seconds(act, args.device) for what, act in acts.items()} for _ in range(args.rounds)]
        cells = []
        for what in acts:
            ms = 1e3 * median(times[what] for times in rounds)
            cells.append(f"{what} {ms:.1f} ({median(times['float32'] / times[what] for times in rounds):.2f}x)")
        print(f"{name:<20}", "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
