"""What a run and its jobs have written to their standard outputs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.api.errors import StoreError
from bench.record.files import below, read_regular, safe_name
from bench.record.states import State

JOBS = ".slurm"  # in the experiment's folder: what the executor of that name keeps of jobs


def output(root: Path, state: State, lines: int) -> Iterator[tuple[str, str]]:
    """Files with something in them, and the last lines of each: the run's, then its job's."""
    root = root.resolve()
    experiment = root if root.name == state.experiment else root / state.experiment
    files = [experiment / state.run_id / name for name in ("stdout.txt", "stderr.txt")]
    with contextlib.suppress(StoreError):  # a job by no safe name, or a link
        files += sorted(below(experiment, JOBS, safe_name(state.job, "a job")).glob("*_log.*"))
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # it has printed nothing
            text = read_regular(file).decode(errors="replace").splitlines()
            if text:
                yield str(file), "\n".join(text[-lines:])
