"""npz:PATH: what it accepts, and one clear line for what it does not."""

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.api.errors import DataError
from bench.api.kinds import Input, Output
from bench.data import Dataset, load
from bench.data.own import Npz

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 4
VECTORS = RNG.normal(size=(40, 6))
VALUES = RNG.normal(size=40)
TOKENS = RNG.integers(0, 9, (40, 6))


def load_npz(folder: Path, **arrays: Any) -> Dataset:
    np.savez(folder / "mine.npz", **arrays)
    return load(Npz(str(folder / "mine.npz")), val_fraction=0)


def everything(data: Dataset) -> torch.Tensor:
    """All images in the order of their first pixels, which the random examples have all different."""
    x = torch.cat([data.train.x, data.val.x, data.test.x]).flatten(1)
    return x[np.lexsort(x.T.numpy())]


def in_order(x: np.ndarray) -> torch.Tensor:
    flat = x.reshape(len(x), -1)
    return torch.from_numpy(flat[np.lexsort(flat.T)])


def test_npz_without_a_test_split_gives_a_fifth_of_each_class(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY, y=LABELS)
    assert data.input.shape == (1, 6, 5)
    assert data.output.size == 4
    assert data.test.y.bincount().tolist() == [2, 2, 2, 2]
    assert data.train.y.bincount().tolist() == [8, 8, 8, 8]
    assert torch.equal(everything(data), in_order(GREY))


def test_npz_keeps_a_test_split_of_its_own(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY[:30], y=LABELS[:30], x_test=GREY[30:], y_test=LABELS[30:])
    assert torch.equal(data.train.x[:, 0], torch.from_numpy(GREY[:30]))
    assert torch.equal(data.test.x[:, 0], torch.from_numpy(GREY[30:]))
    assert data.test.y.tolist() == LABELS[30:].tolist()


def test_npz_takes_channels_first_or_last(tmp_path: Path) -> None:
    first = RNG.integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)
    a = load_npz(tmp_path, x=first, y=LABELS)
    b = load_npz(tmp_path, x=first.transpose(0, 2, 3, 1), y=LABELS)
    assert a.input.shape == b.input.shape == (3, 6, 5)
    assert torch.equal(a.train.x, b.train.x)
    assert a.fingerprint == b.fingerprint


@pytest.mark.parametrize(
    "x",
    [
        GREY.astype(np.int64),
        GREY.astype(np.float64),
        GREY.astype(np.float32) / 255,
        (GREY / 255).astype(np.float16),
    ],
    ids=["int64", "float 0..255", "float32 0..1", "float16 0..1"],
)
def test_npz_pixels_of_any_type_become_the_same_bytes(x: np.ndarray, tmp_path: Path) -> None:
    assert torch.equal(everything(load_npz(tmp_path, x=x, y=LABELS, kind="image")), in_order(GREY))


def test_npz_keeps_a_validation_split_of_its_own(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY[:30], y=LABELS[:30], x_val=GREY[30:], y_val=LABELS[30:])
    assert torch.equal(data.val.x[:, 0], torch.from_numpy(GREY[30:]))
    assert data.val.y.tolist() == LABELS[30:].tolist()
    assert len(data.train.y) + len(data.test.y) == 30


def test_val_fraction_zero_trains_on_everything(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY, y=LABELS, x_test=GREY[::-1], y_test=LABELS)
    assert data.val.x.shape == (0, 1, 6, 5)
    assert len(data.train.y) == 40


def test_a_constant_channel_is_not_divided_by_zero(tmp_path: Path) -> None:
    x = np.stack([GREY, np.full_like(GREY, 255)], axis=1)
    data = load_npz(tmp_path, x=x, y=LABELS)
    assert data.std[1] == 1
    assert data.mean[1] == 1
    assert 0 < data.std[0] < 1


FLOATS = GREY.astype(float)
WITH_NAN = np.where(np.arange(40)[:, None, None] == 7, np.nan, FLOATS)
WITH_INF = np.where(np.arange(40)[:, None, None] == 7, np.inf, FLOATS)

