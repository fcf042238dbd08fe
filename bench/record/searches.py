"""What a search for settings tried and found, in a folder beside the experiment's: the provenance of its winners."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from bench.api.column import Column
from bench.api.errors import StoreError
from bench.record import forms
from bench.record.files import atomic_write, below, cause, read_regular
from bench.record.primary import ACCURACY, Primary

TUNING = ".tuning"  # what the folder of the trials adds to the experiment's name
WINNERS = "winners.json"

Verdict = Literal["solved", "edge", "chance", "failed", "refused"]
VERDICTS: dict[Verdict, str] = {
    "solved": "solved",
    "edge": "not solved by the search: the best is at the end of a range that was widened",
    "chance": "not solved by the search: no trial is above chance",
    "failed": "not solved by the search: every trial failed",
    "refused": "not searched: the method refuses the task",
}
Stage = Literal["spread", "guided", "widened"]
Value = Annotated[float | None, Field(validation_alias=AliasChoices("value", "val_acc"))]  # as older searches call it
Count = Annotated[int, Field(ge=0, le=10**12)]
Range = Annotated[list[Any], Field(min_length=1, max_length=10_000)]


class Trial(BaseModel):
    """One run of a search. value: of the primary metric on validation data, None where the run failed. train_s: None
    where it is not known.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    settings: dict[str, Any]
    value: Value
    status: str
    stage: Stage
    train_s: float | None


class Provenance(BaseModel):
    """Settings that were found, for which row of the tables, and by how much effort. None: an older search, unknown.

    value: the primary metric of the best trial on validation data. judged_by: the column that declares that metric;
    None for accuracy.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: str
    net: str
    dataset: str
    fixed: dict[str, Any] | None  # the method's other settings
    net_settings: dict[str, Any] | None
    best: dict[str, Any] | None  # None where every trial failed
    value: Value
    judged_by: Column | None = None
    verdict: Verdict
    n_trials: Count
    epochs: Count  # of each trial
    reported_epochs: Count  # of the runs that the settings are for
    batch_size: Count
    seed: forms.Seed
    sampler: str
    date: str | None
    commit: str | None
    source: str | None  # of method and net, as a hash

    @property
    def primary(self) -> Primary:
        return ACCURACY if self.judged_by is None else Primary(self.judged_by)

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        for value in self._values():
            low, high = self.primary.column.bounds
            if value is not None and not (low is None or value >= low) & (high is None or value <= high):
                raise ValueError(f"{value:g} is no {self.primary.word}")
        return self

    def _values(self) -> list[float | None]:
        return [self.value]


class Found(Provenance):
    """All of one search. declared, searched: the ranges before and after widening, as a method would write them."""

    variant: str
    declared: dict[str, Range]
    searched: dict[str, Range]
    at_chance: float  # the value of the primary metric up to which nothing was learnt
    tried: list[Trial]

    def _values(self) -> list[float | None]:
        return [self.value, *(trial.value for trial in self.tried)]


_LIST = TypeAdapter(list[Found])


def beside(folder: Path) -> Path:
    """Where the search of an experiment is, from the experiment's own folder."""
    return folder.with_name(f"{folder.name}{TUNING}")


def save(found: Sequence[Found], folder: Path) -> None:
    """Write what was tried and found, a search a line, for the report and as the provenance of the settings."""
    below(folder.parent, folder.name)
    lines = ",\n".join(row.model_dump_json() for row in found)
    atomic_write(folder / WINNERS, f"[\n{lines}\n]\n".encode())


def load(folder: Path) -> list[Found]:
    """What `save` wrote, or nothing where there was no search. Raises: StoreError where the file is corrupt."""
    path = below(folder.parent, folder.name) / WINNERS
    try:
        data = read_regular(path)
        forms.json_of(data)
        return _LIST.validate_json(data)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        why = forms.why(error) if isinstance(error, ValidationError) else cause(error)
        raise StoreError(f"{path} is corrupt ({why}); remove it and run the experiment again") from error
