"""The command line: parse, call, print. Exit code 0: all well, 1: some run failed, 2: bad input."""

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bench.errors import BenchError, ConfigError

if TYPE_CHECKING:
    from bench.registry import Registry

RUN_FAILED, BAD_INPUT, CTRL_C = 1, 2, 130
WIDE = 240

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Benchmark of learning with and without backprop.",
)
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", metavar="FILE", help="A method file; repeatable.")]
DataDir = Annotated[Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of the data sets.", show_envvar=True)]


def main() -> NoReturn:
    """Entry point of the `bench` command."""
    try:
        code = app(standalone_mode=False)
    except BenchError as error:
        code = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):  # typer turns the one into the other
        code = CTRL_C
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except Exception as error:  # of typer's own errors only those of usage reach this line with an exit code
        if not hasattr(error, "exit_code") or not hasattr(error, "format_message"):
            raise
        code = _fail(error.format_message())
    raise SystemExit(code if isinstance(code, int) else 0)


@app.command()
def run(
    methods: Annotated[str | None, typer.Option(help="Names, comma-separated.")] = None,
    datasets: Annotated[str | None, typer.Option(help="Names, npz:PATH or imagefolder:PATH, comma-separated.")] = None,
    net: Annotated[str | None, typer.Option(help="One net for all methods, or auto.")] = None,
    seeds: Annotated[str | None, typer.Option(help="A count (3) or a list (0,1,7).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per step.")] = None,
    val_fraction: Annotated[float | None, typer.Option(help="Part of the training data held out.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, tf32 or bfloat16.")] = None,
    channels_last: Annotated[bool | None, typer.Option("--channels-last", help="Convolutions channels-last.")] = None,
    compile_: Annotated[bool | None, typer.Option("--compile", help="Compile the nets with torch.compile.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", metavar="NAME.KEY=VALUE", help="Repeatable.")] = None,
    preset: Annotated[str | None, typer.Option(help="A shipped experiment; see `bench list presets`.")] = None,
    config: Annotated[Path | None, typer.Option(help="An experiment in YAML.")] = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    results: Annotated[Path, typer.Option(help="Folder of the run records.")] = Path("results"),
    reports: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("reports"),
    experiment: Annotated[str | None, typer.Option(help="Name of the results folder.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds after which a run is stopped.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; measured times then disturb each other.")] = 1,
    download: Annotated[bool, typer.Option("--download", help="Fetch missing data sets.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Run again what is finished, or keep it.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result table only.")] = False,
) -> int:
    """Train and measure methods side by side, then write the report."""
    from bench.config import resolve

    flags = {
        "methods": methods,
        "datasets": datasets,
        "net": net,
        "seeds": seeds,
        "epochs": epochs,
        "batch_size": batch_size,
        "val_fraction": val_fraction,
        "precision": precision,
        "channels_last": channels_last,
        "compile": compile_,
        "device": device,
        "experiment": experiment,
    }
    asked = resolve(preset, config, flags, assign or [])
    registry, broken = _registry(plugin)
    if broken:
        asked = _without_broken(asked, registry)

    from bench.executors.local import Options
    from bench.experiment import execute, prepare, write_report
    from bench.progress import listener

    runs, device_name = prepare(asked, registry, data_dir=data_dir, download=download)
    options = Options(results, asked.experiment, device_name, jobs, timeout, data_dir, download, fresh)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    outcome = execute(asked, runs, registry, options, lambda part: listener(part, quiet=quiet), stop)
    if all(summary is None for summary in outcome.summaries):
        _say("stopped on request; the same command continues")
        return CTRL_C
    report = write_report(outcome.folder, reports / asked.experiment)
    _print_results(outcome.folder)
    _say(f"report: {report}")
    if stop.is_set():
        _say("stopped on request; the same command continues")
        return CTRL_C
    return BAD_INPUT if broken else 0 if outcome.all_ok else RUN_FAILED


listing = typer.Typer(no_args_is_help=True, help="List what there is: methods, datasets, nets or presets.")
app.add_typer(listing, name="list")


@listing.command("methods")
def list_methods(plugin: Plugins = None) -> int:
    """Learning rules within reach."""
    registry, broken = _registry(plugin)
    cards = [(name, entry.card) for name, entry in sorted(registry.entries.items())]
    rows = [[n, c.get("title", ""), c.get("family", ""), _nets(c.get("nets", ()))] for n, c in cards]
    _table(["name", "title", "family", "nets"], rows)
    return BAD_INPUT if broken else 0


