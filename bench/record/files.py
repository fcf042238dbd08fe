"""Single files: whole or not at all, under names that stay where they belong, as JSON or CSV."""

import contextlib
import csv
import errno
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.api.errors import StoreError

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file by a whole new one. Raises: StoreError, with the old file untouched."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"cannot write {path}: {cause(error)}") from error


def cause(error: OSError) -> str:
    """Why the system refused, with the mend where there is one."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and run the same command again, it resumes"
    return error.strerror or str(error)


def safe_name(name: str, what: str) -> str:
    """The name, if it is fit for a file or folder. Raises: StoreError."""
    if not SAFE_NAME.fullmatch(name):
        raise StoreError(f"'{name}' is no name for {what}: letters, digits, '.', '_' and '-' only")
    return name


def json_bytes(value: Any) -> bytes:
    """Sorted and indented; what is not finite becomes null, as JSON has no word for it."""
    return json.dumps(_jsonable(value), indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_bytes(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A table; an empty cell where there is no value or not a number."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_cell(row.get(field)) for field in fields] for row in rows)
    return text.getvalue().encode()


def csv_rows(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Fields and cells of a table. Raises: ValueError where it is none."""
    try:
        fields, *rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if b"\0" in data:
        raise ValueError("a NUL character")
    if len(set(fields)) < len(fields) or any(len(row) != len(fields) for row in rows):
        raise ValueError("not a table")
    return fields, rows


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)
