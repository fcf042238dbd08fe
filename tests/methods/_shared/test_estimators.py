"""Estimates of a local gradient against the gradient: over a basis, over all signs, and inside a training step."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods._shared.directions import draw
from bench.methods._shared.estimators import EstimatorSettings, estimate
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bench import Batch
from bench.catalog.catalog import Catalog
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import CHECKS, Subject, small_task
from tests.methods.gradients import watched
from tests.methods.local.oracles import START, assert_same, randomise
from tests.without_reverse_mode import forbidden

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
NETS = {"mlp": {"width": 6, "depth": 2}, "cnn": {"width": 2, "depth": 2}}
CLASSES = {"mlp": MLP, "cnn": CNN}
Make = Callable[..., Any]


def along(direction: Tensor) -> Callable[[tuple[int, ...], Tensor], Tensor]:
    return lambda shape, like: direction.view(shape).to(like)


def test_slopes_along_a_basis_add_up_to_the_gradient() -> None:
    """sum_i (grad L . v_i) v_i = grad L over an orthonormal basis: body and head, conv, pooling and softmax."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.MaxPool2d(2)).double()
    head = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(8, 3)).double()
    weights = nn.ModuleList([body, head])
    x, y = torch.randn(4, 1, 8, 8).double(), torch.tensor([0, 1, 2, 1])

    def objective() -> tuple[Tensor, Tensor]:
        h = body(x)
        return F.cross_entropy(head(h), y), h

    d = sum(p.numel() for p in weights.parameters())
    basis, _ = torch.linalg.qr(torch.randn(d, d).double())
    total = {p: torch.zeros_like(p) for p in weights.parameters()}
    expected, h = objective()
    with forbidden():
        for v in basis:
            loss, output, gradient = estimate(objective, weights, EstimatorSettings(gradient="jvp"), along(v))
            for p, g in gradient.items():
                total[p] += g
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(output, h.detach())
    assert_same(total.values(), torch.autograd.grad(expected, list(weights.parameters())))


def test_spsa_over_all_signs_is_the_gradient_of_a_quadratic() -> None:
    """A difference of two sides is exact there, of whatever length; one of one side would be off by eps |A|."""
    torch.manual_seed(0)
    weights = nn.Linear(2, 2).double()
    A = torch.randn(6, 6).double()

    def objective() -> tuple[Tensor, Tensor]:
        theta = torch.cat([p.flatten() for p in (weights.weight, weights.bias)])
        return theta @ A @ theta + theta.sum(), theta

    before = [p.detach().clone() for p in weights.parameters()]
    mean = {p: torch.zeros_like(p) for p in weights.parameters()}
    config = EstimatorSettings(gradient="spsa", eps=0.5)
    with forbidden():
        for signs in product([-1.0, 1.0], repeat=6):
            loss, output, gradient = estimate(objective, weights, config, along(torch.tensor(signs).double()))
            for p, g in gradient.items():
                mean[p] += g / 2**6
    expected, theta = objective()
    assert_same(mean.values(), torch.autograd.grad(expected, list(weights.parameters())))
    torch.testing.assert_close(output, theta.detach())
    signs_A = torch.tensor(signs).double() * 0.5
    torch.testing.assert_close(loss, (expected + signs_A @ A @ signs_A).detach())
    assert all(torch.equal(p, old) for p, old in zip(weights.parameters(), before, strict=True))


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize("gradient", ["jvp", "spsa"])
@pytest.mark.parametrize("net", NETS)
def test_a_step_follows_one_direction_a_module(
    make_method: Make, batch: Batch, net: str, gradient: str, directions: str
) -> None:
    """(grad L_k . v) v with the v that the noise gives next, over all weights of a module and its target."""
    method = make_method(
        "local-loss", net=net, net_settings=NETS[net], gradient=gradient, directions=directions, eps=1e-5, beta=0.5
    )
    randomise(method.targets)
    method.net.double()
    method.targets.double()
    noise, h, expected = method.noise.clone_state(), batch.x.double(), []
    for module in method.isolated:
        loss, out = module(h, batch.y)
        weights = list(module.weights.parameters())
        v = draw((sum(p.numel() for p in weights),), weights[0], directions, noise)
        slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]) @ v
        expected += [
            part.view_as(p) for p, part in zip(weights, (slope * v).split([p.numel() for p in weights]), strict=True)
        ]
        h = out.detach()
    seen = watched(method.optimizers)
    with forbidden():
        method.train_step(Batch(batch.x.double(), batch.y), START)
    found = [seen[id(p)] for module in method.isolated for p in module.weights.parameters()]
    tolerance = dict(rtol=1e-9, atol=1e-12) if gradient == "jvp" else dict(rtol=1e-3, atol=1e-5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


RULES: list[tuple[str, dict[str, Any]]] = [
    ("cafo", {}),
    ("channel-goodness", {"form": "cwcomp"}),
    ("channel-goodness", {"form": "deeper-forward", "predict_by": "classifier"}),
    ("counter-current", {"loss": "dot", "clip": 1e9}),
    ("forward-forward", {"predict_by": "goodness"}),
    ("local-loss", {}),
    ("loco", {}),
    ("mono-forward", {}),
    ("sigprop", {}),
    ("target-propagation", {"rule": "dtp"}),
    ("target-propagation", {"rule": "l-drl"}),
]


@pytest.mark.parametrize("gradient", ["jvp", "spsa"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("rule", "settings"), RULES)
def test_every_local_target_takes_an_estimate(
    make_method: Make, batch: Batch, rule: str, settings: dict[str, Any], net: str, gradient: str
) -> None:
    """Of the part that steps first, the estimate is (g . v) v with backprop's g and v of +-1: a target that is left out
    of the objective, or weights left out of the direction, would show, as would a step along -v."""
    size = {"width": 12, "depth": 2}  # channel-wise goodness wants a channel for each class
    exact, estimated = (
        first_gradient(make_method(rule, net=net, net_settings=size, gradient=kind, eps=1e-4, **settings), batch)
        for kind in ("backprop", gradient)
    )
    v = estimated.sign()
    tolerance = dict(rtol=1e-3, atol=1e-5) if gradient == "jvp" else dict(rtol=0.05, atol=2e-2)
    torch.testing.assert_close(estimated, (exact @ v) * v, **tolerance)
    assert estimated.abs().max() > 0


@pytest.mark.parametrize("gradient", ["jvp", "spsa"])
@pytest.mark.parametrize("net", CLASSES)
@pytest.mark.parametrize(("rule", "settings"), [*RULES, ("forward-forward", {"negatives": "hard"})])
def test_an_estimate_sends_nothing_backwards(rule: str, settings: dict[str, Any], net: str, gradient: str) -> None:
    """Reverse mode is measured as none, and what else is claimed as well; a state that a forward pass changes twice, or
    that keeps a tangent, would show when a run is resumed."""
    task = small_task(CLASSES[net], {"width": 12, "depth": 2})
    settings = {name: value for name, value in settings.items() if name != "clip"}  # without which steps have no end
    subject = Subject(Catalog().methods[rule].load(), task, {"gradient": gradient, **settings})
    for check in ("reverse-mode", "passes", "weight-transport", "waiting", "resume"):
        CHECKS[check](subject)


def first_gradient(method: Any, batch: Batch) -> Tensor:
    """What the optimiser that steps first is given, flat."""
    found: list[Tensor] = []

    def look(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        of = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        found.append(torch.cat([g.flatten() for g in of]).clone())

    handle = register_optimizer_step_pre_hook(look)
    try:
        method.train_step(batch, START)
    finally:
        handle.remove()
    return found[0]
