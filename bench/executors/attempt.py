"""One attempt at one run: a picklable function, to be called on the machine that is to do the work.

It locks the run's folder there, keeps what is finished, runs the rest in a child process, and writes the record.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from bench.api.errors import ConfigError, PluginError, StoreError, unknown
from bench.api.status import FINAL, RESUMABLE, Status
from bench.executors import isolate
from bench.executors.isolate import Job, Summary
from bench.experiment.identity import RunSpec
from bench.record.clock import moment
from bench.record.files import atomic_write, read_regular
from bench.record.folder import RunFolder
from bench.record.schema import CUT, PRIMARY, WEIGHTS_SHA256
from bench.runner.events import Ended, Event, Kept, Shrunk, Started

BUSY_POLL_S = 1.0  # after which a run that another process has is asked for again
MOST_PARTS = 64  # into which a batch is cut for want of memory
REMOVED = "its folder was removed while it ran; the same command does it again"
KILLS = 3  # from outside, in a row and without getting ahead, after which a run is given up


OnOOM = Literal["fail", "shrink"]


@dataclass(frozen=True)
class Terms:
    """On what terms a run is attempted. fresh: what was finished is done again. retry: failures to be tried again.

    on_oom: whether a run that runs out of memory begins again with its batches cut, where its method can do so to the
    same update. timeout_s: of each beginning. after: when the last run of the experiment ended, by the records there
    were, in Unix seconds. keep_weights: whether a run keeps what it learnt; one that ended without is done again.
    """

    timeout_s: float | None = None
    fresh: bool = False
    retry: frozenset[Status] = frozenset()
    on_oom: OnOOM = "fail"
    after: float = 0.0
    keep_weights: bool = False

    @classmethod
    def asked(
        cls, timeout_s: float | None, *, fresh: bool, retry: Iterable[str], on_oom: str, keep_weights: bool = False
    ) -> Self:
        """Terms in a user's words. Raises: ConfigError for a failure or an answer that there is not."""
        failures: dict[str, Status] = {s: s for s in get_args(Status) if s in FINAL and s != "ok"}
        answers: dict[str, OnOOM] = {answer: answer for answer in get_args(OnOOM)}
        names = list(retry)
        for name in names:
            if name not in failures:
                raise ConfigError(f"retry: {unknown('failure', name, failures)}")
        if on_oom not in answers:
            raise ConfigError(f"on-oom: {unknown('answer', on_oom, answers)}")
        return cls(
            timeout_s, fresh, frozenset(failures[name] for name in names), answers[on_oom], keep_weights=keep_weights
        )


def attempt(job: Job, terms: Terms, tell: Callable[[Event], None], stop: threading.Event) -> Summary | None:
    """The summary of a run, finished before or now; None where another process is at work on it.

    `unreadable` is true in it where the run has a closing record that is corrupt: the run is left alone.

    Raises: StoreError where results cannot be written.
    """
    folder = job.folder
    lock = folder.lock()
    if lock is None:
        return None
    try:
        if terms.fresh:
            folder.clear()
        try:
            before = folder.summary()
        except StoreError as error:  # it costs this run alone, and stays as it is
            before = {**named(job.run.spec), "status": "crashed", "reason": str(error), "unreadable": True}
            tell(Kept(before))
            return before
        if before is not None and not is_due(before, terms):
            tell(Kept(before))
            return before
        if before is not None and before.get("status") == "ok":  # done again for its weights, and not ended until then
            folder.clear()
        tell(Started())
        stood = _stand(folder)
        if not folder.has_spec():  # so that a run whose process dies at once has a row
            folder.create(job.run.spec.model_dump(mode="json"), None)
        if before is not None and before.get("status") in RESUMABLE:  # it goes on as it was
            job = replace(job, micro_batches=before.get(CUT) or 1)
        job = replace(job, keep_weights=terms.keep_weights)
        summary = _executed(job, lock, terms, tell, stop)
        summary = _counted(summary, before or {}, ahead=_stand(folder) != stood)
        spec = job.run.spec
        if not folder.is_held(lock):
            os.close(lock)
            if (lock := folder.lock()) is None:  # another process has begun it anew
                return None
            folder.clear()
            folder.create(spec.model_dump(mode="json"), None)
            summary = {"status": "interrupted", "reason": REMOVED}
        summary |= {
            **named(spec),
            **_judged(job),
            "timeout_s": terms.timeout_s,
            "on_oom": terms.on_oom,
            "finished_at": moment(terms.after),
        }
        folder.finish(summary)
        tell(Ended(summary))
        return summary
    finally:
        if lock is not None:
            os.close(lock)


