"""Predictions of NoProp-CT and NoProp-FM in 1000 steps against a plain loop that evaluates the whole net each step.

    python benchmarks/noprop_inference.py [--rounds 3] [--threads 2]

500 images of 1x28x28, Figure 6's continuous-time net at full width. The suite asks for at least 50x. The plain loop is
timed on 20 steps and scaled to 1000, which is exact but for what is done once (its steps are all alike). Rounds are
interleaved (A B A B ...); s is the median over rounds, the ratio the median of those within a round. Before that, both
go 20 steps from the same draws, and their ends must agree.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from bench.methods.noprop.ct import NoPropCT
from bench.methods.noprop.denoiser_ct import DenoiserCT
from bench.methods.noprop.fm import NoPropFM
from torch import Tensor

from bench import Seeds
from bench.testing.subject import image_task

IMAGES, STEPS, PLAIN_STEPS = 500, 1000, 20
TASK = image_task("mnist", 10, (1, 28, 28), 60_000, DenoiserCT, {"T": STEPS})


def plain_ct(method: NoPropCT, x: Tensor, steps: int, noise: torch.Generator) -> Tensor:
    """z_1 by the residual steps of Eq. 3 between the times 0, 1/K, ..., 1."""
    net, W = method.net, method.net.labels.weight
    abar = method.schedule(torch.linspace(0, 1, steps + 1)).abar.double().tolist()
    z = torch.randn(len(x), net.labels.dim, generator=noise)
    for k in range(steps):
        before, after = abar[k], abar[k + 1]
        alpha = before / after
        u_hat = whole_net(net, z, x, k / steps).softmax(dim=1) @ W
        mean = after**0.5 * (1 - alpha) * u_hat + alpha**0.5 * (1 - after) * z
        variance = (1 - after) * (1 - alpha) / (1 - before)
        z = mean / (1 - before) + variance**0.5 * torch.randn(z.shape, generator=noise)
    return z


def plain_fm(method: NoPropFM, x: Tensor, steps: int, noise: torch.Generator) -> Tensor:
    """z_1 by Euler's method."""
    net = method.net
    z = torch.randn(len(x), net.labels.dim, generator=noise)
    for k in range(steps):
        z = z + whole_net(net, z, x, k / steps) @ net.labels.weight / steps
    return z


def whole_net(net: DenoiserCT, z: Tensor, x: Tensor, t: float) -> Tensor:
    return net.logits(z, x, torch.full((len(x),), t))


def last(path: Iterator[Tensor]) -> Tensor:
    *_, z = path
    return z


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


@torch.no_grad()
def compare(method: Any, plain: Callable[..., Tensor], way: str, x: Tensor, rounds: int) -> None:
    noise = torch.Generator().manual_seed(0)
    replayed = noise.clone_state()
    z = last(method._path(x, way, PLAIN_STEPS, noise))
    expected = plain(method, x, PLAIN_STEPS, replayed)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)

    times = []
    for _ in range(rounds):
        scaled = seconds(lambda: plain(method, x, PLAIN_STEPS, replayed)) * STEPS / PLAIN_STEPS
        times.append((scaled, seconds(lambda: method.predict(x, noise))))
    slow, fast = (median(column) for column in zip(*times, strict=True))
    faster = median(a / b for a, b in times)
    gap = float((z - expected).abs().max())
    print(f"{method.info.name:<12}{way:<12}{slow:>10.1f}{fast:>10.2f}{faster:>9.0f}{gap:>12.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    x = torch.randn(IMAGES, *TASK.input.shape, generator=torch.Generator().manual_seed(0))
    print(
        f"{IMAGES} images, {STEPS} steps (plain: {PLAIN_STEPS}, scaled), {args.threads} threads, {args.rounds} rounds"
    )
    print(f"{'':<12}{'sampler':<12}{'plain s':>10}{'s':>10}{'faster':>9}{'gap of z':>12}")
    cpu = torch.device("cpu")
    ct, fm = (cls(TASK, cls.Config(), device=cpu, seeds=Seeds(0)) for cls in (NoPropCT, NoPropFM))
    for method in (ct, fm):
        method.net.eval()
    compare(ct, plain_ct, "ancestral", x, args.rounds)
    compare(fm, plain_fm, "euler", x, args.rounds)


if __name__ == "__main__":
    main()
