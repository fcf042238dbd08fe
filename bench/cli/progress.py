"""What `bench run` shows while it runs: bars on a terminal and in a notebook, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.executors.executor import Listener
from bench.runner.events import Ended, EpochEnded, Event, Kept, Started, Stepped
from bench.spec.plan import Run


@contextmanager
def listener(runs: list[Run], *, quiet: bool) -> Iterator[Listener]:
    """The listener that suits where the output goes."""
    if quiet:
        yield lambda run, event: None
    elif sys.stdout.isatty() or _in_a_notebook():
        with _bars(runs) as listen:
            yield listen
    else:
        yield _lines(runs)


def _in_a_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


def _lines(runs: list[Run]) -> Listener:
    place = {run.spec.run_id: f"[{i}/{len(runs)}]" for i, run in enumerate(runs, start=1)}

    def listen(run: Run, event: Event) -> None:
        if not isinstance(event, Stepped):
            print(f"{place[run.spec.run_id]} {run.spec.label}: {_words(run, event)}", flush=True)

    return listen


@contextmanager
def _bars(runs: list[Run]) -> Iterator[Listener]:
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    name, words_column = TextColumn("{task.description}"), TextColumn("{task.fields[words]}")
    with Progress(name, BarColumn(), words_column, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        whole = progress.add_task("all runs", total=len(runs), words="")
        bars: dict[str, TaskID] = {}

        def listen(run: Run, event: Event) -> None:
            key, words = run.spec.run_id, escape(_words(run, event))
            match event:
                case Started():
                    bars[key] = progress.add_task(escape(run.spec.label), total=None, words="setting up")
                case Stepped(step, steps, train_s):
                    done, total = _part(run, step, steps, train_s)
                    progress.update(bars[key], completed=done, total=total, words=words)
                case EpochEnded(row, steps):
                    done, total = _part(run, row["step"], steps, row["train_s"])
                    progress.update(bars[key], completed=done, total=total, words=words)
                case Kept() | Ended():
                    progress.advance(whole)
                    if key in bars:
                        progress.remove_task(bars.pop(key))
                    progress.console.print(f"{escape(run.spec.label)}: {words}", highlight=False)

        yield listen


def _part(run: Run, step: Any, steps: int, train_s: Any) -> tuple[float, float]:
    """How much of its budget a run has used: seconds where those are the budget, steps elsewhere."""
    return (step, steps) if run.spec.seconds is None else (train_s, run.spec.seconds)


def _seconds(run: Run, train_s: Any) -> str:
    return f"{train_s:.1f} s" if run.spec.seconds is None else f"{train_s:.1f} of {run.spec.seconds:g} s"


def _words(run: Run, event: Event) -> str:
    match event:
        case Started():
            return "started"
        case Stepped(step, steps, train_s):
            return f"step {step}/{steps}" if run.spec.seconds is None else f"step {step}, {_seconds(run, train_s)}"
        case EpochEnded(row):
            val = f", validation {row['val_acc']:.2%}" if row["val_acc"] is not None else ""
            most = "/" if run.spec.seconds is None and run.spec.patience is None else " of at most "
            epoch = f"epoch {row['epoch']:.4g}{most}{run.spec.epochs}"
            return f"{epoch}, loss {row['train_loss']:.4f}{val}, {_seconds(run, row['train_s'])}"
        case Kept(summary) | Ended(summary):
            kept = " (kept from an earlier run)" if isinstance(event, Kept) else ""
            if summary["status"] != "ok":
                return f"{summary['status']}{kept}: {summary.get('reason')}"
            reached = {"test": summary.get("test_acc"), "validation": summary.get("val_acc")}
            shown = next((f", {name} {value:.2%}" for name, value in reached.items() if value is not None), "")
            return f"ok{kept}{shown}"
