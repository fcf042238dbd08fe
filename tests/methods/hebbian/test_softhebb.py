"""SoftHebb against loops over neurons and positions, and against flows whose solution is known."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.hebbian.softhebb import SoftHebb, compete, hebbian_step
from torch import Tensor, nn

from bench import Batch, Facts, Images, Progress
from bench.api.layer import weight_gradient
from bench.audit.reverse_mode import observed
from bench.measure.retained import Retained
from bench.nets.mlp import MLP
from bench.testing import small_task
from tests.methods.gradients import watched
from tests.methods.hebbian.oracles import slow_step
from tests.methods.local.oracles import assert_same

NETS = {
    "triangle": {"width": 4, "depth": 2},
    "mlp": {"width": 12, "depth": 2},
    "cnn": {"width": 3, "depth": 2},
}
FIRST, LAST = Progress(0, 100, 0), Progress(99, 100, 0)
Make = Callable[..., Any]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def double(method: Any, batch: Batch) -> Batch:
    method.net.double()
    return Batch(batch.x.double(), batch.y)


def weights(method: Any) -> list[Tensor]:
    return [p.detach().clone() for p in method.layers.parameters()]


def step_of(layer: nn.Linear | nn.Conv2d, x: Tensor, beta: float, eta: float, power: float) -> Tensor:
    """The weight after one step as the method takes it."""
    with torch.no_grad():
        W = layer.weight.detach().clone()
        y = compete(layer(x), beta)
        hebbian_step(W, weight_gradient(layer, x, y)[layer.weight], eta, power)
    return W


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 5, bias=False),
        nn.Conv2d(2, 5, 3, bias=False),
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.Conv2d(1, 3, 5, padding=2, bias=False),
    ],
    ids=["linear", "conv", "padded", "5x5"],
)
def test_a_step_equals_a_loop_over_images_positions_and_neurons(
    layer: nn.Linear | nn.Conv2d, beta: float, power: float
) -> None:
    """Fails for a wrong sign, winner, normalisation, padding, temperature, or a step size that neurons share."""
    layer.double()
    with torch.no_grad():
        layer.weight.copy_(2 * drawn(*layer.weight.shape, seed=1))
    x = drawn(3, 6) if isinstance(layer, nn.Linear) else drawn(3, layer.in_channels, 6, 5)
    found = step_of(layer, x, beta, 0.05, power)
    torch.testing.assert_close(found, slow_step(layer, x, beta, 0.05, power), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_layers_learn_in_turn_from_what_the_ones_before_hand_on(make_method: Make, batch: Batch, net: str) -> None:
    """The whole step against the loop, layer by layer, with batch statistics worked out here.

    Fails where a layer hands on what it makes with its new filters, or an activation or pool is left out.
    """
    of_layers = {"eta": (0.08, 0.02), "inverse_temperature": (1, 0.5)}
    method = make_method("softhebb", net=net, net_settings=NETS[net], micro_batches=1, **of_layers)
    x, y = double(method, Batch(batch.x[:5], batch.y[:5]))
    expected, h = [], x
    for k, (block, eta, beta) in enumerate(zip(method.layers, (0.08, 0.02), (1.0, 0.5), strict=True)):
        if net == "mlp":
            h = h.flatten(1)
        over = (0, 2, 3) if h.dim() == 4 else (0,)
        mean, var = h.mean(over, keepdim=True), h.var(over, correction=0, keepdim=True)
        h = (h - mean) / (var + 1e-5).sqrt()
        if net == "triangle":
            h = F.pad(h, [2 if k == 0 else 1] * 4, mode="reflect")
        layer = next(m for m in block.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
        assert layer.bias is None
        expected.append(slow_step(layer, h, beta, eta, 0.5))
        u = layer(h).detach()
        power = {"triangle": (0.7, 1.4)[k]}.get(net, 1.0)
        h = (u - u.mean(1, keepdim=True)).clamp(min=0) ** power
        if net == "triangle":
            h = F.max_pool2d(h, 4, 2, 1) if k == 0 else F.avg_pool2d(h, 2)
        elif net == "cnn" and k == 0:
            h = F.max_pool2d(h, 2)
    method.train_step(Batch(x, y), FIRST)
    for found, wanted in zip(weights(method), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_the_winner_moves_towards_the_image_and_the_others_away() -> None:
    """At length 1, where nothing else moves filters but y x, along directions that are orthogonal to them."""
    W = F.normalize(drawn(6, 8, seed=2), dim=1)
    x = drawn(1, 8, seed=3)
    u = x @ W.T
    after = W.clone()
    hebbian_step(after, compete(u, 1.0).T @ x, 1e-4, 0.0)
    closer = ((after - W) @ x.T).squeeze(1) > 0
    assert closer.nonzero().flatten().tolist() == [int(u.argmax())]


def test_competition_is_a_softmax_with_the_losers_signs_turned() -> None:
    u = drawn(4, 7, 3, 3)
    y = compete(u, 0.6)
    torch.testing.assert_close(y.abs(), (0.6 * u).softmax(1))
    assert torch.equal(y > 0, F.one_hot(u.argmax(1), 7).permute(0, 3, 1, 2).bool())


def test_competition_is_the_same_for_pre_activations_whose_mean_is_taken_away() -> None:
    u = drawn(4, 7, 3, 3)
    torch.testing.assert_close(compete(u - u.mean(1, keepdim=True), 0.6), compete(u, 0.6))


@pytest.mark.parametrize("start", [0.3, 1.0, 3.0])
def test_a_lone_neuron_follows_oja_s_flow(start: float) -> None:
    """Alone it always wins with y = 1: dw/dt = C w - (w C w) w, whose solution is known in closed form,
    w(t) = e^{Ct} w_0 / sqrt(1 + w_0 (e^{2Ct} - 1) w_0) for y = u; with y = 1 it is dw/dt = m - (m w) w, m = sum x:
    along m, a = m w / |m| follows tanh and what is orthogonal decays as 1 / cosh.
    """
    x = drawn(5, 4, seed=4)
    m = x.sum(0)
    direction, size = m / m.norm(), float(m.norm())
    w = F.normalize(drawn(1, 4, seed=5), dim=1) * start
    w *= torch.sign(w @ direction)
    a0, across0 = float(w @ direction), w - (w @ direction) * direction
    t, dt = 0.0, 1e-4
    for _ in range(4000):
        g = compete(x @ w.T, 1.0).T @ x
        largest = float((g - (g @ w.T) * w).abs().max())
        hebbian_step(w, g, dt * largest, 0.0)  # the division by the largest entry taken back
        t += dt
    # a' = size (1 - a^2): a = tanh(size t + atanh a0), or coth from above; b' = -size a b
    tanh = torch.tanh(torch.tensor(size * t, dtype=torch.float64))
    a = (a0 + tanh) / (1 + a0 * tanh)
    shrunk = 1 / (torch.cosh(torch.tensor(size * t, dtype=torch.float64)) * (1 + a0 * tanh))
    torch.testing.assert_close(w @ direction, a.view(1), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(w - (w @ direction) * direction, across0 * shrunk, rtol=2e-2, atol=2e-3)


def test_squared_lengths_drift_as_the_closed_form_has_it() -> None:
    """1 - |w(t)|^2 = (1 - |w(0)|^2) exp(-2 int sum y u dt), for every neuron, whether it wins or loses.

    Fails for a wrong sign of the decay, or a sum over u that is another one than y's.
    """
    x, W = drawn(40, 6, seed=6), drawn(5, 6, seed=7)
    start, integral, dt = 1 - W.square().sum(1), torch.zeros(5, dtype=torch.float64), 1e-5
    for _ in range(2000):
        u = x @ W.T
        y = compete(u, 1.0)
        integral += dt * (y * u).sum(0)
        g = y.T @ x
        largest = float((g - (g * W).sum(1, keepdim=True) * W).abs().max())
        hebbian_step(W, g, dt * largest, 0.0)
    assert float((1 - W.square().sum(1) - start).abs().min()) > 0.01
    torch.testing.assert_close(1 - W.square().sum(1), start * torch.exp(-2 * integral), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("radius", [0.5, 4.0])
def test_filters_that_win_converge_to_length_one(radius: float) -> None:
    """The fixed point, from both sides, for filters each with a cluster of its own; steps vanish as they come near."""
    centres = 3 * F.normalize(drawn(5, 6, seed=9), dim=1)
    x, W = (centres + 0.3 * drawn(40, 5, 6, seed=8)).flatten(0, 1), F.normalize(centres, dim=1) * radius
    W += 0.1 * drawn(5, 6, seed=10)
    for _ in range(800):
        hebbian_step(W, compete(x @ W.T, 1.0).T @ x, 0.05, 0.5)
    torch.testing.assert_close(W.norm(dim=1), torch.ones(5, dtype=torch.float64), rtol=0, atol=0.02)


def test_shares_that_are_nothing_are_no_denormal_numbers() -> None:
    """With which kernels take up to ten times as long on a CPU."""
    u = 400 * torch.randn(8, 50, 4, 4, generator=torch.Generator().manual_seed(0))
    y = compete(u, 1.0)
    assert float(y.abs().min()) > torch.finfo(torch.float32).tiny
    torch.testing.assert_close(y.abs(), u.softmax(1))


def test_length_one_repels_a_filter_that_always_loses() -> None:
    """There sum y u < 0 for images on its side: it shrinks from below 1 and grows from above."""
    x = F.normalize(drawn(1, 6, seed=9), dim=1)
    for length in (0.8, 1.2):
        W = torch.cat([2 * x, length * x])
        hebbian_step(W, compete(x @ W.T, 1.0).T @ x, 1e-3, 0.5)
        assert (float(W[1].norm()) - length) * (length - 1) > 0


@pytest.mark.parametrize("net", NETS)
def test_filters_start_at_the_radius_and_point_where_the_net_s_own_do(make_method: Make, net: str) -> None:
    plain = make_method("backprop", net=net, net_settings=NETS[net])
    own = [p.detach() for p in plain.net.blocks[:-1].parameters() if p.dim() > 1]
    for settings, length in (({"radius": 7.0}, 7.0), ({"filters": "random"}, 1.0)):
        method = make_method("softhebb", net=net, net_settings=NETS[net], **settings)
        for W, drawn_ in zip(weights(method), own, strict=True):
            torch.testing.assert_close(W.flatten(1), F.normalize(drawn_.flatten(1), dim=1) * length)


@pytest.mark.parametrize("net", NETS)
def test_labels_have_no_part_in_filters(make_method: Make, batch: Batch, net: str) -> None:
    """Bit for bit, over steps in which the read-out learns from them."""
    found = []
    for y in (batch.y, 9 - batch.y):
        method = make_method("softhebb", net=net, net_settings=NETS[net])
        for _ in range(4):
            method.train_step(Batch(batch.x, y), FIRST)
        found.append((weights(method), method.readout[-1].weight if net != "mlp" else method.readout.weight))
    assert all(map(torch.equal, found[0][0], found[1][0]))
    assert not torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("net", NETS)
def test_filters_and_statistics_rest_after_their_part_of_training(make_method: Make, batch: Batch, net: str) -> None:
    method = make_method("softhebb", net=net, net_settings=NETS[net], unsupervised=0.25)
    moved, learnt = [], []
    for step in range(8):
        before = [t.clone() for t in method.layers.state_dict().values()]
        readout = [p.detach().clone() for p in method.readout.parameters()]
        method.train_step(batch, Progress(step, 8, 0))
        moved.append(not all(map(torch.equal, before, method.layers.state_dict().values())))
        learnt.append(not any(map(torch.equal, readout, method.readout.parameters())))
    assert moved == [True] * 2 + [False] * 6
    assert all(learnt)


@pytest.mark.parametrize("net", NETS)
def test_random_filters_rest_while_statistics_are_taken(make_method: Make, batch: Batch, net: str) -> None:
    method = make_method("softhebb", net=net, net_settings=NETS[net], filters="random")
    before, statistics = weights(method), [t.clone() for t in method.layers.buffers()]
    method.train_step(batch, FIRST)
    assert all(map(torch.equal, before, weights(method)))
    assert not any(map(torch.equal, statistics, method.layers.buffers()))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("progress", [FIRST, LAST])
def test_the_read_out_s_gradient_is_its_own_and_goes_no_further(
    make_method: Make, batch: Batch, net: str, progress: Progress
) -> None:
    """(softmax - onehot) h^T / B on the features from before the step; the engine walks to two tensors and ends."""
    dropless = {**NETS[net], "dropout": 0.0} if net == "triangle" else NETS[net]
    method = make_method("softhebb", net=net, net_settings=dropless, micro_batches=1)
    x, y = double(method, batch)
    method.train_step(Batch(x, y), progress)
    layer = method.readout if isinstance(method.readout, nn.Linear) else method.readout[-1]
    method.layers.train(progress is FIRST)
    kept = {name: t.clone() for name, t in method.layers.state_dict().items()}
    with torch.no_grad():
        h = method._features(x, False).flatten(1)
    method.layers.load_state_dict(kept)
    e = ((h @ layer.weight.T + layer.bias).softmax(1) - F.one_hot(y, 10)).detach() / len(y)
    seen, roots = watched([method.optimizer]), []
    with observed(lambda ends, inputs: roots.append(ends)):
        method.train_step(Batch(x, y), progress)
    assert_same([seen[id(p)] for p in (layer.weight, layer.bias)], [e.T @ h, e.sum(0)])
    assert len(roots) == 1
    assert all(p.grad is None for p in method.net.parameters())


def test_micro_batches_are_steps_one_after_another(make_method: Make, batch: Batch) -> None:
    one, other = (make_method("softhebb", net_settings=NETS["triangle"], micro_batches=n) for n in (2, 1))
    one.train_step(batch, FIRST)
    for part in batch.x.chunk(2):
        other.train_step(Batch(part, batch.y[:8]), FIRST)
    assert all(map(torch.equal, weights(one), weights(other)))


def test_batches_too_small_for_their_parts_are_learnt_in_fewer(make_method: Make, batch: Batch) -> None:
    """The last batch of a pass may hold a few images, and an mlp's batch norm wants two."""
    for n in (2, 3, 5):
        method = make_method("softhebb", net="mlp", net_settings=NETS["mlp"])
        assert method.train_step(Batch(batch.x[:n], batch.y[:n]), FIRST)["loss"].isfinite()


