"""The folder of a report. A list in it says which files are the report's; all others are the user's.

report.md, index.html, figures/*, tables/*, files.csv: the list
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.api.errors import StoreError
from bench.record.files import atomic_write, below, cause, csv_bytes, csv_rows, read_regular

LIST, HEAD = "files.csv", "file of this report"
PAGES = ("report.md", "index.html")
OURS = re.compile(r"report\.md|index\.html|tables/[^/\0]+\.csv|figures/[^/\0]+\.(png|svg|pdf)")
# how pages of versions that kept no list begin
UNLISTED = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:"""


def check(out: Path) -> None:
    """Ahead of a run: whether a report can be written. Raises: StoreError where it cannot."""
    _refuse_foreign(out, PAGES, _earlier(out, PAGES))
    try:
        os.lstat(out / PAGES[0])
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long
        raise StoreError(f"cannot write {out}: {cause(error)}; name another folder") from error
    there = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise StoreError(f"cannot write {out}: {there} is no folder; name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(f"cannot write {out}: {there} is not writable; name another folder")


def publish(out: Path, files: Mapping[str, bytes]) -> None:
    """Make the report these files, in their order, and remove what an earlier one lists besides.

    A kill at any moment leaves every file of a report on the list.
    Raises: StoreError where a file is not of an earlier report, or cannot be written; the first leaves all as it is.
    """
    below(out, "figures")
    below(out, "tables")
    earlier = _earlier(out, files)
    _refuse_foreign(out, files, earlier)
    _save_list(out, earlier | files.keys())
    for name, data in files.items():
        atomic_write(out / name, data)
    for name in earlier - files.keys():  # it would pass for a part of this report
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {out / name}, of an earlier report: {cause(error)}") from error
    _save_list(out, files)


def _earlier(out: Path, files: Iterable[str]) -> set[str]:
    """The files of the report that is there; of one without a list, those that are to be replaced."""
    try:
        fields, rows = csv_rows(read_regular(out / LIST))
        if fields == [HEAD]:
            return {name for (name,) in rows if OURS.fullmatch(name)}
    except (OSError, ValueError):
        pass
    try:
        is_page = read_regular(out / "index.html", None).startswith(UNLISTED)
    except (OSError, ValueError):
        is_page = False
    return set(files) if is_page else set()


def _refuse_foreign(out: Path, files: Iterable[str], earlier: set[str]) -> None:
    foreign = [name for name in files if name not in earlier and os.path.lexists(out / name)]
    if os.path.lexists(out / LIST) and not _is_list(out / LIST):
        foreign.append(LIST)
    if foreign:
        raise StoreError(f"{out / foreign[0]} is not of an earlier report; move it, or name another folder")


def _is_list(path: Path) -> bool:
    try:
        return read_regular(path).startswith(HEAD.encode())
    except (OSError, ValueError):
        return False


def _save_list(out: Path, names: Iterable[str]) -> None:
    atomic_write(out / LIST, csv_bytes([HEAD], [{HEAD: name} for name in sorted(names)]))
