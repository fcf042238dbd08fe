"""Class embeddings and class probabilities against their definitions."""

from typing import Any

import pytest
import torch
from bench.methods.noprop.denoiser import Denoiser
from bench.methods.noprop.denoiser_ct import DenoiserCT
from bench.methods.noprop.labels import Labels, LabelSettings, mean_embedding, squared_distances
from bench.methods.noprop.pictures import of_labels
from pydantic import ValidationError
from torch import Tensor

from bench import Batch, Input
from bench.api.errors import ConfigError
from bench.runner import compute
from bench.testing.subject import image_task

SHAPE = (2, 3, 4)


def labels(n_classes: int = 10, **settings: Any) -> Labels:
    return Labels(Input.image(*SHAPE), n_classes, LabelSettings(**settings))


def images(n_classes: int = 10) -> Tensor:
    return torch.randn(n_classes, *SHAPE)


def placed(n_classes: int = 10, **settings: Any) -> Labels:
    """Labels that have taken their start, from images where they ask for them."""
    made = labels(n_classes, **settings)
    if made.wants_prototypes:
        made.place(images(n_classes))
    return made


def test_one_hot_is_the_identity_and_fixed() -> None:
    made = labels()
    assert torch.equal(made.weight, torch.eye(10))
    assert not made.weight.requires_grad
    assert "weight" in dict(made.named_buffers())
    assert not made.learned


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_learned_rows_start_orthogonal_and_as_long_as_asked(scale: float) -> None:
    made = labels(embedding="learned", scale=scale)
    assert made.weight.shape == (10, 20)
    assert made.weight.requires_grad
    torch.testing.assert_close(made.weight @ made.weight.T, scale**2 * torch.eye(10), rtol=0, atol=1e-5)


def test_more_classes_than_dimensions_start_at_random_about_unit_length() -> None:
    made = labels(200, embedding="learned", dim=20)
    lengths = made.weight.square().sum(1)
    assert lengths.mean().item() == pytest.approx(1.0, abs=5 * (2 / 20 / 200) ** 0.5)
    assert lengths.std() > 0.1
    cosines = (made.weight @ made.weight.T).triu(1)
    assert cosines.abs().max() > 0.3


def test_a_random_start_is_not_orthogonal() -> None:
    made = labels(embedding="learned", start="random")
    assert (made.weight @ made.weight.T).triu(1).abs().max() > 0.1


def test_image_shaped_embeddings_of_another_start_are_as_long_as_a_standardised_image() -> None:
    made = labels(embedding="prototype", start="orthogonal")
    assert made.weight.shape == (10, 24)
    torch.testing.assert_close(made.weight @ made.weight.T, 24 * torch.eye(10), rtol=0, atol=1e-4)
    assert not made.wants_prototypes


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_prototypes_start_as_the_images_given(scale: float) -> None:
    made, rows = labels(embedding="prototype", scale=scale), images()
    assert made.wants_prototypes
    made.place(rows)
    assert torch.equal(made.weight.detach(), scale * rows.flatten(1))


def test_nets_take_their_prototypes_from_the_task() -> None:
    rows = torch.randn(10, 1, 8, 8)
    for net in (Denoiser, DenoiserCT):
        settings = {"T": 2, "width": 4, "hidden": 8, "embedding": "prototype"}
        task = image_task("toy", 10, (1, 8, 8), 10, net, settings, lambda: rows)
        assert torch.equal(task.build_net(torch.Generator()).labels.weight.detach(), rows.flatten(1))
        with pytest.raises(ConfigError, match="task 'toy' brings none"):
            image_task("toy", 10, (1, 8, 8), 10, net, settings).build_net(torch.Generator())


def test_nets_that_start_elsewhere_do_not_compute_prototypes() -> None:
    def refuse() -> Tensor:
        raise AssertionError("prototypes were asked for")

    for settings in ({}, {"embedding": "learned"}, {"embedding": "prototype", "start": "random"}):
        image_task("toy", 10, (1, 8, 8), 10, Denoiser, {"width": 4, **settings}, refuse).build_net(torch.Generator())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"embedding": "learned", "scale": 3.0},
        {"embedding": "prototype", "start": "orthogonal", "scale": 0.5},
    ],
)
def test_the_readout_starts_as_the_identity_among_orthogonal_embeddings(settings: dict[str, Any]) -> None:
    made = labels(**settings)
    torch.testing.assert_close(made.readout(made.weight), torch.eye(10), rtol=0, atol=1e-5)


