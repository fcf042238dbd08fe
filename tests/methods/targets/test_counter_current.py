"""Counter-current learning against its equations: pair by pair without autograd, level by level for convolutions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.targets.counter_current import CounterCurrent, cosine_loss, dot_loss
from torch import Tensor, nn

from bench import Batch
from bench.measure.retained import retained_bytes
from tests.methods.gradients import watched
from tests.methods.local.oracles import START

NETS: dict[str, dict[str, Any]] = {
    "mlp": {"width": 12, "depth": 3, "activation": "tanh"},
    "cnn": {"width": 3, "depth": 3},
}
FREE = {"clip": 1e9}
Make = Callable[..., Any]


def made(make_method: Make, net: str, settings: dict[str, Any] | None = None, **more: Any) -> CounterCurrent:
    method: CounterCurrent = make_method("counter-current", net=net, net_settings=NETS[net] | (settings or {}), **more)
    method.net.double()
    method.feedback.double()
    return method


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def every(method: CounterCurrent) -> list[torch.optim.Optimizer]:
    return [*method.optimizers, *method.feedback_optimizers, method.output_optimizer]


def test_mlp_pair_by_pair(make_method: Make, batch64: Batch) -> None:
    """dE_l/da = 256 / (n_l N C) sum_c (<h_n, b_c> - Y_nc) b_c s'(a_n) and its mirror image, by hand.

    Mirrors in the wrong order, a loss of the neighbouring level, the signal of another class, a gradient from layer to
    layer, a mean in place of the sum over units show.
    """
    method = made(make_method, "mlp", **FREE)
    (x, y), N, C, n = batch64, len(batch64.y), 10, 12
    W = [next(m for m in block.modules() if isinstance(m, nn.Linear)) for block in method.net.blocks]
    V = [mirror.layer.weight for mirror in method.feedback]
    with torch.no_grad():
        h = [x.flatten(1)]
        for layer in W[:-1]:
            h.append(torch.tanh(h[-1] @ layer.weight.T + layer.bias))
        b = {len(W): torch.eye(10).double()}
        for k in range(len(W) - 1, 0, -1):
            b[k] = torch.tanh(b[k + 1] @ V[k - 1].T)
        expected: dict[int, Tensor] = {}
        for k in range(1, len(W)):
            on_W, on_bias, on_V = torch.zeros(W[k - 1].weight.shape).double(), torch.zeros(n).double(), 0 * V[k - 1]
            for i in range(N):
                for c in range(C):
                    wrong = float(h[k][i] @ b[k][c]) - (1.0 if int(y[i]) == c else 0.0)
                    scale = 128 / n * 2 * wrong / (N * C)
                    to_h = scale * b[k][c] * (1 - h[k][i] ** 2)
                    to_b = scale * h[k][i] * (1 - b[k][c] ** 2)
                    on_W += torch.outer(to_h, h[k - 1][i])
                    on_bias += to_h
                    on_V += torch.outer(to_b, b[k + 1][c])
            expected |= {id(W[k - 1].weight): on_W, id(W[k - 1].bias): on_bias, id(V[k - 1]): on_V}
        scores = h[-1] @ W[-1].weight.T + W[-1].bias
        e = (scores.softmax(1) - F.one_hot(y, 10)) / N
        expected |= {id(W[-1].weight): e.T @ h[-1], id(W[-1].bias): e.sum(0)}
    seen = watched(every(method))
    found = method.train_step(batch64, START)
    torch.testing.assert_close(found["loss"], F.cross_entropy(scores, y))
    assert seen.keys() == expected.keys()
    for p, gradient in expected.items():
        torch.testing.assert_close(seen[p], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", ["dot", "cosine"])
@pytest.mark.parametrize("pairs", ["class", "batch"])
def test_cnn_level_by_level(make_method: Make, batch64: Batch, loss: str, pairs: str) -> None:
    """Levels meet behind pooling; ELU in place of ReLU there, ReLU on the way up; mirrors repeat what was pooled."""
    method = made(make_method, "cnn", loss=loss, pairs=pairs, **FREE)
    (x, y), blocks = batch64, method.net.blocks
    convs = [block[0] for block in blocks[:-1]]
    V2, V3, V4 = (mirror.layer.weight for mirror in method.feedback)

    def conv(k: int, h: Tensor) -> Tensor:
        return F.conv2d(h.detach(), convs[k].weight, convs[k].bias, padding=1)

    def repeated(b: Tensor) -> Tensor:
        return b.repeat_interleave(2, 2).repeat_interleave(2, 3)

    z1 = F.max_pool2d(conv(0, x), 2)
    h1 = z1.clamp(min=0)
    z2 = conv(1, h1)
    h2 = z2.clamp(min=0)
    z3 = F.max_pool2d(conv(2, h2), 2)
    h3 = z3.clamp(min=0)
    b3 = F.elu(torch.eye(10).double() @ V4.T).view(10, *h3.shape[1:])
    b2 = F.elu(F.conv_transpose2d(repeated(b3.detach()), V3, padding=1))
    b1 = F.elu(F.conv_transpose2d(b2.detach(), V2, padding=1))

    def level(z: Tensor, b: Tensor) -> Tensor:
        """E_l, entry by entry."""
        rows = F.elu(z).flatten(1)
        others = b.flatten(1)[y] if pairs == "batch" else b.flatten(1)
        wanted = torch.eye(len(y)).double() if pairs == "batch" else F.one_hot(y, 10).double()
        if loss == "dot":
            products = torch.stack([torch.stack([(r * o).sum() for o in others]) for r in rows])
            return 128 / rows.shape[1] * (products - wanted).square().mean()
        rows, others = (torch.stack([r / r.norm() for r in part]) for part in (rows, others))
        total = (rows @ others.T - wanted).square().mean()
        for part in (rows, others):
            total = total + 0.5 * (part @ part.T - torch.eye(len(part)).double()).square().mean()
        return total

    total = level(z1, b1) + level(z2, b2) + level(z3, b3)
    total = total + F.cross_entropy(blocks[-1](h3.detach()), y)
    weights = [*method.net.parameters(), *method.feedback.parameters()]
    gradients = torch.autograd.grad(total, weights)
    if loss == "cosine":  # centred
        gradients = tuple(torch.stack([u - u.mean() for u in g]) if g.dim() > 1 else g for g in gradients)
    seen = watched(every(method))
    method.train_step(batch64, START)
    for p, gradient in zip(weights, gradients, strict=True):
        torch.testing.assert_close(seen[id(p)], gradient, rtol=1e-8, atol=1e-12)


def test_losses_vanish_where_all_is_told_apart() -> None:
    """Orthogonal directions of unit length, one a class; a doubled length is a fault to `dot` alone."""
    Y = torch.eye(3).double()
    for loss in (dot_loss, cosine_loss):
        assert float(loss(Y, Y, Y)) == pytest.approx(0, abs=1e-12)
        assert float(loss(Y, Y.roll(1, 0), Y)) > 0.1
    assert float(cosine_loss(2 * Y, Y, Y)) == pytest.approx(0, abs=1e-12)
    assert float(dot_loss(2 * Y, Y, Y)) == pytest.approx(128 / 3 / 3)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_cosine_loss_from_products_of_rows_equals_that_of_normalised_rows() -> None:
    """Value and derivatives, also of a row of zeros; by forward mode, too, which sees the one-sided product as well."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(6, 9, generator=generator).double()
    h[2] = 0
    b, Y = torch.randn(4, 9, generator=generator).double(), torch.eye(6, 4).double()

    def slow(h: Tensor, b: Tensor) -> Tensor:
        h, b = F.normalize(h), F.normalize(b)
        spread = sum(((rows @ rows.T - torch.eye(len(rows))) ** 2).mean() for rows in (h, b))
        return ((h @ b.T - Y) ** 2).mean() + 0.5 * spread

    def fast(h: Tensor, b: Tensor) -> Tensor:
        return cosine_loss(h, b, Y)

    moved = [i for i in range(6) if i != 2]  # at 0 the direction of a row has no derivative
    torch.testing.assert_close(fast(h, b), slow(h, b))
    theirs, mine = (list(torch.func.grad(f, (0, 1))(h, b)) for f in (slow, fast))
    torch.testing.assert_close([mine[0][moved], mine[1]], [theirs[0][moved], theirs[1]])
    assert not mine[0][2].isnan().any()
    held = torch.func.grad(lambda b: cosine_loss(h, b, Y, h_moves=False))(b)
    torch.testing.assert_close(held, theirs[1])
    tangents = (torch.randn(h.shape, generator=generator).double() * (h != 0), torch.randn(b.shape).double())
    slope = torch.func.jvp(fast, (h, b), tangents)[1]
    torch.testing.assert_close(slope, (mine[0] * tangents[0]).sum() + (mine[1] * tangents[1]).sum())


