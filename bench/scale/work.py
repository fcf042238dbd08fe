"""What a group of workers is asked to do, as one picklable value."""

from dataclasses import dataclass
from pathlib import Path

from bench.experiment.plan import Run
from bench.record.scaling import WayName


@dataclass(frozen=True)
class Work:
    """Some training steps of a run over workers. steps are timed, after warm_up others.

    n_micro: micro-batches of a pipeline. sizes: batches of which a profile times whole steps. float64: compute in it.
    keep: a folder for the weights after training.
    """

    run: Run
    way: WayName
    workers: int
    steps: int
    warm_up: int
    n_micro: int
    device: str
    data_dir: Path | None = None
    sizes: tuple[int, ...] = ()
    float64: bool = False
    keep: Path | None = None
