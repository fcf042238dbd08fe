"""What tests of local rules share: tensors compared in order, weights of no special kind, similarity by definition."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bench import Progress

START = Progress(0, 100, 0)


def assert_same(one: Iterable[Tensor], other: Iterable[Tensor]) -> None:
    one, other = list(one), list(other)
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def randomise(module: nn.Module, seed: int = 3) -> None:
    """Weights of no special kind, so that heads that start at zero send something back."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)


def similarity(rows: Tensor) -> Tensor:
    """Cosines of the rows, each less its own mean, pair by pair."""
    N = len(rows)
    S = torch.zeros(N, N, dtype=rows.dtype)
    for i in range(N):
        for j in range(N):
            a, b = rows[i] - rows[i].sum() / len(rows[i]), rows[j] - rows[j].sum() / len(rows[j])
            S[i, j] = (a * b).sum() / math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return S