def test_the_read_out_s_step_is_halved_seven_times_once_filters_rest(make_method: Make, batch: Batch) -> None:
    method, found = make_method("softhebb", lr=1.0, unsupervised=0.2), []
    for step in range(25):
        method.train_step(batch, Progress(step, 25, 0))
        found.append(method.optimizer.param_groups[0]["lr"])
    assert found == [1.0] * 5 + [2.0**-k for k in (0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7)]


@pytest.mark.parametrize("stop", [3, 4, 5, 6])
def test_the_read_out_begins_anew_once_filters_rest(make_method: Make, batch: Batch, stop: int) -> None:
    """As one that had not learnt before, upon the same filters; also where training is resumed near that point."""
    settings = {"net_settings": {**NETS["triangle"], "dropout": 0.0}, "unsupervised": 0.5}
    method, steps = make_method("softhebb", **settings), [Progress(step, 10, 0) for step in range(10)]
    for progress in steps[:stop]:
        method.train_step(batch, progress)
    kept = copy.deepcopy(method.state_dict())
    method = make_method("softhebb", **settings).load_state_dict(kept)
    for progress in steps[stop:]:
        method.train_step(batch, progress)
    fresh = make_method("softhebb", **settings)
    fresh.layers.load_state_dict(method.layers.state_dict())
    for progress in steps[5:]:
        fresh.train_step(batch, progress)
    assert all(map(torch.equal, method.readout.parameters(), fresh.readout.parameters()))


