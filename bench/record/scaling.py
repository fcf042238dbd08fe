"""What `bench scale` measured and modelled: results/<experiment>/scaling/<id>.json, a point each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.api.errors import StoreError
from bench.record import forms
from bench.record.files import atomic_write, below, cause, is_link, json_bytes, read_regular, safe_name

SCALING = "scaling"
WayName = Literal["blocks", "data", "pipeline"]
WAYS: Mapping[WayName, str] = {"blocks": "blocks", "data": "data parallel", "pipeline": "pipeline"}
Count = Annotated[int, Field(ge=1, le=10**12)]
Amount = Annotated[float, Field(ge=0, le=1e40)]


class Point(BaseModel):
    """A way of training over so many workers. Of all workers: step_s and images_per_s of the slowest, idle of each.

    modelled_images_per_s: what the model says of the same point. sent_bytes: by all workers in a step. as_one: whether
    the weights after all steps were those of one process, to the last bit; None where that is not to be expected.
    weights: their hash. crowded: more workers than cores. others: the part of the time in which a worker neither
    computed nor waited, the most of all workers: its core was with somebody else.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: int = 1
    point_id: str
    date: str  # with time, as ISO 8601 has it
    kind: Literal["measured", "simulated"]
    status: Literal["ok", "crashed"]
    reason: str | None = None
    method: str
    net: str
    dataset: str
    way: WayName
    workers: Count
    batch_size: Count
    n_micro: Count
    steps: Count
    warm_up: Annotated[int, Field(ge=0, le=10**12)]
    settings: dict[str, Any]
    net_settings: dict[str, Any]
    step_s: Amount | None = None
    images_per_s: Amount | None = None
    idle: list[float] = []
    sent_bytes: Amount | None = None
    modelled_images_per_s: Amount | None = None
    weights: str | None = None
    as_one: bool | None = None
    crowded: bool = False
    others: float | None = None
    link: dict[str, Any] | None = None
    profile: dict[str, Any] | None = None
    device: str
    environment: dict[str, Any]


def save(folder: Path, point: Point) -> None:
    """Into an experiment's folder. Raises: StoreError where it cannot be written."""
    path = below(folder.parent, folder.name, SCALING) / f"{safe_name(point.point_id, 'a point')}.json"
    atomic_write(path, json_bytes(point.model_dump(mode="json")))


def exist(root: Path) -> bool:
    return any(_files(root))


def load(root: Path, problems: list[str] | None = None) -> list[Point]:
    """All points below a folder: an experiment's, or one of several.

    problems: where to say which file is corrupt. Raises: StoreError where there is no such list.
    """
    return [point for _, point in placed(root, problems)]


def placed(root: Path, problems: list[str] | None = None) -> list[tuple[Path, Point]]:
    """The same, each with its file."""
    found = []
    for path in _files(root):
        try:
            data = read_regular(path)
            forms.json_of(data)
            found.append((path, Point.model_validate_json(data)))
        except (OSError, ValueError) as error:
            why = forms.why(error) if isinstance(error, ValidationError) else cause(error)
            corrupt = StoreError(f"{path} is corrupt ({why}); remove it and run `bench scale` again")
            if problems is None:
                raise corrupt from error
            problems.append(str(corrupt))
    return found


def _files(root: Path) -> list[Path]:
    """Those that are reached without a link below root; a link in place of the folder stands for its files."""
    holders = [root, *(path for path in root.glob("*/") if not is_link(path))]
    folders = [path / SCALING for path in holders]
    return sorted(f for path in folders for f in ([path] if is_link(path) else path.glob("*.json")))
