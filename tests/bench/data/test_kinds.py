"""Every kind of input and of label: how it is recognised, checked, split and standardised."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench import DataSetInfo
from bench.api.dataset import DataSet, Source, Split
from bench.api.errors import ConfigError, DataError
from bench.api.kinds import Input, Output
from bench.data import Batches, Dataset, load

N = 60
GEN = torch.Generator().manual_seed(0)
VECTORS = torch.randn(N, 5, generator=GEN) * torch.tensor([1, 10, 0.1, 3, 1]) + torch.tensor([0, 1e4, 0, 0, -2.0])
SEQUENCES = torch.randn(N, 7, 3, generator=GEN) + torch.tensor([0, 5, -5.0])
IMAGES = torch.randn(N, 2, 4, 3, generator=GEN)
TOKENS = torch.randint(9, (N, 6), generator=GEN)
CLASSES = torch.arange(N) % 3
VALUES = torch.randn(N, 2, generator=GEN) * torch.tensor([50.0, 0.5]) + 7
SHARES = torch.rand(N, 3, generator=GEN).softmax(1)
PROBABILITIES = Output("class probabilities", 3)
NEXT = Output("next token", 9, 6)


def loaded(
    x: Any, y: Any, output: Output | int, vocabulary: int = 0, test: Split | None = None, **card: Any
) -> Dataset:
    class Made(DataSet):
        info = DataSetInfo("made", "Made up", **card)

        def read(self, folder: Path) -> Source:
            return Source(output, Split(x, y), test, vocabulary=vocabulary)

    return load(Made())


@pytest.mark.parametrize(
    ("x", "vocabulary", "expected"),
    [
        (VECTORS, 0, Input.vector(5)),
        (SEQUENCES, 0, Input.sequence(7, 3)),
        (IMAGES, 0, Input.image(2, 4, 3)),
        (TOKENS, 9, Input.tokens(6, 9)),
    ],
    ids=["vectors", "sequences", "images", "tokens"],
)
def test_the_kind_of_input_follows_from_the_arrays(x: torch.Tensor, vocabulary: int, expected: Input) -> None:
    data = loaded(x, CLASSES, 3, vocabulary)
    assert data.input == expected
    assert data.train.x.dtype == x.dtype
    assert len(data.train.y) + len(data.val.y) + len(data.test.y) == N
    assert data.test.y.bincount().tolist() == [4, 4, 4]


@pytest.mark.parametrize(("x", "axes"), [(VECTORS, 0), (SEQUENCES, (0, 1)), (IMAGES, (0, 2, 3))])
def test_floats_are_standardised_by_channel_or_feature_of_the_training_split(x: torch.Tensor, axes: Any) -> None:
    data = loaded(x, CLASSES, 3)
    whole = Batches(data.train, data.mean, data.std, "cpu", N).batch(torch.arange(data.n_train))
    assert whole.x.dtype == torch.float32
    torch.testing.assert_close(whole.x.mean(axes), torch.zeros(x.shape[1 if x.ndim != 3 else 2]), atol=1e-4, rtol=0)
    torch.testing.assert_close(whole.x.std(axes, correction=0), torch.ones(len(data.std)), atol=1e-4, rtol=0)
    shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
    expected = (data.train.x.double() - data.mean.view(shape)) / data.std.view(shape)
    torch.testing.assert_close(whole.x.double(), expected, rtol=1e-5, atol=1e-5)
    again = Batches(data.train, data.mean, data.std, "cpu", N).batch(torch.arange(data.n_train))
    assert torch.equal(again.x, whole.x), "the split itself is not overwritten"


def test_statistics_of_many_examples_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loaded(SEQUENCES, CLASSES, 3)
    monkeypatch.setattr("bench.data.standard.CHUNK", 7)
    parts = loaded(SEQUENCES, CLASSES, 3)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.std, whole.std)


def test_a_constant_feature_comes_out_as_zero() -> None:
    x = VECTORS.clone()
    x[:, 2] = 0.1
    data = loaded(x, CLASSES, 3)
    batch = Batches(data.train, data.mean, data.std, "cpu", N).batch(torch.arange(4))
    assert data.std[2] == 1
    assert (batch.x[:, 2].abs() < 1e-7).all()


def test_tokens_stay_what_they_are() -> None:
    data = loaded(TOKENS, TOKENS.roll(-1, 1), NEXT, 9)
    batch = Batches(data.train, data.mean, data.std, "cpu", 8).batch(torch.arange(8))
    assert torch.equal(batch.x, data.train.x[:8])
    assert torch.equal(batch.y, data.train.y[:8])
    assert batch.x.dtype == torch.int64
    assert data.output.positions == 6


def test_values_are_standardised_by_the_training_split_and_keep_their_scale() -> None:
    data = loaded(VECTORS, VALUES, Output.values(2))
    torch.testing.assert_close(data.train.y.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.train.y.std(0, correction=0), torch.ones(2))
    own_unit = data.output.in_own_unit(torch.cat([data.train.y, data.val.y, data.test.y]))
    torch.testing.assert_close(own_unit.sort(dim=0).values, VALUES.sort(dim=0).values)
    assert data.output == Output("values", 2, scale=data.output.scale, offset=data.output.offset)


def test_only_values_have_a_unit_of_their_own() -> None:
    torch.testing.assert_close(Output.values(2).in_own_unit(VALUES), VALUES)
    with pytest.raises(ConfigError, match="only values"):
        Output.classes(2).in_own_unit(VALUES)


def test_one_value_per_example_is_a_column() -> None:
    data = loaded(VECTORS, VALUES[:, 0], Output.values())
    assert data.train.y.shape == (data.n_train, 1)


def test_splits_of_values_are_drawn_from_a_random_order() -> None:
    """Not from the files' order, which may be sorted by label."""
    rising = torch.arange(float(N))
    data = loaded(VECTORS, rising, Output.values())
    assert (len(data.test.y), len(data.val.y)) == (12, 5)
    assert data.test.y.flatten().diff().unique().numel() > 3
    again = loaded(VECTORS, rising, Output.values())
    assert torch.equal(data.test.x, again.test.x)


