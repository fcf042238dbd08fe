"""A thing that was found and not yet imported, and how it is imported: from a package or from a plugin file."""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.api.errors import PluginError
from bench.catalog.cards import Card, cards
from bench.catalog.register import MARK, kind_of, name_of
from bench.catalog.sources import source_hash

BIBLIOGRAPHY = "references.bib"


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

    def load(self) -> Any:
        """Import the class. Raises: PluginError in one line, whatever the file does wrong."""
        for cls in registered(self.file, self.module):
            if kind_of(cls) == self.kind and name_of(cls) == self.name:
                return cls
        raise PluginError(f"{self.file} registers none of the {self.kind} by the name of '{self.name}'")

    def citations(self) -> list[str]:
        """The BibTeX entries of the paper keys, from the `references.bib` nearest above the file."""
        keys = [key.strip() for key in str(self.card.get("paper", "")).split(",")]
        shelf = next((p / BIBLIOGRAPHY for p in self.file.parents if (p / BIBLIOGRAPHY).is_file()), None)
        entries = shelf.read_text(encoding="utf-8").split("\n\n") if shelf else []
        return [entry.strip() for key in keys for entry in entries if f"{{{key}," in entry.partition("\n")[0]]

    def source_hash(self) -> str:
        return source_hash(self.file, self.module)


def registered(file: Path, module: str | None) -> list[type]:
    """The classes that a file makes known. Raises: PluginError in one line."""
    try:
        loaded = importlib.import_module(module) if module else _import_file(file)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's file raises, the others go on
        raise PluginError(f"plugin {file} cannot be imported: {_one_line(error, file)}") from error
    return list(loaded.__dict__.get(MARK, []))


def _import_file(file: Path) -> ModuleType:
    """A plugin file as a module; its neighbours can be imported by name."""
    content = hashlib.sha256(str(file).encode() + file.read_bytes()).hexdigest()
    name = f"bench_plugin_{file.stem}_{content[:12]}"  # a file that changed is another module
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin {file} is not a Python file")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last, so that no neighbour hides a package
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _one_line(error: BaseException, file: Path) -> str:
    """The error and the line of the file that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    where = f" (line {line})" if line else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
