"""`bench status`: where a sweep stands, and when it will end."""

from pathlib import Path
from typing import Annotated

import typer

from bench.display.printing import BAD_INPUT, fail, left_and_end, note, table


def status(
    results: Annotated[Path, typer.Argument(help="A results folder, or that of one experiment.")] = Path("results"),
    runs: Annotated[bool, typer.Option("--runs", help="Each run: its node, job, state and error.")] = False,
) -> int:
    """Tell where a sweep stands: what has ended, what is at work, when the rest will be done."""
    from bench.record.standing import standings
    from bench.record.states import states

    problems: list[str] = []
    if runs:
        rows = [[of.run_id, of.label, of.node, of.job, of.state, of.error] for of in states(results, problems)]
        if rows:
            table(["run", "what", "node", "job", "state", "error"], rows, least=["what", "job", "node"])
            return BAD_INPUT if [fail(problem) for problem in problems] else 0
    found = standings(results, problems)
    lines = []
    for standing in found:
        failed = {name: n for name, n in standing.ended.items() if name != "ok"}
        told = ", ".join(f"{n} {name}" for name, n in sorted(failed.items()))
        counts = [standing.planned, standing.ended.get("ok", 0), told or 0, len(standing.at_work), standing.waiting]
        lines.append([standing.experiment, *map(str, counts), _when(standing.remaining_s)])
    table(["experiment", "runs", "ok", "else", "at work", "waiting", "left"], lines)
    for run in (run for standing in found for run in standing.at_work):
        note(f"at work: {run.label}, epoch {run.epoch:g} of {run.epochs}, {run.seconds:.0f} s")
    for problem in problems:
        fail(problem)
    return BAD_INPUT if problems else 0


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "not known yet"
    if seconds == 0:
        return "none"
    left, end = left_and_end(seconds)
    return f"{left}, until {end}"
