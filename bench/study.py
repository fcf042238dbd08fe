"""The suite in Python: run an experiment or load its records, then look at them as frames, tables and figures.

import bench

study = bench.run(methods=["noprop-dt", "backprop"], seeds=3, epochs=5)
study.summary()                 # a pandas frame; study alone shows the table of results
study.plot_accuracy()           # a matplotlib figure
study.to_latex()
bench.load("results/default").curves
"""

import html
import inspect
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from bench.api.errors import ConfigError, PluginError, unknown
from bench.api.listener import Listener
from bench.catalog.catalog import Catalog
from bench.catalog.register import kind_of, name_of
from bench.command import execute, prepare, write_report
from bench.display.printing import fail
from bench.display.progress import listening
from bench.executors.attempt import Terms
from bench.executors.executor import Options, make
from bench.experiment.config import Experiment, resolve
from bench.listeners import fan_out
from bench.record.files import local
from bench.record.results import MARGIN, Results
from bench.record.selection import Selection
from bench.report.blocks import Picture
from bench.report.latex import results_tex
from bench.report.rows import named
from bench.report.sections import Section, accuracy, answer, curves, failures
from bench.report.style import known, theme
from bench.report.summary import differences_of, ordered, results_table, summary_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.runner.trained import Trained


GIVEN = ".plugins"  # in the experiment's folder: classes of a notebook, as files
Style = Literal["screen", "paper"]  # of figures; a paper's are as wide as its columns