def test_the_readout_starts_at_rows_over_their_squared_lengths() -> None:
    """theta_out(u_y)_y = 1 for whatever embedding."""
    made = placed(embedding="prototype")
    torch.testing.assert_close(made.readout(made.weight).diagonal(), torch.ones(10))


def test_autocast_leaves_mean_and_distances_alone() -> None:
    """A probability of 1 - 2e-4 is 1 in bfloat16; a distance of 1 between points 28 long is lost."""
    logits, W = torch.tensor([[8.5, 0.0]]), torch.eye(2)
    points = torch.full((2, 784), 1.0)
    points[1, 0] = 2.0
    with compute.precision("bfloat16", torch.device("cpu")):
        inside = mean_embedding(logits, W), squared_distances(points[:1], points)
    torch.testing.assert_close(inside[0], torch.tensor([[1 - 2.034e-4, 2.034e-4]]), rtol=1e-3, atol=0)
    torch.testing.assert_close(inside[1], torch.tensor([[0.0, 1.0]]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("embedding", ["one-hot", "learned", "prototype"])
def test_the_softmax_class_probability_is_one_linear_layer(embedding: str) -> None:
    made = placed(embedding=embedding)
    torch.nn.init.normal_(made.readout.bias)
    z = torch.randn(5, made.dim)
    expected = torch.stack([made.readout.weight @ row + made.readout.bias for row in z])
    torch.testing.assert_close(made.scores(z), expected)


@pytest.mark.parametrize("embedding", ["one-hot", "learned", "prototype"])
@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_posterior_class_probability_is_equations_15_and_16(embedding: str, sigma: float) -> None:
    """ytilde = softmax(theta_out(z)) W_embed, p(y | z) proportional to exp(-|ytilde - u_y|^2 / (2 sigma^2))."""
    made = placed(embedding=embedding, class_probability="posterior", sigma=sigma).double()
    z = torch.randn(5, made.dim, dtype=torch.float64)
    for row, got in zip(z, made.scores(z).softmax(1), strict=True):
        weights = torch.exp(made.readout(row)) / torch.exp(made.readout(row)).sum()
        y_tilde = sum(weights[k] * made.weight[k] for k in range(10))
        density = torch.stack([torch.exp(-((y_tilde - u) ** 2).sum() / (2 * sigma**2)) for u in made.weight])
        torch.testing.assert_close(got, density / density.sum())


def test_squared_distances_are_those_of_each_pair() -> None:
    z, points = torch.randn(2, 5, 7), torch.randn(3, 7)
    expected = torch.stack([((z - p) ** 2).sum(-1) for p in points], dim=-1)
    torch.testing.assert_close(squared_distances(z, points), expected, rtol=1e-4, atol=1e-5)


def test_a_path_is_shown_as_class_probabilities_and_prototypes_before_and_after() -> None:
    made = placed(embedding="prototype")
    began = made.weight.detach().clone()
    made.weight.data += 1
    path, times = [torch.randn(4, 10).softmax(1) for _ in range(3)], torch.tensor([0.0, 0.5, 1.0])
    shown = Batch(torch.randn(4, *SHAPE), torch.tensor([0, 3, 1, 2]))
    with torch.no_grad():
        way, prototypes = of_labels(made, shown, path, times)
    assert torch.equal(way.y[:, :, 1], path[1])
    assert torch.equal(way.x, times)
    assert way.panels == ("class 0", "class 3", "class 1", "class 2")
    assert torch.equal(prototypes.images, torch.stack((began, began + 1)).view(2, 10, *SHAPE))
    assert [art.name for art in of_labels(labels(), shown, path, times)] == ["label-path"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"start": "orthogonal"}, "a one-hot embedding is fixed and has no start=orthogonal"),
        ({"embedding": "one-hot", "start": "prototype"}, "a one-hot embedding is fixed and has no start=prototype"),
        ({"embedding": "learned", "start": "prototype"}, "start=prototype needs embedding=prototype"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_in_one_line(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError) as refused:
        LabelSettings(**settings)
    (error,) = refused.value.errors()
    assert complaint in error["msg"]
    assert "\n" not in error["msg"]
