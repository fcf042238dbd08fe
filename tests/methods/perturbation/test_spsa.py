"""SPSA, and what all perturbation methods share, against what is known without them."""

import bench.methods.perturbation.spsa
import pytest
import torch
import torch.nn.functional as F
from bench.methods._shared.directions import draw
from bench.methods.perturbation.population import shaped
from scipy.linalg import hadamard
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from bench import Batch, Progress, Task
from bench.api.net import Net
from bench.audit.passes import passes
from bench.nets.mlp import MLP
from bench.testing.subject import image_task
from tests.without_reverse_mode import forbidden

START = Progress(0, 1, 0)
FAMILY = ["spsa", "weight-perturbation", "node-perturbation", "evolution-strategies", "low-rank-evolution"]


class Point(nn.Module):
    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)


C = torch.tensor([1.0, -2.0, 0.5])
SCALES = torch.tensor([1.0, 0.5, 2.0])


def on_quadratic(spsa, theta: Tensor):
    """L(theta) = sum s (theta - c)^2 / 2, whose gradient is s (theta - c)."""
    spsa.net = Point(theta.clone())
    spsa._loss = lambda batch: (SCALES.to(theta) * (spsa.net.theta - C.to(theta)).square()).sum() / 2
    return spsa


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize(("sides", "n"), [("two", 1), ("one", 1), ("two", 3)])
def test_mean_step_is_the_gradient_of_a_quadratic(make_method, sides, n, directions) -> None:
    spsa = on_quadratic(make_method("spsa", lr=1.0, eps=0.1, sides=sides, n=n, directions=directions), torch.zeros(3))
    steps = []
    for _ in range(1000):
        spsa.net.theta.data.zero_()
        spsa.train_step(Batch(None, None), START)
        steps.append(-spsa.net.theta.detach().clone())
    mean, stderr = torch.stack(steps).mean(0), torch.stack(steps).std(0) / 1000**0.5
    assert stderr.max() < 0.12
    assert ((mean - SCALES * -C).abs() < 4 * stderr).all()


def test_steps_along_an_orthogonal_basis_add_up_to_the_gradient(make_method, monkeypatch) -> None:
    """Four rows of a Hadamard matrix: mean (g . h) h = g, without any sampling error."""
    rows = iter(hadamard(4)[:, 1:].repeat(3, axis=0))  # each row is drawn three times a step
    monkeypatch.setattr(
        bench.methods.perturbation.spsa, "draw", lambda shape, like, *_: torch.as_tensor(next(rows)).to(like)
    )
    spsa = on_quadratic(make_method("spsa", lr=1.0, eps=1e-2), torch.zeros(3, dtype=torch.float64))
    total = torch.zeros(3, dtype=torch.float64)
    for _ in range(4):
        spsa.net.theta.data.zero_()
        spsa.train_step(Batch(None, None), START)
        total -= spsa.net.theta.detach() / 4
    torch.testing.assert_close(total, (SCALES * -C).double(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize(("sides", "n"), [("two", 1), ("one", 1), ("two", 3), ("one", 3)])
def test_replay_equals_directions_held_in_memory(make_method, batch, sides, n, directions) -> None:
    """The slow obvious way: draw all directions once, keep them, add the mean of slope times direction."""
    lr, eps = 0.1, 1e-3
    spsa = make_method("spsa", lr=lr, eps=eps, sides=sides, n=n, directions=directions)
    spsa.net.double()
    x, y = batch.x.double(), batch.y
    twin = torch.Generator().set_state(spsa.noise.get_state())
    start = [p.detach().clone() for p in spsa.net.parameters()]

    def loss(by: float, z: list[Tensor]) -> Tensor:
        moved = [p + by * v for p, v in zip(start, z, strict=True)]
        return F.cross_entropy(by_name(spsa.net, moved, x), y)

    for _ in range(2):
        start = [p.detach().clone() for p in spsa.net.parameters()]
        expected = [p.clone() for p in start]
        for _ in range(n):
            z = [draw(p.shape, p, directions, twin) for p in start]
            behind = loss(-eps, z) if sides == "two" else loss(0, z)
            slope = (loss(eps, z) - behind) / (2 * eps if sides == "two" else eps)
            expected = [p - lr / n * slope * v for p, v in zip(expected, z, strict=True)]
        spsa.train_step(Batch(x, y), START)
        for p, e in zip(spsa.net.parameters(), expected, strict=True):
            torch.testing.assert_close(p, e, rtol=1e-9, atol=1e-10)


def by_name(net: nn.Module, weights: list[Tensor], x: Tensor) -> Tensor:
    names = [name for name, _ in net.named_parameters()]
    with torch.no_grad():
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,))


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize(("sides", "n"), [("two", 1), ("one", 1), ("two", 4)])
def test_a_step_of_length_zero_restores_the_weights(make_method, batch, sides, n, directions) -> None:
    """+eps, -2 eps, +eps: three sums, each rounded by half a unit in the last place."""
    spsa = make_method("spsa", lr=1e-30, eps=1e-3, sides=sides, n=n, directions=directions)
    before = [p.detach().clone() for p in spsa.net.parameters()]
    spsa.train_step(batch, START)
    for b, p in zip(before, spsa.net.parameters(), strict=True):
        largest = b.abs() + 6e-3  # no |z| reaches 6
        unit = torch.nextafter(largest, largest + 1) - largest
        assert ((p - b).abs() <= n * 1.5 * unit).all()


