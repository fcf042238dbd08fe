"""Weight perturbation against a slow loop over directions and against the true gradient."""

import bench.methods.perturbation.weight_perturbation
import pytest
import torch
import torch.nn.functional as F
from bench.methods._shared.directions import draw
from bench.methods.perturbation.population import population_losses
from scipy.linalg import hadamard
from torch import Tensor

from bench import Batch, Output, Progress
from bench.audit.passes import passes
from bench.nets.mlp import MLP
from bench.objectives.cross_entropy import CrossEntropy
from bench.testing.subject import image_task

START = Progress(0, 1, 0)
SMALL = image_task("dots", 3, (1, 2, 2), 100, MLP, {"width": 3, "depth": 1, "activation": "tanh"})  # 27 weights
DOTS = Batch(torch.tensor([[[[1.0, -1.0], [0.5, 2.0]]], [[[0.0, 1.0], [-2.0, 1.0]]]]).double(), torch.tensor([2, 0]))


def gradient(net, batch: Batch) -> list[Tensor]:
    return list(torch.autograd.grad(F.cross_entropy(net(batch.x), batch.y), list(net.parameters())))


def steps(method, batch: Batch, count: int) -> Tensor:
    """What `count` steps of plain descent from the same weights subtract, each flattened. Shape: (count, d)."""
    start = [p.detach().clone() for p in method.net.parameters()]
    found = []
    for _ in range(count):
        method.train_step(batch, START)
        moved = [(s - p).detach() for s, p in zip(start, method.net.parameters(), strict=True)]
        found.append(torch.cat([m.flatten() for m in moved]))
        for s, p in zip(start, method.net.parameters(), strict=True):
            p.data.copy_(s)
    return torch.stack(found)


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_batched_members_equal_a_loop_over_them(make_method, batch, net) -> None:
    net = make_method("weight-perturbation", net=net).net.double()
    x, generator = batch.x.double(), torch.Generator().manual_seed(0)
    members = {
        name: p.detach() + 0.1 * draw((5, *p.shape), p, "gaussian", generator) for name, p in net.named_parameters()
    }
    found = population_losses(net, members, Batch(x, batch.y), CrossEntropy(Output.classes(10)))
    for j in range(5):
        for name, p in net.named_parameters():
            p.data.copy_(members[name][j])
        torch.testing.assert_close(found[j], F.cross_entropy(net(x), batch.y).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
def test_a_step_equals_one_direction_after_another(make_method, batch, directions) -> None:
    method = make_method("weight-perturbation", k=3, optimizer="sgd", lr=1.0, directions=directions)
    net, x = method.net.double(), batch.x.double()
    twin = torch.Generator().set_state(method.noise.get_state())
    start = [p.detach().clone() for p in net.parameters()]
    z = [draw((3, *p.shape), p, directions, twin) for p in start]
    clean = F.cross_entropy(net(x), batch.y).detach()
    expected = [p.clone() for p in start]
    for j in range(3):
        for p, s, v in zip(net.parameters(), start, z, strict=True):
            p.data.copy_(s + 1e-3 * v[j])
        slope = (F.cross_entropy(net(x), batch.y).detach() - clean) / 1e-3
        for e, v in zip(expected, z, strict=True):
            e -= slope * v[j] / 3
    for p, s in zip(net.parameters(), start, strict=True):
        p.data.copy_(s)
    metrics = method.train_step(Batch(x, batch.y), START)
    torch.testing.assert_close(metrics["loss"], clean)
    for p, e in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-8, atol=1e-9)


def test_an_orthogonal_basis_of_directions_gives_the_gradient(make_method, monkeypatch) -> None:
    """With the 32 rows of a Hadamard matrix as directions the mean over k has no sampling error."""
    rows, taken = torch.tensor(hadamard(32)).double(), 0

    def next_columns(shape, like, *_) -> Tensor:
        nonlocal taken
        first, taken = taken, taken + torch.Size(shape[1:]).numel()
        return rows[:, first:taken].reshape(shape)

    monkeypatch.setattr(bench.methods.perturbation.weight_perturbation, "draw", next_columns)
    method = make_method("weight-perturbation", task=SMALL, k=32, sigma=1e-6, optimizer="sgd", lr=1.0)
    method.net.double()
    expected = torch.cat([g.flatten() for g in gradient(method.net, DOTS)])
    torch.testing.assert_close(steps(method, DOTS, 1)[0], expected, rtol=1e-4, atol=1e-5)
    assert taken == 27


def test_steps_are_unbiased_and_their_variance_falls_as_1_over_k(make_method) -> None:
    spread = {}
    for k in (1, 16):
        method = make_method("weight-perturbation", task=SMALL, k=k, sigma=1e-4, optimizer="sgd", lr=1.0)
        method.net.double()
        expected = torch.cat([g.flatten() for g in gradient(method.net, DOTS)])
        found = steps(method, DOTS, 1000)
        stderr = found.std(0) / 1000**0.5
        assert ((found.mean(0) - expected).abs() < 4.5 * stderr).all()
        spread[k] = found.var(0).sum()
    # each sum of variances is known to some 10 %
    assert 16 * 0.75 < spread[1] / spread[16] < 16 / 0.75


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_the_estimate_takes_the_place_of_the_gradient(make_method, batch, optimizer) -> None:
    """torch's own optimiser, fed with the steps of a twin that descends plainly, lands on the same weights."""
    method = make_method("weight-perturbation", optimizer=optimizer, lr=1e-2)
    twin = make_method("weight-perturbation", optimizer="sgd", lr=1.0)
    held = [p.detach().clone() for p in twin.net.parameters()]
    reference = {
        "sgd": torch.optim.SGD(held, lr=1e-2),
        "momentum": torch.optim.SGD(held, lr=1e-2, momentum=0.9),
        "adam": torch.optim.Adam(held, lr=1e-2),
    }[optimizer]
    for _ in range(3):
        before = [p.detach().clone() for p in method.net.parameters()]
        for p, b in zip(twin.net.parameters(), before, strict=True):
            p.data.copy_(b)
        twin.train_step(batch, START)
        for h, b, p in zip(held, before, twin.net.parameters(), strict=True):
            h.grad = b - p.detach()
        reference.step()
        method.train_step(batch, START)
        for h, p in zip(held, method.net.parameters(), strict=True):
            torch.testing.assert_close(p.detach(), h, rtol=1e-3, atol=5e-5)


def test_one_clean_call_and_one_for_all_members(make_method, batch) -> None:
    method = make_method("weight-perturbation", k=7)
    assert passes(method, lambda: method.train_step(batch, START)) == method.claims().forward_passes == 2
