"""The verbs of the command line. Each is imported when it is asked for, so that `bench list` waits for no other."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from bench.cli.command import Command
from bench.cli.executor import WithExecutor

WITH_EXECUTOR = ("run", "tune")
VERBS = {  # module:name in bench.cli, in the order of --help
    "run": "run:run",
    "tune": "tune:tune",
    "estimate": "estimate:estimate",
    "memory": "memory:memory",
    "scale": "scale:scale",
    "audit": "audit:audit",
    "list": "listing:app",
    "show": "show:show",
    "status": "status:status",
    "logs": "logs:logs",
    "report": "report:report",
    "compare": "report:compare",
    "merge": "report:merge",
    "pack": "report:pack",
    "check": "check:check",
    "doctor": "doctor:doctor",
}


class Verbs(TyperGroup):
    """The group of all verbs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands and cmd_name in VERBS:
            self.commands[cmd_name] = _command(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in VERBS:
            for name in VERBS:  # typer looks here for a verb of a similar name
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _command(name: str) -> Any:
    module, _, found = VERBS[name].partition(":")
    verb = getattr(import_module(f"bench.cli.{module}"), found)
    if not isinstance(verb, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name, cls=WithExecutor if name in WITH_EXECUTOR else Command)(verb)
        verb = app
    command = typer.main.get_command(verb)
    command.name = name
    return command