class Study(Results):
    """Results with what the report makes of them: `runs`, `curves`, `settings`, `environments` as in Results."""

    def summary(self) -> pd.DataFrame:
        """A line per data set, method, net and variant: `n_ok`, `n_runs`, and X_mean, X_ci95 of what was measured."""
        return summary_frame(ordered(self.runs), self.columns, differences_of(self))

    def plot_accuracy(self, *, style: Style = "screen") -> "Figure | None":
        """The primary metric on the test split, its interval, seeds and count of runs; None without a good run."""
        return self._picture(accuracy.section, named("accuracy", self.primaries[0]), style)

    def plot_curves(self, what: str = "epoch", *, x: str = "epoch", style: Style = "screen") -> "Figure | None":
        """A column of `curves`, such as train_loss, against x; None where no run has it.

        what, or x where a column is named: epoch, train_s or train_tflop, against which the report draws validation.
        Raises: ConfigError for a name that is neither.
        """
        drawn = what if what not in curves.TITLES else None
        with theme(style), known(self.catalog):
            return curves.figure(self, what if drawn is None else x, drawn)

    def plot_trade_off(self, cost: Literal["memory", "time"] = "memory", *, style: Style = "screen") -> "Figure | None":
        """The primary metric on the test split against what it costs; None where not all runs have that measured."""
        return self._picture(answer.section, named(f"accuracy_{cost}", self.primaries[0]), style)

    def _picture(self, section: Section, name: str, style: str) -> "Figure | None":
        with theme(style), known(self.catalog):
            pictures = (block for block in section(self) if isinstance(block, Picture))
            return next((picture.drawing for picture in pictures if picture.name == name), None)

    def to_latex(self, columns: Sequence[str] = ()) -> str:
        """The table of results for a paper, in booktabs and siunitx; columns by name, else the terminal's."""
        return results_tex(self, columns)

    def report(self, out: str | Path | None = None, *, style: Style = "screen") -> Path:
        """Write the report, by default to reports/NAME; return its path."""
        return write_report(self, None if out is None else local(out), style=style)

    def method(
        self, run_id: str, *, device: str = "auto", data_dir: str | Path | None = None, download: bool = False
    ) -> "Trained":
        """What a run with kept weights has learnt, ready to `predict`; `test` has the test images as the run saw them.

        device: a torch device; auto: the kind that the run had, if it is here. data_dir: else $BENCH_DATA.
        Raises: ConfigError for an unknown run, method or net; StoreError without weights; SourceError where the code of
        method or net is not the run's; DataError where its data are missing or others.
        """
        from bench.runner.trained import recorded, trained

        where = None if data_dir is None else local(data_dir, "data_dir")
        return trained(recorded(self.root, run_id), self.catalog or Catalog(), device, where, download=download)

    def _repr_html_(self) -> str:
        table = results_table(self)
        sides = ["left" if header in table.words else "right" for header in table.headers]
        head, *body = (
            "".join(f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>' for side, cell in cells)
            for tag, cells in [("th", zip(sides, table.headers, strict=True))]
            + [("td", zip(sides, row, strict=True)) for row in table.rows]
        )
        lines = "".join(f"<tr>{line}</tr>" for line in body)
        why = "".join(f"<p>{html.escape(line)}</p>" for line in failures.reasons(self))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>{why}"


def load(
    folder: str | Path,
    *,
    all_sources: bool = False,
    select: Selection | None = None,
    margin: float = MARGIN,
    target: float | None = None,
    plugins: Sequence[str | Path] = (),
) -> Study:
    """What was measured below a folder of records, packed or not; read when it is first asked for.

    select: as {"method": ["spsa"]}. margin, target: fractions, as in Results. Raises: PluginError; StoreError, later,
    where a record is corrupt or there is none.
    """
    catalog = _catalog(plugins)
    return Study(
        local(folder),
        columns=catalog.columns(),
        catalog=catalog,
        all_sources=all_sources,
        select=select,
        margin=margin,
        target=target,
    )


def run(
    methods: Sequence[str | type] | None = None,
    datasets: Sequence[str | type] | None = None,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    results: str | Path = "results",
    data_dir: str | Path | None = None,
    download: bool = False,
    plugins: Sequence[str | Path | type] = (),
    jobs: int | None = None,
    executor: str = "local",
    executor_settings: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    fresh: bool = False,
    retry: Sequence[str] = (),
    on_oom: str = "fail",
    log: Sequence[str | Listener] | str | None = None,
    quiet: bool = False,
    **experiment: Any,
) -> Study:
    """Train and measure as `bench run` does, and return what came of it. Finished runs are kept.

    methods, datasets, plugins, net, instruments: names, or classes with @register. Those of a notebook are written to
    files in the results folder.
    settings: by method or net name, as {"mlp": {"width": 512}}. experiment: any other key of an experiment, such as
    net, seeds, epochs, batch_size, instruments, tune; all are listed below. data_dir: else $BENCH_DATA.
    executor: local, ray, slurm or a plugin's; its settings as {"address": "auto"} (`bench show ray` lists them).
    log: listeners, by name as ["tensorboard", "csv:logs"], or objects of your own subclass of bench.Listener.
    retry: failures to be run again, as ["crashed"]. on_oom: "fail", or "shrink" for the same update from micro-batches.
    Raises: ConfigError, DataError, PluginError, StoreError. A run that fails is a row of the results that says how.
    """
    names, objects = _by_kind(log)
    keys = inspect.signature(run).parameters
    for key in experiment:
        if key not in keys:
            raise ConfigError(unknown("key", key, keys))
    classes = list[type]()
    given = _named({"methods": methods, "datasets": datasets, "log": names, **experiment}, classes)
    given["settings"] = settings
    asked = resolve(preset, None if config is None else local(config, "config"), given, [])
    terms = Terms.asked(timeout, fresh=fresh, retry=retry, on_oom=on_oom, keep_weights=asked.keep_weights)
    catalog = _catalog([plugin for plugin in plugins if not isinstance(plugin, type)])
    root = local(results, "results")
    for cls in [*classes, *(plugin for plugin in plugins if isinstance(plugin, type))]:
        catalog.add(cls, root / asked.experiment / GIVEN)
    where = None if data_dir is None else local(data_dir, "data_dir")
    by = make(catalog, executor, executor_settings or {})
    listeners = fan_out.FanOut([*fan_out.make(catalog, asked.log), *objects], fail)
    runs, device = prepare(asked, catalog, data_dir=where, download=download, executor=by)
    options = Options(root, asked.experiment, device, jobs, where, download, terms)
    outcome = execute(asked, runs, options, listening(quiet=quiet, jobs=jobs), threading.Event(), by, listeners)
    return Study(outcome.folder, columns=catalog.columns(), catalog=catalog)


def _by_kind(log: Sequence[str | Listener] | str | None) -> tuple[list[str] | str | None, list[Listener]]:
    """Names of listeners, as the experiment has them, and listeners themselves."""
    if log is None or isinstance(log, str):
        return log, []
    return [of for of in log if isinstance(of, str)], [of for of in log if isinstance(of, Listener)]


def _named(given: Any, classes: list[type]) -> Any:
    """The same with names for classes, which are collected. Raises: PluginError for a class that has none."""
    if isinstance(given, type):
        if kind_of(given) is None:
            raise PluginError(
                f"{given.__name__} is no subclass of bench.Method, Net, DataSet or another kind of plugin"
            )
        classes.append(given)
        return name_of(given)
    if isinstance(given, dict):
        return {key: _named(value, classes) for key, value in given.items()}
    return [_named(one, classes) for one in given] if isinstance(given, list | tuple) else given


def _name_keywords() -> None:
    """Name the fields of an experiment in the signature and the docstring of `run`, for help and completion."""
    own = inspect.signature(run)
    named = {name: of for name, of in own.parameters.items() if of.kind is not of.VAR_KEYWORD}
    fields = {name: field for name, field in Experiment.model_fields.items() if name not in named}
    keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in fields]
    run.__signature__ = own.replace(parameters=[*named.values(), *keywords])  # type: ignore[attr-defined]  # as functools does
    told = "\n".join(f"        {name}: {field.description}" for name, field in fields.items())
    run.__doc__ = f"{run.__doc__}\n    Keys of an experiment, each left out where it is None:\n{told}\n    "


_name_keywords()


def _catalog(plugins: Sequence[str | Path]) -> Catalog:
    catalog = Catalog([local(plugin, "plugins") for plugin in plugins])
    for problem in catalog.problems:
        raise PluginError(problem)
    return catalog
