"""VGG, LeNet and ResNet beside the same nets written plainly in torch, their sizes by hand, and what does not fit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import Input, Net, Output
from bench.api.errors import ConfigError
from bench.nets.layers import Dropout, SoftmaxPool
from bench.nets.lenet import LeNet
from bench.nets.resnet import BasicBlock, ResNet
from bench.nets.vgg import VGG

CIFAR, MNIST = Input.image(3, 32, 32), Input.image(1, 28, 28)
TEN = Output.classes(10)


def built(net: type[Net], inputs: Input = CIFAR, **settings: Any) -> Net:
    return net.build(inputs, TEN, settings, torch.Generator().manual_seed(0))


def size(net: type[Net], inputs: Input, **settings: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in net(inputs, TEN, net.Settings(**settings)).parameters())


@pytest.mark.parametrize(
    ("net", "inputs", "settings", "parameters"),
    [
        (LeNet, MNIST, {}, 156 + 2_416 + 48_120 + 10_164 + 850),
        (LeNet, CIFAR, {}, 896 + 18_496 + 73_856 + 512 * 256 + 256 + 2_570),
        (VGG, CIFAR, {"cfg": "8b"}, 6_786_432 + 4_352 + 2048 * 1024 + 1024 + 2_048 + 10_250),
        (VGG, MNIST, {"cfg": "8b"}, 6_784_128 + 4_352 + 512 * 1024 + 1024 + 2_048 + 10_250),
        (VGG, CIFAR, {"cfg": "p4"}, 3_584 + 295_168 + 1_180_160 + 2_359_808 + 20_490),
        (VGG, CIFAR, {"cfg": "16"}, 14_710_464 + 2 * 4_224 + 5_130),
        (ResNet, CIFAR, {"depth": 20}, 269_722),
        (ResNet, CIFAR, {"depth": 56}, 853_018),
        (ResNet, CIFAR, {"depth": 110}, 1_727_962),
    ],
)
def test_parameters_as_published(net: type[Net], inputs: Input, settings: dict[str, Any], parameters: int) -> None:
    """Catches a layer too many, a bias beside batch norm, a shortcut with weights, a hidden layer of another size."""
    assert size(net, inputs, **settings) == parameters


def spread(net: Net) -> None:
    """Draw scales and shifts of norms, too, which begin at 1 and 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))


class Weights:
    """A net's parameters in order, taken one after another."""

    def __init__(self, net: Net) -> None:
        self.left = list(net.parameters())

    def take(self) -> Tensor:
        return self.left.pop(0)

    def batch_normed(self, a: Tensor) -> Tensor:
        axes = [0, *range(2, a.dim())]
        mean, var = a.mean(axes, keepdim=True), a.var(axes, unbiased=False, keepdim=True)
        shape = [1, -1, *[1] * (a.dim() - 2)]
        return (a - mean) / (var + 1e-5).sqrt() * self.take().view(shape) + self.take().view(shape)


def plain_vgg8b(net: Net, x: Tensor) -> Tensor:
    w, h = Weights(net), x
    for pool in (False, True, False, True, True, True):
        h = w.batch_normed(F.conv2d(h, w.take(), padding=1)).relu()
        h = F.max_pool2d(h, 2) if pool else h
    h = w.batch_normed(F.linear(h.flatten(1), w.take(), w.take())).relu()
    return F.linear(h, w.take(), w.take())


def plain_p4(net: Net, x: Tensor) -> Tensor:
    w, h = Weights(net), x
    for _ in range(4):
        a = F.conv2d(h, w.take(), w.take(), padding=1).relu()
        h = F.avg_pool2d(a * a.exp(), 2) / F.avg_pool2d(a.exp(), 2)
    return F.linear(h.flatten(1), w.take(), w.take())


