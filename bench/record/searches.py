"""What a search for settings tried and found, in a folder beside the experiment's: the provenance of its winners."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench.api.errors import StoreError
from bench.record import forms
from bench.record.files import atomic_write, below, cause, read_regular

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
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Range = Annotated[list[Any], Field(min_length=1, max_length=10_000)]


class Trial(BaseModel):
    """One run of a search. val_acc: a fraction, None where the run failed. train_s: None where it is not known."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    settings: dict[str, Any]
    val_acc: Fraction | None
    status: str
    stage: Stage
    train_s: float | None


class Provenance(BaseModel):
    """Settings that were found, for which row of the tables, and by how much effort. None: an older search, unknown."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: str
    net: str
    dataset: str
    fixed: dict[str, Any] | None  # the method's other settings
    net_settings: dict[str, Any] | None
    best: dict[str, Any] | None  # None where every trial failed
    val_acc: Fraction | None
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


class Found(Provenance):
    """All of one search. declared, searched: the ranges before and after widening, as a method would write them."""

    variant: str
    declared: dict[str, Range]
    searched: dict[str, Range]
    at_chance: Fraction  # an accuracy up to which nothing was learnt
    tried: list[Trial]


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
