"""Defaults against their source: the tables in docs/defaults, a file a family.

given: other settings under which the default holds, as `recipe=mean-goodness`. setting: a field of the method, or
`module.NAME`, a constant of a module of its family. value: the default, as JSON or a word. published: what the source
gives, if it gives anything. why: the reason where the two differ.
"""

import csv
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.catalog import Catalog

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["method", "given", "setting", "value", "published", "source", "why"]
TABLES = sorted((ROOT / "docs" / "defaults").glob("*.csv"))


def rows() -> list[dict[str, str]]:
    found = []
    for path in TABLES:
        with path.open(newline="") as file:
            reader = csv.DictReader(file, strict=True)
            assert reader.fieldnames == COLUMNS, path.name
            found += [row | {"family": path.stem} for row in reader]
    return found


ROWS = rows()


def value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def default(row: dict[str, str], catalog: Catalog) -> Any:
    cls = catalog.methods[row["method"]].load()
    assert cls.info.family == row["family"]
    if "." in row["setting"]:
        module, name = row["setting"].split(".")
        found = getattr(import_module(f"{cls.__module__.rpartition('.')[0]}.{module}"), name)
    else:
        given = dict(pair.split("=") for pair in row["given"].split())
        found = getattr(cls.Config(**given), row["setting"])
    return list(found) if isinstance(found, tuple) else found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['method']}-{row['setting']}-{row['given']}")
def test_a_default_is_what_its_table_says(row: dict[str, str], catalog: Catalog) -> None:
    """Catches a default that was changed, or copied wrongly from the paper (beta .9 for .99)."""
    assert None not in row.values()
    assert default(row, catalog) == value(row["value"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['method']}-{row['setting']}-{row['given']}")
def test_a_default_has_a_source_or_a_reason(row: dict[str, str]) -> None:
    """Catches a default that differs from its paper without a word, and a source that does not exist."""
    if row["published"]:
        keys = (ROOT / "methods" / "references.bib").read_text()
        assert row["source"].startswith("https://") or f"{{{row['source']}," in keys
        assert value(row["published"]) == value(row["value"]) or row["why"]


def test_every_numeric_setting_of_a_method_is_listed(catalog: Catalog) -> None:
    """Catches a setting that is added to a rule of a listed family without saying where its default comes from."""
    listed = {(row["method"], row["setting"]) for row in ROWS}
    shared = {"gradient", "directions", "eps"}  # of the estimators in place of a gradient
    missing = [
        f"{name}.{field}"
        for name, found in catalog.methods.items()
        if (cls := found.load()).info.family in {path.stem for path in TABLES}
        for field, info in cls.Config.model_fields.items()
        if field not in shared and isinstance(info.default, float) and (name, field) not in listed
    ]
    assert missing == []
