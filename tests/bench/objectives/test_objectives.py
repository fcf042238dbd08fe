"""Objectives against autograd, their own sums over classes written out, and the best constant found by descent."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench import Objective, Output
from bench.catalog.catalog import Catalog

B, C, T = 7, 4, 5
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.tensor([0, 1, 1, 2, 2, 2, 3])
SOFT = torch.rand(B, C, generator=GENERATOR).softmax(1)
VALUES = torch.randn(B, C, generator=GENERATOR)
TOKENS = torch.randint(C, (B, T), generator=GENERATOR)
CASES = {
    "classes": ("cross-entropy", Output.classes(C), LABELS),
    "soft classes": ("cross-entropy", Output("class probabilities", C), SOFT),
    "values": ("squared-error", Output.values(C), VALUES),
    "squares of classes": ("squared-error", Output.classes(C), LABELS),
    "squares of soft classes": ("squared-error", Output("class probabilities", C), SOFT),
    "tokens": ("next-token", Output("next token", C, positions=T), TOKENS),
}


def of(case: str) -> tuple[Objective, Tensor, Tensor]:
    """The objective, an output, and labels."""
    name, output, y = CASES[case]
    objective: Objective = Catalog().objectives[name].load()(output)
    return objective, torch.randn(B, *output.shape, generator=torch.Generator().manual_seed(1)).double(), y


def slow_losses(case: str, out: Tensor, y: Tensor) -> Tensor:
    """Example by example, class by class."""
    found = []
    for n in range(B):
        if case == "tokens":
            terms = [-(out[n, t, y[n, t]] - out[n, t].exp().sum().log()) for t in range(T)]
            found.append(sum(terms) / T)
            continue
        dense = y[n] if y.is_floating_point() else torch.eye(C)[y[n]]
        if CASES[case][0] == "squared-error":
            found.append(sum((out[n, c] - dense[c]) ** 2 for c in range(C)) / 2)
        else:
            found.append(-sum(dense[c] * (out[n, c] - out[n].exp().sum().log()) for c in range(C)))
    return torch.stack([torch.as_tensor(term) for term in found])


any_case = pytest.mark.parametrize("case", CASES)


@any_case
def test_losses_are_those_of_each_example_and_the_loss_is_their_mean(case: str) -> None:
    objective, out, y = of(case)
    expected = slow_losses(case, out, y)
    torch.testing.assert_close(objective.losses(out, y), expected)
    torch.testing.assert_close(objective.loss(out, y), expected.mean())


@any_case
def test_axes_before_the_examples_share_the_labels(case: str) -> None:
    objective, out, y = of(case)
    several = torch.stack([out, out + 1, 2 * out])
    expected = torch.stack([objective.losses(each, y) for each in several])
    torch.testing.assert_close(objective.losses(several, y), expected)


@any_case
def test_the_output_gradient_is_autograd_s(case: str) -> None:
    objective, out, y = of(case)
    leaf = out.clone().requires_grad_()
    (expected,) = torch.autograd.grad(slow_losses(case, leaf, y).sum(), leaf)
    found = objective.output_gradient(leaf, y)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    torch.testing.assert_close(objective.loss_gradient(out, y), expected / B)
    torch.testing.assert_close(Objective.output_gradient(objective, out, y), expected)


@any_case
def test_projections_are_products_with_the_dense_targets(case: str) -> None:
    objective, _, y = of(case)
    weight = torch.randn(C, 2, 3, generator=torch.Generator().manual_seed(2))
    if case == "tokens":
        weight = weight.flatten(1)
    torch.testing.assert_close(objective.project(y, weight), torch.tensordot(objective.embed(y), weight, dims=1))


@any_case
def test_the_constant_is_the_best_output_that_ignores_the_input(case: str) -> None:
    """No step away from it lowers the loss over all labels."""
    objective, _, y = of(case)
    best = objective.constant(y)
    loss: Callable[[Tensor], Tensor] = lambda c: objective.losses(c.expand(B, *c.shape), y).mean()  # noqa: E731
    generator = torch.Generator().manual_seed(3)
    if case == "tokens":  # the same at every position
        around = [best + 0.1 * torch.randn(C, generator=generator) for _ in range(50)]
    else:
        around = [best + 0.1 * torch.randn(best.shape, generator=generator) for _ in range(50)]
    assert best.shape == objective.output.shape
    assert all(loss(best) <= loss(other) + 1e-6 for other in around)
