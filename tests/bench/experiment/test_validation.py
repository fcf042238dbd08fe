"""Settings by a model, a stranger's plain one as well: strict types, finite numbers, bounds."""

import math
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from bench.api.errors import ConfigError
from bench.experiment.config import LAST_SEED, Experiment
from bench.experiment.validation import validate_settings, validated


class Plain(BaseModel):
    """As a plugin declares it, without a thought of strictness."""

    width: int = 3
    lr: float = 0.1
    clip: float | None = None
    bias: bool = True
    kind: Literal["a", "b"] = "a"
    sizes: tuple[float, ...] = (1.0,)
    many: int = Field(1, le=10**9)


@pytest.mark.parametrize(
    "values",
    [
        {"width": True},
        {"width": "3"},
        {"width": "３"},
        {"width": 3.0},
        {"width": 10**23},
        {"width": 10**9},
        {"width": -(10**9)},
        {"width": None},
        {"lr": math.inf},
        {"lr": -math.inf},
        {"lr": math.nan},
        {"lr": "inf"},
        {"lr": "0.1"},
        {"lr": True},
        {"lr": 1e200},
        {"lr": 10**400},
        {"clip": math.nan},
        {"clip": False},
        {"bias": 1},
        {"bias": "yes"},
        {"kind": "c"},
        {"sizes": [1.0, math.inf]},
        {"sizes": ["1"]},
        {"sizes": 3},
        {"many": 10**10},
        {"lr": object()},
        {"kind": "\ud800"},
    ],
)
def test_what_is_no_sound_value_is_refused_in_one_line(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        validate_settings(Plain, values, "plain")
    text = str(error.value)
    assert text.startswith("settings of plain: ")
    assert "\n" not in text
    assert len(text) < 250


def test_sound_values_are_kept() -> None:
    given = {"width": 7, "lr": 1, "clip": 0.5, "bias": False, "kind": "b", "sizes": [1, 2.5], "many": 10**8}
    assert validate_settings(Plain, given, "plain") == {**given, "lr": 1.0, "sizes": [1.0, 2.5]}
    assert validate_settings(Plain, {"width": np.int64(4), "lr": np.float32(0.5)}, "plain")["width"] == 4


@pytest.mark.parametrize(
    "values",
    [
        {"seeds": "-1,-2"},
        {"seeds": [LAST_SEED + 1]},
        {"seeds": f"{LAST_SEED + 1},"},
        {"seeds": "99999999999999999999"},
        {"seeds": "１,２"},
        {"seeds": [True]},
        {"seeds": True},
        {"epochs": True},
        {"epochs": "3"},
        {"epochs": 10**20},
        {"epochs": {"digits": 10**9}},
        {"batch_size": 10**12},
        {"val_fraction": math.nan},
        {"seconds": math.inf},
        {"flops": 1e300},
        {"compile": "on"},
        {"methods": ""},
        {"datasets": "digits,,mnist"},
        {"protocols": ","},
        {"instruments": ""},
        {"device": "cuda:٣"},
        {"tune": {"seed": -1}},
        {"tune": {"trials": 2.0}},
    ],
)
def test_an_experiment_is_held_to_the_same(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is refused") as error:
        validated(Experiment, {"methods": ["a"], **values}, "here")
    assert len(str(error.value)) < 250


def test_seeds_are_exact_up_to_the_last() -> None:
    asked = validated(Experiment, {"methods": "a, b", "seeds": f"0,{LAST_SEED}", "instruments": "x"}, "here")
    assert (asked.seeds, asked.methods, asked.instruments) == ([0, LAST_SEED], ["a", "b"], ("x",))
