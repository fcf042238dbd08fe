"""`bench list` and `bench show`: what there is, and what a thing is. Nothing of torch is imported for a list."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.api.errors import ConfigError, unknown
from bench.catalog.catalog import Shelf
from bench.catalog.entry import Entry
from bench.cli.command import Command
from bench.cli.options import DataDir, Plugins, catalog_of
from bench.display.printing import BAD_INPUT, say, table

SETTINGS = ["setting", "default", "bounds", "search", "what it is"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="List what there is: methods, datasets, nets, executors, instruments, listeners or presets.",
)


@app.command("methods", cls=Command)
def list_methods(plugin: Plugins = None) -> int:
    """Learning rules within reach."""
    catalog, broken = catalog_of(plugin)
    cards = [(name, entry.card) for name, entry in sorted(catalog.methods.items())]
    rows = [[n, c.get("title", ""), c.get("family", ""), _nets(c.get("nets", ()))] for n, c in cards]
    table(["name", "title", "family", "nets"], rows)
    return BAD_INPUT if broken else 0


@app.command("datasets", cls=Command)
def list_datasets(data_dir: DataDir = None, plugin: Plugins = None) -> int:
    """Data sets, and which of them are on this machine."""
    from bench.data.place import default_data_dir

    catalog, broken = catalog_of(plugin)
    where = data_dir or default_data_dir()
    rows = []
    for name, entry in sorted(catalog.datasets.items()):
        cls = entry.load()
        info = cls.info
        if info.argument:
            rows.append([f"{name}:{info.argument}", info.title, "", "", "", "", ""])
            continue
        here = "no" if cls().missing(where) else "yes"
        rows.append(
            [
                name,
                info.title,
                str(info.given or ""),
                str(info.wanted or ""),
                *map(_count, (info.n_train, info.n_test)),
                here,
            ]
        )
    heads = ["name", "title", "input", "output", "train", "test", "here"]
    table(heads, rows, least=["test", "output", "input"])
    say(f"data folder: {where}")
    return BAD_INPUT if broken else 0


@app.command("nets", cls=Command)
def list_nets(plugin: Plugins = None) -> int:
    """Shared networks."""
    return _titles("nets", plugin)


@app.command("instruments", cls=Command)
def list_instruments(plugin: Plugins = None) -> int:
    """What measures a run."""
    return _titles("instruments", plugin)


@app.command("executors", cls=Command)
def list_executors(plugin: Plugins = None) -> int:
    """Ways to work off a plan."""
    return _titles("executors", plugin)


@app.command("listeners", cls=Command)
def list_listeners(plugin: Plugins = None) -> int:
    """What can hear runs (`bench run --log NAME`)."""
    return _titles("listeners", plugin)


@app.command("presets", cls=Command)
def list_presets() -> None:
    """Experiments that come with the suite."""
    from bench.spec.reading import load_preset, preset_names

    rows = []
    for name in preset_names():
        values = load_preset(name)
        epochs = values["epochs"]
        budget = epochs if isinstance(epochs, int) else ", ".join(f"{k}: {v}" for k, v in epochs.items())
        rows.append([name, ", ".join(values["methods"]), ", ".join(values["datasets"]), str(budget)])
    table(["name", "methods", "datasets", "epochs"], rows)


def show(
    name: Annotated[str, typer.Argument(help="A method, net, data set, instrument, executor or listener.")],
    plugin: Plugins = None,
) -> int:
    """A method's paper, claims and settings with units, bounds and defaults; a net's settings; what is measured."""
    catalog, broken = catalog_of(plugin)
    printers = [
        (catalog.methods, _show_method),
        (catalog.nets, _show_net),
        (catalog.datasets, _show_dataset),
        (catalog.instruments, _show_instrument),
        (catalog.executors, _show_executor),
        (catalog.listeners, _show_listener),
    ]
    for shelf, show_it in printers:
        if name in shelf:
            show_it(shelf[name])
            return BAD_INPUT if broken else 0
    kinds = "method, net, data set, instrument, executor or listener"
    raise ConfigError(unknown(kinds, name, [n for shelf, _ in printers for n in shelf]))


def _show_method(entry: Entry) -> None:
    from bench.spec.validation import describe_settings

    cls = entry.load()
    info = cls.info
    say(f"{info.title} ({info.name}), family {info.family}, nets {_nets(info.nets)}")
    say((sys.modules[cls.__module__].__doc__ or "").strip() + "\n")
    say("\n\n".join(entry.citations()) or f"cite: {info.paper}")
    say("")
    table(["claim", "value"], [[k, "not claimed" if v is None else str(v)] for k, v in vars(info.claims).items()])
    table(SETTINGS, describe_settings(cls.Config))


def _show_net(entry: Entry) -> None:
    from bench.spec.validation import describe_settings

    say(f"{entry.name}: {entry.card.get('title', '')}\n")
    table(SETTINGS, describe_settings(entry.load().Settings))


def _show_dataset(entry: Entry) -> None:
    say(f"{entry.name}: {entry.load().info.title}\n")
    table(["what", "is"], [[key, _plain(value)] for key, value in vars(entry.load().info).items() if value])


def _show_instrument(entry: Entry) -> None:
    cls = entry.load()
    say(f"{entry.name}: {entry.card.get('title', '')}\n")
    if cls.columns:
        table(["column", "in tables", "what it is"], [[c.name, c.title, c.what] for c in cls.columns])
    else:
        say(f"Only where asked for: --instruments {entry.name}; a table of {', '.join(cls.fields)}.")


def _show_executor(entry: Entry) -> None:
    from bench.spec.validation import describe_settings

    say(f"{entry.name}: {entry.card.get('title', '')}\n")
    settings = describe_settings(entry.load().Settings)
    table(
        ["option", "default", "bounds", "what it is"],
        [[f"--{name.replace('_', '-')}", default, bounds, what] for name, default, bounds, _, what in settings],
    )


def _show_listener(entry: Entry) -> None:
    cls = entry.load()
    say(f"{entry.name}: {(sys.modules[cls.__module__].__doc__ or '').strip()}\n")
    say(f"bench run --log {entry.name}" + (f", or --log {entry.name}:{cls.argument}" if cls.argument else ""))


def _titles(kind: str, plugin: list[Path] | None) -> int:
    """A line for each of a kind, as `nets`; the exit code."""
    catalog, broken = catalog_of(plugin)
    shelf: Shelf = getattr(catalog, kind)
    table(["name", "what it is"], [[name, entry.card.get("title", "")] for name, entry in sorted(shelf.items())])
    return BAD_INPUT if broken else 0


def _nets(nets: tuple[str, ...]) -> str:
    return "any" if nets == ("*",) else ", ".join(nets)


def _count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