def named(spec: RunSpec) -> Summary:
    """What a summary says of which run it is of."""
    return {name: getattr(spec, name) for name in ("method", "net", "dataset", "seed", "device")}


def _judged(job: Job) -> Summary:
    """By which metric the run is judged; nothing where its code cannot be imported."""
    with contextlib.suppress(PluginError):
        return {PRIMARY: job.run.metrics[0].load().key}
    return {}


def is_due(before: Summary, terms: Terms) -> bool:
    """Whether a run that has a record is attempted again: it is unfinished, asked for, or given more time or leeway,
    or lacks the weights that it is to leave.
    """
    status = before.get("status")
    if status not in FINAL or status in terms.retry:
        return True
    if status == "oom" and terms.on_oom == "shrink" and before.get("on_oom") != "shrink":
        return True
    if status == "ok" and terms.keep_weights and not before.get(WEIGHTS_SHA256):
        return True
    more = terms.timeout_s is None or terms.timeout_s > (before.get("timeout_s") or 0)
    return status == "timeout" and more


def _executed(job: Job, lock: int, terms: Terms, tell: Callable[[Event], None], stop: threading.Event) -> Summary:
    """The run in a child; where that ends for want of memory and the terms say so, in another with batches cut in two,
    then in 4, 8, ... parts.
    """
    folder = job.folder
    summary = isolate.execute(job, lock, timeout_s=terms.timeout_s, stop=stop, tell=tell)
    while summary["status"] == "oom" and terms.on_oom == "shrink":
        parts, failed = 2 * job.micro_batches, summary
        if parts > min(MOST_PARTS, job.run.spec.batch_size):
            return {**failed, "reason": f"{failed['reason']}; batches are cut no further than this", **_cut(job)}
        told = None
        with contextlib.suppress(OSError):  # nothing was printed
            told = read_regular(folder.stderr)
        job = replace(job, micro_batches=parts)
        # what a kill leaves behind is to be continued in parts of this size
        folder.finish({"status": "interrupted", "reason": "begun again for want of memory", **_cut(job)})
        tell(Shrunk(parts))
        summary = isolate.execute(job, lock, timeout_s=terms.timeout_s, stop=stop, tell=tell)
        if summary.pop("uncuttable", False):
            if told is not None:
                atomic_write(folder.stderr, told)
            return {**failed, "reason": f"{failed['reason']}; not in smaller parts: {summary['reason']}"}
    return {**summary, **_cut(job)}


def _cut(job: Job) -> Summary:
    return {CUT: job.micro_batches} if job.micro_batches > 1 else {}


def _counted(summary: Summary, before: Summary, *, ahead: bool) -> Summary:
    """Kills that came from outside are nobody's fault, unless they come whenever the run comes to the same place."""
    if not isolate.is_kill(summary):
        return summary
    kills = 1 if ahead else 1 + int(before.get("kills", 0))
    if kills >= KILLS:
        summary = {"status": "crashed", "reason": f"killed by SIGKILL {kills} times in a row at the same place"}
    return {**summary, "kills": kills}


def _stand(folder: RunFolder) -> tuple[int, int]:
    """Something that changes as a run gets ahead."""
    stand = [0, 0]
    for k, path in enumerate((folder.path / "curve.csv", folder.checkpoint)):
        with contextlib.suppress(OSError):
            stand[k] = path.stat().st_mtime_ns
    return stand[0], stand[1]
