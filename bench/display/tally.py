"""How far a command is: of all its runs, trials of a search among them, and when the last of them will have ended."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.display.printing import left_and_end
from bench.experiment.plan import Run
from bench.record.standing import AtWork, remaining
from bench.runner.events import Ended, EpochEnded, Event, Kept, Shrunk, Started, Stepped

PLACE = ("dataset", "net", "method", "seed", "epochs")  # what is known of a run before a search has chosen for it


class Tally:
    """The whole as it is known ahead, and what was heard since.

    A round of trials beyond it, of a range that is widened, makes the whole larger. slots: runs at a time.
    """

    def __init__(
        self, whole: Sequence[Mapping[str, Any]], slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ahead = [dict(run) for run in whole]
        self._left: dict[str, Mapping[str, Any]] = {}
        self._at_work: dict[str, tuple[float, float]] = {}  # since when, and the part that is done
        self._seconds: list[tuple[Mapping[str, Any], float]] = []
        self._slots, self._clock = slots, clock
        self._asked: tuple[float, float | None] | None = None
        self.ended = 0

    @property
    def total(self) -> int:
        return self.ended + len(self._left) + len(self._ahead)

    @property
    def done(self) -> float:
        """Runs, with the parts of those at work."""
        return self.ended + sum(part for _, part in list(self._at_work.values()))

    @property
    def counts(self) -> str:
        return f"{self.ended} of {self.total} runs"

    def begin(self, runs: Sequence[Run]) -> None:
        """A part begins: its runs take the places kept for them; what stood before them is not coming any more."""
        for run in runs:
            spec = run.spec.model_dump(mode="json")
            self._left[run.spec.run_id] = {**spec, "run_id": run.spec.run_id}
            key = [spec[name] for name in PLACE]
            at = next((k for k, other in enumerate(self._ahead) if [other[name] for name in PLACE] == key), None)
            if at is None:
                continue
            if not self._ahead.pop(at).get("trial"):  # the search is over, whatever trials it has not needed
                self._ahead = [other for other in self._ahead if not other.get("trial")]

    def hear(self, run: Run, event: Event) -> None:
        key = run.spec.run_id
        match event:
            case Started() | Shrunk():
                self._at_work[key] = (self._clock(), 0.0)
            case Stepped(step, steps, train_s):
                self._ahead_by(run, step / max(1, steps), train_s)
            case EpochEnded(row, steps):
                self._ahead_by(run, float(row["step"] or 0) / max(1, steps), float(row["train_s"] or 0))
            case Kept(summary) | Ended(summary):
                since, _ = self._at_work.pop(key, (self._clock(), 0.0))
                of = self._left.pop(key, None)
                self.ended += of is not None
                seconds = max(self._clock() - since, float(summary.get("wall_s") or 0.0))
                if of is not None and summary["status"] != "skipped" and seconds > 0:
                    self._seconds.append((of, seconds))
        self._asked = None

    def _ahead_by(self, run: Run, part: float, train_s: float) -> None:
        if run.spec.seconds is not None:
            part = train_s / run.spec.seconds
        since, _ = self._at_work.get(run.spec.run_id, (self._clock(), 0.0))
        self._at_work[run.spec.run_id] = (since, min(1.0, part))

    def remaining_s(self) -> float | None:
        """Of all that is left; None where nothing tells yet."""
        now = self._clock()
        if self._asked is None:
            at_work = {
                key: AtWork("", part * self._left[key]["epochs"], self._left[key]["epochs"], now - since)
                for key, (since, part) in list(self._at_work.items())
                if key in self._left
            }
            left = [*self._left.values(), *self._ahead]
            self._asked = now, remaining(left, at_work, self._seconds, self._slots)
        asked, seconds = self._asked
        return None if seconds is None else max(0.0, seconds - (now - asked))

    def end(self) -> str:
        """In words: how long the rest takes, and until when."""
        seconds = self.remaining_s()
        if seconds is None:
            return "end not known yet"
        left, end = left_and_end(seconds)
        return f"{left} left, until {end}"
