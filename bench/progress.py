"""What `bench run` shows while it runs: bars on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.executors.local import Listener
from bench.plan import Run


@contextmanager
def listener(runs: list[Run], *, quiet: bool) -> Iterator[Listener]:
    """The listener that suits where the output goes."""
    if quiet:
        yield lambda run, kind, detail: None
    elif sys.stdout.isatty():
        with _bars(runs) as listen:
            yield listen
    else:
        yield _lines(runs)


def _lines(runs: list[Run]) -> Listener:
    place = {run.spec.run_id: f"[{i}/{len(runs)}]" for i, run in enumerate(runs, start=1)}

    def listen(run: Run, kind: str, detail: dict[str, Any]) -> None:
        if kind == "progress" and "epoch" not in detail:
            return
        print(f"{place[run.spec.run_id]} {run.spec.label}: {_words(run, kind, detail)}", flush=True)

    return listen


@contextmanager
def _bars(runs: list[Run]) -> Iterator[Listener]:
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    name, words_column = TextColumn("{task.description}"), TextColumn("{task.fields[words]}")
    with Progress(name, BarColumn(), words_column, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        whole = progress.add_task("all runs", total=len(runs), words="")
        bars: dict[str, TaskID] = {}

        def listen(run: Run, kind: str, detail: dict[str, Any]) -> None:
            key, words = run.spec.run_id, escape(_words(run, kind, detail))
            if kind in ("done", "kept"):
                progress.advance(whole)
                if key in bars:
                    progress.remove_task(bars.pop(key))
                progress.console.print(f"{escape(run.spec.label)}: {words}", highlight=False)
            elif kind == "start":
                bars[key] = progress.add_task(escape(run.spec.label), total=None, words="setting up")
            else:
                progress.update(bars[key], completed=detail["step"], total=detail["steps"], words=words)

        yield listen


def _words(run: Run, kind: str, detail: dict[str, Any]) -> str:
    if kind == "start":
        return "started"
    if kind == "progress":
        if "epoch" not in detail:
            return f"step {detail['step']}/{detail['steps']}"
        val = f", validation {detail['val_acc']:.2%}" if detail["val_acc"] is not None else ""
        epoch = f"epoch {detail['epoch']}/{run.spec.epochs}"
        return f"{epoch}, loss {detail['train_loss']:.4f}{val}, {detail['train_s']:.1f} s"
    ended = detail["status"] if kind == "done" else f"{detail['status']} (kept from an earlier run)"
    if detail["status"] == "ok":
        score = f"test {detail['test_acc']:.2%}" if "test_acc" in detail else f"validation {detail['val_acc']:.2%}"
        return f"{ended}, {score}"
    return f"{ended}: {detail.get('reason')}"