def test_distributions_over_classes_are_taken_as_they_are() -> None:
    data = loaded(VECTORS, SHARES, PROBABILITIES)
    assert data.output == PROBABILITIES
    assert data.train.y.dtype == torch.float32
    torch.testing.assert_close(data.train.y.sum(1), torch.ones(data.n_train))


def test_the_fingerprint_tells_kinds_apart_that_share_their_arrays() -> None:
    """Else runs of two tasks would count as one."""
    prints = {
        loaded(TOKENS, CLASSES, 3, 9).fingerprint,
        loaded(TOKENS, CLASSES, 3, 10).fingerprint,
        loaded(VECTORS, SHARES, PROBABILITIES).fingerprint,
        loaded(VECTORS, SHARES, Output.values(3)).fingerprint,
    }
    assert len(prints) == 4


def at(x: torch.Tensor, place: tuple[int, ...], value: float) -> torch.Tensor:
    x = x.clone()
    x[place] = value
    return x


BAD = {
    "no kind": ((VECTORS.double(), CLASSES, 3), r"made: train: x is \(60, 5\) torch.float64; expected images"),
    "tokens alone": ((TOKENS, CLASSES, 3), "tokens need a vocabulary"),
    "nan": ((at(VECTORS, (2, 1), float("nan")), CLASSES, 3), "vectors hold NaN or infinite values"),
    "constant": ((torch.ones(N, 5), CLASSES, 3), "every value is 1, so there is nothing to tell"),
    "one sequence": ((SEQUENCES[:1].repeat(N, 1, 1), CLASSES, 3), "all 60 sequences are the same"),
    "token too high": ((TOKENS, CLASSES, 3, 8), "train has token 8, outside the vocabulary 0 to 7"),
    "one token": ((TOKENS * 0 + 2, CLASSES, 3, 9), "every token is 2"),
    "labels too few": ((VECTORS, VALUES[:9], Output.values(2)), "60 vectors but 9 labels; give one label per vector"),
    "float classes": ((VECTORS, CLASSES.float(), 3), r"labels are \(60\) torch.float32; expected one integer"),
    "three values": ((VECTORS, VALUES, Output.values(3)), r"labels are \(60, 2\) torch.float32; expected 3 float32"),
    "nan value": ((VECTORS, at(VALUES, (0, 0), float("nan")), Output.values(2)), "labels hold NaN"),
    "one value": ((VECTORS, at(VALUES, (slice(None), 1), 4), Output.values(2)), "value 1 of every label is 4;"),
    "no sum of 1": ((VECTORS, SHARES * 2, PROBABILITIES), "the probabilities of label 0 .* add up to 2"),
    "negative": ((VECTORS, at(SHARES, (5, 0), -1), PROBABILITIES), "the probabilities of label 5 go down to -1"),
    "no such class": ((VECTORS, at(CLASSES, (0,), 3), 3), "train has label 3, outside the classes 0 to 2"),
    "an empty class": ((VECTORS, CLASSES, 4), "class 3 has no vector in the training split"),
    "positions": ((TOKENS, TOKENS[:, 1:], NEXT, 9), r"labels are \(60, 5\) torch.int64; expected 6 tokens per seq"),
    "next too high": ((TOKENS, at(TOKENS, (1, 1), 9), NEXT, 9), "label 9, outside the tokens 0 to 8"),
    "equal tokens": ((TOKENS, TOKENS * 0 + 1, NEXT, 9), "every label is token 1"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "line"), BAD.values(), ids=BAD.keys())
def test_bad_data_give_one_line(arrays: Any, line: str) -> None:
    with pytest.raises(DataError, match=line) as caught:
        loaded(*arrays)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 280


@pytest.mark.parametrize(
    ("card", "line"),
    [
        ({"input": Input.vector(6)}, "its card says input vector 6, its arrays are vector 5"),
        ({"image_shape": (1, 5, 1)}, "its card says input image 1x5x1, its arrays are vector 5"),
        ({"n_classes": 4}, "its card says output 4 classes, its arrays are 3 classes"),
    ],
)
def test_a_card_that_says_otherwise_is_named(card: dict[str, Any], line: str) -> None:
    with pytest.raises(DataError, match=line):
        loaded(VECTORS, CLASSES, 3, **card)


def test_the_card_may_give_the_vocabulary() -> None:
    assert loaded(TOKENS, CLASSES, 3, input=Input.tokens(6, 9)).input.vocabulary == 9


def test_a_test_split_of_its_own_is_checked_too() -> None:
    wrong = Split(at(VECTORS, (3, 3), float("inf")), CLASSES)
    with pytest.raises(DataError, match="made: test: vectors hold NaN or infinite"):
        loaded(VECTORS, CLASSES, 3, test=wrong)
