"""The feedback family against what backprop must give, and where its signals enter.

Its steps stand beside numpy in test_feedback_steps.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods._shared.direct_feedback import cut
from bench.methods.feedback.direct_feedback_alignment import DirectFeedbackAlignment
from bench.methods.feedback.drtp import DRTP
from bench.methods.feedback.feedback_alignment import FeedbackAlignment
from bench.methods.feedback.layered import lay, sending_layers
from torch import Tensor, nn

from bench import Batch, Output, Progress, Seeds, Task
from bench.api.layer import routed
from bench.api.net import Net
from bench.audit.dependency import update_dependency
from bench.nets.mlp import MLP
from bench.objectives.cross_entropy import CrossEntropy
from bench.testing.subject import image_task
from tests.methods.feedback.oracles import NETS, assert_same, doubled, grads, twin

START = Progress(0, 1, 0)
MODES = {"fa", "usf", "brsf", "frsf"}
Make = Callable[..., Any]


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


# --- feedback alignment


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", ["feedback-alignment", "kolen-pollack", "weight-mirror"])
def test_with_the_weights_as_feedback_it_is_backprop(make_method: Make, batch64: Batch, net: str, name: str) -> None:
    fa = doubled(make_method(name, net=net, net_settings=NETS[net]))
    with torch.no_grad():
        for layer, B in zip(fa.layers, fa.feedback, strict=True):
            B.copy_(layer.weight)
    plain = twin(net, fa.net)
    loss = fa.train_step(batch64, START)["loss"]
    expected = F.cross_entropy(plain(batch64.x), batch64.y)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    assert_same(grads(fa.net), grads(plain))


def test_conv_message_is_the_transposed_convolution_with_b() -> None:
    """message[c, i, j] = sum over o, k, l of delta[o, i+1-k, j+1-l] B[o, c, k, l], position by position."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1).double()
    x, delta = torch.randn(1, 2, 4, 5).double().requires_grad_(), torch.randn(1, 3, 4, 5).double()
    B = torch.randn(3, 2, 3, 3).double()
    routed(layer, B, x).backward(delta)
    slow = torch.zeros(1, 2, 4, 5).double()
    for i in range(4):
        for j in range(5):
            for k in range(3):
                for m in range(3):
                    if 0 <= i + 1 - k < 4 and 0 <= j + 1 - m < 5:
                        slow[0, :, i, j] += B[:, :, k, m].T @ delta[0, :, i + 1 - k, j + 1 - m]
    torch.testing.assert_close(x.grad, slow)


@pytest.mark.parametrize(
    "shape", [{"stride": 2}, {"padding": 2, "dilation": 2}, {"groups": 2}, {"stride": (1, 2), "padding": (0, 1)}]
)
def test_conv_of_any_shape(shape: dict[str, Any]) -> None:
    """The message is that of a convolution with B, the weights' gradient that of one with W."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, **shape).double()
    x, B = torch.randn(2, 4, 7, 7).double().requires_grad_(), torch.randn_like(layer.weight)
    y = routed(layer, B, x)
    torch.testing.assert_close(y, layer(x))
    delta = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, layer.weight, layer.bias), delta)
    (message,) = torch.autograd.grad(F.conv2d(x, B, None, **shape), x, delta)
    assert_same(list(found), [message, *torch.autograd.grad(layer(x), (layer.weight, layer.bias), delta)])


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("net", NETS)
def test_what_the_feedback_knows_of_the_weights(make_method: Make, batch: Batch, net: str, mode: str) -> None:
    fa: FeedbackAlignment = make_method("feedback-alignment", net=net, net_settings=NETS[net], mode=mode, lr=0.05)
    start = [B.clone() for B in fa.feedback]
    signs, magnitudes = [], []
    for _ in range(3):
        weights = [layer.weight.detach().clone() for layer in fa.layers]
        fa.train_step(batch, START)
        signs.append([W.sign() for W in weights])
        magnitudes.append([B.abs() for B in fa.feedback])
        for W, B, first in zip(weights, fa.feedback, start, strict=True):
            assert torch.equal(B, first) if mode == "fa" else torch.equal(B.sign(), W.sign())
    assert any(not torch.equal(a, b) for a, b in zip(signs[0], signs[2], strict=True)), "no weight changed its sign"
    fixed = [torch.equal(a, b) for a, b in zip(magnitudes[0], magnitudes[2], strict=True)]
    assert not any(fixed) if mode == "brsf" else all(fixed)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_feedback_has_the_scale_of_fresh_weights(make_method: Make, batch: Batch, mode: str) -> None:
    """Root mean square within 5 % of that of torch's own start, 1 / sqrt(3 fan_in)."""
    settings = {"width": 128, "depth": 2}
    fa: FeedbackAlignment = make_method("feedback-alignment", net="mlp", net_settings=settings, mode=mode, lr=1e-9)
    fa.train_step(batch, START)
    for layer, B in zip(fa.layers, fa.feedback, strict=True):
        ratio = (B.square().mean() / layer.weight.detach().square().mean()).sqrt()
        assert abs(float(ratio) - 1) < 0.05
        assert mode != "usf" or B.abs().unique().numel() == 1


