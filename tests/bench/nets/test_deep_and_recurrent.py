"""Residual mlp, transformer and rnn beside their equations written out slowly, their sizes, and what does not fit."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import Input, Net, Output
from bench.nets.resmlp import ResMLP
from bench.nets.rnn import RNN
from bench.nets.transformer import Transformer

IMAGE, SEQUENCE, TOKENS = Input.image(2, 8, 8), Input.sequence(6, 5), Input.tokens(7, 11)
TEN, NEXT = Output.classes(10), Output("next token", 11, 7)


def built(net: type[Net], inputs: Input, outputs: Output = TEN, **settings: Any) -> Net:
    return net.build(inputs, outputs, settings, torch.Generator().manual_seed(0)).double()


def drawn(inputs: Input, n: int = 4) -> Tensor:
    torch.manual_seed(5)
    x = inputs.draw(n)
    return x if inputs.kind == "tokens" else x.double()


def size(net: type[Net], inputs: Input, outputs: Output, **settings: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in net(inputs, outputs, net.Settings(**settings)).parameters())


@pytest.mark.parametrize(
    ("net", "inputs", "outputs", "settings", "parameters"),
    [
        (ResMLP, Input.image(1, 28, 28), TEN, {"depth": 30}, 560_384),
        (Transformer, Input.tokens(32, 65), Output("next token", 65, 32), {"norm": "none"}, 206_976),
        (Transformer, Input.tokens(32, 65), Output("next token", 65, 32), {}, 206_976 + 9 * 128),
        (RNN, Input.sequence(40, 1), TEN, {"width": 64}, 3 * (64 + 64 * 64 + 2 * 64) + 650),
        (RNN, Input.sequence(40, 1), TEN, {"width": 64, "cell": "tanh"}, 64 + 64 * 64 + 2 * 64 + 650),
    ],
)
def test_parameters_by_hand(
    net: type[Net], inputs: Input, outputs: Output, settings: dict[str, Any], parameters: int
) -> None:
    assert size(net, inputs, outputs, **settings) == parameters


@pytest.mark.parametrize("parameterisation", ["mup", "sp"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_resmlp_is_its_equations(parameterisation: str, activation: str) -> None:
    """Catches a shortcut over the first or last layer, a shortcut scaled by 1/sqrt(2), 1/sqrt(N) for 1/N at the output,
    an activation before the first layer, and L that counts hidden layers alone.
    """
    net = built(ResMLP, IMAGE, width=9, depth=5, parameterisation=parameterisation, activation=activation)
    weights, s = list(net.parameters()), {"relu": torch.relu, "tanh": torch.tanh}[activation]
    first, inner, last = (128**-0.5, (9 * 5) ** -0.5, 1 / 9) if parameterisation == "mup" else (1.0, 1.0, 1.0)
    x = drawn(IMAGE)
    z = first * x.flatten(1) @ weights[0].T
    for W in weights[1:-1]:
        z = z + inner * s(z) @ W.T
    torch.testing.assert_close(net(x), last * s(z) @ weights[-1].T)


def test_laws_of_resmlp_weights() -> None:
    """mup draws N(0, 1); sp torch's uniform law within 1 / sqrt(inputs)."""
    mup, sp = (built(ResMLP, IMAGE, width=200, depth=4, parameterisation=p) for p in ("mup", "sp"))
    for p, q in zip(mup.state_dict().values(), sp.state_dict().values(), strict=True):
        assert float(p.std()) == pytest.approx(1, abs=0.1)
        bound = q.shape[1] ** -0.5
        assert float(q.abs().max()) <= bound
        assert float(q.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_mup_keeps_the_size_of_activities_at_every_depth() -> None:
    def size_at(depth: int) -> float:
        net = built(ResMLP, IMAGE, width=64, depth=depth)
        h = drawn(IMAGE, 32)
        for block in net.blocks[:-1]:
            h = block(h).detach()
        return float(h.square().mean().sqrt())

    assert size_at(64) == pytest.approx(size_at(4), rel=0.35)
    assert size_at(64) < 2


def plain_transformer(net: Net, h: Tensor, *, heads: int, causal: bool) -> Tensor:
    """Position by position, head by head, from the embedded input on."""
    for block in list(net.blocks)[1:-1]:
        attend, mlp = (residual.inner for residual in block)
        n = F.layer_norm(h, h.shape[-1:], attend[0].weight, attend[0].bias)
        q, k, v = (n @ W.T for W in attend[1].mix.weight.chunk(3))
        d = q.shape[-1] // heads
        mixed = torch.zeros_like(h)
        for b in range(len(h)):
            for t in range(h.shape[1]):
                sees = range(t + 1) if causal else range(h.shape[1])
                for one in range(heads):
                    of = slice(one * d, (one + 1) * d)
                    share = torch.stack([q[b, t, of] @ k[b, u, of] / math.sqrt(d) for u in sees]).softmax(0)
                    mixed[b, t, of] = sum(share[i] * v[b, u, of] for i, u in enumerate(sees))
        h = h + mixed @ attend[1].out.weight.T
        n = F.layer_norm(h, h.shape[-1:], mlp[0].weight, mlp[0].bias)
        h = h + F.gelu(n @ mlp[1].weight.T) @ mlp[3].weight.T
    last = net.blocks[-1]
    assert isinstance(last, torch.nn.Sequential)
    h = F.layer_norm(h, h.shape[-1:], last[0].weight, last[0].bias)
    out: Tensor = (h if causal else h.mean(1)) @ last[-1].weight.T
    return out


def test_transformer_on_tokens_and_patches() -> None:
    """Catches a mask the wrong way round, heads that mix, 1/sqrt(d) of the whole width, patches in another order."""
    tokens = built(Transformer, TOKENS, NEXT, depth=2, width=12, heads=3)
    x = drawn(TOKENS)
    embedding, positions = tokens.blocks[0]
    start = torch.stack([embedding.weight[x[:, t]] + positions.weight[t] for t in range(7)], 1)
    torch.testing.assert_close(tokens(x), plain_transformer(tokens, start, heads=3, causal=True))

    patches = built(Transformer, IMAGE, depth=1, width=8, heads=2)
    x = drawn(IMAGE)
    _, linear, positions = patches.blocks[0]
    cut = torch.stack([x[:, :, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4)], 1)
    start = cut @ linear.weight.T + positions.weight
    torch.testing.assert_close(patches(x), plain_transformer(patches, start, heads=2, causal=False))


@pytest.mark.parametrize("net", [Transformer, RNN])
def test_no_position_sees_a_later_token(net: type[Net]) -> None:
    of = built(net, TOKENS, NEXT, **net.small)
    x = drawn(TOKENS)
    out = of(x)
    for t in range(7):
        changed = x.clone()
        changed[:, t] = (changed[:, t] + 1) % 11
        differs = (of(changed) != out).any(-1)
        assert not differs[:, :t].any()
        assert differs[:, t].all()


@pytest.mark.parametrize("cell", ["tanh", "gru"])
@pytest.mark.parametrize("inputs", [IMAGE, SEQUENCE, TOKENS], ids=str)
def test_rnn_is_its_equations_step_by_step(cell: str, inputs: Input) -> None:
    """Catches columns for rows, gates in another order, and the two forms (forward, step) that drift apart."""
    net = built(RNN, inputs, width=9, cell=cell, features=3)
    x = drawn(inputs)
    assert isinstance(net, RNN)
    if inputs.kind == "tokens":
        rows = [net.recurrence.embedding.weight[x[:, t]] for t in range(7)]
    elif inputs.kind == "image":
        rows = [torch.cat([x[:, c, t] for c in range(2)], 1) for t in range(8)]
    else:
        rows = [x[:, t] for t in range(6)]
    W, U, b, c = (
        getattr(net.recurrence.layer, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    s = torch.zeros(4, 9, dtype=torch.float64)
    for row in rows:
        a, r = row @ W.T + b, s @ U.T + c
        if cell == "tanh":
            s = torch.tanh(a + r)
        else:
            reset, update = torch.sigmoid(a[:, :9] + r[:, :9]), torch.sigmoid(a[:, 9:18] + r[:, 9:18])
            new = torch.tanh(a[:, 18:] + reset * r[:, 18:])
            s = (1 - update) * new + update * s
    expected = s @ net.blocks[1].weight.T + net.blocks[1].bias
    torch.testing.assert_close(net(x), expected)
    state = net.start(x)
    for at in net.steps(x):
        state = net.step(at, state)
    torch.testing.assert_close(net.read(state), expected)


def test_rnn_reads_each_state_for_next_tokens() -> None:
    net = built(RNN, TOKENS, NEXT, width=9)
    assert isinstance(net, RNN)
    x = drawn(TOKENS)
    state, out = net.start(x), net(x)
    for t, at in enumerate(net.steps(x)):
        state = net.step(at, state)
        torch.testing.assert_close(net.read(state), out[:, t])


@pytest.mark.parametrize(
    ("net", "inputs", "outputs", "settings", "why"),
    [
        (Transformer, Input.vector(9), TEN, {}, "made for image, sequence, tokens, not for vector"),
        (Transformer, Input.image(1, 28, 28), TEN, {"patch": 5}, "patches of 5x5 do not divide an image of 28x28"),
        (Transformer, TOKENS, NEXT, {"heads": 5}, "5 heads do not divide"),
        (RNN, Input.vector(9), TEN, {}, "not for vector"),
        (ResMLP, TOKENS, NEXT, {}, "not for tokens"),
        (RNN, TOKENS, Output("next token", 11, 3), {}, "not after 3"),
    ],
)
def test_misfits_are_named(net: type[Net], inputs: Input, outputs: Output, settings: dict[str, Any], why: str) -> None:
    assert why in str(net.misfit(inputs, outputs, settings))


@pytest.mark.parametrize(("net", "settings"), [(ResMLP, {"depth": 4}), (Transformer, {"depth": 1})])
def test_a_cut_shortcut_changes_gradients_alone(net: type[Net], settings: dict[str, Any]) -> None:
    x = drawn(IMAGE)
    open_, cut = (built(net, IMAGE, **settings, skip=skip) for skip in ("open", "cut"))
    assert torch.equal(open_(x), cut(x))
    first = [torch.autograd.grad(one(x).square().sum(), next(one.blocks[0].parameters()))[0] for one in (open_, cut)]
    assert not torch.allclose(*first)