@pytest.mark.parametrize("net", ["triangle", "cnn"])
def test_retained_bytes_are_the_read_out_s(make_method: Make, batch: Batch, net: str) -> None:
    """Its input after the dropout, and its loss; layers that compete keep nothing."""
    method = make_method("softhebb", net=net, net_settings=NETS[net])
    method.train_step(batch, FIRST)
    with Retained().watch(method, ()) as reading:
        method.train_step(batch, FIRST)
    features = method.readout[-1].in_features
    assert reading()["retained_bytes"] == 4 * 16 * features + 4 * 16 * 10 + 8 * 16 + 4


@pytest.mark.parametrize("net", NETS)
def test_the_picture_shows_first_filters_as_images(make_method: Make, batch: Batch, net: str) -> None:
    method = make_method("softhebb", net=net, net_settings={**NETS[net], "width": 30})
    (picture,) = method.artifacts(batch, torch.Generator())
    assert isinstance(picture, Images)
    rows, columns, *shape = picture.images.shape
    assert (rows, columns, len(picture.rows)) == (2, 12, 2)
    assert shape == [1, *{"triangle": (5, 5), "cnn": (3, 3), "mlp": (8, 8)}[net]]
    W = weights(method)[0]
    assert torch.equal(picture.images[1, 2].flatten(), W[14].flatten())


def test_a_net_without_hidden_layers_is_refused() -> None:
    reason = SoftHebb.refuse(small_task(MLP, {"depth": 0}), SoftHebb.Config(), Facts("cpu", 1, 32))
    assert reason is not None
    assert "no hidden block" in reason
