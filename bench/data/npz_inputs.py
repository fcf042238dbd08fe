"""The inputs of an npz file: of which kind they are, and as which tensors.

Two axes: floats are vectors; whole numbers are tokens where a `vocabulary` is given. Three axes: whole numbers are grey
images (N, H, W); floats are grey images or sequences, and `kind` must say which. Four axes: images, whose channels are
the second axis or the last, whichever alone has 1 to 4 entries.

Pixels that are whole numbers from 0 to 255, or 256 levels from 0 to 1, become uint8, which loses nothing. All other
floats become float32.
"""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.api.errors import DataError
from bench.api.kinds import InputKind

Array = NDArray[Any]

AXES: dict[InputKind, tuple[int, ...]] = {"image": (3, 4), "vector": (2,), "sequence": (3,), "tokens": (2,)}
MAX_CHANNELS = 4
DARK = 4  # times by which the brightest pixels of two splits may differ; more is another scale
COARSE = 1e-3  # of a feature's spread that rounding to float32 may move it by


def read_inputs(
    name: str, arrays: dict[str, Array], asked: str | None, vocabulary: int
) -> tuple[InputKind, dict[str, Tensor]]:
    """The kind of all, and the tensors by the arrays' names. Raises: DataError."""
    for key, x in arrays.items():
        if x.dtype.kind not in "uif":
            raise DataError(f"{name}: {key} has type {x.dtype}; store numbers")
        if not np.isfinite(x).all():
            raise DataError(f"{name}: {key} holds NaN or infinite values; store finite numbers")
    first, *others = arrays
    for key in others:
        if (arrays[first].dtype.kind == "f") != (arrays[key].dtype.kind == "f"):
            raise DataError(f"{name}: of {first} and {key} one is floating, one is not; store both alike")
    kind = _kind(f"{name}: {first}", arrays[first], asked, vocabulary)
    for key, x in arrays.items():
        if x.ndim not in AXES[kind]:
            form = " or ".join(f"{n} axes" for n in AXES[kind])
            raise DataError(f"{name}: {key} has shape {x.shape}; for the kind '{kind}' store {form}")
    if kind == "image":
        return kind, {key: _channels_first(f"{name}: {key}", x) for key, x in _pixels(name, arrays).items()}
    if kind == "tokens":
        return kind, {key: _tokens(f"{name}: {key}", x) for key, x in arrays.items()}
    return kind, {key: torch.from_numpy(to_float32(f"{name}: {key}", x)) for key, x in arrays.items()}


def to_float32(where: str, x: Array, axis: int = -1) -> NDArray[np.float32]:
    """Features along `axis`. Raises: DataError where rounding would lose what a feature says."""
    if x.dtype.kind == "f" and x.dtype.itemsize <= 4:
        return x.astype(np.float32)
    rest = tuple(k for k in range(x.ndim) if k != axis % x.ndim)
    low, high, std = x.min(rest), x.max(rest), x.std(rest)
    largest = np.maximum(np.abs(low), np.abs(high))
    lost = (largest > np.finfo(np.float32).max) | (largest * 2.0**-24 > COARSE * std) & (std > 0)
    if lost.any():
        k = int(np.flatnonzero(lost)[0])
        raise DataError(
            f"{where}: feature {k} goes from {np.ravel(low)[k]:.10g} to {np.ravel(high)[k]:.10g}, which float32 cannot "
            "tell apart; subtract its mean, and divide it by its spread"
        )
    return x.astype(np.float32)


