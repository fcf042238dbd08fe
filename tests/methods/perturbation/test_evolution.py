"""Both evolution strategies against slow loops over members and against smoothed gradients in closed form."""

import bench.methods.perturbation.evolution_strategies
import bench.methods.perturbation.low_rank_evolution
import pytest
import torch
import torch.nn.functional as F
from bench.methods._shared.directions import draw
from bench.methods.perturbation.evolution_strategies import antithetic
from bench.methods.perturbation.population import shaped
from torch import Tensor, nn

from bench import Batch, Output, Progress
from bench.audit.passes import passes
from bench.nets.mlp import MLP
from bench.objectives.mean_squared_error import MeanSquaredError
from bench.testing.subject import image_task

START = Progress(0, 1, 0)
NAMES = ["evolution-strategies", "low-rank-evolution"]


def mean_and_stderr(method, batch: Batch, count: int) -> tuple[Tensor, Tensor]:
    """Of what a step of plain descent subtracts, over `count` steps from the same weights."""
    start = [p.detach().clone() for p in method.net.parameters()]
    found = []
    for _ in range(count):
        method.train_step(batch, START)
        moved = [(s - p).detach() for s, p in zip(start, method.net.parameters(), strict=True)]
        found.append(torch.cat([m.flatten() for m in moved]))
        for s, p in zip(start, method.net.parameters(), strict=True):
            p.data.copy_(s)
    steps = torch.stack(found)
    return steps.mean(0), steps.std(0) / count**0.5


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, -0.5, 0.25]).double())


def on_point(make_method, monkeypatch, loss, **settings):
    method = make_method("evolution-strategies", lr=1.0, optimizer="sgd", shaping="raw", **settings)
    method.net = Point()
    method.optimizer = torch.optim.SGD(method.net.parameters(), lr=1.0)
    of_members = lambda net, members, batch, objective: loss(members["theta"])  # noqa: E731
    monkeypatch.setattr(bench.methods.perturbation.evolution_strategies, "population_losses", of_members)
    return method


def test_expected_step_is_the_smoothed_gradient_of_a_quadratic(make_method, monkeypatch) -> None:
    """L = (theta - c)^T H (theta - c) / 2: smoothing adds a constant, so the gradient is H (theta - c)."""
    c = torch.tensor([0.0, 1.0, -1.0]).double()
    H = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.5]]).double()
    method = on_point(make_method, monkeypatch, lambda t: (((t - c) @ H) * (t - c)).sum(1) / 2, sigma=0.5, pairs=4)
    mean, stderr = mean_and_stderr(method, Batch(None, None), 2000)
    expected = H @ (method.net.theta.detach() - c)
    assert ((mean - expected).abs() < 4 * stderr).all()
    assert stderr.max() < 0.05


def test_expected_step_is_the_smoothed_gradient_of_a_quartic(make_method, monkeypatch) -> None:
    """L = sum theta^4: E (theta + sigma eps)^4 has the gradient 4 theta^3 + 12 sigma^2 theta."""
    method = on_point(make_method, monkeypatch, lambda t: (t**4).sum(1), sigma=0.5, pairs=32)
    mean, stderr = mean_and_stderr(method, Batch(None, None), 4000)
    theta = method.net.theta.detach()
    assert ((mean - (4 * theta**3 + 3 * theta)).abs() < 4 * stderr).all()
    assert stderr.max() < 0.1


@pytest.mark.parametrize("rank", [1, 2])
def test_expected_low_rank_step_is_the_smoothed_gradient_of_a_quadratic(make_method, rank) -> None:
    """Squares of a linear net are a quadratic of its weights: grad = mean (W x + b - t) x^T, whatever sigma."""
    task = image_task("dots", 2, (1, 1, 3), 100, MLP, {"depth": 0})
    method = make_method(
        "low-rank-evolution", task=task, lr=1.0, optimizer="sgd", shaping="raw", sigma=0.3, pairs=8, rank=rank
    )
    method.net.double()
    x, t = torch.tensor([[1.0, -1.0, 0.5], [0.0, 1.0, 2.0]]).double(), torch.tensor([[1.0, 0.0], [-1.0, 1.0]]).double()
    method.objective = MeanSquaredError(Output.values(2))
    mean, stderr = mean_and_stderr(method, Batch(x.view(2, 1, 1, 3), t), 2000)
    residual = method.predict(x.view(2, 1, 1, 3)) - t
    expected = torch.cat([(residual.T @ x / 2).flatten(), residual.mean(0)])
    assert ((mean - expected).abs() < 4 * stderr).all()
    assert stderr.max() < 0.08


