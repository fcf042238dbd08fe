"""The continuous-time net against Figure 6 written out, and its shortcuts against the whole net."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.noprop.denoiser_ct import DenoiserCT
from bench.methods.noprop.towers import ImageTower, sinusoids
from torch import Tensor

from bench import Method

EMBEDDINGS = ["one-hot", "learned", "prototype"]


@pytest.fixture
def build(toy) -> Callable[..., DenoiserCT]:
    def build(**settings: Any) -> DenoiserCT:
        task = toy.task("denoiser-ct", **{"T": 7, "dropout": 0.2, "start": "auto", **settings})
        if settings.get("embedding") == "prototype":
            task.net_settings["start"] = "random"
        return task.build_net(torch.Generator().manual_seed(0)).eval()

    return build


def tower(of: ImageTower, x: Tensor) -> Tensor:
    """Figure 6: conv, ReLU, pool; conv, ReLU; conv, ReLU, pool; flatten, FC. Without its dropout."""
    x = x.view(-1, *of.image_shape)
    x = F.max_pool2d(F.relu(F.conv2d(x, of.conv1.weight, of.conv1.bias, padding=1)), 2)
    x = F.relu(F.conv2d(x, of.conv2.weight, of.conv2.bias, padding=1))
    x = F.max_pool2d(F.relu(F.conv2d(x, of.conv3.weight, of.conv3.bias, padding=1)), 2)
    return F.linear(x.reshape(len(x), -1), of.fc.weight, of.fc.bias)


def clock(t: float) -> Tensor:
    """sin and cos of 1000 t / 10000^(i / 32), i = 0..31."""
    angles = [1000 * t / 10_000 ** (i / 32) for i in range(32)]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def figure_6(net: DenoiserCT, z: Tensor, x: Tensor, t: list[float]) -> Tensor:
    """logits = head(ReLU(W [image; label; time] + b)) with one weight on the three concatenated."""
    parts = net.denoiser
    image = F.relu(tower(parts.image, x))
    label = F.relu(tower(parts.label, z) if isinstance(parts.label, ImageTower) else parts.label(z))
    time = F.relu(parts.time(torch.stack([clock(s) for s in t])))
    W = torch.cat((parts.from_image.weight, parts.from_label.weight, parts.from_time.weight), dim=1)
    h = F.relu(torch.cat((image, label, time), dim=1) @ W.T + parts.from_image.bias)
    first, _, second = parts.head
    return F.linear(F.relu(F.linear(h, first.weight, first.bias)), second.weight, second.bias)


def test_the_clock_is_made_of_sines_and_cosines() -> None:
    t = [0.0, 0.001, 0.37, 1.0]
    expected = torch.stack([clock(s) for s in t])
    torch.testing.assert_close(sinusoids(torch.tensor(t, dtype=torch.float64)).float(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(sinusoids(torch.tensor(t)), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_logits_are_the_plain_formula(embedding: str, build: Callable[..., DenoiserCT], toy, doubles: None) -> None:
    net, x, t = build(embedding=embedding), toy.batch(5).x, [0.0, 0.13, 0.5, 0.9, 1.0]
    z = torch.randn(5, net.labels.dim)
    torch.testing.assert_close(net.logits(z, x, torch.tensor(t)), figure_6(net, z, x, t))


def test_layers_start_as_torch_starts_one_layer_on_the_whole(build: Callable[..., DenoiserCT]) -> None:
    """The three parts' weights are bounded by 1 / sqrt(of all inputs), not of a third of them."""
    parts = build(hidden=32).denoiser
    for part in (parts.from_image, parts.from_label, parts.from_time):
        assert 0.95 < part.weight.abs().max() * 96**0.5 <= 1
    assert parts.from_image.bias is not None
    assert parts.from_label.bias is None
    assert parts.from_time.bias is None


def test_figure_6_has_so_many_parameters(build: Callable[..., DenoiserCT], toy) -> None:
    """Counted by hand at full width on 28x28: tower 1,698,560; label, time 2,816 + 16,640; the rest 230,954."""
    net = build(width=32, hidden=256)
    parts = net.denoiser
    convolutions = (9 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128)
    assert sum(p.numel() for p in parts.image.parameters()) == convolutions + 2 * 2 * 128 * 256 + 256
    rest = [p for name, p in parts.named_parameters() if not name.startswith("image")]
    mixing, head = 3 * 256 * 256 + 256, 256 * 128 + 128 + 128 * 10 + 10
    assert sum(p.numel() for p in rest) == (10 * 256 + 256) + (64 * 256 + 256) + mixing + head
    assert not any("norm" in name or "running" in name for name in net.state_dict())


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_steps_along_the_way_are_the_whole_net_at_each_time(
    embedding: str, steps: int, build: Callable[..., DenoiserCT], toy
) -> None:
    net, x = build(embedding=embedding), toy.batch(4).x
    along = net.along(x, steps)
    for k in range(steps + 1):
        z = torch.randn(4, net.labels.dim)
        torch.testing.assert_close(along(z, k), net.logits(z, x, torch.full((4,), k / steps)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("noisy", [True, False])
def test_the_net_is_euler_s_method_on_its_ode(
    embedding: str, noisy: bool, build: Callable[..., DenoiserCT], toy, doubles: None
) -> None:
    """z_{k+1} = z_k + logits(z_k, x, k / T) @ W_embed / T, then the readout."""
    net, x = build(embedding=embedding), toy.batch(4).x
    z = (
        torch.randn(4, net.labels.dim, generator=torch.Generator().manual_seed(5))
        if noisy
        else torch.zeros(4, net.labels.dim)
    )
    for k in range(7):
        z = z + figure_6(net, z, x, [k / 7] * 4) @ net.labels.weight / 7
    scores = net(x, torch.Generator().manual_seed(5) if noisy else None)
    torch.testing.assert_close(scores, net.labels.readout(z))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("noprop-ct", {"sampler": "ancestral"}),
        ("noprop-ct", {"sampler": "heun"}),
        ("noprop-fm", {"solver": "euler"}),
        ("noprop-fm", {"solver": "heun"}),
        ("adjoint", {}),
        ("backprop", {}),
    ],
)
def test_image_features_are_computed_once_a_prediction(
    name: str, settings: dict[str, str], make_method: Callable[..., Method], toy
) -> None:
    """However many steps there are."""
    for T in (1, 9):
        method, calls = make_method(name, task=toy.task("denoiser-ct", T=T), **settings), []
        method.net.denoiser.image.register_forward_hook(lambda *of, calls=calls: calls.append(1))
        for noise in (torch.Generator(), None):
            method.predict(toy.batch(4).x, noise)
        assert len(calls) == 2


@pytest.mark.parametrize("name", ["noprop-ct", "noprop-fm", "adjoint"])
def test_image_features_are_computed_once_a_training_step(name: str, make_method: Callable[..., Method], toy) -> None:
    """The adjoint's T steps there and back included."""
    method, calls = make_method(name, task=toy.task("denoiser-ct", T=5)), []
    method.net.denoiser.image.register_forward_hook(lambda *of: calls.append(1))
    method.train_step(toy.batch(4), None)
    assert len(calls) == 1
