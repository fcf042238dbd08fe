"""Forms of layers against autograd in float64 and against a loop over members, on shapes that are no squares."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bench.api.forms.general import along, with_noise
from bench.api.layer import along_input, along_weights, can, members, routed, seen, weight_gradient

# what torch itself loads at its first forward-mode derivative
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

B, K = 3, 4
IMAGE = (4, 7, 6)
LINEAR: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear without bias, of sequences": (lambda: nn.Linear(5, 3, bias=False), (2, 5)),
    "linear of sequences": (lambda: nn.Linear(5, 3), (2, 5)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), IMAGE),
    "conv strided, without bias": (lambda: nn.Conv2d(4, 6, 3, stride=(2, 1), bias=False), IMAGE),
    "conv dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=(1, 2)), IMAGE),
    "conv grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), IMAGE),
    "conv depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, stride=2, bias=False), IMAGE),
    "conv circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    "conv same": (lambda: nn.Conv2d(4, 6, (3, 5), padding="same"), IMAGE),
}
NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer norm": (lambda: nn.LayerNorm(5), (2, 5)),
    "layer norm of an image, without bias": (lambda: nn.LayerNorm(IMAGE, bias=False), IMAGE),
    "group norm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "batch norm 1d": (lambda: nn.BatchNorm1d(5), (5,)),
    "batch norm of sequences": (lambda: nn.BatchNorm1d(5), (5, 2)),
    "batch norm 2d": (lambda: nn.BatchNorm2d(4), IMAGE),
}
every_linear = pytest.mark.parametrize("name", LINEAR)
every_layer = pytest.mark.parametrize("name", [*LINEAR, *NORMS])


def made(name: str, *, training: bool = True) -> tuple[nn.Module, Tensor]:
    """The layer with weights and statistics away from their start, and an input."""
    torch.manual_seed(0)
    layer, shape = (LINEAR | NORMS)[name][0]().double(), (LINEAR | NORMS)[name][1]
    for p in layer.parameters():
        p.data.normal_()
    for statistic in layer.buffers():
        if statistic.is_floating_point():
            statistic.uniform_(0.5, 2)
    return layer.train(training), torch.randn(B, *shape).double()


def drawn(layer: nn.Module) -> dict[str, Tensor]:
    return {n: torch.randn(K, *p.shape).double() for n, p in layer.named_parameters()}


def rested(layer: nn.Module) -> dict[str, Tensor]:
    return {n: b.clone() for n, b in layer.named_buffers()}


@every_linear
def test_tangents_are_those_of_forward_mode(name: str) -> None:
    """Mistakes: groups left out; a bias tangent along the wrong axis; padding of another kind than zeros left out."""
    layer, x = made(name)
    t, v = torch.randn(K, *x.shape).double(), drawn(layer)
    for i in range(K):
        _, by_x = torch.func.jvp(lambda x: functional_call(layer, {}, x), (x,), (t[i],))
        torch.testing.assert_close(along_input(layer, t)[i], by_x)
        weights, moved = dict(layer.named_parameters()), {n: d[i] for n, d in v.items()}
        _, by_w = torch.func.jvp(lambda w: functional_call(layer, w, x), (weights,), (moved,))
        torch.testing.assert_close(along_weights(layer, x, *v.values())[i], by_w)


@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_weight_gradients_are_autograd_s(name: str, training: bool) -> None:
    """Mistakes: batch norm's statistics of the other mode; sums over positions left out or over channels."""
    layer, x = made(name, training=training)
    before = rested(layer)
    with torch.no_grad():
        found = weight_gradient(layer, x, delta := torch.randn_like(layer(x)))
    layer.load_state_dict(before, strict=False)
    expected = torch.autograd.grad(layer(x), list(layer.parameters()), delta)
    for p, g in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(found[p], g)


@every_layer
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shared", [True, False], ids=["shared rows", "rows of their own"])
def test_members_are_a_loop_over_members(name: str, training: bool, shared: bool) -> None:
    """Mistakes: a group's filters that meet another group's channels; statistics over all members' rows together;
    a form that moves running statistics.
    """
    layer, x = made(name, training=training)
    weights, before = drawn(layer), rested(layer)
    rows = x if shared else torch.randn(K * B, *x.shape[1:]).double()
    found = members(layer, weights, B, rows).unflatten(0, (K, B))
    assert all(torch.equal(b, before[n]) for n, b in layer.named_buffers())
    for i in range(K):
        own = {n: w[i] for n, w in weights.items()}
        buffers = {n: b.clone() for n, b in before.items()}
        given = x if shared else rows[i * B : (i + 1) * B]
        torch.testing.assert_close(found[i], functional_call(layer, {**own, **buffers}, given))


@every_linear
def test_what_a_unit_sees_times_its_weights_is_its_output(name: str) -> None:
    """Mistakes: rows in another order than outputs; padding left out."""
    layer, x = made(name)
    if getattr(layer, "groups", 1) > 1:
        with pytest.raises(TypeError, match="grouped"):
            seen(layer, x)
        return
    y = seen(layer, x) @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
    out = layer(x)
    torch.testing.assert_close(y, out.flatten(0, -2) if out.dim() < 4 else out.movedim(1, -1).flatten(0, -2))


