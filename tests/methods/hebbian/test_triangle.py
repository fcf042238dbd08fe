"""SoftHebb's net against its formula, with the power before the pool; sizes; gradients where a power has none."""

import pytest
import torch
import torch.nn.functional as F
from bench.methods.hebbian.triangle import Rectified, Triangle

from bench import Input, Output
from bench.api.errors import ConfigError
from bench.api.layer import push


def built(shape: tuple[int, int, int] = (1, 8, 8), **settings: object) -> Triangle:
    return Triangle.build(Input.image(*shape), Output.classes(10), settings, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("grad", [False, True])
def test_equals_the_paper_s_order_of_power_and_pool(depth: int, grad: bool) -> None:
    """Fails where the power does not commute with the pool behind it, and where a layer overwrites what is still asked
    for.
    """
    net = built((3, 16, 16), width=3, depth=depth, powers=(0.7, 1.4, 1.0), dropout=0.0).double()
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h, given = x, x.clone()
    for k in range(depth):
        W = net.blocks[k][2].weight
        assert W.shape == (3 * 4**k, 3 if k == 0 else 3 * 4 ** (k - 1), *([5, 5] if k == 0 else [3, 3]))
        mean, var = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), correction=0, keepdim=True)
        h = (h - mean) / (var + 1e-5).sqrt()
        u = F.conv2d(F.pad(h, [W.shape[-1] // 2] * 4, mode="reflect"), W)
        h = (u - u.mean(1, keepdim=True)).relu() ** (0.7, 1.4, 1.0)[k]
        h = F.avg_pool2d(h, 2) if k == depth - 1 else F.max_pool2d(h, 4, 2, 1)
    readout = net.blocks[-1][-1]
    wanted = h.flatten(1) @ readout.weight.T + readout.bias
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(net.train()(x), wanted)
    assert torch.equal(x, given)


def test_paper_s_size_on_cifar10() -> None:
    net = built((3, 32, 32))
    assert [net.blocks[k][2].out_channels for k in range(3)] == [96, 384, 1536]
    assert net.blocks[-1][-1].in_features == 24576


def test_gradients_are_finite_where_a_root_has_an_infinite_slope() -> None:
    net = built(width=4, depth=2, powers=(0.7, 0.5)).double().eval()
    scores = net(torch.zeros(4, 1, 8, 8, dtype=torch.float64))
    grads = torch.autograd.grad(scores.square().sum(), [p for p in net.parameters() if p.dim() == 4])
    assert all(bool(g.isfinite().all()) for g in grads)


@pytest.mark.parametrize(("shape", "depth"), [((1, 8, 8), 4), ((1, 2, 2), 1)])
def test_more_halvings_than_the_image_has_are_bad_input(shape: tuple[int, int, int], depth: int) -> None:
    with pytest.raises(ConfigError, match="halved"):
        built(shape, width=2, depth=depth)


@pytest.mark.parametrize("power", [0.7, 1.0, 1.4])
def test_tangents_of_triangle_are_central_differences_and_zero_where_a_unit_is_off(power: float) -> None:
    """Mistake: 0 times the infinite slope of u^0.7 at u = 0."""
    layer, u = Rectified(power), torch.tensor([[-1.0, 0.0, 0.3, 2.0]], dtype=torch.float64)
    t = torch.tensor([[[1.0, 1.0, 1.0, -2.0]]], dtype=torch.float64)
    y, moved = push(layer, u, t, None)
    torch.testing.assert_close(y, layer(u.clone()))
    ahead, behind = layer(u + 1e-6 * t[0]), layer(u - 1e-6 * t[0])
    expected = ((ahead - behind) / 2e-6).masked_fill(u <= 0, 0.0)
    torch.testing.assert_close(moved[0], expected, atol=1e-8, rtol=1e-7)
