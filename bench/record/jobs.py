"""Where a cluster's runs are, or wait to be: the job of its queue and the machine, beside the records, no part of them.

results/<experiment>/.jobs/<run_id>.queued.json    {"job": "123_0"}, by the command that submits it
results/<experiment>/.jobs/<run_id>.begun.json     {"job": ..., "node": "gpu-7", "process": 4711}, by who works on it
"""

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

from bench.api.errors import StoreError
from bench.record.files import atomic_write, json_bytes, read_regular
from bench.record.folder import RunFolder

ASIDE = ".jobs"


class Note(NamedTuple):
    """What is noted of a run: its job in a queue, the machine that began it last. Empty where nothing is."""

    job: str = ""
    node: str = ""


def queued(folder: RunFolder, job: str) -> None:
    """Note a run's job. Raises: StoreError."""
    atomic_write(_path(folder, "queued"), json_bytes({"job": job}))


def begun(folder: RunFolder) -> None:
    """Note where a run begins, which no failure of the note may prevent."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    with contextlib.suppress(StoreError, OSError):
        atomic_write(
            _path(folder, "begun"), json_bytes({"job": job, "node": socket.gethostname(), "process": os.getpid()})
        )


def read(folder: RunFolder) -> Note:
    """What is noted of a run; a damaged note counts as none."""
    found = dict[str, str]()
    for kind in ("queued", "begun"):
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(read_regular(_path(folder, kind)))
            if isinstance(value, dict):
                found |= {key: text for key, text in value.items() if isinstance(text, str) and text}
    return Note(found.get("job", ""), found.get("node", ""))


def _path(folder: RunFolder, kind: str) -> Path:
    return folder.path.parent / ASIDE / f"{folder.run_id}.{kind}.json"
