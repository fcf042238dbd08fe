"""A training step of NoProp-DT: how fast against a plain loop and the machine's limit, how light against backprop; and
one of DiffusionBlocks on the same net, which may take 1.15x as long.

    python benchmarks/noprop_step.py [--rounds 5] [--threads 2]

Figure 6's net on images of 1x28x28, batch 128, T = 10, at full (32 channels, 256 units) and quarter width (8, 64).
`plain loop` is what a user of torch would write: nn.Dropout, contiguous images, ReLU before pooling, an AdamW with its
defaults for each block. The suite asks at full width for 75% of the peak of square matrix products and 1.4x the plain
loop, at quarter width for 2.7x; of `loop` it asks for bytes retained for backward within 2% of 1/T of backprop's and
constant in T, and for a peak of live tensor bytes of at most 0.35x backprop's at T = 10.

Times: rounds are interleaved, products and a step of each candidate in turn (A B C A B C ...); ms is the median over
rounds, every ratio the median of the ratios within a round. `cpu` is the share of the products' rate by the CPU time of
the process, which neighbours on a shared machine disturb less, but in which a core left idle costs nothing. FLOPs are
those of products and convolutions in a step of the plain loop. Memory: full width, the second step, when the
optimiser's state is there.
"""

import argparse
import gc
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from bench.methods.noprop.denoiser import Denoiser
from bench.methods.noprop.schedule import coefficients, cosine
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import Batch, Progress, Seeds
from bench.catalog.catalog import Catalog
from bench.measure.live_peak import live_peak_bytes
from bench.measure.retained import retained_bytes
from bench.testing.subject import image_task

IMAGE_SHAPE, N_CLASSES = (1, 28, 28), 10
BATCH_SIZE = 128
WIDTHS: Mapping[str, Mapping[str, int]] = {
    "full": {"width": 32, "hidden": 256},
    "quarter": {"width": 8, "hidden": 64},
}
DEPTHS = (2, 5, 10, 20)
PRODUCT_SIZES = (512, 1024, 2048)
START = Progress(0, 1, 0)
MIB = 2**20


