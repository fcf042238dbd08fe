"""Read-outs against scikit-learn's logistic regression, and which layers of which methods have one."""

from collections.abc import Callable

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bench import Batch, Method
from bench.audit.read_out import FEATURES, PENALTY, ReadOut, read_out
from bench.testing.subject import training_batch, validation_batch

Make = Callable[..., Method]


def clusters(n: int, seed: int, n_classes: int = 3) -> Batch:
    """Overlapping clouds of unlike scale, and a constant feature."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(n_classes, (n,), generator=generator)
    centres = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    x = centres[y] + torch.randn(n, 2, generator=generator)
    return Batch(torch.cat([x * torch.tensor([1.0, 100.0]), torch.full((n, 1), 7.0)], 1), y)


def training_images(batches: int) -> Batch:
    x, y = zip(*map(training_batch, range(batches)), strict=True)
    return Batch(torch.cat(x), torch.cat(y))


def test_the_classifier_is_that_of_regularised_logistic_regression() -> None:
    """Fails with a search that stops early, features that are not scaled, or statistics of the held-out images."""
    train, held_out = clusters(600, 0), clusters(300, 1)
    std, mean = torch.std_mean(train.x, dim=0)
    scaled, other = ((of.x - mean) / torch.where(std > 0, std, 1) for of in (train, held_out))
    reference = LogisticRegression(C=1 / (PENALTY * 600), tol=1e-8, max_iter=1000).fit(scaled.numpy(), train.y.numpy())
    own, others = read_out(train, held_out)
    assert own == pytest.approx(reference.score(scaled.numpy(), train.y.numpy()), abs=1 / 600)
    assert others == pytest.approx(reference.score(other.numpy(), held_out.y.numpy()), abs=1 / 300)
    assert 0.5 < others < 0.9  # clouds that overlap: neither chance nor certainty says much


def test_features_that_are_not_finite_have_no_accuracy() -> None:
    train, held_out = clusters(20, 0), clusters(20, 1)
    train.x[3, 0] = torch.inf
    assert all(value != value for value in read_out(train, held_out))


def test_a_class_without_training_images_is_missed_not_fatal() -> None:
    train = Batch(torch.randn(8, 2), torch.tensor([0, 1] * 4))
    _, accuracy = read_out(train, Batch(torch.randn(4, 2), torch.tensor([2, 2, 2, 2])))
    assert accuracy == 0.0


def test_layers_from_the_image_to_the_scores(make_method: Make) -> None:
    """A layer that is a copy of the image tells as much; one that forgets it all guesses."""
    method = make_method("backprop", net="mlp", net_settings={"width": 64, "depth": 2, "activation": "relu"})
    assert method.net is not None
    (first, second) = (block[-2] for block in method.net.blocks[:2])
    with torch.no_grad():
        first.weight.copy_(torch.eye(64))
        first.bias.fill_(10.0)  # above every pixel's depth, so that ReLU changes nothing
        second.weight.zero_()
    train, held_out = training_images(8), validation_batch()
    rows = ReadOut().look(method, train, held_out)
    assert [row["layer"] for row in rows] == [0, 1, 2, 3]
    assert [row["features"] for row in rows] == [64, 64, 64, 10]
    image, copy, nothing, scores = (float(str(row["accuracy"])) for row in rows)
    assert image > 0.8
    assert copy == pytest.approx(image, abs=0.02)
    assert nothing == scores < 0.2
    assert {row["n_images"] for row in rows} == {len(held_out.y)}


def test_large_maps_are_pooled(make_method: Make) -> None:
    method = make_method("backprop", net="cnn", net_settings={"width": 40, "depth": 2})
    rows = ReadOut().look(method, training_images(2), validation_batch())
    assert [row["features"] for row in rows] == [64, 40 * 4 * 4, 80 * 4 * 4, 10]
    wide = make_method("backprop", net="cnn", net_settings={"width": 300, "depth": 1})
    assert ReadOut().look(wide, training_images(2), validation_batch())[1]["features"] == 300 * 2 * 2 <= FEATURES


def test_looking_leaves_the_method_as_it_was(make_method: Make) -> None:
    method = make_method("backprop")
    before = {name: p.clone() for name, p in method.modules()["inference"].named_parameters()}
    ReadOut().look(method, training_images(2), validation_batch())
    after = dict(method.modules()["inference"].named_parameters())
    assert all(torch.equal(p, after[name]) for name, p in before.items())
    assert all(p.grad is None for p in after.values())
    assert method.net is not None
    assert not method.net.blocks[0]._forward_hooks


def test_a_layer_that_is_given_several_rows_an_image_is_left_out(make_method: Make) -> None:
    method = make_method("backprop")
    whole = method.predict

    def scores_every_label_apart(x: torch.Tensor, noise: torch.Generator | None = None) -> torch.Tensor:
        return whole(x.repeat(10, 1, 1, 1)).view(10, len(x), -1).mean(0)

    method.predict = scores_every_label_apart  # type: ignore[method-assign]
    assert [row["layer"] for row in ReadOut().look(method, training_images(2), validation_batch())] == [0]


@pytest.mark.parametrize("name", ["backprop", "local-loss", "forward-forward", "mono-forward", "loco", "noprop-dt"])
def test_every_layer_is_found_whatever_a_method_makes_of_the_net(make_method: Make, name: str) -> None:
    """local-loss has modules of its own but predicts with the net; forward-forward predicts with layers of its own."""
    method = make_method(name)
    assert method.net is not None
    rows = ReadOut().look(method, training_images(1), validation_batch())
    assert [row["layer"] for row in rows] == list(range(len(method.net.blocks) + 1))


def test_labels_that_are_no_classes_have_no_read_out(make_method: Make) -> None:
    x, y = training_batch(0)
    values = Batch(x, y.float().unsqueeze(1))
    assert ReadOut().look(make_method("backprop"), values, values) == []
