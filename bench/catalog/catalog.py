"""Discovery by entry points and plugin files: all kinds of things that plugins may bring, ours like anybody's.

Finding and describing a thing reads its source without running it; its class is imported on first use.
"""

import importlib.metadata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api.column import Column
from bench.api.errors import ConfigError, PluginError, shortened, unknown
from bench.catalog.entry import REFERENCE, Entry, registered
from bench.catalog.register import kind_of, name_of
from bench.catalog.sources import module_file

if TYPE_CHECKING:
    from bench.api.dataset import DataSet

KINDS = {
    "methods": "method", "nets": "net", "datasets": "data set", "instruments": "instrument", "executors": "executor",
    "listeners": "listener",
    "objectives": "objective", "metrics": "metric", "transforms": "transform",
}  # fmt: skip
FIRST = "accuracy"  # of the metrics, in tables


class Shelf(dict[str, Entry]):
    """The things of one kind, by name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __missing__(self, name: str) -> Entry:
        raise ConfigError(unknown(KINDS[self.kind], name, self))


class Catalog:
    """What is within reach. `problems` has one line for each thing that had to be left out."""

    def __init__(self, plugins: Iterable[Path] = ()) -> None:
        self.problems: list[str] = []
        self.broken: list[Path] = []  # plugin files that are among the problems
        self._shelves = {kind: Shelf(kind) for kind in KINDS}
        points = importlib.metadata.entry_points()
        for kind in KINDS:
            for point in points.select(group=f"bench.{kind}"):
                file = module_file(point.module)
                if file is None:
                    self.problems.append(f"{KINDS[kind]} '{point.name}': module {point.module} cannot be found")
                else:
                    self._add(Entry(kind, point.name, file, point.module))
        for path in plugins:
            self._add_file(path)

    @property
    def methods(self) -> Shelf:
        return self._shelves["methods"]

    @property
    def nets(self) -> Shelf:
        return self._shelves["nets"]

    @property
    def datasets(self) -> Shelf:
        return self._shelves["datasets"]

    @property
    def instruments(self) -> Shelf:
        return self._shelves["instruments"]

    @property
    def executors(self) -> Shelf:
        return self._shelves["executors"]

    @property
    def listeners(self) -> Shelf:
        return self._shelves["listeners"]

    @property
    def objectives(self) -> Shelf:
        return self._shelves["objectives"]

    @property
    def metrics(self) -> Shelf:
        return self._shelves["metrics"]

    @property
    def transforms(self) -> Shelf:
        return self._shelves["transforms"]

    def of_file(self, path: Path) -> list[Entry]:
        """What a plugin file has brought."""
        file = path.expanduser().resolve()
        return [entry for shelf in self._shelves.values() for entry in shelf.values() if entry.file == file]

    def dataset(self, name: str) -> "DataSet":
        """The data set that a name stands for, as `digits` or `npz:PATH`. Raises: ConfigError."""
        kind, _, argument = name.partition(":")
        if kind not in self.datasets:
            raise ConfigError(unknown("data set", name, [_with_argument(entry) for entry in self.datasets.values()]))
        cls = self.datasets[kind].load()
        wanted = cls.info.argument
        if wanted and not argument:
            raise ConfigError(f"data set '{name}' lacks its {wanted}; write {kind}:{wanted}")
        if argument and not wanted:
            raise ConfigError(f"data set '{kind}' takes nothing after a colon; write {kind}")
        dataset: DataSet = cls(argument)
        return dataset

    def columns(self) -> list[Column]:
        """What the metrics and instruments within reach measure, in the order of tables."""
        metrics = sorted(
            (entry.load() for entry in self.metrics.values()), key=lambda cls: (cls.name != FIRST, cls.name)
        )
        classes = sorted((entry.load() for entry in self.instruments.values()), key=lambda cls: (cls.rank, cls.name))
        return [*(c for cls in metrics for c in cls.columns()), *(c for cls in classes for c in cls.columns)]

    def add(self, cls: type, folder: Path) -> str:
        """Make a class known that Python code hands over; its name. folder: where one of a notebook is written to.

        Raises: PluginError in one line, StoreError.
        """
        from bench.catalog.given import home

        kind = kind_of(cls)
        if kind is None:
            raise PluginError(f"{cls.__name__} is no subclass of bench.Method, Net, DataSet or another kind of plugin")
        file, module = home(cls, folder)
        if module is None:
            self._add_file(file)
        else:
            self._add(Entry(kind, name_of(cls), file, module))
        if name_of(cls) not in [entry.name for entry in self.of_file(file) if entry.kind == kind]:
            why = self.problems.pop() if self.problems else f"{shortened(file)} does not register it"
            raise PluginError(f"class {cls.__name__}: {why}; put @register before it")
        return name_of(cls)

    def _add_file(self, path: Path) -> None:
        file = path.expanduser().resolve()
        if not file.is_file():
            raise ConfigError(f"--plugin {path}: no such file")
        if file.suffix != ".py":
            raise ConfigError(f"--plugin {path}: not a Python file; its name must end in .py")
        if self.of_file(file):
            return  # the same file reached by another way
        try:
            classes = registered(file, None)
            if not classes:
                raise PluginError(f"plugin {shortened(path)} registers nothing; put @register before a class")
        except PluginError as error:
            self.problems.append(str(error))
            self.broken.append(path)
            return
        for cls in classes:
            kind, name = kind_of(cls), name_of(cls)
            assert kind is not None
            self._add(Entry(kind, name, file, None))

    def _add(self, entry: Entry) -> None:
        known = self._shelves[entry.kind].setdefault(entry.name, entry)
        if known.file != entry.file:
            files = f"{shortened(known.file, 90)} and {shortened(entry.file, 90)}"
            raise PluginError(f"two {entry.kind} are named '{shortened(entry.name, 40)}': {files}; rename one")


def _with_argument(entry: Entry) -> str:
    argument = entry.card.get("argument")
    return f"{entry.name}:{argument}" if argument else entry.name


@cache
def installed() -> Catalog:
    """What is within reach without plugin files."""
    return Catalog()


@cache
def reference() -> str:
    """The name of the method that every other one is held against."""
    return next(name for name, entry in installed().methods.items() if entry.role == REFERENCE)