@every_linear
def test_messages_go_through_b_and_gradients_stay(name: str) -> None:
    layer, x = made(name)
    x.requires_grad_()
    matrix = torch.randn_like(layer.weight)
    y = routed(layer, matrix, x)
    delta = torch.randn_like(y)
    message, *own = torch.autograd.grad(y, [x, *layer.parameters()], delta)
    torch.testing.assert_close(y, layer(x))
    (expected,) = torch.autograd.grad(functional_call(layer, {"weight": matrix}, x), x, delta)
    torch.testing.assert_close(message, expected)
    for g, e in zip(own, torch.autograd.grad(layer(x), list(layer.parameters()), delta), strict=True):
        torch.testing.assert_close(g, e)


def test_embeddings() -> None:
    """Mistakes: members that read each other's table; the row of the padding learns."""
    torch.manual_seed(0)
    layer = nn.Embedding(6, 3, padding_idx=0).double()
    x = torch.tensor([[0, 1, 1], [5, 2, 1]])
    delta = torch.randn(2, 3, 3).double()
    (expected,) = torch.autograd.grad(layer(x), layer.weight, delta)
    torch.testing.assert_close(weight_gradient(layer, x, delta)[layer.weight], expected)
    table = torch.randn(K, 6, 3).double()
    for rows in (x, x.repeat(K, 1)):
        found = members(layer, {"weight": table}, 2, rows).unflatten(0, (K, 2))
        torch.testing.assert_close(found, torch.stack([F.embedding(x, own) for own in table]))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.back = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.back(y.transpose(1, 2).flatten(2))


class Recurrent(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return h


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


WHOLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention": (Attention, (3, 4)),
    "multi-head attention": (lambda: nn.TransformerEncoderLayer(4, 2, 5, 0.0, batch_first=True), (3, 4)),
    "tanh cell": (lambda: Recurrent(nn.RNNCell(4, 5)), (3, 4)),
    "gated cell": (lambda: Recurrent(nn.GRUCell(4, 5)), (3, 4)),
    "skip with batch norm": (Skip, (4,)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_any_module_in_forward_mode_is_the_transpose_of_reverse_mode(name: str) -> None:
    """<delta, J v> = <J^T delta, v>. Mistakes: batch norm as a map of each example by itself; a weight that serves at
    many times counted once; statistics that move once for each of the directions.
    """
    torch.manual_seed(0)
    module = WHOLE[name][0]().double()
    x = torch.randn(B, *WHOLE[name][1]).double()
    t, v = torch.randn(2, *x.shape).double(), {p: torch.randn(2, *p.shape).double() for p in module.parameters()}
    before = {n: b.clone() for n, b in module.named_buffers()}
    with torch.no_grad():
        y, moved = along(module, x, t, 2, v)
    after = {n: b.clone() for n, b in module.named_buffers()}
    module.load_state_dict(before, strict=False)
    x.requires_grad_()
    expected = module(x)
    torch.testing.assert_close(y, expected.detach())
    assert all(torch.equal(b, after[n]) for n, b in module.named_buffers()), "statistics move as in one forward pass"
    assert moved is not None
    delta = torch.randn_like(y)
    back = torch.autograd.grad(expected, [x, *module.parameters()], delta)
    for i in range(2):
        slope = sum((g * d).sum() for g, d in zip(back, [t[i], *(d[i] for d in v.values())], strict=True))
        torch.testing.assert_close((delta * moved[i]).sum(), slope)


def test_noise_inside_a_module_is_a_perturbation_of_each_call() -> None:
    """Central differences of the module with the noise added behind its layers, a layer that is called twice included.
    Mistakes: one noise for both calls; another direction's noise.
    """
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 4).double(), torch.randn(B, 4).double()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.layer(torch.tanh(self.layer(x)))) * x

    noise = [torch.randn(2, B, 4).double() for _ in range(2)]
    asked = iter(noise)
    with torch.no_grad():
        y, t = with_noise(Twice(), x, None, 2, [layer], lambda layer, x, y: next(asked))
    assert t is not None
    for i in range(2):

        def disturbed(eps: float, i: int = i) -> Tensor:
            h = torch.tanh(layer(x) + eps * noise[0][i])
            return torch.tanh(layer(h) + eps * noise[1][i]) * x

        torch.testing.assert_close(t[i], (disturbed(1e-6) - disturbed(-1e-6)) / 2e-6, atol=1e-8, rtol=1e-7)
    torch.testing.assert_close(y, Twice()(x))


def test_a_subclass_inherits_no_form() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return 2 * super().forward(input)

    layer = Doubled(3, 2)
    assert not can(weight_gradient, Doubled)
    with pytest.raises(TypeError, match="no weight gradient for Doubled"):
        weight_gradient(layer, torch.ones(1, 3), torch.ones(1, 2))