def plain_lenet(net: Net, x: Tensor) -> Tensor:
    w, h = Weights(net), F.pad(x, (2, 2, 2, 2))
    for pool in (True, True, False):
        h = F.conv2d(h, w.take(), w.take()).relu()
        h = F.max_pool2d(h, 2) if pool else h
    return F.linear(F.linear(h.flatten(1), w.take(), w.take()).relu(), w.take(), w.take())


def plain_lenet_cifar(net: Net, x: Tensor) -> Tensor:
    w, h = Weights(net), x
    for pool in (F.max_pool2d, F.max_pool2d, F.avg_pool2d):
        h = pool(F.conv2d(h, w.take(), w.take()).relu(), 2)
    return F.linear(F.linear(h.flatten(1), w.take(), w.take()), w.take(), w.take())


def plain_resnet(net: Net, x: Tensor, *, cut: bool = False) -> Tensor:
    w, n = Weights(net), 2
    h = w.batch_normed(F.conv2d(x, w.take(), padding=1)).relu()
    for stage in range(3):
        for k in range(n):
            stride = 2 if stage > 0 and k == 0 else 1
            a = w.batch_normed(F.conv2d(h, w.take(), stride=stride, padding=1)).relu()
            a = w.batch_normed(F.conv2d(a, w.take(), padding=1))
            s = h.detach() if cut else h
            if stride == 2:
                zeros = torch.zeros_like(s[:, : s.shape[1] // 2, ::2, ::2])
                s = torch.cat([zeros, s[:, :, ::2, ::2], zeros], 1)
            h = (a + s).relu()
    return F.linear(h.mean((2, 3)), w.take(), w.take())


CASES: dict[str, tuple[type[Net], Input, dict[str, Any], Callable[..., Tensor]]] = {
    "vgg8b": (VGG, Input.image(3, 16, 16), {"cfg": "8b", "width": 1 / 32}, plain_vgg8b),
    "p4": (VGG, Input.image(3, 16, 16), {"cfg": "p4", "width": 1 / 32}, plain_p4),
    "lenet": (LeNet, MNIST, {}, plain_lenet),
    "lenet, cifar": (LeNet, CIFAR, {"linear_features": True}, plain_lenet_cifar),
    "resnet": (ResNet, Input.image(3, 9, 9), {"depth": 14, "width": 4}, plain_resnet),
    "resnet, cut": (
        ResNet,
        Input.image(3, 9, 9),
        {"depth": 14, "width": 4, "skip": "cut"},
        lambda net, x: plain_resnet(net, x, cut=True),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_of_the_plain_net(case: str) -> None:
    """Catches padding, order of norm and pooling, a stride in the wrong place, channels of zeros on one side alone,
    mean for max, a shortcut that is cut where it must not be.
    """
    kind, inputs, settings, plain = CASES[case]
    net = built(kind, inputs, **settings).double()
    spread(net)
    x = torch.randn(4, *inputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = torch.tensor([0, 3, 3, 9])
    for found, expected in zip(learnt(net, net(x), y), learnt(net, plain(net, x), y), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def learnt(net: Net, out: Tensor, y: Tensor) -> list[Tensor]:
    return [out, *torch.autograd.grad(F.cross_entropy(out, y), list(net.parameters()))]


def test_a_cut_shortcut_changes_gradients_alone() -> None:
    x = torch.randn(3, 3, 8, 8)
    open_, cut = (built(ResNet, Input.image(3, 8, 8), depth=8, width=4, skip=skip) for skip in ("open", "cut"))
    assert torch.equal(open_(x), cut(x))
    y = torch.tensor([0, 1, 2])
    first, last = (
        [torch.equal(a, b) for a, b in zip(learnt(open_, open_(x), y), learnt(cut, cut(x), y), strict=True)][k]
        for k in (1, -1)
    )
    assert (first, last) == (False, True)


def test_shortcut_has_zeros_on_both_sides() -> None:
    block = BasicBlock(2, 5, 2, "none", cut=False)
    h = torch.arange(1.0, 1 + 2 * 9).view(1, 2, 3, 3)
    shortcut = block.shortcut(h)
    assert shortcut.shape == (1, 5, 2, 2)
    assert torch.equal(shortcut[0, 1:3], h[0, :, ::2, ::2])
    assert shortcut[0, [0, 3, 4]].count_nonzero() == 0


def test_softmax_pool_by_hand() -> None:
    x = torch.tensor([[0.0, 1.0, 9.0], [2.0, -3.0, 9.0], [9.0, 9.0, 9.0]]).view(1, 1, 3, 3)
    window = torch.tensor([0.0, 1.0, 2.0, -3.0])
    expected = sum(v * v.exp() for v in window) / sum(v.exp() for v in window)
    torch.testing.assert_close(SoftmaxPool(2)(x), expected.view(1, 1, 1, 1))


@pytest.mark.parametrize("channels", [False, True])
def test_dropout_draws_its_own(channels: bool) -> None:
    """Catches a missing factor, masks of single pixels for whole channels, the global generator, and state that a
    checkpoint forgets.
    """
    torch.manual_seed(3)
    layer, again = (_seeded(channels) for _ in range(2))
    before = torch.get_rng_state()
    x = torch.ones(64, 50, 3, 3)
    first = layer(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(first.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert float((first > 0).float().mean()) == pytest.approx(0.7, abs=0.03)
    assert bool((first.flatten(2).amax(2) == first.flatten(2).amin(2)).all()) == channels
    again.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(layer(x), again(x))
    assert torch.equal(layer.eval()(x), x)


def _seeded(channels: bool) -> Dropout:
    return Dropout(0.3, channels=channels)


def test_dropout_depends_on_the_initial_draws_alone() -> None:
    x = torch.randn(5, 3, 8, 8)

    def out(seed: int) -> Tensor:
        net = VGG.build(Input.image(3, 8, 8), TEN, VGG.small | {"dropout": 0.5}, torch.Generator().manual_seed(seed))
        return net(x)

    assert torch.equal(out(0), out(0))
    assert not torch.equal(out(0), out(1))


@pytest.mark.parametrize(
    ("net", "inputs", "settings", "why"),
    [
        (LeNet, Input.image(1, 28, 27), {}, "not 28x27"),
        (LeNet, Input.image(1, 40, 40), {}, "not 40x40"),
        (LeNet, Input.image(1, 27, 27), {}, "even side"),
        (VGG, Input.vector(10), {}, "made for image"),
        (ResNet, Input.tokens(8, 5), {}, "made for image"),
    ],
)
def test_misfits_are_named(net: type[Net], inputs: Input, settings: dict[str, Any], why: str) -> None:
    assert why in str(net.misfit(inputs, TEN, settings))


def test_depths_of_a_resnet() -> None:
    with pytest.raises(ValueError, match="21 is not 6 n"):
        ResNet.Settings(depth=21)
    for side in (1, 2, 7):
        assert built(ResNet, Input.image(1, side, side), depth=8, width=3)(torch.zeros(2, 1, side, side)).shape == (
            2,
            10,
        )


@pytest.mark.parametrize("kind", ["batch", "group", "none"])
def test_norms(kind: str) -> None:
    net = built(ResNet, depth=8, width=16, norm=kind)
    kinds = {type(m) for m in net.modules()}
    assert (nn.BatchNorm2d in kinds, nn.GroupNorm in kinds) == (kind == "batch", kind == "group")
    assert all((m.bias is None) == (kind != "none") for m in net.modules() if isinstance(m, nn.Conv2d))


def test_small_images_leave_poolings_out() -> None:
    net = built(VGG, Input.image(1, 5, 5), cfg="8b", width=0.05)
    assert net(torch.zeros(2, 1, 5, 5)).shape == (2, 10)
    with pytest.raises(ConfigError):
        LeNet(Input.image(1, 33, 33), TEN, LeNet.Settings())
