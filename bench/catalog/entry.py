"""A thing that was found and not yet imported, and how it is imported: from a package or from a plugin file."""

import contextlib
import csv
import importlib
import io
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.api.errors import PluginError, SourceError, shortened
from bench.catalog.cards import Card, cards
from bench.catalog.plugin import import_file, loaded_hash
from bench.catalog.register import MARK, kind_of, name_of
from bench.catalog.sources import module_file, source_hash
from bench.catalog.untouched import untouched

BIBLIOGRAPHY, FAMILIES = "references.bib", "families.csv"
COLOUR = re.compile("#[0-9A-Fa-f]{6}")
OURS = "bench"  # our only top-level package
RULE, REFERENCE = "rule", "reference"


@dataclass(frozen=True)
class Entry:
    """kind: a shelf of the catalogue, as `methods`. module: an import name, or None for a plugin file."""

    kind: str
    name: str
    file: Path
    module: str | None = None

    @cached_property
    def card(self) -> Card:
        """What its source says of it; read when it is first asked for, since a list of one kind needs no other's."""
        return cards(self.file).get(self.name, {})

    @property
    def is_ours(self) -> bool:
        """Whether it comes with the suite."""
        return self.module is not None and self.module.partition(".")[0] == OURS

    @property
    def role(self) -> str:
        """Of a method: what its card says. The reference is one of the suite's, whatever another card says."""
        role = str(self.card.get("role", RULE))
        return RULE if role == REFERENCE and not self.is_ours else role

    def load(self) -> Any:
        """Import the class. Raises: PluginError in one line, whatever the file does wrong."""
        for cls in registered(self.file, self.module):
            if kind_of(cls) == self.kind and name_of(cls) == self.name:
                return cls
        raise PluginError(f"{self.file} registers none of the {self.kind} by the name of '{self.name}'")

    def citations(self) -> list[str]:
        """The BibTeX entries of the paper keys, from the `references.bib` nearest above the file."""
        keys = [key.strip() for key in str(self.card.get("paper", "")).split(",")]
        entries = _nearest(BIBLIOGRAPHY, self.file).split("\n\n")
        return [entry.strip() for key in keys for entry in entries if f"{{{key}," in entry.partition("\n")[0]]

    @cached_property
    def colours(self) -> dict[str, str]:
        """Of a method: the colours of families, in their order, from the `families.csv` nearest above the file."""
        rows = csv.reader(io.StringIO(_nearest(FAMILIES, self.file)))
        return {row[0]: row[1] for row in rows if len(row) == 2 and COLOUR.fullmatch(row[1])}

    def source_hash(self) -> str:
        return source_hash(self.file, self.module)

    def check(self, cls: type, planned: str) -> None:
        """Raises: SourceError where a class that was loaded is not of the sources with the hash `planned`."""
        file: Path | None = self.file
        if self.module is None:
            found = loaded_hash(cls.__module__)
        else:
            file = module_file(self.module)
            found = _remembered.get(self.module) or (source_hash(file, self.module) if file else None)
        if found == planned:
            return
        if file != self.file:
            raise SourceError(
                f"{self.name} was planned with {shortened(self.file)}, and is imported from "
                f"{shortened(file or 'nowhere')}; use one install"
            )
        raise SourceError(
            f"the code of {self.name} was edited after the command began ({shortened(self.file)} or what it imports): "
            "not run; begin the same command again to run the new code"
        )


def _nearest(name: str, below: Path) -> str:
    """The text of the nearest file of this name above another file; empty where there is none."""
    found = next((folder / name for folder in below.parents if (folder / name).is_file()), None)
    return found.read_text(encoding="utf-8", errors="replace") if found else ""


_remembered = dict[
    str, str
]()  # by import name: the hash of code that this process, or the one it forked from, imported


@contextlib.contextmanager
def remembering(entries: Iterable[Entry]) -> Iterator[None]:
    """Keep the hashes of the methods and nets that are imported meanwhile: `check` compares with them from then on."""
    hashed = [(entry, entry.module) for entry in entries if entry.kind in ("methods", "nets")]
    before = {module: _hash(entry) for entry, module in hashed if module}
    yield
    for entry, module in hashed:
        if module and module in sys.modules and (found := before[module]):
            _remembered[module] = found if found == _hash(entry) else "edited while it was imported"


def _hash(entry: Entry) -> str | None:
    try:
        return entry.source_hash()
    except (OSError, ValueError, SyntaxError):  # of a package that cannot be imported either
        return None


def registered(file: Path, module: str | None) -> list[type]:
    """The classes that a file makes known. Raises: PluginError in one line."""
    try:
        loaded = import_file(file) if module is None else _import_module(module)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's file raises, the others go on
        raise PluginError(f"plugin {shortened(file)} cannot be imported: {_one_line(error, file)}") from error
    return list(loaded.__dict__.get(MARK, []))


def _import_module(module: str) -> ModuleType:
    if module in sys.modules or module.partition(".")[0] == "bench":
        return importlib.import_module(module)
    with untouched():
        return importlib.import_module(module)


def _one_line(error: BaseException, file: Path) -> str:
    """The error and the line of the file that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    where = f" (line {line})" if line else ""
    return f"{type(error).__name__}: {shortened(' '.join(str(error).split()))}{where}"
