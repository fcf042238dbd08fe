"""`bench logs`: what a run printed, and what its job did."""

from pathlib import Path
from typing import Annotated

import typer

from bench.api.errors import ConfigError
from bench.display.printing import say

SHOWN = 10  # runs that one beginning may mean


def logs(
    run: Annotated[str, typer.Argument(help="A run, or how it begins; `bench status --runs` lists them.")],
    results: Annotated[Path, typer.Argument(help="A results folder, or that of one experiment.")] = Path("results"),
    lines: Annotated[int, typer.Option(min=1, max=1_000_000, help="Lines of each file, the last ones.")] = 200,
) -> int:
    """Show what a run printed, and what its jobs on a cluster did."""
    from bench.record.output import output
    from bench.record.states import states

    problems: list[str] = []
    found = [state for state in states(results, problems) if state.run_id.startswith(run)]
    if not found:
        why = problems[0] if problems else f"bench status {results} --runs lists those that there are"
        raise ConfigError(f"no run {run} below {results}: {why}")
    if len(found) > 1:
        names = ", ".join(state.run_id for state in found[:SHOWN])
        raise ConfigError(f"{len(found)} runs begin with {run}: {names}; write more of it")
    (state,) = found
    where = ", ".join(f"{what} {value}" for what, value in (("node", state.node), ("job", state.job)) if value)
    say(f"{state.run_id}: {state.label}: {state.state}{f' ({where})' if where else ''}")
    if state.error:
        say(state.error)
    for name, text in output(results, state, lines):
        say(f"\n{name}:\n{text}")
    return 0
