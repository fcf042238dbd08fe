"""MNIST-1D: ten templates of twelve points, stretched, scaled, moved, hidden in noise and sheared.

Greydanus, Kobak 2024, "Scaling down deep learning with MNIST-1D", arXiv 2011.14439. A template, standardised and
shifted so that it begins at 0, over 6, becomes a signal of 40 numbers in this order, with fresh draws u ~ U[0, 1):

    zeros appended, 36 to 60 of them;  stretched to 72 points;  times 1 + 0.4 (u - 1/2);  rolled by 0 to 47 points;
    where it is zero, Gaussian noise of deviation 0.25, smoothed by a Gaussian of 2 points;  plus white noise, 0.02;
    minus 0.75 (u - 1/2) times a line from -1/2 to 1/2;  read at 40 points

Classes are equally frequent, in random order. Numbers are rounded to 1e-4, so that every machine makes the same bytes.
Deviation from the published file: the same recipe, drawn from a stream of its own.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.api.kinds import Input
from bench.catalog.register import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED, N_TRAIN, N_TEST = 42, 4000, 1000
STRETCHED, LENGTH = 72, 40
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)


@register
class MNIST1D(DataSet):
    """Sequences of 40 steps of one number."""

    info = DataSetInfo(
        name="mnist1d",
        title="MNIST-1D, as sequences",
        input=Input.sequence(LENGTH, 1),
        n_classes=10,
        n_train=N_TRAIN,
        n_test=N_TEST,
        source="Greydanus & Kobak 2024, arXiv 2011.14439",
        paper="greydanus2024scaling",
        size="generated",
    )

    def read(self, folder: Path) -> Source:
        signals = generated()
        every = Split(signals.x.unsqueeze(2), signals.y)
        return Source(10, Split(*(t[:N_TRAIN] for t in every)), Split(*(t[N_TRAIN:] for t in every)))


@cache
def generated() -> Split:
    """All signals, training ones first. Shape: x (5000, 40) float32."""
    import numpy as np
    import torch

    # RandomState, because its stream is frozen (NEP 19)
    draws = np.random.RandomState(SEED)
    y = np.arange(N_TRAIN + N_TEST) % len(TEMPLATES)
    draws.shuffle(y)
    shapes = templates()
    x = np.stack([signal(shapes[label], draws) for label in y]).round(4)
    return Split(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64)))


def templates() -> "NDArray[np.float64]":
    """Standardised, from 0 on. Shape: (10, 12)."""
    import numpy as np

    x = np.array(TEMPLATES)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    shifted: NDArray[np.float64] = (x - x[:, :1]) / 6
    return shifted


def signal(template: "NDArray[np.float64]", draws: "np.random.RandomState") -> "NDArray[np.float64]":
    """One signal of a template. Shape: (12,) to (40,)."""
    import numpy as np
    from scipy.ndimage import gaussian_filter1d

    padded = np.concatenate([template + 1e-8, np.zeros(36 + int(draws.rand() * 25))])  # a template is nowhere 0
    x = stretched(padded, STRETCHED) * (1 + 0.4 * (draws.rand() - 0.5))
    x = np.roll(x, draws.randint(48))
    x = np.where(x != 0, x, gaussian_filter1d(0.25 * draws.randn(STRETCHED), 2))
    x = x + 0.02 * draws.randn(STRETCHED)
    x = x - 0.75 * (draws.rand() - 0.5) * np.linspace(-0.5, 0.5, STRETCHED)
    return stretched(x, LENGTH)


def stretched(x: "NDArray[np.float64]", n: int) -> "NDArray[np.float64]":
    """The signal read at n even places, with straight lines between its points. Shape: (m,) to (n,)."""
    import numpy as np

    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(x)), x)
