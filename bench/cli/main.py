"""The command line: its verbs and its way out. Exit code 0: all well, 1: some run failed, 2: bad input."""

import errno
import io
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from bench import __version__
from bench.api.errors import BenchError
from bench.cli.ending import CTRL_C
from bench.cli.outlet import steady
from bench.cli.verbs import Verbs
from bench.display.printing import fail, say
from bench.record.files import cause

INSTALLATION = "the installation must be readable by this user as long as the command runs"

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        say(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Benchmark of learning with and without backprop."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `bench` command."""
    steady()
    try:
        code = app(None if arguments is None else list(arguments), standalone_mode=False)
    except BenchError as error:
        code = fail(str(error))
    except (KeyboardInterrupt, typer.Abort):  # typer turns the one into the other
        code = CTRL_C
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        if error.errno != errno.ENOSPC:  # a place that is gone, or that this user may not read
            raise SystemExit(fail(f"{error.filename or 'the system'}: {cause(error)}")) from error
        sys.stdout = io.StringIO()  # what is left to be flushed would complain again
        code = fail(f"cannot print: {cause(error)}")
    except ImportError as error:
        code = fail(f"cannot load {error.name or 'a module'}: {error}; {INSTALLATION}")
    except Exception as error:  # of typer's own errors only those of usage reach this line with an exit code
        if type(error) is LookupError:  # Python's, over an encoding whose module cannot be read
            raise SystemExit(fail(f"{error}; {INSTALLATION}")) from error
        if not hasattr(error, "exit_code") or not hasattr(error, "format_message"):
            raise
        code = fail(error.format_message())
    raise SystemExit(code if isinstance(code, int) else 0)
