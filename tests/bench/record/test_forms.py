"""Each bound of the forms by itself."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.record import forms

SPEC = {"method": "m", "net": "n", "dataset": "d", "seed": 0, "epochs": 1, "batch_size": 1}
PLANNED = {"run_id": "a", "dataset": "d", "net": "n", "method": "m", "seed": 0, "epochs": 1}


def spec(data: bytes) -> object:
    return forms.checked(forms.spec(data), forms.SpecForm)


@pytest.mark.parametrize(
    ("read", "good", "field", "wrong"),
    [
        (spec, SPEC, "seed", "0"),
        (spec, SPEC, "seed", 0.5),
        (spec, SPEC, "epochs", 0),
        (spec, SPEC, "epochs", True),
        (spec, SPEC, "method", ""),
        (spec, SPEC, "method_settings", []),
        (spec, SPEC, "net_settings", "text"),
        (spec, SPEC, "tuned", 1),
        (spec, SPEC, "instruments", [1]),
        (forms.summary, {}, "status", "fine"),
        (forms.summary, {}, "wall_s", "long"),
        (forms.summary, {}, "wall_s", -1),
        (forms.summary, {}, "finished_at", 1e13),
        (forms.summary, {}, "test_acc", 1.5),
        (forms.summary, {}, "reason", 1),
        (forms.environment, {}, "env_id", 1),
    ],
)
def test_a_wrong_field_is_named(read: Callable[[bytes], Any], good: dict[str, Any], field: str, wrong: object) -> None:
    read(json.dumps(good).encode())
    with pytest.raises(ValueError, match=f"^'{field}"):
        read(json.dumps({**good, field: wrong}).encode())


@pytest.mark.parametrize(("field", "wrong"), [("run_id", 5), ("run_id", "../x"), ("epochs", 0), ("method", ["m"])])
def test_a_wrong_field_of_a_plan_is_named(field: str, wrong: object) -> None:
    forms.plan(json.dumps([PLANNED]).encode())
    with pytest.raises(ValueError, match=f"^'{field}"):
        forms.plan(json.dumps([{**PLANNED, field: wrong}]).encode())


@pytest.mark.parametrize(
    ("field", "wrong"), [("decimals", 16), ("decimals", -1), ("scale", 0), ("scale", 1e101), ("name", "")]
)
def test_a_column_that_cannot_be_shown_is_refused(field: str, wrong: object) -> None:
    good = {"name": "a", "title": "a", "what": "a"}
    forms.columns(json.dumps([good]).encode())
    with pytest.raises(ValueError, match=r"decimals|scale|name|above"):
        forms.columns(json.dumps([{**good, field: wrong}]).encode())