# --- direct feedback


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", ["direct-feedback-alignment", "direct-kolen-pollack"])
def test_with_the_downstream_jacobian_direct_rules_are_backprop_on_a_linear_net(
    make_method: Make, batch64: Batch, net: str, name: str
) -> None:
    """Identity for ReLU and mean for max-pooling; B_l^T is then d logits / d h_l, the same for every example."""
    dfa = doubled(make_method(name, net=net, net_settings=NETS[net]))
    plain = twin(net, dfa.net)
    for blocks in (dfa.net.blocks, plain.blocks):
        for block in blocks[:-1]:
            for k, layer in enumerate(block):
                if isinstance(layer, nn.ReLU):
                    block[k] = nn.Identity()
                elif isinstance(layer, nn.MaxPool2d):
                    block[k] = nn.AvgPool2d(2)
    dfa.stages = cut(dfa.net)
    with torch.no_grad():
        for k, B in enumerate(dfa.feedback):

            def downstream(a: Tensor, k: int = k) -> Tensor:
                h = dfa.stages[k].pool(a[None])
                for block in plain.blocks[k + 1 :]:
                    h = block(h)
                return h[0]

            B.copy_(torch.func.jacrev(downstream)(torch.zeros_like(B[0])))
    dfa.train_step(batch64, START)
    F.cross_entropy(plain(batch64.x), batch64.y).backward()
    assert_same(grads(dfa.net), grads(plain))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", [
    "feedback-alignment", "direct-feedback-alignment", "drtp", "kolen-pollack", "direct-kolen-pollack", "weight-mirror",
])  # fmt: skip
def test_without_feedback_hidden_blocks_get_nothing(make_method: Make, batch: Batch, net: str, name: str) -> None:
    method = make_method(name, net=net, net_settings=NETS[net])
    with torch.no_grad():
        for B in method.feedback:
            B.zero_()
    method.train_step(batch, START)
    *hidden, output = method.net.blocks
    assert all(g.count_nonzero() == 0 for block in hidden for g in grads(block))
    assert len(grads(method.net)) == len(list(method.net.parameters()))
    assert all(g.count_nonzero() > 0 for g in grads(output))


def test_direct_feedback_has_the_scale_of_a_readout(make_method: Make) -> None:
    """Dense over channels and positions before pooling, uniform up to 1 / sqrt(units)."""
    dfa: DirectFeedbackAlignment = make_method("direct-feedback-alignment", net="cnn", net_settings={"width": 8})
    assert [tuple(B.shape) for B in dfa.feedback] == [(10, 8, 8, 8), (10, 16, 4, 4), (10, 32, 4, 4)]
    for B in dfa.feedback:
        scaled = B * B[0].numel() ** 0.5
        assert 0.99 < float(scaled.abs().max()) <= 1
        assert abs(float(scaled.square().mean()) - 1 / 3) < 0.02


def test_no_gradient_passes_through_a_skip_connection(make_method: Make) -> None:
    """Blocks h + f(h): block l learns from <h_l, B_l e> alone, and from nothing where B_l is 0."""
    for zeroed in (False, True):
        dfa = doubled(
            make_method(
                "direct-feedback-alignment", task=image_task("digits", 10, (1, 8, 8), 9, MLP, kind=ResidualTask)
            )
        )
        with torch.no_grad():
            for B in dfa.feedback:
                B.mul_(not zeroed)
        x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
        y = torch.arange(6)
        dfa.train_step(Batch(x, y), START)
        found = [grads(block) for block in dfa.net.blocks]

        fresh = image_task("digits", 10, (1, 8, 8), 9, MLP, kind=ResidualTask).build_net(Seeds(0).init).double()
        e, h = CrossEntropy(Output.classes(10)).loss_gradient(fresh(x), y), x
        for k, block in enumerate(fresh.blocks[:-1]):
            h = block(h.detach())
            (h * torch.einsum("nc,c...->n...", e, dfa.feedback[k])).sum().backward()
            assert_same(found[k], grads(block))
            assert zeroed == all(g.count_nonzero() == 0 for g in found[k])