BAD_ARRAYS = {
    "no y": ({"x": GREY}, "no array y"),
    "keras names": ({"x_train": GREY, "y_train": LABELS}, "no array x .arrays held: x_train, y_train"),
    "half a test split": ({"x": GREY, "y": LABELS, "x_test": GREY}, "no array y_test"),
    "empty": ({"x": GREY[:0], "y": LABELS[:0]}, "x is empty"),
    "objects": ({"x": np.array([None, 1]), "y": LABELS}, "not a readable npz.*allow_pickle"),
    "text": ({"x": np.array(["a"] * 40), "y": LABELS}, "type <U1"),
    "nan": ({"x": WITH_NAN, "y": LABELS}, "NaN or infinite"),
    "inf": ({"x": WITH_INF, "y": LABELS}, "NaN or infinite"),
    "16 bits": ({"x": GREY.astype(np.uint16) * 256, "y": LABELS}, "whole numbers from 0 to"),
    "two scales": ({"x": GREY, "y": LABELS, "x_test": FLOATS / 255, "y_test": LABELS}, "store both alike"),
    "two scales of integers": (
        {"x": GREY, "y": LABELS, "x_test": (GREY > 127).astype(np.uint8), "y_test": LABELS},
        "x_test goes up to 1, x to 255, which looks like two scales",
    ),
    "two scales of floats": (
        {"x": FLOATS, "y": LABELS, "x_val": FLOATS / 255, "y_val": LABELS, "kind": "image"},
        "x_val goes up to 1, x to 255, which looks like two scales",
    ),
    "one image": ({"x": GREY[:1].repeat(40, 0), "y": LABELS}, "all .* images are the same"),
    "test is train": ({"x": GREY, "y": LABELS, "x_test": GREY, "y_test": LABELS}, "test images are the train images"),
    "one value": ({"x": np.full_like(GREY, 7), "y": LABELS}, "every pixel is 7"),
    "one value in test": (
        {"x": GREY, "y": LABELS, "x_test": np.full_like(GREY, 255), "y_test": LABELS},
        "test: every pixel is 255",
    ),
    "half a validation split": ({"x": GREY, "y": LABELS, "y_val": LABELS}, "no array x_val"),
    "an array too many": ({"x": GREY, "y": LABELS, "x_valid": GREY}, "nothing reads the array x_valid"),
    "a huge label": ({"x": GREY, "y": np.full(40, 2**64 - 1, np.uint64)}, "label 18446744073709551615"),
    "flat images": (
        {"x": GREY.reshape(40, 30), "y": LABELS},
        r"shape \(40, 30\) .*: vectors or tokens; .* vocabulary=",
    ),
    "three axes of floats": ({"x": FLOATS, "y": LABELS}, "grey images or sequences; say which, by kind='image' or"),
    "no such kind": ({"x": FLOATS, "y": LABELS, "kind": "video"}, "kind is none of image, vector, sequence, tokens;"),
    "kind of other axes": ({"x": FLOATS, "y": LABELS, "kind": "vector"}, "for the kind 'vector' store 2 axes"),
    "vocabulary of floats": ({"x": VECTORS, "y": LABELS, "vocabulary": 9}, r"no tokens \(N, T\); leave vocabulary"),
    "kind without vocabulary": ({"x": TOKENS, "y": LABELS, "kind": "tokens"}, "add it, as in vocabulary=100"),
    "fractional vocabulary": ({"x": TOKENS, "y": LABELS, "vocabulary": 9.5}, "vocabulary is no number of tokens"),
    "too coarse": ({"x": VECTORS + 1e9, "y": LABELS}, "feature 0 goes from .* float32 cannot tell apart; subtract"),
    "too large": ({"x": VECTORS * 1e60, "y": LABELS}, "feature 0 goes from .* float32 cannot tell apart"),
    "coarse values": ({"x": VECTORS, "y": 1e12 + VALUES}, "y: feature 0 goes from"),
    "next token of vectors": ({"x": VECTORS, "y": LABELS, "output": "next token"}, "predicted from tokens; add vocab"),
    "rows of integers": ({"x": VECTORS, "y": np.eye(4, dtype=int)[LABELS]}, "one integer per vector for classes"),
    "text labels": ({"x": VECTORS, "y": np.array(["a"] * 40)}, "type <U1; store one integer per vector"),
    "classes in fractions": ({"x": VECTORS, "y": VALUES, "output": "classes"}, "one integer per vector for classes"),
    "nan labels": ({"x": VECTORS, "y": np.where(LABELS == 1, np.nan, VALUES)}, "y holds NaN or infinite values"),
    "either axis": ({"x": np.zeros((40, 3, 9, 3), np.uint8), "y": LABELS}, "both the second and the last"),
    "neither axis": (
        {"x": np.zeros((40, 9, 9, 9), np.uint8), "y": LABELS},
        "neither the second nor the last",
    ),
    "no pixels": ({"x": np.zeros((40, 0, 5), np.uint8), "y": LABELS}, "x is empty"),
    "lengths": ({"x": GREY, "y": LABELS[:-1]}, "40 images but 39 labels"),
    "one-hot labels": (
        {"x": GREY, "y": np.eye(4)[LABELS]},
        "rows that add up to 1: .* output='class probabilities' or",
    ),
    "float labels": ({"x": GREY, "y": LABELS.astype(float)}, "the values 0 to 3 alone: classes or values; say which"),
    "negative label": ({"x": GREY, "y": LABELS - 1}, "label -1"),
    "unknown test label": (
        {"x": GREY, "y": LABELS, "x_test": GREY[::-1], "y_test": LABELS + 1},
        "test has label 4, outside the classes 0 to 3",
    ),
    "test of another size": (
        {"x": GREY, "y": LABELS, "x_test": GREY[:, :, :4], "y_test": LABELS},
        r"test images are \(1, 6, 4\), train images \(1, 6, 5\)",
    ),
    "labels from 1": ({"x": GREY, "y": LABELS + 1}, "class 0 has no image in the training split"),
    "gap": ({"x": GREY, "y": np.where(LABELS == 2, 10**12, LABELS)}, "class 2 has no image"),
    "single class": ({"x": GREY, "y": LABELS * 0}, "single class"),
}


