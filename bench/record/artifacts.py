"""Typed artifacts as the bytes of an npz file: arrays under `<i>.<field>`, everything else in one entry of JSON.

Nothing is pickled, and nothing is believed: what comes back is of the declared types and shapes, or is refused.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from bench.api.artifact import Array, Artifact, HeatMap, Images, Lines
from bench.record.forms import LARGEST_NUMBER, json_of
from bench.record.packed import refuse_bomb

PLAIN = "artifacts"  # the entry of JSON
MOST_PANELS = 400  # panels times lines, or images in a grid
MOST_PIXELS = 2048
LARGEST = 2**26  # bytes, unpacked: pictures are small, so more than this is an attack or a mistake

KINDS: Mapping[str, type[Artifact]] = {kind.kind: kind for kind in get_args(Artifact)}
_HINTS = {kind: {field.name: get_type_hints(kind)[field.name] for field in fields(kind)} for kind in KINDS.values()}
_ARRAYS = {kind: {n for n, hint in hints.items() if hint in (Array, Array | None)} for kind, hints in _HINTS.items()}
_PLAIN = {
    kind: {name: TypeAdapter(hint) for name, hint in hints.items() if name not in _ARRAYS[kind]}
    for kind, hints in _HINTS.items()
}


def to_bytes(artifacts: Sequence[Artifact]) -> bytes:
    """Raises: ValueError where one breaks what its type says of its shapes."""
    arrays: dict[str, NDArray[Any]] = {}
    plain: list[dict[str, Any]] = []
    for i, artifact in enumerate(artifacts):
        entry: dict[str, Any] = {"kind": artifact.kind}
        for field in fields(artifact):
            value = getattr(artifact, field.name)
            if field.name not in _ARRAYS[type(artifact)]:
                entry[field.name] = value
            elif value is not None:
                arrays[f"{i}.{field.name}"] = _array(value)
        plain.append(entry)
    _decoded(plain, arrays)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{PLAIN: np.array(json.dumps(plain))}, **arrays)
    return buffer.getvalue()


def from_bytes(data: bytes) -> list[Artifact]:
    """The artifacts, with numpy arrays. Raises: ValueError, in one line, where the file is damaged or hostile."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            refuse_bomb(members.infolist(), len(data), LARGEST)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
        if PLAIN not in arrays or arrays[PLAIN].dtype.kind != "U" or arrays[PLAIN].ndim:
            raise ValueError(f"no entry '{PLAIN}'")
        artifacts = _decoded(json_of(str(arrays.pop(PLAIN)).encode()), arrays)
    except (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    if len(artifacts) > MOST_ARTIFACTS:
        raise ValueError(f"{len(artifacts)} artifacts; at most {MOST_ARTIFACTS} are drawn")
    for artifact in artifacts:
        wrong = _undrawable(artifact)
        if wrong is not None:
            raise ValueError(f"artifact '{artifact.name[:80]}': {wrong}")
    return artifacts


# of arrays, that are drawn in seconds
MOST_VALUES = {"y": 2**18, "values": 2**20, "images": 2**21, "pictures": 2**21}
MOST_ARTIFACTS = 50


def _undrawable(artifact: Any) -> str | None:
    """Why no picture can be made of it, or None."""
    for name in _ARRAYS[type(artifact)]:
        values = getattr(artifact, name)
        if values is None:
            continue
        if values.size == 0:
            return f"{name} {values.shape} holds nothing"
        if values.size > MOST_VALUES.get(name, 2**18):
            return f"{name} {values.shape} holds more than {MOST_VALUES.get(name, 2**18)} numbers"
        if (name != "y" and not np.isfinite(values).all()) or np.isinf(values).any():
            return f"{name} is not finite"
        if values.dtype.kind == "f" and (np.abs(values.astype(np.float64)) > LARGEST_NUMBER).any():
            return f"{name} holds a number above {LARGEST_NUMBER:g}"
        if name in ("images", "pictures") and (values.shape[-3] not in (1, 3) or max(values.shape[-2:]) > MOST_PIXELS):
            return f"{name} {values.shape} are not of 1 or 3 channels and at most {MOST_PIXELS} pixels a side"
    panels = 1
    if isinstance(artifact, (Lines, Images)):
        rows, columns = (artifact.y if isinstance(artifact, Lines) else artifact.images).shape[:2]
        panels = rows * columns
    return f"{panels} panels and lines; at most {MOST_PANELS} are drawn" if panels > MOST_PANELS else None


def _decoded(plain: Any, arrays: Mapping[str, NDArray[Any]]) -> list[Artifact]:
    if not isinstance(plain, list) or not all(isinstance(entry, dict) for entry in plain):
        raise ValueError("no list of artifacts")
    left = dict(arrays)
    artifacts = [_one(i, dict(entry), left) for i, entry in enumerate(plain)]
    if left:
        raise ValueError(f"'{min(left)}' belongs to no artifact")
    return artifacts


def _one(i: int, entry: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Artifact:
    kind = KINDS.get(str(entry.pop("kind", None)))
    if kind is None:
        raise ValueError(f"artifact {i} is of no known kind")
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in _ARRAYS[kind]:
            value: Any = arrays.pop(f"{i}.{field.name}", MISSING)
            if value is not MISSING and value.dtype.kind not in "biuf":
                raise ValueError(f"'{i}.{field.name}' does not hold numbers")
        else:
            value = entry.pop(field.name, MISSING)
            if value is not MISSING:
                value = _plain(kind, field.name, value)
        if value is not MISSING:
            values[field.name] = value
        elif field.default is MISSING:
            raise ValueError(f"artifact {i} lacks '{field.name}'")
    if entry:
        raise ValueError(f"artifact {i} has an unknown field '{min(entry)}'")
    artifact = kind(**values)
    wrong = SHAPES[kind](artifact)
    if wrong is not None:
        raise ValueError(f"artifact '{artifact.name}': {wrong}")
    return artifact


def _plain(kind: type[Artifact], name: str, value: Any) -> Any:
    try:
        return _PLAIN[kind][name].validate_python(value)
    except ValidationError as error:
        raise ValueError(f"'{name}' of {kind.kind}: {error.errors()[0]['msg']}") from error


def _array(value: Array) -> NDArray[Any]:
    """numpy has no bfloat16, and pictures need no more than float32."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return np.asarray(value.float() if value.is_floating_point() else value)
    return np.asarray(value)


def _lines(a: Any) -> str | None:
    if a.x.ndim != 1 or a.y.ndim != 3 or a.y.shape[2] != len(a.x):
        return f"x {a.x.shape} and y {a.y.shape} are not (K,) and (panels, lines, K)"
    panels, lines = a.y.shape[:2]
    wrong = _named("panels", a.panels, panels)
    if wrong is None and a.lines:
        wrong = _named("lines", a.lines, lines)
    if wrong is None and a.logarithmic:
        wrong = _named("logarithmic", a.logarithmic, panels)
    if wrong is None and a.emphasis is not None:
        of_lines = a.emphasis.dtype.kind in "iu" and ((a.emphasis >= 0) & (a.emphasis < lines)).all()
        if a.emphasis.shape != (panels,) or not of_lines:
            wrong = f"emphasis is not the number of a line for each of {panels} panels"
    if wrong is None and a.pictures is not None and (a.pictures.ndim != 4 or len(a.pictures) != panels):
        wrong = f"pictures {a.pictures.shape} are not ({panels}, C, H, W)"
    return wrong


def _images(a: Any) -> str | None:
    if a.images.ndim != 5:
        return f"images {a.images.shape} are not (rows, columns, C, H, W)"
    wrong = _named("rows", a.rows, a.images.shape[0])
    return wrong or (_named("columns", a.columns, a.images.shape[1]) if a.columns else None)


def _heat_map(a: Any) -> str | None:
    if a.values.ndim != 2:
        return f"values {a.values.shape} are not (rows, columns)"
    return _named("rows", a.rows, a.values.shape[0]) or _named("columns", a.columns, a.values.shape[1])


def _named(what: str, names: tuple[object, ...], n: int) -> str | None:
    return None if len(names) == n else f"{len(names)} {what} are named, and there are {n}"


# what is wrong with the shapes of an artifact, or None
SHAPES: Mapping[type[Artifact], Callable[[Any], str | None]] = {Lines: _lines, Images: _images, HeatMap: _heat_map}
