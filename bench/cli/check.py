"""`bench check`: hold methods, nets, data sets, instruments, metrics and objectives against their contracts."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.api.errors import ConfigError, unknown
from bench.catalog.catalog import Catalog
from bench.catalog.entry import Entry
from bench.cli.options import DataDir, catalog_of
from bench.display.printing import BAD_INPUT, say

if TYPE_CHECKING:
    from bench.testing import Result

CHECKED = ("methods", "nets", "datasets", "instruments", "metrics", "objectives")
YELLOW, PLAIN = "\033[33m", "\033[0m"


def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A method, net, data set, instrument, metric, objective, or a plugin file.",
        ),
    ],
    data_dir: DataDir = None,
) -> int:
    """Hold a method, or what it learns on, with or by, against its contract: shapes, seeds, claims, learning."""
    import torch

    torch.set_num_threads(1)  # the nets are tiny: threads would only wait for each other
    path = Path(target)
    is_file = path.suffix == ".py"
    catalog, broken = catalog_of([path] if is_file else None)
    if is_file and broken:
        return BAD_INPUT
    entries = catalog.of_file(path) if is_file else _named(target, catalog)
    fine = True
    for entry in entries:
        for title, results in _checks(entry, catalog, target, data_dir):
            say(title)
            for result in results:
                fine &= result.is_fine
                say(f"  {_line(result)}")
    return 0 if fine else 1


def _named(name: str, catalog: Catalog) -> list[Entry]:
    kind = name.partition(":")[0]
    shelves = [getattr(catalog, of) for of in CHECKED]
    found = [shelf[kind] for shelf in shelves if kind in shelf]
    if not found:
        known = [known for shelf in shelves for known in shelf]
        raise ConfigError(unknown("method, net, data set, instrument, metric or objective", name, known))
    return found[:1]


def _checks(
    entry: Entry, catalog: Catalog, target: str, data_dir: Path | None
) -> "Iterable[tuple[str, Iterable[Result]]]":
    """A title and its checks, one net of a method after another."""
    from bench.data import default_data_dir, require
    from bench.testing import (
        nets_of,
        run_checks,
        run_dataset_checks,
        run_instrument_checks,
        run_metric_checks,
        run_net_checks,
        run_objective_checks,
    )

    if entry.kind == "methods":
        method = entry.load()
        for net in nets_of(method):
            yield f"{entry.name} on {net}", run_checks(method, catalog.nets[net].load())
    elif entry.kind == "nets":
        yield f"{entry.name} (net)", run_net_checks(entry.load())
    elif entry.kind == "datasets":
        dataset = catalog.dataset(target if ":" in target else entry.name)
        folder = data_dir or default_data_dir()
        require(dataset, folder)
        yield f"{dataset.name} (data set)", run_dataset_checks(dataset, folder)
    elif entry.kind == "instruments":
        yield f"{entry.name} (instrument)", run_instrument_checks(entry.load(), catalog)
    elif entry.kind == "metrics":
        yield f"{entry.name} (metric)", run_metric_checks(entry.load(), catalog.columns())
    elif entry.kind == "objectives":
        yield f"{entry.name} (objective)", run_objective_checks(entry.load())
    else:
        yield f"{entry.name} ({entry.kind.removesuffix('s')}): there is no contract to check; `bench show` lists it", ()


def _line(result: "Result") -> str:
    if result.ok and not result.expected:
        return f"ok       {result.name}"
    if not result.ok and result.expected:
        text = f"expected {result.name}: {result.message} ({result.expected})"
        return f"{YELLOW}{text}{PLAIN}" if sys.stdout.isatty() else text
    return f"FAIL     {result.name}: {result.message}"