@pytest.mark.parametrize(
    "x",
    [FLOATS / 100 - 1, FLOATS / 100, FLOATS / 25_500, 0.5 + FLOATS / 2550, np.sqrt(FLOATS / 255).astype(np.float32)],
    ids=["negative", "above 1", "few levels", "a narrow range", "between levels"],
)
def test_npz_fractions_that_are_no_256_levels_stay_floats(x: np.ndarray, tmp_path: Path) -> None:
    """Rounding them would change the user's data in silence."""
    data = load_npz(tmp_path, x=x, y=LABELS, kind="image")
    assert data.input == Input.image(1, 6, 5)
    assert torch.equal(everything(data), in_order(x.astype(np.float32)))


def test_npz_levels_of_one_split_are_not_rounded_where_another_has_fractions(tmp_path: Path) -> None:
    between = np.sqrt(FLOATS / 255)
    data = load_npz(tmp_path, x=FLOATS / 255, y=LABELS, x_test=between, y_test=LABELS, kind="image")
    assert data.test.x.dtype == torch.float32
    assert torch.equal(data.test.x[:, 0], torch.from_numpy(between.astype(np.float32)))


NEXT = np.roll(TOKENS, -1, 1)
SHARES = RNG.dirichlet([1, 1, 1], 40)
READ: dict[str, tuple[dict[str, Any], Input, Output]] = {
    "vectors": ({"x": VECTORS, "y": LABELS}, Input.vector(6), Output.classes(4)),
    "whole vectors": ({"x": TOKENS, "y": LABELS, "kind": "vector"}, Input.vector(6), Output.classes(4)),
    "sequences": ({"x": FLOATS, "y": LABELS, "kind": "sequence"}, Input.sequence(6, 5), Output.classes(4)),
    "colour": ({"x": RNG.normal(size=(40, 9, 8, 3)), "y": LABELS}, Input.image(3, 9, 8), Output.classes(4)),
    "tokens": ({"x": TOKENS, "y": LABELS, "vocabulary": 9}, Input.tokens(6, 9), Output.classes(4)),
    "next": ({"x": TOKENS, "y": NEXT, "vocabulary": 9}, Input.tokens(6, 9), Output("next token", 9, 6)),
    "values": ({"x": VECTORS, "y": VALUES}, Input.vector(6), Output.values()),
    "rows of values": ({"x": VECTORS, "y": VECTORS[:, :2]}, Input.vector(6), Output.values(2)),
    "whole values": ({"x": VECTORS, "y": LABELS * 10.0}, Input.vector(6), Output.values()),
    "values said": ({"x": VECTORS, "y": LABELS, "output": "values"}, Input.vector(6), Output.values()),
    "classes said": ({"x": VECTORS, "y": LABELS * 1.0, "output": "classes"}, Input.vector(6), Output.classes(4)),
    "shares": (
        {"x": GREY, "y": SHARES, "output": "class probabilities"},
        Input.image(1, 6, 5),
        Output("class probabilities", 3),
    ),
}


