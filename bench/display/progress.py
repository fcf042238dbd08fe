"""What `bench run` shows while it runs: a bar over the whole on a terminal and in a notebook, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.command import Begin, Listening, Whole
from bench.display.printing import one_line, say
from bench.display.tally import Tally
from bench.executors.executor import Hear
from bench.experiment.plan import Run
from bench.record.schema import CUT, FIRST_METRIC, PRIMARY
from bench.runner.events import Ended, EpochEnded, Event, Kept, Resumed, Shrunk, Started, Stepped


def listening(*, quiet: bool, jobs: int | None) -> Listening:
    """The display of a command, as it suits where the output goes. jobs: runs at a time; None: not known, so one."""
    return partial(_display, quiet=quiet, jobs=jobs or 1)


@contextmanager
def _display(whole: Whole, *, quiet: bool, jobs: int) -> Iterator[Begin]:
    if quiet:
        yield lambda runs: lambda run, event: None
    elif sys.stdout.isatty() or _in_a_notebook():
        with _bar(Tally(whole, jobs)) as begin:
            yield begin
    else:
        yield _lines


def _in_a_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


def _lines(runs: list[Run]) -> Hear:
    place = {run.spec.run_id: f"[{i}/{len(runs)}]" for i, run in enumerate(runs, start=1)}

    def listen(run: Run, event: Event) -> None:
        if not isinstance(event, Stepped):
            say(one_line(f"{place[run.spec.run_id]} {run.spec.label}: {_words(run, event)}"))

    return listen


@contextmanager
def _bar(tally: Tally) -> Iterator[Begin]:
    """One bar over the whole, below it a line for each run at work."""
    from rich.console import RenderableType
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    words: dict[str, str] = {}  # of the runs at work

    class Drawn(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            for task in self.tasks:
                self.update(task.id, completed=tally.done, total=tally.total, counts=tally.counts, end=tally.end())
            yield self.make_tasks_table(self.tasks)
            yield from (Text(one_line(f"{name}: {said}")) for name, said in list(words.items()))

    counts, end = TextColumn("{task.fields[counts]}"), TextColumn("{task.fields[end]}")
    columns = (counts, BarColumn(bar_width=None), TimeElapsedColumn(), end)
    # seldom drawn, so that it takes nothing from the runs that are timed
    with Drawn(*columns, refresh_per_second=2, expand=True) as progress:
        progress.add_task("", total=tally.total, counts=tally.counts, end=tally.end())

        def listen(run: Run, event: Event) -> None:
            tally.hear(run, event)
            said = _words(run, event)
            if isinstance(event, Kept | Ended):
                words.pop(run.spec.label, None)
                progress.console.print(escape(one_line(f"{run.spec.label}: {said}")), highlight=False)
            else:
                words[run.spec.label] = "setting up" if isinstance(event, Started) else said

        def begin(runs: list[Run]) -> Hear:
            tally.begin(runs)
            return listen

        yield begin


def _part(run: Run, step: Any, steps: int, train_s: Any) -> tuple[float, float]:
    """How much of its budget a run has used: seconds where those are the budget, steps elsewhere."""
    return (step, steps) if run.spec.seconds is None else (train_s, run.spec.seconds)


def _seconds(run: Run, train_s: Any) -> str:
    return f"{train_s:.1f} s" if run.spec.seconds is None else f"{train_s:.1f} of {run.spec.seconds:g} s"


def _shown(run: Run, value: float) -> str:
    """A value of the run's primary metric, as in `97.22%` or `RMSE 54.3`."""
    metric = run.metrics[0].load()
    if metric.key == FIRST_METRIC:
        return f"{value:.2%}"
    name, _, unit = metric.title.partition(", ")
    text = f"{metric.scale * value:.4g}" if metric.decimals is None else f"{metric.scale * value:.{metric.decimals}f}"
    return f"{name} {text}{unit if unit == '%' else f' {unit}' if unit else ''}"


def _words(run: Run, event: Event) -> str:
    match event:
        case Started():
            return "started"
        case Shrunk(micro_batches):
            return f"out of memory; again with each batch in {micro_batches} parts"
        case Resumed(curve):
            return f"continued after epoch {curve[-1]['epoch']:.4g}"
        case Stepped(step, steps, train_s):
            return f"step {step}/{steps}" if run.spec.seconds is None else f"step {step}, {_seconds(run, train_s)}"
        case EpochEnded(row):
            value = row.get(f"val_{run.metrics[0].load().key}")
            val = f", validation {_shown(run, value)}" if isinstance(value, float) else ""
            most = "/" if run.spec.seconds is None and run.spec.patience is None else " of at most "
            epoch = f"epoch {row['epoch']:.4g}{most}{run.spec.epochs}"
            return f"{epoch}, loss {row['train_loss']:.4f}{val}, {_seconds(run, row['train_s'])}"
        case Kept(summary) | Ended(summary):
            kept = " (kept from an earlier run)" if isinstance(event, Kept) else ""
            if summary["status"] != "ok":
                return f"{summary['status']}{kept}: {summary.get('reason')}"
            key = summary.get(PRIMARY) or FIRST_METRIC
            reached = {"test": summary.get(f"test_{key}"), "validation": summary.get(f"val_{key}")}
            shown = next((f", {name} {_shown(run, v)}" for name, v in reached.items() if v is not None), "")
            cut = f", each batch in {summary[CUT]} parts" if summary.get(CUT) else ""
            return f"ok{kept}{shown}{cut}"
