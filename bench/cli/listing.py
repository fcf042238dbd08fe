"""`bench list`: what there is. Nothing of torch is imported for it."""

from pathlib import Path
from typing import Annotated

import typer

from bench.api.errors import ConfigError
from bench.catalog.catalog import Shelf
from bench.cli.command import Command
from bench.cli.options import DataDir, Plugins, catalog_of
from bench.display.printing import BAD_INPUT, say, table

app = typer.Typer(
    add_completion=False,
    invoke_without_command=True,
    help="List what there is: methods, datasets, nets, executors, instruments, listeners, objectives, "
    "metrics, transforms or presets.",
)
IMAGES = (1, 8, 8)  # what the matrix is asked about: the digits


@app.callback()
def list_matrix(
    context: typer.Context,
    matrix: Annotated[bool, typer.Option("--matrix", help="Which rule runs on which net, and why not.")] = False,
    plugin: Plugins = None,
) -> int:
    """List what there is: one kind of it, or --matrix, which rule runs on which net."""
    if context.invoked_subcommand is not None:
        if matrix:
            raise ConfigError("--matrix lists rules and nets by itself; leave out what follows it")
        return 0
    if not matrix:
        say(context.get_help())
        return 0
    from bench.api.kinds import Input
    from bench.experiment.matrix import matrix as cells

    catalog, broken = catalog_of(plugin)
    found = cells(catalog, Input.image(*IMAGES), ("classes", "class probabilities", "values"))
    nets = sorted(catalog.nets)
    on = {(cell.method, cell.net): cell.reason for cell in found if cell.output == "classes"}
    learns = {
        name: [cell.output for cell in found if cell.method == name and not cell.reason] for name in catalog.methods
    }
    rows = [
        [name, *("-" if on[name, net] else "yes" for net in nets), ", ".join(dict.fromkeys(learns[name]))]
        for name in sorted(catalog.methods)
    ]
    table(["rule", *nets, "learns"], rows)
    say("\n".join(f"{name} on {net}: {reason}" for (name, net), reason in on.items() if reason))
    return BAD_INPUT if broken else 0


@app.command("methods", cls=Command)
def list_methods(plugin: Plugins = None) -> int:
    """Learning rules within reach."""
    catalog, broken = catalog_of(plugin)
    cards = [(name, entry.card) for name, entry in sorted(catalog.methods.items())]
    rows = [[n, c.get("title", ""), c.get("family", ""), nets_told(c.get("nets", ()))] for n, c in cards]
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
                *map(count_told, (info.n_train, info.n_test)),
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


@app.command("objectives", cls=Command)
def list_objectives(plugin: Plugins = None) -> int:
    """Losses to learn by."""
    return _titles("objectives", plugin)


@app.command("metrics", cls=Command)
def list_metrics(plugin: Plugins = None) -> int:
    """What judges predictions."""
    return _titles("metrics", plugin)


@app.command("transforms", cls=Command)
def list_transforms(plugin: Plugins = None) -> int:
    """Changes of training batches (`bench run --transforms NAME,...`)."""
    return _titles("transforms", plugin)


@app.command("presets", cls=Command)
def list_presets() -> None:
    """Experiments that come with the suite."""
    from bench.experiment.reading import load_preset, preset_names

    rows = []
    for name in preset_names():
        values = load_preset(name)
        epochs = values["epochs"]
        budget = epochs if isinstance(epochs, int) else ", ".join(f"{k}: {v}" for k, v in epochs.items())
        rows.append([name, ", ".join(values["methods"]), ", ".join(values["datasets"]), str(budget)])
    table(["name", "methods", "datasets", "epochs"], rows)


def _titles(kind: str, plugin: list[Path] | None) -> int:
    """A line for each of a kind, as `nets`; the exit code."""
    catalog, broken = catalog_of(plugin)
    shelf: Shelf = getattr(catalog, kind)
    table(["name", "what it is"], [[name, entry.card.get("title", "")] for name, entry in sorted(shelf.items())])
    return BAD_INPUT if broken else 0


def nets_told(nets: tuple[str, ...]) -> str:
    return "any" if nets == ("*",) else ", ".join(nets)


def count_told(n: int | None) -> str:
    return "" if n is None else f"{n:,}"
