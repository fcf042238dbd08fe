"""The discrete-time net against Figure 6 and Eq. 17-18 written out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.noprop.denoiser import Denoiser, DenoiserBlock
from bench.methods.noprop.towers import ImageTower
from torch import Tensor, nn

from bench.testing.subject import image_task

EMBEDDINGS = ["one-hot", "learned", "prototype"]


@pytest.fixture
def build(toy) -> Callable[..., Denoiser]:
    def build(**settings: Any) -> Denoiser:
        start = "random" if settings.get("embedding") == "prototype" else "auto"
        return toy.task("denoiser", T=3, start=start, **settings).build_net(torch.Generator().manual_seed(0))

    return build


def figure_6(block: DenoiserBlock, z: Tensor, x: Tensor) -> Tensor:
    """Logits in training, with batch norm by the batch's own mean and variance. Without dropout."""

    def norm(layer: nn.BatchNorm1d, h: Tensor) -> Tensor:
        return (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt() * layer.weight + layer.bias

    def linear(layer: nn.Linear, h: Tensor) -> Tensor:
        return h @ layer.weight.T + layer.bias

    def tower(of: ImageTower, x: Tensor) -> Tensor:
        x = x.view(-1, *of.image_shape)
        x = F.max_pool2d(F.relu(F.conv2d(x, of.conv1.weight, of.conv1.bias, padding=1)), 2)
        x = F.relu(F.conv2d(x, of.conv2.weight, of.conv2.bias, padding=1))
        x = F.max_pool2d(F.relu(F.conv2d(x, of.conv3.weight, of.conv3.bias, padding=1)), 2)
        return norm(of.norm, linear(of.fc, x.reshape(len(x), -1)))

    def label_path(z: Tensor) -> Tensor:
        path = block.label
        h = F.relu(norm(path.norm1, linear(path.fc1, z)))
        return h + norm(path.norm3, linear(path.fc3, F.relu(norm(path.norm2, linear(path.fc2, h)))))

    fc1, norm1, _, fc2, norm2, _, fc3 = block.head
    h = torch.cat((tower(block.image, x), tower(block.label, z) if _is_tower(block) else label_path(z)), dim=1)
    return linear(fc3, F.relu(norm(norm2, linear(fc2, F.relu(norm(norm1, linear(fc1, h)))))))


def _is_tower(block: DenoiserBlock) -> bool:
    return isinstance(block.label, ImageTower)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_block_is_figure_6(embedding: str, build: Callable[..., Denoiser], toy, doubles: None) -> None:
    net, x = build(embedding=embedding), toy.batch(12).x
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    z = torch.randn(12, net.labels.dim)
    for block in net.blocks:
        assert _is_tower(block) == (embedding == "prototype")
        torch.testing.assert_close(block(z, x), figure_6(block, z, x))


def test_a_block_on_mnist_has_2001290_parameters(toy) -> None:
    """As counted by hand from Figure 6 on 28x28 images in ten classes."""

    net = image_task("mnist", 10, (1, 28, 28), 60_000, Denoiser, {"T": 1}).build_net(torch.Generator())
    assert sum(p.numel() for p in net.blocks[0].parameters()) == 2_001_290


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_guess_is_the_mean_embedding_under_the_block_s_softmax(
    embedding: str, build: Callable[..., Denoiser], toy, doubles: None
) -> None:
    """uhat_t = sum_k p_k u_k, p = softmax(logits_t): for each t its own block, of all embeddings."""
    net, x = build(embedding=embedding).eval(), toy.batch(4).x
    z = torch.randn(4, net.labels.dim)
    for t in (1, 2, 3):
        odds = torch.exp(net.blocks[t - 1](z, x))
        for i in range(4):
            expected = sum(odds[i, k] / odds[i].sum() * net.labels.weight[k] for k in range(10))
            torch.testing.assert_close(net.u_hat(t, z, x)[i], expected)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("noisy", [True, False])
def test_the_backprop_net_is_equations_17_and_18(
    embedding: str, noisy: bool, build: Callable[..., Denoiser], toy, doubles: None
) -> None:
    """z_0 ~ N(0, I), z_t = (1 - tanh(w_t)) z_{t-1} + tanh(w_t) uhat_t(z_{t-1}, x), then the readout."""
    net, x = build(embedding=embedding).eval(), toy.batch(4).x
    net.gates.data = torch.tensor([0.3, -0.2, 1.5])
    z = torch.zeros(4, net.labels.dim)
    if noisy:
        z = torch.randn(4, net.labels.dim, generator=torch.Generator().manual_seed(5))
    for t in (1, 2, 3):
        g = torch.tanh(net.gates[t - 1])
        z = (1 - g) * z + g * (net.blocks[t - 1](z, x).softmax(1) @ net.labels.weight)
    scores = net(x, torch.Generator().manual_seed(5) if noisy else None)
    torch.testing.assert_close(scores, net.labels.readout(z))