@pytest.mark.parametrize(("arrays", "given", "output"), READ.values(), ids=READ)
def test_npz_holds_any_task(arrays: dict[str, Any], given: Input, output: Output, tmp_path: Path) -> None:
    data = load_npz(tmp_path, **arrays)
    assert data.input == given
    assert replace(data.output, scale=(), offset=()) == output
    x = arrays["x"].transpose(0, 3, 1, 2) if arrays["x"].ndim == 4 else arrays["x"]
    assert torch.equal(everything(data).double(), in_order(x).to(data.train.x.dtype).double())


@pytest.mark.parametrize(("arrays", "line"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_give_one_line(arrays: dict[str, np.ndarray], line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=line) as caught:
        load_npz(tmp_path, **arrays)
    assert str(caught.value).startswith(f"npz:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value), "the mend stands after the semicolon"


def test_a_damaged_npz_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, x=GREY, y=LABELS)
    whole = path.read_bytes()
    damaged = {
        "nothing": b"",
        "text": b"not an array",
        "truncated": whole[: len(whole) // 2],
        "flipped": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:],
    }
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable npz file") as caught:
            load(Npz(str(path)))
        assert "\n" not in str(caught.value)


def test_an_npz_member_that_is_no_array_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00nonsense")
        archive.writestr("y.npy", b"hello")
    with pytest.raises(DataError, match=r"mine\.npz"):
        load(Npz(str(path)))


def test_a_single_npy_array_is_not_an_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GREY)
    with pytest.raises(DataError, match="no array x"):
        load(Npz(str(tmp_path / "x.npy")))


def test_an_npz_that_claims_more_than_the_memory_gives_one_line(tmp_path: Path) -> None:
    """10 TB by its header, a few bytes in fact: refused before anything is allocated."""
    path = tmp_path / "mine.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**10, 32, 32)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError, match=r"needs 9.54e\+03 GiB of memory, and this machine has"):
        load(Npz(str(path)))


def test_a_pickle_is_not_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(pickle.dumps({"x": GREY, "y": LABELS}))
    with pytest.raises(DataError, match="not a readable npz file"):
        load(Npz(str(path)))


def test_an_npz_member_without_numpy_s_magic_gives_one_line(tmp_path: Path) -> None:
    held = io.BytesIO()
    np.save(held, LABELS)
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("x.npy", b"hello")
        archive.writestr("y.npy", held.getvalue())
    with pytest.raises(DataError, match="x is no array"):
        load(Npz(str(tmp_path / "mine.npz")))


def test_a_folder_is_not_an_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable npz file"):
        load(Npz(str(tmp_path)))