class PlainBlock(nn.Module):
    """Figure 6 (left), line by line."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        pooled = (IMAGE_SHAPE[1] // 4) * (IMAGE_SHAPE[2] // 4)
        self.image = nn.Sequential(
            nn.Conv2d(IMAGE_SHAPE[0], width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.Dropout(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2),
            nn.Flatten(), nn.Linear(4 * width * pooled, hidden), nn.BatchNorm1d(hidden),
        )  # fmt: skip
        self.label = nn.Sequential(nn.Linear(N_CLASSES, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden // 2), nn.BatchNorm1d(hidden // 2), nn.ReLU(),
            nn.Linear(hidden // 2, N_CLASSES),
        )  # fmt: skip

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        h = self.label(z)
        logits: Tensor = self.head(torch.cat((self.image(x), h + self.residual(h)), dim=1))
        return logits


class PlainLoop:
    """Eq. 8 for one block after another with a fixed one-hot embedding, as a user of torch would write it."""

    def __init__(self, net: Denoiser, settings: Mapping[str, int]) -> None:
        self.steps = coefficients(cosine(len(net.blocks), clip=1e-3))
        self.blocks = [PlainBlock(**settings) for _ in net.blocks]
        for plain, block in zip(self.blocks, net.blocks, strict=True):
            for own, theirs in zip(plain.state_dict().values(), block.state_dict().values(), strict=True):
                own.copy_(theirs)
        self.readout = nn.Linear(N_CLASSES, N_CLASSES)
        self.optimizers = [torch.optim.AdamW(m.parameters(), weight_decay=1e-3) for m in (*self.blocks, self.readout)]

    def train_step(self, batch: Batch) -> None:
        u = F.one_hot(batch.y, N_CLASSES).float()
        for t, block in enumerate(self.blocks, start=1):
            u_hat = block(self.noised(u, t - 1), batch.x).softmax(dim=1)
            loss = 0.1 / 2 * float(self.steps.snr_gain[t]) * ((u_hat - u) ** 2).sum(dim=1).mean()
            self.learn(self.optimizers[t - 1], loss)
        self.learn(self.optimizers[-1], F.cross_entropy(self.readout(self.noised(u, self.steps.T)), batch.y))

    def noised(self, u: Tensor, t: int) -> Tensor:
        abar = float(self.steps.abar[t])
        return abar**0.5 * u + (1 - abar) ** 0.5 * torch.randn_like(u)

    @staticmethod
    def learn(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def check_same_function(plain: PlainLoop, net: Denoiser, batch: Batch) -> None:
    """Both nets give the same logits, so that the times compared are of the same work."""
    z = torch.randn(len(batch.y), N_CLASSES, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for one, other in zip(plain.blocks, net.blocks, strict=True):
            torch.testing.assert_close(one.eval()(z, batch.x), other.eval()(z, batch.x), rtol=1e-4, atol=1e-5)
            one.train()


def made(method: str, settings: Mapping[str, int], T: int, **choices: Any) -> Any:
    task = image_task("mnist", N_CLASSES, IMAGE_SHAPE, 60_000, Denoiser, {"T": T, **settings})
    cls = Catalog().methods[method].load()
    return cls(task, cls.Config(**choices), device=torch.device("cpu"), seeds=Seeds(0, method=method))


def a_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH_SIZE, *IMAGE_SHAPE, generator=generator)
    return Batch(x, torch.randint(N_CLASSES, (BATCH_SIZE,), generator=generator))


class Seconds(NamedTuple):
    """By the clock, and of CPU time over all threads."""

    wall: float
    cpu: float


def seconds(act: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def product_rates(squares: list[Tensor]) -> Seconds:
    """The best rates among square products in float32, GFLOP a second; by CPU time, of the last and largest alone.

    The CPU time of other threads is booked at the ticks of the scheduler, too coarse for small products.
    """
    best = [2e-9 * len(a) ** 3 / min(s.wall for s in _thrice(a)) for a in squares]
    return Seconds(max(best), 2e-9 * len(squares[-1]) ** 3 / median(s.cpu for s in _thrice(squares[-1])))


def _thrice(a: Tensor) -> list[Seconds]:
    return [seconds(partial(torch.mm, a, a)) for _ in range(3)]


def time_table(name: str, settings: Mapping[str, int], rounds: int) -> None:
    batch, T = a_batch(), 10
    loop = made("noprop-dt", settings, T, execution="loop")
    methods = {
        "noprop-dt loop": loop,
        "noprop-dt parallel": made("noprop-dt", settings, T, execution="parallel"),
        "noprop-dt stacked": made("noprop-dt", settings, T, execution="stacked"),
        "diffusion-blocks loop": made("diffusion-blocks", settings, T, execution="loop"),
        "diffusion-blocks parallel": made("diffusion-blocks", settings, T, execution="parallel"),
        "backprop": made("backprop", settings, T),
    }
    plain = PlainLoop(loop.net, settings)
    check_same_function(plain, loop.net, batch)
    with FlopCounterMode(display=False) as counter:
        plain.train_step(batch)
    gflop = counter.get_total_flops() / 1e9

    acts: dict[str, Callable[[], object]] = {"plain loop": partial(plain.train_step, batch)}
    acts |= {name: partial(method.train_step, batch, START) for name, method in methods.items()}
    for act in acts.values():
        act()
    squares = [torch.randn(size, size) for size in PRODUCT_SIZES]
    peaks, times = [], []
    for _ in range(rounds):
        peaks.append(product_rates(squares))
        times.append({name: seconds(act) for name, act in acts.items()})

    walls = [peak.wall for peak in peaks]
    print(f"\n{name} width {dict(settings)}, T = {T}: {gflop:.1f} GFLOP a step; products at ", end="")
    print(f"{median(walls):.0f} GFLOP/s (median of rounds; best {max(walls):.0f})")
    print(f"{'':<26}{'ms':>9}{'images/s':>10}{'GFLOP/s':>9}{'of peak':>9}{'cpu':>9}{'x plain':>9}")
    for candidate in acts:
        s = median(t[candidate].wall for t in times)
        shares = ([gflop / t[candidate][k] / p[k] for t, p in zip(times, peaks, strict=True)] for k in (0, 1))
        of_peak, cpu = map(median, shares)
        faster = median(t["plain loop"].wall / t[candidate].wall for t in times)
        print(f"{candidate:<26}{s * 1e3:>9.1f}{BATCH_SIZE / s:>10.0f}{gflop / s:>9.1f}", end="")
        print(f"{of_peak:>9.1%}{cpu:>9.1%}{faster:>9.2f}")
    for how in ("loop", "parallel"):
        ratios = (t[f"diffusion-blocks {how}"].wall / t[f"noprop-dt {how}"].wall for t in times)
        print(f"diffusion-blocks over noprop-dt, {how}: {median(ratios):.2f}")


def memory_table() -> None:
    print("\nmemory, full width, loop against backprop (MiB)")
    print(f"{'':<6}{'retained for backward':>33}{'':>18}{'peak of live tensors':>30}")
    print(f"{'T':>4}{'loop':>11}{'backprop':>11}{'ratio':>9}{'ratio x T':>11}", end="")
    print(f"{'loop':>14}{'backprop':>11}{'ratio':>9}")
    for T in DEPTHS:
        (kept, live), (kept_bp, live_bp) = memory("noprop-dt", T, execution="loop"), memory("backprop", T)
        share = kept / kept_bp
        print(f"{T:>4}{kept / MIB:>11.2f}{kept_bp / MIB:>11.2f}{share:>9.4f}{T * share:>11.4f}", end="")
        print(f"{live / MIB:>14.1f}{live_bp / MIB:>11.1f}{live / live_bp:>9.3f}")


def memory(method: str, T: int, **choices: Any) -> tuple[int, int]:
    """Bytes retained for backward and the peak of live tensor bytes, in a step."""
    batch, trained = a_batch(), made(method, WIDTHS["full"], T, **choices)
    step = partial(trained.train_step, batch, START)
    step()
    gc.collect()
    parameters = [p for part in trained.modules().values() for p in part.parameters()]
    return retained_bytes(step, parameters), live_peak_bytes(step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"batch {BATCH_SIZE} of {'x'.join(map(str, IMAGE_SHAPE))}, {args.threads} threads, {args.rounds} rounds")
    for name, settings in WIDTHS.items():
        time_table(name, settings, args.rounds)
    memory_table()


if __name__ == "__main__":
    main()
