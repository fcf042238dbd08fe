"""Target propagation against the targets of Gauss-Newton and backprop, the fixed points of its feedback losses, and its
equations written out example by example.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods._shared.stages import stages
from bench.methods.targets import target_propagation
from bench.methods.targets.target_propagation import TargetPropagation
from torch import Tensor, nn

from bench import Batch
from bench.measure.retained import retained_bytes
from tests.methods.gradients import watched
from tests.methods.local.oracles import START, assert_same

NETS: dict[str, dict[str, Any]] = {
    "mlp": {"width": 12, "depth": 3, "activation": "tanh"},
    "cnn": {"width": 3, "depth": 3},
}
RULES = ("dtp", "l-drl")
STILL = {"feedback_lr": 1e-30, "weight_decay": 0.0}  # feedback layers learn, but do not move
Make = Callable[..., Any]


def made(make_method: Make, net: str, settings: dict[str, Any] | None = None, **more: Any) -> TargetPropagation:
    method: TargetPropagation = make_method(
        "target-propagation", net=net, net_settings=NETS[net] | (settings or {}), **more
    )
    method.net.double()
    method.feedback.double()
    return method


def linear(method: TargetPropagation) -> TargetPropagation:
    """The same without activations; pooling stays."""
    for block in method.net.blocks[:-1]:
        for k, part in enumerate(block):
            if isinstance(part, (nn.Tanh, nn.ReLU)):
                block[k] = nn.Identity()
    method.stages = stages(method.net)
    return method


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def layer(block: nn.Module) -> nn.Linear | nn.Conv2d:
    return next(m for m in block.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))


def outputs(method: TargetPropagation, batch: Batch) -> list[Tensor]:
    hs, h = list[Tensor](), batch.x
    for block in method.net.blocks:
        hs.append(h := block(h))
    return hs


def targets(method: TargetPropagation, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """t_l of all blocks in a training step."""
    seen: dict[int, Tensor] = {}
    step = method._step

    def note(k: int, below: Tensor, target: Tensor) -> None:
        seen[k] = target
        step(k, below, target)

    monkeypatch.setattr(method, "_step", note)
    method.train_step(batch, START)
    return [seen[k] for k in range(len(seen))]


def test_exact_inverses_give_gauss_newton_targets(
    make_method: Make, batch64: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(J^T J) (t_l - h_l) = -beta J^T dL/dscores for J = dscores/dh_l, in a linear net of ten units a layer.

    The sign of beta, a batch mean in place of an example's own error, and a target without its difference show.
    """
    method = linear(made(make_method, "mlp", {"width": 10}, rule="dtp", beta=0.3, feedback_steps=0))
    with torch.no_grad():
        for block, mirror in zip(method.net.blocks[1:], method.feedback, strict=True):
            layer(block).weight.add_(torch.eye(10))
            mirror.layer.weight.copy_(torch.linalg.inv(layer(block).weight))
        hs = outputs(method, batch64)
    by_scores = hs[-1].softmax(1) - F.one_hot(batch64.y, 10)
    J, expected = torch.eye(10).double(), list[Tensor]()
    for block, h in zip(reversed(method.net.blocks), reversed(hs), strict=True):
        steps = [torch.linalg.solve(J.T @ J, -0.3 * J.T @ e) for e in by_scores]
        expected.insert(0, h + torch.stack(steps))
        J = J @ layer(block).weight.detach()
    found = targets(method, batch64, monkeypatch)
    for t, gauss_newton in zip(found, expected, strict=True):
        torch.testing.assert_close(t, gauss_newton, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rule", RULES)
def test_transposes_give_backprops_targets(
    make_method: Make, batch64: Batch, net: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(t_l - h_l) / beta = -dL_sum/dh_l where V_l = W_l^T, as l-drl wants it; values taken to other places show."""
    method = linear(made(make_method, net, rule=rule, beta=0.01, feedback_steps=0))
    with torch.no_grad():
        for block, mirror in zip(method.net.blocks[1:], method.feedback, strict=True):
            W = layer(block).weight
            mirror.layer.weight.copy_(W.T if W.dim() == 2 else W)
    hs = outputs(method, batch64)
    gradients = torch.autograd.grad(F.cross_entropy(hs[-1], batch64.y, reduction="sum"), hs)
    for t, h, g in zip(targets(method, batch64, monkeypatch), hs, gradients, strict=True):
        torch.testing.assert_close((t - h.detach()) / 0.01, -g, rtol=1e-8, atol=1e-10)


def white(shape: torch.Size, like: Tensor, *_: Any) -> Tensor:
    """Noise of which the batch mean of xi xi^T is the identity exactly: columns of an orthogonal matrix."""
    N, n = shape
    Q, _ = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(n), dtype=like.dtype))
    return N**0.5 * Q[:, :n]


@pytest.mark.parametrize("sigma", [0.03, 2.0])
def test_l_drl_wants_the_transpose(
    make_method: Make, batch64: Batch, sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In linear layers the expected loss is |V - W^T|^2 - |W|^2, its gradient 2 (V - W^T), whatever sigma.

    Another factor between the two terms, the wrong sign, noise of two sizes, or a sum over the batch show.
    """
    method = linear(made(make_method, "mlp", {"width": 16}, sigma=sigma, feedback_steps=1, **STILL))
    monkeypatch.setattr(target_propagation, "draw", white)
    seen = watched(method.feedback_optimizers)
    wanted = [
        2 * (mirror.layer.weight - layer(block).weight.T).detach()
        for block, mirror in zip(method.net.blocks[1:], method.feedback, strict=True)
    ]
    method.train_step(batch64, START)
    assert_same([seen[id(mirror.layer.weight)] for mirror in method.feedback], wanted)


def test_l_drl_reaches_the_transpose(make_method: Make, batch64: Batch) -> None:
    """By its own steps and noise: descends, does not climb."""
    method = made(make_method, "mlp", feedback_steps=300, feedback_lr=1e-2, lr=1e-30)
    method.train_step(batch64, START)
    for block, mirror in zip(method.net.blocks[1:], method.feedback, strict=True):
        V, W = mirror.layer.weight.detach(), layer(block).weight.detach()
        assert float(F.cosine_similarity(V.flatten(), W.T.flatten(), 0)) > 0.9


def test_dtp_wants_the_inverse(make_method: Make, batch64: Batch) -> None:
    """At V = W^-1, c = -W^-1 b nothing is left to learn; with a target without its noise, or noise on h_l, there is."""
    method = linear(made(make_method, "mlp", {"width": 10}, rule="dtp", sigma=1.0, feedback_steps=1, **STILL))
    with torch.no_grad():
        for block, mirror in zip(method.net.blocks[1:], method.feedback, strict=True):
            inverse = torch.linalg.inv(layer(block).weight.add_(torch.eye(10)))
            mirror.layer.weight.copy_(inverse)
            mirror.layer.bias.copy_(-inverse @ layer(block).bias)
    seen = watched(method.feedback_optimizers)
    method.train_step(batch64, START)
    assert len(seen) == 2 * len(method.feedback)
    assert max(float(g.abs().max()) for g in seen.values()) < 1e-10


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rule", RULES)
def test_equations_example_by_example(make_method: Make, batch64: Batch, net: str, rule: str) -> None:
    """All gradients of a step; the mean stands over examples and the sum over units, not the other way round."""
    method = made(make_method, net, rule=rule, beta=0.4, sigma=0.2, feedback_steps=1, **STILL)
    noise = torch.Generator()
    noise.set_state(method.noise.get_state())
    blocks, (x, y), N = method.net.blocks, batch64, len(batch64.y)
    with torch.no_grad():
        hs = [x, *outputs(method, batch64)]

    def G(k: int, n: int, h: Tensor) -> Tensor:
        """Of example n, whose maxima stood where F_k found them in h_{k-1}."""
        mirror, is_last = method.feedback[k - 1], k == len(blocks) - 1
        act = torch.tanh if net == "mlp" else torch.relu
        if rule == "l-drl" and not is_last:
            h = act(h)
        if not is_last and isinstance(blocks[k][-1], nn.MaxPool2d):
            a = blocks[k][:-1](hs[k][n : n + 1])[0].detach()
            lifted = torch.zeros_like(a)
            for c, i, j in torch.cartesian_prod(*map(torch.arange, h.shape)).tolist():
                window = a[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten()
                at = int(window.argmax())
                lifted[c, 2 * i + at // 2, 2 * j + at % 2] = h[c, i, j]
            h = lifted
        V, b = mirror.layer.weight, mirror.layer.bias
        assert (b is None) == (rule == "l-drl")
        if V.dim() == 2:
            below = (V @ h if b is None else V @ h + b).view(hs[k].shape[1:])
        else:
            below = F.conv_transpose2d(h.unsqueeze(0), V, b, padding=1)[0]
        return act(below) if rule == "dtp" else below

    target = [row - 0.4 * (row.softmax(0) - F.one_hot(label, 10)) for row, label in zip(hs[-1], y, strict=True)]
    expected: dict[int, Tensor] = {}
    for k in range(len(blocks) - 1, -1, -1):
        losses = [0.5 * ((blocks[k](hs[k][n : n + 1])[0] - target[n]) ** 2).sum() for n in range(N)]
        weights = list(blocks[k].parameters())
        gradients = torch.autograd.grad(torch.stack(losses).sum() / N, weights)
        expected |= {id(p): g for p, g in zip(weights, gradients, strict=True)}
        if k == 0:
            break
        sigma = 0.2 * float((hs[k] ** 2).mean()) ** 0.5
        xi = sigma * torch.randn(hs[k].shape, generator=noise, dtype=torch.float64)
        eta = sigma * torch.randn(hs[k + 1].shape, generator=noise, dtype=torch.float64) if rule == "l-drl" else xi
        with torch.no_grad():
            above = blocks[k](hs[k] + xi)
        losses = []
        for n in range(N):
            at_h, at_noise = G(k, n, hs[k + 1][n]), G(k, n, above[n])
            if rule == "dtp":
                losses.append(((at_noise - (hs[k][n] + xi[n])) ** 2).sum())
            else:
                spread = ((G(k, n, hs[k + 1][n] + eta[n]) - at_h) ** 2).sum()
                losses.append((spread - 2 * (xi[n] * (at_noise - at_h)).sum()) / sigma**2)
        weights = list(method.feedback[k - 1].parameters())
        gradients = torch.autograd.grad(torch.stack(losses).sum() / N, weights)
        expected |= {id(p): g for p, g in zip(weights, gradients, strict=True)}
        with torch.no_grad():
            target = [hs[k][n] + G(k, n, target[n]) - G(k, n, hs[k + 1][n]) for n in range(N)]
    seen = watched([*method.optimizers, *method.feedback_optimizers])
    found = method.train_step(batch64, START)
    torch.testing.assert_close(found["loss"], F.cross_entropy(hs[-1], y))
    assert seen.keys() == expected.keys()
    for p, gradient in expected.items():
        torch.testing.assert_close(seen[p], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_feedback_losses_send_nothing_into_the_net(make_method: Make, batch64: Batch, rule: str) -> None:
    method = made(make_method, "cnn", rule=rule)
    for k in range(1, len(method.stages)):
        method._train_feedback(k, method._evaluate(batch64.x)[k])
    assert all(p.grad is None for p in method.net.parameters())


def test_what_is_retained_does_not_grow_with_depth(make_method: Make, batch: Batch) -> None:
    peaks = []
    for depth in (3, 9):
        method = make_method("target-propagation", net_settings={"width": 64, "depth": depth})
        parameters = [*method.net.parameters(), *method.feedback.parameters()]
        peaks.append(retained_bytes(lambda method=method: method.train_step(batch, START), parameters))
    assert peaks[0] == peaks[1] > 0


def test_feedback_serves_training_alone(make_method: Make, batch64: Batch) -> None:
    method = made(make_method, "cnn")
    assert set(method.modules()["training_only"].parameters()) == set(method.feedback.parameters())
    scores = method.predict(batch64.x)
    with torch.no_grad():
        for p in method.feedback.parameters():
            p.zero_()
    assert torch.equal(method.predict(batch64.x), scores)
    assert torch.equal(scores, method.net(batch64.x))
