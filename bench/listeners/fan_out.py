"""From the events of runs to the listeners of a command, each in a thread of its own, so that none holds up a run."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from bench.api.column import Value
from bench.api.errors import BenchError, ConfigError, shortened
from bench.api.listener import Listener, RunInfo
from bench.catalog.catalog import Catalog
from bench.executors.executor import Hear
from bench.experiment.plan import Run
from bench.record.files import csv_rows, read_regular
from bench.record.folder import RunFolder
from bench.runner.events import Ended, EpochEnded, Event, Resumed, Shrunk, Started

OPEN_S = 60.0  # that a listener may take before the first run begins
CLOSE_S = 60.0  # that all may take after the last run


def make(catalog: Catalog, names: Iterable[str]) -> list[Listener]:
    """Listeners by name, as `tensorboard` or `csv:FOLDER`.

    Raises: ConfigError for an unknown name, a wrong argument or a missing package.
    """
    return [_made(catalog, name) for name in names]


def _made(catalog: Catalog, asked: str) -> Listener:
    name, colon, argument = asked.partition(":")
    cls = catalog.listeners[name].load()
    if colon and not argument:
        raise ConfigError(f"--log {asked}: nothing follows the colon; write {name}:{cls.argument or '...'}, or {name}")
    if argument and not cls.argument:
        raise ConfigError(f"--log {asked}: {name} takes nothing after a colon; write {name}")
    try:
        listener: Listener = cls(argument)
    except BenchError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's code, or a package that is installed and broken
        raise ConfigError(
            f"listener {name} cannot be made: {_told(error)}; mend it, or leave it out of --log"
        ) from error
    return listener


class FanOut:
    """Tells listeners of runs, as long as it is entered. warn: prints a line of warning."""

    def __init__(self, listeners: Sequence[Listener] = (), warn: Callable[[str], object] = print) -> None:
        self._ears = [_Ear(listener, warn) for listener in listeners]

    def __enter__(self) -> Self:
        for ear in self._ears:
            ear.thread.start()
        for ear in self._ears:
            ear.is_open.wait(OPEN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for ear in self._ears:
            ear.news.put(None)
        for ear in self._ears:
            ear.thread.join(CLOSE_S)
            if ear.thread.is_alive():
                ear.warn(f"did not finish in {CLOSE_S:g} s; what it logs may be incomplete")

    def beside(self, hear: Hear, root: Path, experiment: str) -> Hear:
        """`hear`, and the listeners with it, for runs of an experiment whose folder is below root."""
        if not self._ears:
            return hear

        def both(run: Run, event: Event) -> None:
            hear(run, event)
            for ear in self._ears:
                ear.news.put((run, event, RunFolder(root, experiment, run.spec.run_id)))

        return both


class _Ear:
    """One listener: the events that it has not heard yet, and how far each run in progress has been told."""

    def __init__(self, listener: Listener, warn: Callable[[str], object]) -> None:
        self._listener, self._warn = listener, warn
        self._warned = False
        self._told: dict[str, float] = {}  # the last step told of each run in progress
        self.news = SimpleQueue[tuple[Run, Event, RunFolder] | None]()
        self.is_open = threading.Event()
        self.thread = threading.Thread(target=self._work, name=f"listener {listener.name}", daemon=True)

    def warn(self, text: str) -> None:
        """Once for each listener."""
        if not self._warned:
            self._warned = True
            self._warn(f"warning: listener {self._listener.name} {text}")

    def _work(self) -> None:
        heard = self._call(self._listener.open)
        self.is_open.set()
        while (news := self.news.get()) is not None:
            if heard:
                self._hear(*news)
        if heard:
            self._call(self._listener.close)

    def _hear(self, run: Run, event: Event, folder: RunFolder) -> None:
        key = folder.run_id
        info = RunInfo(folder.experiment, key, run.spec.label, run.spec.model_dump(mode="json"))
        match event:
            case Started():
                if key in self._told:
                    self._end(info, {"status": "interrupted", "reason": "its process was lost; begun again"})
                self._start(info)
            case Shrunk(parts):
                self._end(info, {"status": "oom", "reason": f"begun again with each batch in {parts} parts"})
                self._start(info)
            case Resumed(curve):
                self._points(info, curve)
            case EpochEnded(row):
                self._points(info, [row])
            case Ended(summary):
                if key not in self._told:
                    self._start(info)
                self._points(info, _curve(folder))  # where executors send no news of epochs
                self._end(info, summary)

    def _start(self, info: RunInfo) -> None:
        self._told[info.run_id] = 0
        self._call(self._listener.started, info)

    def _points(self, info: RunInfo, rows: Iterable[Mapping[str, Value]]) -> None:
        for row in rows:
            if (step := float(row.get("step") or 0)) > self._told.get(info.run_id, 0):
                self._told[info.run_id] = step
                self._call(self._listener.point, info, dict(row))

    def _end(self, info: RunInfo, summary: Mapping[str, Any]) -> None:
        self._told.pop(info.run_id, None)
        hook = self._listener.ended if summary["status"] == "ok" else self._listener.failed
        self._call(hook, info, dict(summary))

    def _call(self, hook: Callable[..., object], *told: Any) -> bool:
        """Whether it went well."""
        try:
            hook(*told)
        except (Exception, SystemExit) as error:  # a listener may raise anything; no run may suffer from it
            self.warn(f"failed in {hook.__name__}: {_told(error)}; runs go on, what it logs may be incomplete")
            return False
        return True


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {shortened(' '.join(str(error).split()))}"


def _curve(folder: RunFolder) -> list[dict[str, Value]]:
    """The learning curve in the record; empty where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        fields, lines = csv_rows(read_regular(folder.path / "curve.csv"))
        return [dict(zip(fields, (float(cell) if cell else None for cell in line), strict=True)) for line in lines]
    return []
