"""`bench show`: what a method, net, data set or anything else with a name is."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.api.errors import ConfigError, unknown
from bench.catalog.entry import Entry
from bench.cli.listing import nets_told
from bench.cli.options import DataDir, Plugins, catalog_of
from bench.display.printing import BAD_INPUT, say, table

if TYPE_CHECKING:
    from bench.api.dataset import DataSet
    from bench.api.kinds import Input, Output
    from bench.api.net import Net

SETTINGS = ["setting", "default", "bounds", "search", "what it is"]
MOST_WORDS = 120  # characters of a block's layers


def show(
    name: Annotated[
        str, typer.Argument(help="The name of anything that `bench list` lists but presets; also npz:PATH.")
    ],
    dataset: Annotated[str, typer.Option(help="The data set that a net's blocks are shown for.")] = "digits",
    data_dir: DataDir = None,
    plugin: Plugins = None,
) -> int:
    """A method's paper, claims and settings; a net's blocks, shapes and settings; what data hold; what is measured."""
    catalog, broken = catalog_of(plugin)
    if ":" in name:
        _show_data(catalog.dataset(name), data_dir)
        return BAD_INPUT if broken else 0
    printers = [
        (catalog.methods, _show_method),
        (catalog.nets, lambda entry: _show_net(entry, catalog.dataset(dataset), data_dir)),
        (catalog.datasets, lambda entry: _show_dataset(entry, data_dir)),
        (catalog.instruments, _show_instrument),
        (catalog.executors, _show_executor),
        (catalog.listeners, _show_listener),
        (catalog.objectives, _show_objective),
        (catalog.metrics, _show_metric),
        (catalog.transforms, _show_titled),
    ]
    for shelf, show_it in printers:
        if name in shelf:
            show_it(shelf[name])
            return BAD_INPUT if broken else 0
    kinds = "method, net, data set, instrument, executor, listener, objective, metric or transform"
    raise ConfigError(unknown(kinds, name, [n for shelf, _ in printers for n in shelf]))


def _show_method(entry: Entry) -> None:
    from bench.experiment.validation import describe_settings

    cls = entry.load()
    info = cls.info
    say(f"{info.title} ({info.name}), family {info.family}, nets {nets_told(info.nets)}")
    say((sys.modules[cls.__module__].__doc__ or "").strip() + "\n")
    say("\n\n".join(entry.citations()) or f"cite: {info.paper}")
    say("")
    table(["claim", "value"], [[k, "not claimed" if v is None else str(v)] for k, v in vars(info.claims).items()])
    table(SETTINGS, describe_settings(cls.Config))


def _show_net(entry: Entry, dataset: "DataSet", data_dir: Path | None) -> None:
    from bench.data.outline import outline
    from bench.experiment.validation import describe_settings

    cls = entry.load()
    say(f"{entry.name}: {entry.card.get('title', '')}")
    say(f"takes {', '.join(cls.takes)}; gives {', '.join(cls.gives)}\n")
    table(SETTINGS, describe_settings(cls.Settings))
    data = outline(dataset, data_dir=data_dir, val_fraction=_val_fraction())
    say(f"\nat these defaults, on {dataset.name}: from {data.input} to {data.output}")
    if reason := cls.misfit(data.input, data.output, {}):
        say(reason)
        return
    table(["block", "output", "parameters", "made of"], blocks(cls, data.input, data.output))


def blocks(cls: "type[Net]", inputs: "Input", outputs: "Output") -> list[list[str]]:
    """Of each block, at default settings: number, shape of the output for one example, parameters, layers."""
    import torch

    net = cls.build(inputs, outputs, {}, torch.Generator()).eval()
    shapes = dict[int, str]()
    for k, block in enumerate(net.blocks):
        block.register_forward_hook(lambda _, given, out, k=k: shapes.update({k: _shapes(out)}))
    with torch.no_grad():
        net(inputs.zeros(2))
    return [
        [str(k + 1), shapes.get(k, ""), f"{sum(p.numel() for p in block.parameters()):,}", _layers(block)]
        for k, block in enumerate(net.blocks)
    ]


def _shapes(out: Any) -> str:
    """Of one example: the shape of a tensor, or of each in a tuple."""
    if isinstance(out, tuple | list):
        return ", ".join(map(_shapes, out))
    return _shape(tuple(out.shape[1:])) if hasattr(out, "shape") else type(out).__name__


def _layers(block: Any) -> str:
    leaves = [part for part in block.modules() if not list(part.children())]
    text = ", ".join(_named(leaf) for leaf in leaves)
    return text if len(text) <= MOST_WORDS else f"{text[: MOST_WORDS - 3]}..."


def _named(leaf: Any) -> str:
    weight = getattr(leaf, "weight", None)
    return type(leaf).__name__ if weight is None else f"{type(leaf).__name__} {_shape(weight.shape)}"


def _show_dataset(entry: Entry, data_dir: Path | None) -> None:
    cls = entry.load()
    if not cls.info.argument:
        _show_data(cls(), data_dir)
        return
    say(f"{entry.name}:{cls.info.argument}: {cls.info.title}\n")
    say(f"{cls.layout()}\n" if cls.layout() else "")
    say(f"bench show {entry.name}:{cls.info.argument} shows what one holds.")


def _show_data(dataset: "DataSet", data_dir: Path | None) -> None:
    """By its card where that says all, else by what the files hold. Raises: DataError."""
    from bench.data import default_data_dir, load

    card = dataset.card()
    given, wanted = card.given, card.wanted
    rows = [[key, str(value)] for key in ("source", "paper", "size") if (value := getattr(card, key))]
    if given is None or wanted is None or card.n_train is None:
        data = load(dataset, data_dir=data_dir, val_fraction=_val_fraction())
        given, wanted = data.input, data.output
        counts = {"train": len(data.train.y), "validation": len(data.val.y), "test": len(data.test.y)}
    else:
        is_missing = bool(dataset.missing(data_dir or default_data_dir()))
        counts = {"train and validation": card.n_train, "test": card.n_test or 0}
        mend = "; --download fetches it" if dataset.can_be_fetched else ""
        rows.append(["here", f"no{mend}" if is_missing else "yes"])
    rows += [[f"{part} examples", f"{n:,}"] for part, n in counts.items()]
    rows += [["input of a net", str(given)], ["output of a net", str(wanted)]]
    say(f"{dataset.name}: {card.title}\n")
    table(["what", "is"], rows)


def _val_fraction() -> float:
    from bench.experiment.identity import Compute

    return float(Compute.model_fields["val_fraction"].default)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _show_instrument(entry: Entry) -> None:
    cls = entry.load()
    say(f"{entry.name}: {entry.card.get('title', '')}\n")
    if cls.columns:
        table(["column", "in tables", "what it is"], [[c.name, c.title, c.what] for c in cls.columns])
    else:
        say(f"Only where asked for: --instruments {entry.name}; a table of {', '.join(cls.fields)}.")


def _show_executor(entry: Entry) -> None:
    from bench.experiment.validation import describe_settings

    say(f"{entry.name}: {entry.card.get('title', '')}\n")
    settings = describe_settings(entry.load().Settings)
    table(
        ["option", "default", "bounds", "what it is"],
        [[f"--{name.replace('_', '-')}", default, bounds, what] for name, default, bounds, _, what in settings],
    )


def _show_titled(entry: Entry) -> None:
    say(f"{entry.name}\n\n{(sys.modules[entry.load().__module__].__doc__ or '').strip()}")


def _show_objective(entry: Entry) -> None:
    _show_titled(entry)
    say(f"\njudges {', '.join(entry.load().outputs)}: bench run --objective {entry.name}")


def _show_metric(entry: Entry) -> None:
    cls = entry.load()
    _show_titled(entry)
    bounds = " to ".join("any" if bound is None else f"{bound:g}" for bound in cls.bounds)
    say(f"\njudges {', '.join(cls.outputs)}; {cls.better} is better; bounds: {bounds}")
    say(f"bench run --metrics {entry.name}; the first of several is the primary one\n")
    table(["column", "in tables", "what it is"], [[c.name, c.title, c.what] for c in cls.columns()])


def _show_listener(entry: Entry) -> None:
    cls = entry.load()
    say(f"{entry.name}: {(sys.modules[cls.__module__].__doc__ or cls.__doc__ or '').strip()}\n")
    say(f"bench run --log {entry.name}" + (f", or --log {entry.name}:{cls.argument}" if cls.argument else ""))
