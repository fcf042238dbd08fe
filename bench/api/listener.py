"""What hears the runs of a command: loggers such as TensorBoard, or a message to a phone. Off unless asked for by name.

A listener works in the process of the command, in a thread of its own. Runs train in other processes and never wait
for it, so it is in no measured time. What it raises is printed once as a warning and changes no run.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.api.column import Value
from bench.api.errors import ConfigError

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class RunInfo:
    """Which run an event belongs to.

    experiment: name of the results folder; trials of a search have one of their own, which ends in `.tuning`.
    label: method, net, data set and seed in words. spec: everything that decides the run's numbers, as in spec.json.
    """

    experiment: str
    run_id: str
    label: str
    spec: Mapping[str, Any]

    @property
    def file_name(self) -> str:
        """A name for the run's file or folder: readable, and of no other run."""
        of = self.spec
        words = f"{of['method']}-{of['net']}-{of['dataset']}-seed{of['seed']}"
        return f"{_UNSAFE.sub('_', words)[:120]}-{self.run_id}"

    @property
    def settings(self) -> dict[str, Value]:
        """The spec as one flat table: settings of the method and of the net have its name before them."""
        prefixes = {"method_settings": self.spec["method"], "net_settings": self.spec["net"]}
        return dict(_flat(self.spec, "", prefixes))


class Listener:
    """Hears the events of a command's runs. Each hook is optional; calls come one at a time, each run's in order.

    Several runs may be in progress at once. An attempt at a run is `started`, any number of `point`s, then `ended` or
    `failed`. A resumed run repeats the points from before the interruption, so that each attempt is complete. A run
    that begins anew, with smaller batches or on another machine, first fails. Runs that are kept are not heard.

    name: what follows `--log`. argument: what may follow it after a colon, as FOLDER in `--log csv:FOLDER`.
    """

    name: ClassVar[str]
    argument: ClassVar[str] = ""

    def __init__(self, argument: str = "") -> None:
        """Import what is needed; called before anything runs, and without effect on disk or network.

        Raises: ConfigError where a package is missing or the argument is wrong.
        """

    def open(self) -> None:
        """The command is about to begin its runs: connect, create what is needed. If this raises, nothing is heard."""

    def started(self, run: RunInfo) -> None:
        """An attempt at the run begins."""

    def point(self, run: RunInfo, row: Mapping[str, Value]) -> None:
        """An evaluation, after each epoch or part of one. row: a line of the learning curve, None where not measured.

        row["step"] counts training steps, row["epoch"] passes over the data.
        """

    def ended(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        """The attempt is over and all went well. summary: as in summary.json."""

    def failed(self, run: RunInfo, summary: Mapping[str, Any]) -> None:
        """The attempt is over otherwise: summary["status"] says how, summary["reason"] why. Default: as `ended`."""
        self.ended(run, summary)

    def close(self) -> None:
        """The command ends; nothing more is heard."""


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a point or a summary, by name."""
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def missing_package(what: str, extra: str) -> ConfigError:
    """To be raised where a package of an extra is not installed. what: who needs it, as `listener wandb`."""
    return ConfigError(f"{what} needs a package: pip install 'backprop-free-bench[{extra}]'")


def _flat(table: Mapping[str, Any], prefix: str, renamed: Mapping[str, str]) -> Iterator[tuple[str, Value]]:
    for key, value in table.items():
        name = f"{prefix}{renamed.get(key, key)}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.", {})
        elif value is None or isinstance(value, (bool, int, float, str)):
            yield name, value
        else:
            yield name, ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
