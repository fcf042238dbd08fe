"""The contract of instruments: sound ones pass, and each breach is named."""

from typing import ClassVar

import pytest

from bench import Column
from bench.api.instrument import Derived, Instrument
from bench.catalog.catalog import Catalog
from bench.testing import run_instrument_checks


class Sound(Derived):
    """Says one."""

    name = "sound"
    columns: ClassVar[tuple[Column, ...]] = (Column("sound_x", "sound", "one"),)

    def derive(self, found: object) -> dict[str, float]:
        return {"sound_x": 1.0}


class OtherName(Sound):
    name = "other-name"
    columns: ClassVar[tuple[Column, ...]] = (Column("missing_x", "missing", "nothing"),)


class Empty(Sound):
    name = "empty"
    columns: ClassVar[tuple[Column, ...]] = ()


class NoPass(Instrument):
    name = "no-pass"
    columns: ClassVar[tuple[Column, ...]] = (Column("x", "x", "x"),)


def complaints(instrument: type[Instrument], catalog: Catalog) -> str:
    return " ".join(result.message for result in run_instrument_checks(instrument, catalog)).strip()


@pytest.mark.parametrize("name", ["retained", "read-out"])
def test_ours_pass(name: str, catalog: Catalog) -> None:
    results = list(run_instrument_checks(catalog.instruments[name].load(), catalog))
    assert [(result.name, result.ok) for result in results] == [("declaration", True), ("run", True)]


def test_breaches_are_named(catalog: Catalog) -> None:
    assert complaints(Sound, catalog) == ""
    assert "does not record missing_x" in complaints(OtherName, catalog)
    assert "declares neither columns nor fields" in complaints(Empty, catalog)
    assert "records sound_x, which it does not declare" in complaints(Empty, catalog)
    assert "is no kind" in complaints(NoPass, catalog)