def _kind(where: str, x: Array, asked: str | None, vocabulary: int) -> InputKind:
    whole = x.dtype.kind != "f"
    if vocabulary and (asked not in (None, "tokens") or not whole or x.ndim != 2):
        raise DataError(f"{where} has shape {x.shape} and type {x.dtype}: no tokens (N, T); leave vocabulary out")
    if asked == "tokens" and not (vocabulary and whole):
        raise DataError(f"{where}: tokens are whole numbers below a vocabulary; add it, as in vocabulary=100")
    if asked is not None:
        return cast(InputKind, asked)
    if vocabulary:
        return "tokens"
    if x.ndim == 2 and whole:
        raise DataError(
            f"{where} has shape {x.shape} and type {x.dtype}: vectors or tokens; store vectors as floats, "
            "or add the number of tokens, as in vocabulary=100"
        )
    if x.ndim == 3 and not whole:
        raise DataError(
            f"{where} has shape {x.shape} and type {x.dtype}: grey images or sequences; "
            "say which, by kind='image' or kind='sequence'"
        )
    return "vector" if x.ndim == 2 else "image"


def _tokens(where: str, x: Array) -> Tensor:
    if x.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where} holds the token {x.max()}; number tokens from 0")
    return torch.from_numpy(x.astype(np.int64))


def _pixels(name: str, images: dict[str, Array]) -> dict[str, Array]:
    """uint8 where that loses nothing in any split, else float32."""
    for key, x in images.items():
        if x.dtype.kind != "f" and (x.min() < 0 or x.max() > 255):
            raise DataError(
                f"{name}: {key} holds whole numbers from {x.min():g} to {x.max():g}; "
                "store pixels as uint8, or as floats"
            )
    _check_one_scale(name, images)
    brightest = max(float(x.max()) for x in images.values())
    from_0_to_1 = brightest <= 1 and any(x.dtype.kind == "f" for x in images.values())
    if all(_is_level(x, 255 if from_0_to_1 else 1) for x in images.values()):
        return {key: np.rint(x * 255 if from_0_to_1 else x).astype(np.uint8) for key, x in images.items()}
    return {key: to_float32(f"{name}: {key}", x, _axis_of_channels(x)) for key, x in images.items()}


def _is_level(x: Array, scale: int) -> bool:
    """Whether all pixels times `scale` are whole numbers from 0 to 255, but for the rounding of their own type."""
    if x.dtype.kind != "f":
        return True
    scaled = x.astype(np.float64) * scale
    # half a unit in the last place at the upper end; fractions of 16 bits are 1/8 of a level apart there
    slack = 0.0 if scale == 1 else 255 * float(np.finfo(x.dtype).eps) / 2
    return bool(scaled.min() >= 0 and scaled.max() <= 255 and (np.abs(scaled - np.rint(scaled)) <= slack).all())


def _check_one_scale(name: str, images: dict[str, Array]) -> None:
    """That no split of images keeps to a small part of another's range."""
    first, *others = images
    top = {key: float(np.abs(x).max()) if x.dtype.kind == "f" else float(x.max()) for key, x in images.items()}
    for key in others:
        low, high = sorted((first, key), key=lambda key: top[key])
        if top[high] > DARK * top[low]:
            raise DataError(
                f"{name}: {low} goes up to {top[low]:g}, {high} to {top[high]:g}, "
                "which looks like two scales; store both on one"
            )


def _axis_of_channels(x: Array) -> int:
    """-1 or 1; for grey images of three axes an axis of no use, as there is one channel."""
    return 1 if x.ndim == 4 and x.shape[1] <= MAX_CHANNELS else -1


def _channels_first(where: str, x: Array) -> Tensor:
    """Shape: (N, H, W), (N, C, H, W) or (N, H, W, C) to (N, C, H, W)."""
    if x.ndim == 3:
        return torch.from_numpy(x).unsqueeze(1)
    first, last = (x.shape[axis] <= MAX_CHANNELS for axis in (1, 3))
    if first == last:
        which = "both the second and the last axis" if first else "neither the second nor the last axis"
        raise DataError(
            f"{where} has shape {x.shape}: {which} could be 1 to {MAX_CHANNELS} channels; "
            "store (N, C, H, W) or (N, H, W, C) with H and W above that"
        )
    return torch.from_numpy(x if first else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
