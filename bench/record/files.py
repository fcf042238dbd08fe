"""Single files: written whole or not at all, under safe names, as JSON or CSV; read only if they are regular files.

A results folder may come from somebody else. Below the folder that the user names, no link is followed and nothing but
regular files is opened: a link could lead anywhere, and a FIFO or a device would hang or act.
"""

import contextlib
import csv
import errno
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.api.errors import StoreError

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LARGEST = 2**28  # bytes of a file of a record; records are small, so more is an attack or a mistake
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path joins the two slashes
LINK = "it is a link, and links in a folder of records are not followed; put the thing itself in its place"


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file, or a link of its name, by a whole new file. Raises: StoreError, with the old file untouched."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
        raise StoreError(f"cannot write {path}: {cause(error)}") from error


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file. Raises: OSError, also where there is none; ValueError where it is another thing.

    Nothing else is opened at any time, so that no FIFO hangs and no device acts.
    """
    try:
        _check_regular(os.lstat(path).st_mode)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        _check_regular(os.fstat(fd).st_mode)
    except ValueError:
        os.close(fd)
        raise
    return fd


def read_regular(path: Path, largest: int | None = LARGEST) -> bytes:
    """The content of a regular file. largest: bytes, None for any number.

    Raises: OSError, also where there is none; ValueError where it is another thing, or larger.
    """
    with open(open_regular(path), "rb") as file:
        if largest is None:
            return file.read()
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"it holds more than {largest:,} bytes")
    return data


def _check_regular(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise ValueError(LINK)
    if not stat.S_ISREG(mode):
        raise ValueError("it is no regular file; remove it")


def below(folder: Path, *names: str) -> Path:
    """The path of names below a folder that the user named. Raises: StoreError where one of them is a link."""
    path = folder
    for name in names:
        path = path / name
        if is_link(path):
            raise StoreError(f"{path} is refused: {LINK}")
    return path


def is_link(path: Path) -> bool:
    """Whether it is a symbolic link, also one that leads nowhere."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def local(place: str | os.PathLike[str], what: str = "") -> Path:
    """A place as a path. what: the flag or argument, for the message. Raises: StoreError for a URL."""
    if URL.match(os.fspath(place)):
        raise StoreError(f"{what} {place}: a URL is no folder here; copy it to this machine, or mount it".lstrip())
    return Path(place)


def cause(error: OSError | ValueError) -> str:
    """Why the system refused, with the mend where there is one."""
    if isinstance(error, ValueError):
        return str(error)
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
