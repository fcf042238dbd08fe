"""The contract of instruments: what one declares, and that it measures it in a short run of backprop on the digits."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from bench.api.column import Column
from bench.api.instrument import Derived, EdgeProbe, EndProbe, Gauge, Instrument, Probe, Trial
from bench.catalog.catalog import Catalog, reference
from bench.experiment.config import Experiment
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Parts, plan
from bench.record.folder import RunFolder
from bench.runner.session import Session
from bench.runner.state import Place
from bench.testing.finding import Result, complaint, few, require
from bench.testing.subject import digits

PASSES = (Gauge, Probe, EdgeProbe, EndProbe, Trial, Derived)
STEPS = 3


def run_instrument_checks(instrument: type[Instrument], catalog: Catalog) -> Iterator[Result]:
    """Hold an instrument against its contract. catalog: it and the others, whose columns it must leave alone."""
    checks = {
        "declaration": lambda: check_declaration(instrument, catalog.columns()),
        "run": lambda: check_run(instrument, catalog),
    }
    for name, check in checks.items():
        began = perf_counter()
        message = complaint(check)
        yield Result(name, message is None, message or "", perf_counter() - began)


def check_declaration(instrument: type[Instrument], known: Sequence[Column]) -> None:
    """It is of one pass and says what it measures, under names that no other instrument has."""
    kinds = [kind.__name__ for kind in PASSES if issubclass(instrument, kind)]
    require(len(kinds) == 1, f"is {' and '.join(kinds) or 'no kind'}; derive from one of Gauge, Probe, Trial, ...")
    fields: tuple[str, ...] = getattr(instrument, "fields", ())
    require(bool(instrument.columns or fields), "declares neither columns nor fields: nothing is recorded")
    for column in instrument.columns:
        require(isinstance(column, Column), f"columns hold {column!r:.60}, which is no Column")
        require(column.name.isidentifier(), f"column '{column.name:.40}' is no name in letters, digits and _")
        require(bool(column.title and column.what), f"column '{column.name}' lacks a title or what it is")
        same = sum(other.name == column.name for other in known)
        require(same <= 1, f"column '{column.name}' is another instrument's, too; rename it")
    require(len({*fields}) == len(fields), "declares a field twice")


def check_run(instrument: type[Instrument], catalog: Catalog) -> None:
    """A run with it ends well, and records what it declares and nothing else. None: it could not be measured."""
    asked = issubclass(instrument, (EdgeProbe, EndProbe))
    experiment = Experiment(
        methods=[reference()],
        net="mlp",
        steps=STEPS,
        batch_size=64,
        instruments=(instrument.name,) if asked else (),
        settings={"mlp": dict(catalog.nets["mlp"].load().small)},
    )
    (run,) = plan(experiment, catalog, device="cpu", datasets={"digits": digits()})
    usual = tuple(cls for cls in run.load().instruments if cls.name != instrument.name)
    with tempfile.TemporaryDirectory() as scratch:
        found = _summary(run.spec, run.load(), (*usual, instrument), Path(scratch) / "with")
        without = _summary(
            run.spec.model_copy(update={"instruments": ()}), run.load(), usual, Path(scratch) / "without"
        )
        table = Path(scratch) / "with" / "check" / run.spec.run_id / f"{instrument.name}.csv"
        require(found["status"] == "ok", f"the run ends {found['status']}: {found.get('reason')}")
        missing = [column.name for column in instrument.columns if column.name not in found]
        require(not missing, f"does not record {few(missing)}")
        declared = {column.name for column in instrument.columns}
        others = sorted(found.keys() - without.keys() - declared)
        require(not others, f"records {few(others)}, which it does not declare")
        if asked:
            require(table.is_file(), "leaves no table")


def _summary(spec: RunSpec, parts: Parts, instruments: tuple[type[Instrument], ...], folder: Path) -> dict[str, Any]:
    run_folder = RunFolder(folder, "check", spec.run_id)
    run_folder.create(spec.model_dump(mode="json"), None)
    place = Place(torch.device("cpu"))
    return Session(spec, replace(parts, instruments=instruments), place, run_folder, lambda _: None).go()