def test_labels_reach_layers_beside_the_images_in_one_step(make_method: Make, batch64: Batch) -> None:
    """And images the mirror beside the labels; neither side is held still."""
    x, y = batch64
    method, other = (made(make_method, "mlp", **FREE) for _ in range(2))
    method.train_step(Batch(x, y), START)
    other.train_step(Batch(x, (y + 1) % 10), START)
    for one, two in zip(method.net.parameters(), other.net.parameters(), strict=True):
        assert not torch.equal(one, two)
    third = made(make_method, "mlp", **FREE)
    third.train_step(Batch(-x, y), START)
    for one, two in zip(method.feedback.parameters(), third.feedback.parameters(), strict=True):
        assert not torch.equal(one, two)


def test_no_gradient_from_level_to_level(make_method: Make, batch64: Batch) -> None:
    """Another mirror beside the images changes no step above it; another last layer none below, in either net."""
    moved = []
    for change in (False, True):
        method = made(make_method, "mlp", **FREE)
        if change:
            with torch.no_grad():
                method.feedback[0].layer.weight.mul_(3)
                method.net.blocks[-1].weight.mul_(3)
        seen = watched(every(method))
        method.train_step(batch64, START)
        inner = [*method.net.blocks[1].parameters(), *method.net.blocks[2].parameters()]
        inner += [method.feedback[1].layer.weight, method.feedback[2].layer.weight]
        moved.append([seen[id(p)] for p in inner])
    assert all(torch.equal(one, two) for one, two in zip(*moved, strict=True))