def test_the_global_generator_is_left_alone_and_directions_do_not_repeat(make_method, batch) -> None:
    spsa = make_method("spsa", n=2, lr=1e-30)
    drawn: list[Tensor] = []
    move = spsa._move
    spsa._move = lambda by, place: (drawn.append(place.clone()), move(by, place))
    before = torch.get_rng_state()
    spsa.train_step(batch, START)
    spsa.train_step(batch, START)
    assert torch.equal(before, torch.get_rng_state())
    assert len({bytes(place.tolist()) for place in drawn}) == 4


class NormedTask(Task):
    """A task whose net has what a perturbation must not disturb: batch normalisation and dropout."""

    def build_net(self, init, name=None, **settings) -> Net:
        class Normed(Net):
            def __init__(self) -> None:
                nn.Module.__init__(self)
                layers = nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16, affine=False), nn.ReLU(), nn.Dropout(0.5)
                self.blocks = nn.ModuleList([nn.Sequential(*layers), nn.Linear(16, 10)])

        return Normed()


@pytest.mark.parametrize("name", ["spsa", "weight-perturbation", "evolution-strategies"])
def test_dropout_and_batch_statistics_stay_out(make_method, batch, name) -> None:
    """Every evaluation sees one net: the loss of a step is that of evaluation mode, and statistics stay."""
    method = make_method(name, task=image_task("digits", 10, (1, 8, 8), 100, MLP, kind=NormedTask), lr=1e-30)
    norm, state = method.net.blocks[0][2], torch.get_rng_state()
    loss = method.train_step(batch, START)["loss"]
    assert torch.equal(state, torch.get_rng_state())
    assert (norm.running_mean == 0).all()
    assert (norm.running_var == 1).all()
    assert norm.num_batches_tracked == 0
    expected = F.cross_entropy(method.predict(batch.x), batch.y)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)


@pytest.mark.parametrize(("sides", "n", "expected"), [("two", 1, 2), ("two", 3, 6), ("one", 1, 2), ("one", 3, 4)])
def test_claims_follow_the_settings(make_method, batch, sides, n, expected) -> None:
    spsa = make_method("spsa", sides=sides, n=n)
    assert spsa.claims().forward_passes == expected
    assert passes(spsa, lambda: spsa.train_step(batch, START)) == expected


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("name", FAMILY)
def test_nothing_is_kept_for_a_backward_pass(make_method, batch, name, net) -> None:
    """No saved tensor at all, so 0 bytes; no call of the engine."""
    method, saved = make_method(name, net=net), []
    with forbidden(), saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        method.train_step(batch, START)
    assert saved == []
    assert all(p.grad is None for p in method.net.parameters())


def test_rademacher_draws_are_fair_and_independent_signs() -> None:
    generator = torch.Generator().manual_seed(0)
    signs = draw((4096, 96), torch.empty(0, dtype=torch.float64), "rademacher", generator)
    assert signs.dtype == torch.float64
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    # mean and covariance over rows, each entry with standard error 1/64; 96 * 97 / 2 of them
    assert signs.mean(0).abs().max() < 5 / 64
    assert (signs.T @ signs / 4096 - torch.eye(96)).abs().max() < 5 / 64
    odd = draw((3, 7), torch.empty(0), "rademacher", generator)
    assert odd.shape == (3, 7)
    assert odd.dtype == torch.float32


def test_centred_ranks_by_hand() -> None:
    losses = torch.tensor([3.0, 1.0, 2.0, 1.0, 9.0])
    expected = torch.tensor([3.0, 0.5, 2.0, 0.5, 4.0]) / 4 - 0.5  # the two least share ranks 0 and 1
    torch.testing.assert_close(shaped(losses, "centred-ranks"), expected)
    assert torch.equal(shaped(torch.ones(6), "centred-ranks"), torch.zeros(6))


def test_z_scores_by_hand() -> None:
    # mean 4, variance (9 + 1 + 4) / 3
    expected = torch.tensor([-3.0, 1.0, 2.0]) / (14 / 3 + 1e-5) ** 0.5
    torch.testing.assert_close(shaped(torch.tensor([1.0, 5.0, 6.0]), "z-score"), expected)
