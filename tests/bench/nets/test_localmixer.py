"""The LocalMixer net against the paper's parameter counts and a version written with loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import Input, Output
from bench.api.errors import ConfigError
from bench.api.net import Net
from bench.experiment.validation import validate_settings
from bench.nets.localmixer import LocalMixer
from bench.testing.subject import image_task

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def mixer(image_shape: tuple[int, int, int], **settings: object) -> Net:
    net = LocalMixer.build(
        Input.image(*image_shape), Output.classes(10), settings, torch.Generator().manual_seed(0)
    ).double()
    generator = torch.Generator().manual_seed(1)
    for p in net.blocks[-1].parameters():  # zero at the start, which would hide everything beneath
        p.data.normal_(generator=generator)
    return net


def images(image_shape: tuple[int, int, int], n: int = 3) -> Tensor:
    return torch.randn(n, *image_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(
    ("size", "image_shape", "count", "published"),
    [
        ("S/1/1", MNIST, 271_892, 272e3),
        ("M/1/16", MNIST, 429_076, 429e3),
        ("M/8/16", CIFAR, 918_770, 919e3),
        ("L/8/64", CIFAR, 13_074_674, 13.1e6),
    ],
)
def test_parameters_are_as_many_as_published(make_method, size, image_shape, count, published) -> None:
    """Table 2 counts the local heads, which serve training only, with the net."""
    task = image_task("images", 10, image_shape, 1000, LocalMixer, {"size": size})
    parts = make_method("local-forward-gradient", task=task).modules()
    found = sum(p.numel() for part in parts.values() for p in part.parameters())
    assert found == count
    assert found == pytest.approx(published, rel=2e-3)


def test_forward_equals_loops_over_patches_and_groups() -> None:
    net = mixer((2, 8, 8), depth=2, patches=2, channels=6, groups=3)
    x = images((2, 8, 8))
    torch.testing.assert_close(net(x), torch.stack([slow_scores(net, image) for image in x]))


def slow_scores(net: Net, image: Tensor) -> Tensor:
    """One image through a net of two blocks, 2x2 patches and three groups of two."""
    first, second, last = net.blocks
    z = [image[:, r : r + 4, c : c + 4].flatten() for r in (0, 4) for c in (0, 4)]
    z = [relu(grouped(first[3].layer, relu(normalised(affine(first[1].layer, normalised(patch)))))) for patch in z]
    token, _, channel, _, group = second[0]
    before = [normalised(patch) for patch in z]
    mixed = [sum(token.layer.weight[p, q] * before[q] for q in range(4)) + token.layer.bias[p] for p in range(4)]
    hidden = [relu(normalised(affine(channel.layer, normalised(relu(normalised(patch)))))) for patch in mixed]
    z = [relu(patch + grouped(group.layer, h)) for patch, h in zip(z, hidden, strict=True)]
    return affine(last[1], sum(z) / 4)


def grouped(layer: nn.Module, x: Tensor) -> Tensor:
    parts = [
        normalised(w @ normalised(part) + b)
        for w, part, b in zip(layer.weight, x.split(2), layer.bias.split(2), strict=True)
    ]
    return torch.cat(parts)


def affine(layer: nn.Linear, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def normalised(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


@pytest.mark.parametrize("image_shape", [(1, 8, 8), MNIST, CIFAR])
def test_backprop_reaches_every_weight_at_the_default_size(image_shape) -> None:
    net = mixer(image_shape)
    scores = net(images(image_shape))
    assert scores.shape == (3, 10)
    for g in torch.autograd.grad(F.cross_entropy(scores, torch.arange(3)), list(net.parameters())):
        assert g.abs().sum() > 0


def test_scores_are_zero_at_the_start() -> None:
    net = LocalMixer.build(Input.image(*MNIST), Output.classes(10), {}, torch.Generator().manual_seed(0))
    assert torch.equal(net(images(MNIST).float()), torch.zeros(3, 10))


def test_patches_meet_in_token_mixing_only() -> None:
    net = mixer((1, 8, 8), depth=2, patches=2, channels=8, groups=2)
    x = images((1, 8, 8))
    other = x.clone()
    other[:, :, 0, 0] += 1
    changed = [(a != b).flatten(2).any(-1).any(0) for a, b in zip(outputs(net, x), outputs(net, other), strict=True)]
    assert changed[0].tolist() == [True, False, False, False]
    assert changed[1].all()


def outputs(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    z = net.blocks[0](x)
    return z, net.blocks[1](z)


def test_groups_stay_apart_from_the_channel_layer_on() -> None:
    """A change behind the channel layer's norm, in one group, leaves the block's other groups alone."""
    *_, last_layer = mixer((1, 8, 8), depth=2, patches=2, channels=8, groups=2).blocks[1][0]
    h = images((4, 8))
    other = h.clone()
    other[..., 1] += 1
    changed = (last_layer(h) != last_layer(other)).flatten(0, 1).any(0)
    assert changed.tolist() == [True] * 4 + [False] * 4


def test_a_given_setting_overrides_that_of_the_size() -> None:
    net = LocalMixer.build(
        Input.image(*CIFAR), Output.classes(10), {"size": "M/8/16", "depth": 2}, torch.Generator().manual_seed(0)
    )
    assert len(net.blocks) == 3
    assert net.blocks[1][0][0].layer.weight.shape == (64, 64)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"patches": 3}, "do not divide"), ({"patches": 8}, "patches of one number")],
)
def test_images_that_do_not_fit_are_refused(settings, complaint) -> None:
    with pytest.raises(ConfigError, match=complaint):
        LocalMixer.build(Input.image(1, 8, 8), Output.classes(10), settings, torch.Generator())
    assert complaint in (LocalMixer.misfit(Input.image(1, 8, 8), Output.classes(10), settings) or "")


@pytest.mark.parametrize("settings", [{"channels": 20, "groups": 8}, {"channels": 8, "groups": 8}])
def test_groups_that_do_not_divide_the_channels_are_refused(settings) -> None:
    """Whatever the image: as a setting out of its bounds, before anything runs."""
    with pytest.raises(ConfigError, match="cannot be split"):
        validate_settings(LocalMixer.Settings, settings, "localmixer")
