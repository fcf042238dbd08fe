"""Wrong labels against their distributions, and the straight-through gradient."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.local.goodness import StraightThroughReLU, wrong_labels


@pytest.mark.parametrize("kind", ["wrong", "hard"])
def test_a_wrong_label_is_never_the_true_one(kind: Any) -> None:
    """In 10,000 draws; a permutation of labels, or hard labels by mere argmax, would hit it."""
    noise = torch.Generator().manual_seed(0)
    y = torch.arange(10_000) % 10
    scores = 3 * F.one_hot(y, 10).float() + torch.tensor([-20.0, -19, -18] + 7 * [-20.0])
    drawn = wrong_labels(kind, y, 10, noise, scores)
    assert not (drawn == y).any()
    assert drawn.min() == 0
    assert drawn.max() == 9
    of_nine = drawn[y == 9].bincount(minlength=10) / 1000
    p = (torch.ones(9) if kind == "wrong" else scores[9, :9].exp()) / (
        9 if kind == "wrong" else scores[9, :9].exp().sum()
    )
    assert (of_nine[:9] - p).abs().max() < 5 * (0.25 / 1000) ** 0.5


def test_all_wrong_labels_are_each_but_the_true_one() -> None:
    y = torch.arange(10_000) % 10
    drawn = wrong_labels("all", y, 10, torch.Generator()).view(9, -1)
    assert torch.equal(torch.cat([drawn, y[None]]).sort(0).values, torch.arange(10)[:, None].expand(10, len(y)))


def test_hard_labels_need_no_finite_scores() -> None:
    """A run that diverges ends as diverged, not in the draw; and not with the true label."""
    y = torch.arange(10)
    for value in (torch.nan, torch.inf, -torch.inf):
        assert not (wrong_labels("hard", y, 10, torch.Generator(), torch.full((10, 10), value)) == y).any()


def test_relu_passes_every_gradient_on() -> None:
    a = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    h, g = StraightThroughReLU()(a), torch.arange(9.0).double()
    assert torch.equal(h, a.clamp(min=0))
    h.backward(g)
    assert torch.equal(a.grad, g)