@listing.command("datasets")
def list_datasets(data_dir: DataDir = None) -> None:
    """Data sets, and which of them are on this machine."""
    from bench.data import CATALOG, default_data_dir, found

    where = data_dir or default_data_dir()
    rows = []
    for name, info in CATALOG.items():
        size, here = "x".join(map(str, info.image_shape)), "yes" if found(name, where) else "no"
        rows.append([name, info.title, size, str(info.n_classes), f"{info.n_train:,}", f"{info.n_test:,}", here])
    _table(["name", "title", "image", "classes", "train", "test", "here"], rows)
    _say(f"data folder: {where}; also npz:PATH and imagefolder:PATH")


@listing.command("nets")
def list_nets() -> None:
    """Shared networks."""
    from bench.nets import NETS, summary

    _table(["name", "what it is"], [[name, summary(name)] for name in NETS])


@listing.command("presets")
def list_presets() -> None:
    """Experiments that come with the suite."""
    from bench.config import load_preset, preset_names

    rows = []
    for name in preset_names():
        values = load_preset(name)
        epochs = values["epochs"]
        budget = epochs if isinstance(epochs, int) else ", ".join(f"{k}: {v}" for k, v in epochs.items())
        rows.append([name, ", ".join(values["methods"]), ", ".join(values["datasets"]), str(budget)])
    _table(["name", "methods", "datasets", "epochs"], rows)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A method or a net.")], plugin: Plugins = None) -> int:
    """A method's paper, claims and settings with units, bounds and defaults; a net's settings."""
    from bench.config import describe_settings
    from bench.nets import NETS, net_class
    from bench.nets import summary as net_summary

    registry, broken = _registry(plugin)
    columns = ["setting", "default", "bounds", "search", "what it is"]
    if name in NETS:
        _say(f"{name}: {net_summary(name)}\n")
        _table(columns, describe_settings(net_class(name).Settings))
    else:
        cls = registry[name].load()
        info, claims = cls.info, cls.info.claims
        _say(f"{info.title} ({info.name}), family {info.family}, nets {_nets(info.nets)}")
        _say((sys.modules[cls.__module__].__doc__ or "").strip() + "\n")
        _say("\n\n".join(registry[name].citations()) or f"cite: {info.paper}")
        _say("")
        _table(["claim", "value"], [[k, str(v)] for k, v in vars(claims).items()])
        _table(columns, describe_settings(cls.Config))
    return BAD_INPUT if broken else 0


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="A results folder.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Folder to write to.")] = None,
) -> None:
    """Write tables and figures over run records."""
    from bench.experiment import write_report

    _say(f"report: {write_report(results, out)}")


@app.command()
def check(
    target: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A method's name or a plugin file.")],
) -> int:
    """Hold a method against the contract: shapes, seeds, checkpoints, claims, learning."""
    import torch

    from bench.testing.contract import run_checks

    torch.set_num_threads(1)  # the nets are tiny: threads would only wait for each other
    path = Path(target)
    is_file = path.suffix == ".py"
    registry, _ = _registry([path] if is_file else None)
    if is_file and registry.problems:
        return BAD_INPUT
    names = [n for n, e in registry.entries.items() if e.file == path.resolve()] if is_file else [target]
    classes = {name: registry[name].load() for name in names}
    failed = False
    for name, cls in classes.items():
        _say(name)
        for result in run_checks(cls):
            failed |= not result.ok
            _say(f"  {'ok  ' if result.ok else 'FAIL'} {result.name}{'' if result.ok else ': ' + result.message}")
    return RUN_FAILED if failed else 0


@app.command()
def doctor(data_dir: DataDir = None, plugin: Plugins = None) -> int:
    """What this machine can do: torch, GPU, data sets found."""
    from bench.doctor import examine

    registry, broken = _registry(plugin)
    _table(["what", "found"], examine(registry, data_dir))
    return BAD_INPUT if broken else 0


def _registry(plugins: list[Path] | None) -> "tuple[Registry, bool]":
    """All methods within reach; each plugin that cannot be used is named in one line and left out."""
    from bench.registry import Registry

    registry = Registry(plugins or ())
    for problem in registry.problems:
        _fail(problem)
    return registry, bool(registry.problems)


def _without_broken(asked: Any, registry: "Registry") -> Any:
    """The experiment without the names that only a broken plugin could have given."""
    there = [name for name in asked.methods if name in registry.entries]
    if not there:
        raise ConfigError("none of the methods can be loaded")
    return asked.model_copy(update={"methods": there})


def _print_results(folder: Path) -> None:
    from bench import report, store

    runs, _, _ = store.read(folder)
    _table(*report.terminal_table(runs))


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # a pipe has no width: a reader wants whole lines there, not ones folded at 80 columns
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    console.print(table)


def _nets(nets: tuple[str, ...]) -> str:
    return "any" if nets == ("*",) else ", ".join(nets)


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(text: str) -> int:
    print(f"bench: {text}", file=sys.stderr, flush=True)
    return BAD_INPUT
