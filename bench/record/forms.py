"""The forms of the JSON files in a results folder. Each file is checked once, where it is read.

Fields that a form does not name are kept as they are: older and newer records, and instruments from outside, have some.
"""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench.api.column import Column
from bench.api.status import Status
from bench.record.files import SAFE_NAME

DEEPEST = 50  # lists and objects within each other
LARGEST_NUMBER = 1e100
LONGEST_INTEGER = 40  # digits
LONGEST_TEXT = 1_000_000  # characters
MOST_COLUMNS = 500
MOST_DECIMALS = 15


def json_of(data: bytes) -> Any:
    """The value in a JSON file. Raises: ValueError, in one line, for what no record holds.

    Refused: encodings other than UTF-8, lone surrogates, numbers that are infinite or too large, deep nesting.
    """
    try:
        value = json.loads(data.decode(), parse_int=_int, parse_float=_float, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError(f"nested more than {DEEPEST} deep") from error
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                below += [*part, *part.values()]
            elif isinstance(part, list):
                below += part
            elif isinstance(part, str):
                _check_text(part)
        level = below
    return value


def object_of(data: bytes) -> dict[str, Any]:
    """Raises: ValueError where the file holds something else than an object."""
    value = json_of(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _int(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _float(text: str) -> float:
    if not abs(number := float(text)) <= LARGEST_NUMBER:
        raise ValueError(f"a number above {LARGEST_NUMBER:g}")
    return number


def _constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _check_text(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text of more than {LONGEST_TEXT} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text with a lone surrogate") from error


def _fraction(value: object) -> object:
    if isinstance(value, (int, float)) and not 0 <= value <= 1:
        raise ValueError("not between 0 and 1")
    return value


Name = Annotated[str, Field(min_length=1, max_length=300)]
RunId = Annotated[str, Field(pattern=rf"^(?:{SAFE_NAME.pattern})\z")]
Count = Annotated[int, Field(ge=1, le=10**12)]
Seed = int  # new runs have 0 to 2^32 - 1 (bench.experiment.config.Seed); older ones any
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Fraction = Annotated[Any, AfterValidator(_fraction)]  # words in its place cost a cell of a table, not the record


class Form(BaseModel):
    """Strict: text is no number, and true is no 1."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class SpecForm(Form):
    """spec.json: what a run was asked to do."""

    method: Name
    net: Name
    dataset: Name
    seed: Seed
    epochs: Count
    batch_size: Count
    steps: Count | None = None
    seconds: Annotated[float, Field(gt=0, le=1e12)] | None = None
    flops: Annotated[float, Field(gt=0, le=1e40)] | None = None
    patience: Count | None = None
    method_settings: dict[str, Any] = {}
    net_settings: dict[str, Any] = {}
    tuned: list[Name] = []
    instruments: list[Name] = []
    probe_only: bool = False
    data_id: str | None = None
    val_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    device: Name | None = None
    method_source: str | None = None
    net_source: str | None = None
    numerics: int | None = None
    precision: str | None = None


class SummaryForm(Form):
    """summary.json: how a run ended. Quantities are checked by the columns that declare them."""

    status: Status = "interrupted"
    reason: str | None = None
    finished_at: Seconds | None = None
    wall_s: Seconds | None = None
    primary_metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}\z")] | None = None
    test_acc: Fraction = None
    val_acc: Fraction = None
    oom_micro_batches: Count | None = None


class EnvironmentForm(Form):
    """env.json: the machine."""

    env_id: Name | None = None


class PlannedForm(Form):
    """An entry of plan.json."""

    run_id: RunId
    dataset: Name
    net: Name
    method: Name
    seed: Seed
    epochs: Count


_COLUMNS = TypeAdapter(tuple[Column, ...])


def checked(value: Mapping[str, Any], form: type[Form]) -> dict[str, Any]:
    """The value itself, if it has the form. Raises: ValueError naming the field."""
    try:
        form.model_validate(value)
    except ValidationError as error:
        raise ValueError(why(error)) from error
    return dict(value)


def why(error: ValidationError) -> str:
    """The first field that is wrong, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"'{place}': {first['msg']}" if place else first["msg"]


def spec(data: bytes) -> dict[str, Any]:
    return object_of(data)  # its form is that of today once it is brought up to date


def summary(data: bytes) -> dict[str, Any]:
    return checked(object_of(data), SummaryForm)


def environment(data: bytes) -> dict[str, Any]:
    return checked(object_of(data), EnvironmentForm)


def plan(data: bytes) -> list[dict[str, Any]]:
    value = json_of(data)
    if not isinstance(value, list) or not all(isinstance(run, dict) for run in value):
        raise ValueError("it is no list of runs")
    return [checked(run, PlannedForm) for run in value]


def columns(data: bytes) -> tuple[Column, ...]:
    """Raises: ValueError where a column is not declared as `Column` says, or cannot be shown."""
    json_of(data)
    try:
        found = _COLUMNS.validate_json(data, strict=True)
    except ValidationError as error:
        raise ValueError(why(error)) from error
    if len(found) > MOST_COLUMNS:
        raise ValueError(f"more than {MOST_COLUMNS} columns")
    for column in found:
        if not 0 <= (column.decimals or 0) <= MOST_DECIMALS:
            raise ValueError(f"decimals of {column.decimals}; 0 to {MOST_DECIMALS} can be shown")
        if not 0 < abs(column.scale) <= LARGEST_NUMBER or not math.isfinite(column.blank_at or 0):
            raise ValueError(f"a scale of {column.scale:g}")
        if not 0 < len(column.name) <= 100 or max(len(column.title), len(column.what)) > 1000:
            raise ValueError("a column without a name, or with a text that is too long")
    return found
