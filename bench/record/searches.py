"""What a search for settings tried and found, in a folder beside the experiment's."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.api.errors import StoreError
from bench.record.files import atomic_write

TUNING = ".tuning"  # what the folder of the trials adds to the experiment's name
WINNERS = "winners.json"


def beside(folder: Path) -> Path:
    """Where the search of an experiment is, from the experiment's own folder."""
    return folder.with_name(f"{folder.name}{TUNING}")


def save(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write what was tried and found, for the report and as the provenance of the settings."""
    atomic_write(folder / WINNERS, json.dumps(rows, indent=1).encode() + b"\n")


def load(folder: Path) -> list[dict[str, Any]]:
    """What `save` wrote, or nothing where there was no search. Raises: StoreError where the file is corrupt."""
    path = folder / WINNERS
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_bytes())
        if not all(isinstance(row["tried"], list) for row in rows):
            raise ValueError("no list of trials")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is corrupt ({error}); remove it and run the experiment again") from error
    return list(rows)
