"""Where the processes that we start import from: where this one did, and never from the working folder.

`python -c` and `python -m`, by which the fork server, its resource tracker and jobs of clusters start, put the working
folder first on the search path: a torch.py or a bench/ there would run in place of what is installed.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from multiprocessing import process
from pathlib import Path

import bench

HOME = str(Path(bench.__file__).resolve().parents[1])  # the folder that bench was imported from
SAFE, EXTRA = "PYTHONSAFEPATH", "PYTHONPATH"

_lock = threading.RLock()


def search_path() -> list[str]:
    """This process's search path, absolute, without the working folder that the interpreter added by itself.

    The working folder stays where the user names it in PYTHONPATH, and where `bench` itself was imported from it.
    """
    here = {os.path.realpath(folder) for folder in (os.getcwd(), getattr(process, "ORIGINAL_DIR", None)) if folder}
    given = {os.path.realpath(entry) for entry in os.environ.get(EXTRA, "").split(os.pathsep) if entry}
    wanted = given | {HOME}
    kept = []
    for place, entry in enumerate(sys.path):
        real = os.path.realpath(entry)
        added = entry == "" or (place == 0 and real in here)
        if not added or real in wanted:
            kept.append(os.path.abspath(entry))
    return list(dict.fromkeys(kept))


@contextlib.contextmanager
def same_imports() -> Iterator[None]:
    """Processes that start meanwhile, and theirs, import from `search_path()` and nothing else."""
    with _lock:
        path, before = sys.path.copy(), {name: os.environ.get(name) for name in (SAFE, EXTRA)}
        sys.path[:] = search_path()
        os.environ |= {SAFE: "1", EXTRA: os.pathsep.join(sys.path)}
        try:
            yield
        finally:
            sys.path[:] = path
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