def test_each_layer_is_clipped_by_itself(make_method: Make, batch64: Batch) -> None:
    free, clipped = made(make_method, "mlp", **FREE), made(make_method, "mlp", clip=1e-3)
    seen = [watched(every(method)) for method in (free, clipped)]
    for method in (free, clipped):
        method.train_step(batch64, START)
    parts = [
        zip(one.parameters(), two.parameters(), strict=True)
        for one, two in zip([*free.net.blocks, *free.feedback], [*clipped.net.blocks, *clipped.feedback], strict=True)
    ]
    for pairs in parts:
        before, after = zip(*((seen[0][id(p)].flatten(), seen[1][id(q)].flatten()) for p, q in pairs), strict=True)
        assert float(torch.cat(after).norm()) == pytest.approx(1e-3, rel=1e-2)
        assert float(F.cosine_similarity(torch.cat(before), torch.cat(after), 0)) == pytest.approx(1)


@pytest.mark.parametrize("net", NETS)
def test_prediction_is_the_plain_net(make_method: Make, batch64: Batch, net: str) -> None:
    """There is no label in it: the mirror may be anything."""
    method = made(make_method, net)
    method.train_step(batch64, START)
    scores = method.predict(batch64.x)
    with torch.no_grad():
        for p in method.feedback.parameters():
            p.zero_()
    assert torch.equal(method.predict(batch64.x), scores)
    assert torch.equal(scores, method.net(batch64.x))
    assert set(method.modules()["training_only"].parameters()) == set(method.feedback.parameters())


def test_what_is_retained_does_not_grow_with_depth(make_method: Make, batch: Batch) -> None:
    peaks = []
    for depth in (3, 9):
        method = make_method("counter-current", net_settings={"width": 64, "depth": depth})
        parameters = [*method.net.parameters(), *method.feedback.parameters()]
        peaks.append(retained_bytes(lambda method=method: method.train_step(batch, START), parameters))
    assert peaks[0] == peaks[1] > 0


@pytest.mark.parametrize(("net", "momentum"), [("mlp", 0.0), ("cnn", 0.8)])
def test_momentum_of_the_paper(make_method: Make, net: str, momentum: float) -> None:
    for optimizer in every(made(make_method, net)):
        assert optimizer.defaults["momentum"] == momentum
    assert every(made(make_method, net, momentum=0.3))[0].defaults["momentum"] == 0.3
