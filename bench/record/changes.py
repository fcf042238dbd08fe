"""What of a folder of records has changed: runs begun, got ahead or ended, plans, packs, and what a search found."""

import os
from collections.abc import Iterator
from pathlib import Path

from bench.record.reader import PACK, PLAN
from bench.record.searches import WINNERS, beside

OF_RUNS = frozenset(("spec.json", "summary.json", "curve.csv"))
OF_EXPERIMENTS = frozenset((PACK, PLAN, WINNERS))

Stamp = frozenset[tuple[str, int, int, int]]


def stamp(root: Path) -> Stamp:
    """Differs from an earlier one where a report would: names, identities, sizes and times of the files that count.

    Checkpoints, locks, output and files half written do not count. Empty where there is no such folder.
    """
    return frozenset(_files(root, depth=2)) | frozenset(_files(beside(root), depth=0))


def _files(folder: Path, depth: int) -> Iterator[tuple[str, int, int, int]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name in OF_RUNS or entry.name in OF_EXPERIMENTS:
            try:
                of = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # removed since
                continue
            yield entry.path, of.st_ino, of.st_size, of.st_mtime_ns
        elif depth and entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), depth - 1)
