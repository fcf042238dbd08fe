"""What decides a run's numbers, and the identity that follows from it."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.experiment.budget import Budget, protocol
from bench.experiment.flag import Flag

NUMERICS = 3
"""Version of all code that decides numbers and is hashed by nobody: loop, data, evaluation, instruments. Raise it by
one when a change there moves a recorded number, also one of measurement, and say in CHANGELOG.md what moved.

1: peaks of memory could hold those of validation, of checkpoints and of a second instance. 2: those of training alone.
3: FLOPs, passes, bytes and what updates wait for are those of all phases of training, not of the first.
"""

WHAT, HOW = Flag("What to run"), Flag("How to run it")


class Compute(BaseModel):
    """How a run computes: settings of the experiment that pass to its runs as they are. One line each."""

    batch_size: Annotated[int, WHAT] = Field(128, ge=2, le=10_000_000, description="examples per training step")
    val_fraction: Annotated[float, WHAT] = Field(
        0.1, ge=0, le=0.5, description="part of the training data held out for validation"
    )
    threads: Annotated[int, HOW] = Field(
        1, ge=1, description="CPU threads of a training step; left out: OMP_NUM_THREADS, else 1"
    )
    precision: Annotated[Literal["float32", "tf32", "bfloat16"], HOW] = Field(
        "float32", description="arithmetic of matrix products; bfloat16 by autocast"
    )
    data_on: Annotated[Literal["auto", "device", "host"], HOW] = Field(
        "auto", description="where data lie; from the host they are streamed, as auto does where a GPU has no room"
    )
    channels_last: Annotated[bool, HOW] = Field(False, description="images and convolutions in channels-last format")
    compile: Annotated[bool, HOW] = Field(False, description="compile the blocks of each net with torch.compile")
    instruments: Annotated[tuple[str, ...], WHAT] = Field((), description="what else to measure, between epochs")
    transforms: Annotated[tuple[str, ...], Flag("What to run", also="--augment")] = Field(
        (), description="changes of training batches, in this order, as crop,flip"
    )
    objective: Annotated[str, WHAT] = Field("", description="the loss to learn by; left out: the usual one of the task")
    metrics: Annotated[tuple[str, ...], WHAT] = Field(
        (), description="what judges predictions, the primary metric first"
    )

    def steps_per_epoch(self, n_train: int) -> int:
        """Whole batches only, so that every step has one shape; the rest has its turn in another epoch's order."""
        return max(1, n_train // self.batch_size)


class RunSpec(Compute, Budget):
    """Everything that decides a run's numbers; its hash is the run's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    method_settings: dict[str, Any]
    method_source: str
    net: str
    net_settings: dict[str, Any]
    net_source: str
    dataset: str
    data_id: str
    judged_by: dict[str, str] = {}  # source hashes of an objective and metrics that are not the suite's
    transformed_by: dict[str, str] = {}  # source hashes of transforms that are not the suite's
    seed: int
    epochs: int
    eval_draws: int
    device: str
    tuned: tuple[str, ...] = ()  # the settings that a search has chosen
    probe_only: bool = False  # set up, probed and looked at, but not trained
    numerics: int = NUMERICS

    @property
    def run_id(self) -> str:
        # a field added later has a default, and leaves the identity of older records alone
        fields = {**self.model_dump(mode="json", exclude_defaults=True), "numerics": self.numerics}
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        apart = ", own convergence" if protocol(self.model_dump()) == "convergence" else ""
        return f"{self.method} on {self.net}, {self.dataset}, seed {self.seed}{apart}"
