"""Ranges: evenly in their own scale, growing as far as the setting's bounds allow, and complaints in one line."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, create_model

from bench.api.errors import ConfigError
from bench.experiment.config import Experiment
from bench.experiment.ranges import Range, spaces


def searched(*search: Any) -> dict[str, Any]:
    return {"json_schema_extra": {"search": list(search)}}


class Settings(BaseModel):
    lr: float = Field(1e-3, gt=0, **searched("log", 1e-4, 1e-2))
    momentum: float = Field(0.5, ge=0, le=1, **searched("linear", 0.25, 0.75))
    n: int = Field(2, ge=1, **searched("int", 1, 8))
    mode: Literal["a", "b"] = Field("a", **searched("choice", "a", "b"))
    eps: float = Field(1e-3, gt=0)


def space(**tune: Any) -> dict[str, Range]:
    return spaces(Experiment(methods=["m"], tune=tune), {"m": Settings})["m"]


def test_the_middle_of_a_range_is_that_of_its_scale() -> None:
    assert {name: found.at(0.5) for name, found in space(settings="all").items()} == {
        "lr": 1e-3,
        "momentum": 0.5,
        "n": 5,
        "mode": "b",
    }
    assert [Range("int", 1, 3).at(u) for u in (0, 0.33, 0.34, 0.66, 0.67, 0.999)] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("u", [0.0, 0.2, 0.5, 0.9])
def test_a_value_lies_where_it_was_taken(u: float) -> None:
    found = space(settings=["lr", "momentum"])
    assert found["lr"].place(found["lr"].at(u)) == pytest.approx(u, abs=1e-3)
    assert found["momentum"].place(found["momentum"].at(u)) == pytest.approx(u, abs=1e-2)


def test_ranges_grow_by_a_decade_or_half_their_width_and_stop_at_the_setting_s_bounds() -> None:
    found = space(settings="all")
    up, down = found["lr"].beyond("high"), found["lr"].beyond("low")
    assert (up.low, up.high) == pytest.approx((1e-2, 1e-1))
    assert (down.low, down.high) == pytest.approx((1e-5, 1e-4))
    joined = found["lr"].joined(up)
    assert (joined.low, joined.high) == pytest.approx((1e-4, 1e-1))
    wide = found["momentum"].joined(found["momentum"].beyond("high"))
    assert wide.high == 1.0
    assert not wide.is_open("high")
    assert wide.is_open("low")
    assert not found["n"].is_open("low")
    assert (found["n"].beyond("high").low, found["n"].beyond("high").high) == (9, 12)
    assert not found["mode"].is_open("high")


def test_an_exclusive_bound_is_never_reached() -> None:
    class Open(BaseModel):
        p: float = Field(0.5, gt=0, lt=1, **searched("linear", 0.1, 0.9))
        k: int = Field(2, gt=0, lt=6, **searched("int", 2, 5))

    found = spaces(Experiment(methods=["m"], tune={"settings": "all"}), {"m": Open})["m"]
    top, bottom = found["p"].beyond("high"), found["p"].beyond("low")
    for value in (top.at(0.999999), bottom.at(0.0)):
        Open(p=value)
    assert found["k"].beyond("low").low == 1
    assert not found["k"].is_open("high")


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"settings": ["lrr"]}, "tune: unknown setting to search 'lrr'; did you mean lr?"),
        ({"settings": ["eps"]}, "tune: m declares no range for 'eps'"),
    ],
)
def test_what_cannot_be_searched_is_named(tune: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space(**tune)


def test_a_method_with_none_of_the_settings_is_named_but_has_no_search_where_all_are_asked_for() -> None:
    class Bare(BaseModel):
        pass

    both = {"m": Settings, "bare": Bare}
    with pytest.raises(ConfigError, match="tune: bare has none of lr; its ranges: none"):
        spaces(Experiment(methods=["m", "bare"], tune={}), both)
    assert spaces(Experiment(methods=["m", "bare"], tune={"settings": "all"}), both)["bare"] == {}


def test_what_variants_differ_in_is_not_searched() -> None:
    asked = {"methods": ["m"], "variants": {"m": [{"mode": "a"}, {"mode": "b"}]}}
    assert "mode" not in spaces(Experiment(**asked, tune={"settings": "all"}), {"m": Settings})["m"]
    with pytest.raises(ConfigError, match="the variants of m differ in 'mode'"):
        spaces(Experiment(**asked, tune={"settings": ["mode"]}), {"m": Settings})


@pytest.mark.parametrize(
    "search", [("log", 0, 1), ("log", 1e-3), ("linear", 2, 1), ("sqrt", 0, 1), ("linear", -1, 1), ("choice",)]
)
def test_a_declaration_that_is_no_range_is_named(search: tuple[Any, ...]) -> None:
    config = create_model("C", x=(float, Field(0.5, ge=0, **searched(*search))))
    with pytest.raises(ConfigError, match="m.x: search=.* is none of"):
        spaces(Experiment(methods=["m"], tune={"settings": ["x"]}), {"m": config})