# --- DRTP


@pytest.mark.parametrize("net", NETS)
def test_drtp_block_waits_for_no_later_block(make_method: Make, batch: Batch, net: str) -> None:
    """Its update depends on the blocks before it and on itself; under DFA also on the output, on nothing between."""
    matrices = {}
    for name in ("drtp", "direct-feedback-alignment"):
        seeds = Seeds(0, method=name)
        method = make_method(name, net=net, net_settings=NETS[net], seeds=seeds)
        for _ in range(3):
            method.train_step(batch, START)
        matrices[name] = update_dependency(method, seeds, Batch(batch.x[:8], batch.y[:8]), START) > 0
    lower = torch.ones(4, 4, dtype=torch.bool).tril()
    assert torch.equal(matrices["drtp"], lower)
    lower[:, -1] = True
    assert torch.equal(matrices["direct-feedback-alignment"], lower)


def test_drtp_learns_while_the_forward_pass_goes_by(make_method: Make, batch: Batch) -> None:
    """With an output layer that fails, hidden blocks have taken the very step that they take with a sound one."""
    whole: DRTP = make_method("drtp", net="cnn", net_settings=NETS["cnn"])
    broken: DRTP = make_method("drtp", net="cnn", net_settings=NETS["cnn"])
    start = [p.detach().clone() for p in broken.net.parameters()]
    broken.net.blocks[-1] = Failing(broken.net.blocks[-1])
    whole.train_step(batch, START)
    with pytest.raises(RuntimeError, match="no output"):
        broken.train_step(batch, START)
    for before, one, other in zip(start[:-2], whole.net.parameters(), broken.net.parameters(), strict=False):
        assert torch.equal(one, other)
        assert not torch.equal(one, before)


class Failing(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no output")


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        inner: Tensor = self.second(self.first(h).relu())
        return h + inner


class ResidualNet(Net):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.blocks = nn.ModuleList([Residual(1), Residual(1), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))])


class ResidualTask(Task):
    def build_net(self, init: torch.Generator, **settings: Any) -> Net:
        net = ResidualNet()
        with torch.no_grad():
            for p in net.parameters():
                p.uniform_(-0.3, 0.3, generator=init)
        return net


# --- norms, skip connections, tables


class SkipNet(Net):
    """Tokens through a table, then a skip connection around a norm and a layer that is used at every position."""

    name = "skips"

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.table, self.norm, self.layer = nn.Embedding(6, 4), nn.LayerNorm(4), nn.Linear(4, 4, bias=False)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(12, 3))])

    def stem(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        h = self.table(x)
        return h + self.layer(self.norm(h)).tanh()


def test_skips_and_norms_carry_the_true_gradient_and_every_matrix_sends_through_b() -> None:
    """Against y = W [x] + B x - [B x], [.] without gradient. Mistakes: a table of embeddings taken for the first layer
    that sends, so that W carries the message to it; a skip connection cut; a norm with feedback.
    """
    torch.manual_seed(0)
    net, twin_net = SkipNet().double(), SkipNet().double()
    twin_net.load_state_dict(net.state_dict())
    layers = sending_layers(net)
    assert layers == [net.layer, net.blocks[0][1]]
    matrices = lay(layers, [torch.randn_like(layer.weight) for layer in layers])
    for layer, B in zip(sending_layers(twin_net), matrices, strict=True):
        plain = layer.forward

        def routed_slowly(x: Tensor, plain: Any = plain, B: Tensor = B) -> Tensor:
            message = x @ B.T
            return plain(x.detach()) + message - message.detach()

        layer.forward = routed_slowly
    x, y = torch.tensor([[0, 1, 1], [5, 2, 1]]), torch.tensor([0, 2])
    for made in (net, twin_net):
        F.cross_entropy(made(x), y).backward()
    assert_same(grads(net), grads(twin_net))