@pytest.mark.parametrize("shaping", ["centred-ranks", "z-score", "raw"])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_a_step_equals_a_loop_over_members(make_method, batch, net, shaping) -> None:
    pairs, sigma, x = 3, 0.05, batch.x.double()
    method = make_method(
        "evolution-strategies", net=net, pairs=pairs, sigma=sigma, shaping=shaping, optimizer="sgd", lr=1.0
    )
    start = [p.detach().clone() for p in method.net.double().parameters()]
    twin = torch.Generator().set_state(method.noise.get_state())
    eps = [draw((pairs, *p.shape), p, "gaussian", twin) for p in start]
    noise = [[sign * e[j] for e in eps] for sign in (1, -1) for j in range(pairs)]
    members = [[s + sigma * e for s, e in zip(start, member, strict=True)] for member in noise]
    losses = loop(method.net, members, x, batch.y)
    expected = follow(start, noise, shaped(losses, shaping), sigma)
    put(method.net, start)
    loss = method.train_step(Batch(x, batch.y), START)["loss"]
    torch.testing.assert_close(loss, losses.mean())
    for p, e in zip(method.net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("shaping", ["z-score", "raw"])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_a_low_rank_step_equals_a_loop_over_matrices(make_method, batch, net, shaping, rank) -> None:
    """Each member's E = A B^T / sqrt(r) is formed, added to the weights, and the whole net evaluated."""
    pairs, sigma, x = 3, 0.05, batch.x.double()
    method = make_method(
        "low-rank-evolution", net=net, pairs=pairs, rank=rank, sigma=sigma, shaping=shaping, optimizer="sgd", lr=1.0
    )
    start = [p.detach().clone() for p in method.net.double().parameters()]
    twin = torch.Generator().set_state(method.noise.get_state())
    eps = []
    for layer in method.layers:
        m, n = layer.weight.flatten(1).shape
        A, B, bias = (draw(s, layer.weight, "gaussian", twin) for s in ((pairs, m, rank), (pairs, n, rank), (pairs, m)))
        eps += [torch.stack([A[j] @ B[j].T for j in range(pairs)]).view(pairs, *layer.weight.shape) / rank**0.5, bias]
    noise = [[sign * e[j] for e in eps] for sign in (1, -1) for j in range(pairs)]
    members = [[s + sigma * e for s, e in zip(start, member, strict=True)] for member in noise]
    losses = loop(method.net, members, x, batch.y)
    expected = follow(start, noise, shaped(losses, shaping), sigma)
    put(method.net, start)
    loss = method.train_step(Batch(x, batch.y), START)["loss"]
    torch.testing.assert_close(loss, losses.mean())
    for p, e in zip(method.net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-9, atol=1e-9)


def put(net: nn.Module, weights: list[Tensor]) -> None:
    for p, w in zip(net.parameters(), weights, strict=True):
        p.data.copy_(w)


@torch.no_grad()
def loop(net: nn.Module, members: list[list[Tensor]], x: Tensor, y: Tensor) -> Tensor:
    losses = []
    for member in members:
        put(net, member)
        losses.append(F.cross_entropy(net(x), y))
    return torch.stack(losses)


def follow(start: list[Tensor], noise: list[list[Tensor]], costs: Tensor, sigma: float) -> list[Tensor]:
    """theta - 1 / (k sigma) sum_i F_i E_i."""
    out = [s.clone() for s in start]
    for cost, member in zip(costs, noise, strict=True):
        for o, e in zip(out, member, strict=True):
            o -= cost * e / (len(noise) * sigma)
    return out


def test_members_come_in_antithetic_pairs() -> None:
    theta, eps = torch.tensor([1.0, 2.0]), torch.tensor([[0.5, -1.0], [2.0, 0.25]])
    expected = torch.tensor([[1.25, 1.5], [2.0, 2.125], [0.75, 2.5], [0.0, 1.875]])
    assert torch.equal(antithetic(theta, eps, 0.5), expected)


def test_low_rank_noise_has_unit_variance_and_no_correlation(make_method) -> None:
    """3000 draws of a (3, 4) matrix: covariance of its 12 entries is I."""
    task = image_task("dots", 3, (1, 2, 2), 100, MLP, {"depth": 0})
    method = make_method("low-rank-evolution", task=task, pairs=3000, rank=2)
    f = method._draw(method.layers[0])
    E = torch.stack([f.weight(row) for row in torch.eye(3000)]).flatten(1)
    assert E.mean(0).abs().max() < 5 / 3000**0.5
    # entries of E^T E have a variance of at most E[e^4] < 9
    assert (E.T @ E / 3000 - torch.eye(12)).abs().max() < 5 * 3 / 3000**0.5


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("name", NAMES)
def test_one_call_of_each_layer_serves_the_population(make_method, batch, name, net) -> None:
    method = make_method(name, net=net, pairs=5)
    assert passes(method, lambda: method.train_step(batch, START)) == method.claims().forward_passes == 1


def test_the_net_is_itself_again_after_a_step(make_method, batch) -> None:
    """Hooks that answer for the population are gone: one row in, one row out."""
    method = make_method("low-rank-evolution", lr=1e-30)
    before = method.predict(batch.x)
    method.train_step(batch, START)
    assert torch.equal(method.predict(batch.x), before)
