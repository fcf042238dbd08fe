"""Discovery of methods: entry points in the group `bench.methods` and plugin files; one class per name.

Finding and describing a method reads its source without running it; its class is imported on first use.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigError, PluginError, unknown

if TYPE_CHECKING:
    from bench.method import Method

GROUP = "bench.methods"
BIBLIOGRAPHY = "references.bib"
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Entry:
    """A method that was found, not yet imported. `module` is an import name, or None for a plugin file."""

    name: str
    file: Path
    module: str | None = None
    card: dict[str, Any] = field(default_factory=dict, compare=False)

    def load(self) -> "type[Method]":
        """Import the class. Raises: PluginError in one line, whatever the file does wrong."""
        for cls in _classes(self.module, self.file):
            if cls.info.name == self.name:
                return cls
        raise PluginError(f"{self.file} does not register a method named '{self.name}'")

    def citations(self) -> list[str]:
        """The BibTeX entries of the method's paper keys, from the `references.bib` nearest above its file."""
        keys = [key.strip() for key in str(self.card.get("paper", "")).split(",")]
        shelf = next((p / BIBLIOGRAPHY for p in self.file.parents if (p / BIBLIOGRAPHY).is_file()), None)
        entries = shelf.read_text(encoding="utf-8").split("\n\n") if shelf else []
        return [entry.strip() for key in keys for entry in entries if f"{{{key}," in entry.partition("\n")[0]]

    def source_hash(self) -> str:
        """SHA-256 over the file and all that it imports, directly or not, from its own package."""
        package = self.module.partition(".")[0] if self.module else None
        files = sorted(_sources(self.file, package, set()))
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


class Registry:
    """The methods within reach, by name. `problems` has one line for each plugin that had to be left out."""

    def __init__(self, plugins: Iterable[Path] = ()) -> None:
        self.entries: dict[str, Entry] = {}
        self.problems: list[str] = []
        for point in importlib.metadata.entry_points(group=GROUP):
            file = _module_file(point.module)
            if file is None:
                self.problems.append(f"method '{point.name}': module {point.module} cannot be found")
                continue
            self._add(Entry(point.name, file, point.module, _cards(file).get(point.name, {})))
        for path in plugins:
            self._add_file(path)

    def __getitem__(self, name: str) -> Entry:
        if name not in self.entries:
            raise ConfigError(unknown("method", name, self.entries))
        return self.entries[name]

    def _add_file(self, path: Path) -> None:
        file = path.expanduser().resolve()
        if not file.is_file():
            raise ConfigError(f"--plugin {path}: no such file")
        if any(entry.file == file for entry in self.entries.values()):
            return  # the same file reached by another way
        try:
            names = [cls.info.name for cls in _classes(None, file)]
            if not names:
                raise PluginError(f"plugin {path} registers no method; put @register before the class")
        except PluginError as error:
            self.problems.append(str(error))
            return
        cards = _cards(file)
        for name in names:
            self._add(Entry(name, file, None, cards.get(name, {})))

    def _add(self, entry: Entry) -> None:
        known = self.entries.setdefault(entry.name, entry)
        if known.file != entry.file:
            raise PluginError(f"two methods are named '{entry.name}': {known.file} and {entry.file}; rename one")


def register(cls: "type[Method]") -> "type[Method]":
    """Class decorator that makes a method known. Raises: PluginError where the class breaks the interface."""
    from pydantic import BaseModel

    from bench.method import Method, MethodInfo

    def refuse(why: str) -> None:
        raise PluginError(f"{inspect.getfile(cls)}: {cls.__name__} {why}")

    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise PluginError(f"@register needs a subclass of bench.Method, not {cls!r}")
    if not isinstance(getattr(cls, "info", None), MethodInfo):
        refuse("lacks `info = MethodInfo(...)`")
    if not NAME.fullmatch(cls.info.name):
        refuse(f"is named '{cls.info.name}'; a name has lower-case letters, digits and hyphens only")
    if missing := sorted(cls.__abstractmethods__):
        refuse(f"does not implement {', '.join(missing)}")
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, BaseModel)):
        refuse("has a Config that is not a pydantic model")
    registered = sys.modules[cls.__module__].__dict__.setdefault("__bench_methods__", [])
    registered.append(cls)
    return cls


def _classes(module: str | None, file: Path) -> "list[type[Method]]":
    try:
        loaded = importlib.import_module(module) if module else _import_file(file)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's file raises, the others go on
        raise PluginError(f"plugin {file} cannot be imported: {_one_line(error, file)}") from error
    return list(loaded.__dict__.get("__bench_methods__", []))


def _import_file(file: Path) -> ModuleType:
    content = hashlib.sha256(str(file).encode() + file.read_bytes()).hexdigest()
    name = f"bench_plugin_{file.stem}_{content[:12]}"  # a file that changed is another module
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin {file} is not a Python file")
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


def _module_file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec and spec.origin else None


def _sources(file: Path, package: str | None, seen: set[Path]) -> set[Path]:
    """`file` and the files of `package` that it imports, followed to their ends."""
    if file in seen:
        return seen
    seen.add(file)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if package else ():
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{name}" for name in names)]
        for name in names:
            found = _module_file(name) if name.partition(".")[0] == package else None
            if found is not None and found.suffix == ".py":
                _sources(found, package, seen)
    return seen


def _cards(file: Path) -> dict[str, dict[str, Any]]:
    """The literal arguments of every `info = MethodInfo(...)` in a file, by method name."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return {}
    cards = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "MethodInfo":
            card: dict[str, Any] = {
                k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)
            }
            nets = next((k.value for k in node.keywords if k.arg == "nets"), None)
            card["nets"] = ast.literal_eval(nets) if isinstance(nets, ast.Tuple) else ("*",)
            cards[str(card.get("name"))] = card
    return cards
