"""Stratified splits that are the same for every run, seed, machine and library version."""

import numpy as np
import torch
from torch import Tensor


def draw(y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Draw n of the images without regard to the run's seed; each class gives its share to within one image.

    With the images in random order within their class and the classes one after another, every (N / n)-th is
    taken: a systematic sample.

    Shape: y (N,) to (N - n,) and (n,), ascending indices of those kept and those drawn.
    """
    # RandomState, because its stream is frozen (NEP 19); those of torch and of numpy's Generator may change
    shuffled = np.random.RandomState(0).permutation(len(y))
    by_class = shuffled[np.argsort(y.numpy()[shuffled], kind="stable")]
    taken = np.zeros(len(y), dtype=bool)
    taken[by_class[(2 * np.arange(n) + 1) * len(y) // max(2 * n, 1)]] = True
    drawn = torch.from_numpy(taken)
    return (~drawn).nonzero().flatten(), drawn.nonzero().flatten()
