"""How memory grows with the batch and with each setting that was swept: retained for backward, and live at the peak.

A setting counts as swept where its values are numbers and move the memory of some row.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.catalog.catalog import reference
from bench.record.results import Results
from bench.report.blocks import Axis, Block, Data, Heading, Panel, Picture, Series, Table
from bench.report.numbers import exact, percent, shown
from bench.report.panels import by_row, datasets_of, legend, line_handle, sheet
from bench.report.style import Key, Look, looks, scaled
from bench.report.summary import NAMES, WORDS, ordered
from bench.report.text import figure as figure_text
from bench.report.text import one_line
from bench.stats import ROW

RETAINED, PEAK = "retained_bytes", "live_peak_bytes"
KINDS = {  # from the bottom of the stack; on top, and in colour, what a learning rule decides about
    "live_parameters_bytes": ("parameters", "0.3"),
    "live_gradients_bytes": ("gradients", "0.5"),
    "live_optimizer_bytes": ("optimiser state", "0.68"),
    "live_other_bytes": ("buffers, batch, other", "0.84"),
    "live_activations_bytes": ("activations", "#E69F00"),
}
NUMBERS = (RETAINED, PEAK, *KINDS)
BATCH = "batch_size"
OF_BACKPROP = "retained_of_backprop"
MIB = 2**-20
CAPTION = (
    "Memory of one training step against {axes}; what is not on an axis is at its largest. First line: bytes retained "
    "for backward. Below: the bytes of all tensors alive at the peak, by what they are."
)


class Sweep(NamedTuple):
    """The points of all rows, and the settings in numbers along which they lie.

    points: a line per row and point: `failures`, the mean bytes, and `retained_of_backprop`, a fraction. What differs
    in words is in `variant`.
    """

    points: pd.DataFrame
    numbers: list[str]


def section(results: Results) -> Iterator[Block]:
    points, numbers = sweep(results)
    axes = [name for name in numbers if _moves(points, numbers, name)]
    if not axes:
        return
    yield Heading("Memory")
    yield Data("memory", points)
    for dataset in datasets_of(points):
        here = points[points["dataset"] == dataset]
        drawn = growth(here, axes)
        if drawn is not None:
            caption = CAPTION.format(axes=" and ".join(map(_words, axes)))
            yield Picture(f"memory_{dataset}", caption, drawn, _panels(here, axes), looks(here))


def sweep(results: Results) -> Sweep:
    """All runs, trained or only probed, as points of a sweep."""
    runs = results.probed
    settings = pd.DataFrame([results.settings.get(run_id, {}) for run_id in runs["run_id"]], index=runs.index)
    settings = settings.assign(**{BATCH: runs[BATCH]}).astype(object)
    peers = [runs[name] for name in ("dataset", "net", "method")]
    varied = [str(name) for name in settings if settings[name].map(repr).groupby(peers).nunique().max() > 1]
    numbers = [BATCH, *(name for name in varied if name != BATCH and settings[name].map(_is_number).all())]
    words = settings[[name for name in varied if name not in numbers]]
    runs = runs.assign(variant=[_label(line) for line in words.to_dict("records")])
    runs[numbers] = settings[numbers].astype(float)
    runs[list(NUMBERS)] = runs[list(NUMBERS)].where(runs["status"] == "ok")
    lines = ordered(runs.sort_values(numbers)).groupby([*ROW, *numbers], sort=False, dropna=False)
    points = lines.agg(failures=("status", _failures), **{name: (name, "mean") for name in NUMBERS}).reset_index()
    return Sweep(_beside_reference(points, ["dataset", "net", *numbers]), numbers)


def memory_table(results: Results) -> Table:
    """The points of a sweep, ready to be printed; columns in which every cell is empty are left out."""
    points, numbers = sweep(results)
    columns = {column.name: column for column in results.columns}
    cells = {title: points[name].map(one_line) for name, title in NAMES.items()}
    cells |= {_words(name): points[name].map(exact) for name in numbers}
    cells["failed"] = points["failures"]
    cells |= {columns[name].title: points[name].map(lambda n, c=columns[name]: shown(c, n)) for name in NUMBERS}
    cells["retained, % of backprop"] = points[OF_BACKPROP].map(percent)
    kept = {title: values for title, values in cells.items() if any(values)}
    rows = [[value or "-" for value in row] for row in zip(*kept.values(), strict=True)]
    return Table(list(kept), rows, WORDS | {"failed"})


def growth(points: pd.DataFrame, axes: Sequence[str]) -> Figure | None:
    """A column of panels per axis: bytes retained by every row, then for each row its live peak, stacked by kind.

    points: of one data set, as `sweep` gives them. None where no row has two points on an axis.
    """
    look = looks(points)
    lines = {(key, axis): _along(group, axis, axes) for key, group in by_row(points) for axis in axes}
    lines = {place: line for place, line in lines.items() if len(line) > 1}
    keys = [key for key in look if any(key == k for k, _ in lines)]
    axes = [axis for axis in axes if any(axis == a for _, a in lines)]
    if not lines:
        return None
    down = 1 + len(keys)
    figure = sheet((3.1 * len(axes) + 1.6, 1.9 * down + 0.5), wide=len(axes) > 1, paper=1.1 * down + 0.4)
    grid = figure.subplots(1 + len(keys), len(axes), squeeze=False, sharex="col")
    highest = {name: MIB * max(line[name].max() for line in lines.values()) for name in (RETAINED, PEAK)}
    for axis, column in zip(axes, grid.T, strict=True):
        of_axis = {key: lines[key, axis] for key in keys if (key, axis) in lines}
        _retained(column[0], of_axis, axis, look)
        column[0].set_title(_held(list(of_axis.values()), axes, axis), loc="right", size=8.5, weight="normal")
        for key, ax in zip(keys, column[1:], strict=True):
            if key in of_axis:
                _stacked(ax, of_axis[key], axis)
        ticks = sorted({x for line in of_axis.values() for x in line[axis]})
        column[-1].set_xticks(ticks, [exact(x) for x in ticks])
        column[-1].set_xlabel(figure_text(_words(axis)))
    for name, row in zip((RETAINED, *[PEAK] * len(keys)), grid, strict=True):
        row[0].set_ylabel("MiB")
        for ax in row:
            ax.set_ylim(0, 1.05 * highest[name] or 1)
    titles = ["retained for backward", *(f"{look[key].label}: live at the peak" for key in keys)]
    for title, row in zip(titles, grid, strict=True):
        row[0].set_title(title, loc="left", size=9)
    names: dict[str, Artist] = {look[key].label: line_handle(look[key]) for key in keys}
    legend(figure, names | {name: Patch(color=colour) for name, colour in reversed(KINDS.values())})
    return figure


def _panels(points: pd.DataFrame, axes: Sequence[str]) -> list[Panel]:
    """What is retained, and what is alive at the peak, along each axis."""
    panels = []
    for axis in axes:
        lines = [(key, _along(group, axis, axes)) for key, group in by_row(points)]
        lines = [(key, line) for key, line in lines if len(line) > 1]
        for name, title in ((RETAINED, "retained for backward, MiB"), (PEAK, "live at the peak, MiB")):
            series = [Series(key, "line", line[axis].tolist(), (MIB * line[name]).tolist()) for key, line in lines]
            at = f"{points['dataset'].iloc[0]}, {_held([line for _, line in lines], axes, axis)}".rstrip(", ")
            panels.append(Panel(at, Axis(_words(axis)), Axis(title), series, str(points["dataset"].iloc[0])))
    return [panel for panel in panels if panel.series]


def _retained(ax: Axes, of_axis: Mapping[Key, pd.DataFrame], axis: str, look: Mapping[Key, Look]) -> None:
    for key, line in of_axis.items():
        style = look[key]
        ax.plot(
            line[axis],
            MIB * line[RETAINED],
            **style.line,
            markersize=scaled(4),
            clip_on=False,
        )


def _stacked(ax: Axes, line: pd.DataFrame, axis: str) -> None:
    colours = [colour for _, colour in KINDS.values()]
    ax.stackplot(line[axis], [MIB * line[name] for name in KINDS], colors=colours)
    for x in line[axis]:
        ax.axvline(x, color="white", lw=0.6)


def _along(points: pd.DataFrame, axis: str, axes: Sequence[str]) -> pd.DataFrame:
    """The points of a row along one axis, where the other axes are at the row's largest."""
    others = [name for name in axes if name != axis]
    for other in others:
        points = points[points[other].isna() | (points[other] == points[other].max())]
    return points.dropna(subset=[axis, *KINDS]).groupby(axis, as_index=False)[[*others, *NUMBERS]].mean()


def _held(lines: Sequence[pd.DataFrame], axes: Sequence[str], axis: str) -> str:
    """What the other axes are at along these lines."""
    held = {other: sorted({x for line in lines for x in line[other].dropna()}) for other in axes if other != axis}
    return figure_text(", ".join(f"{_words(o)} = {' or '.join(map(exact, at))}" for o, at in held.items() if at))


def _moves(points: pd.DataFrame, numbers: Sequence[str], name: str) -> bool:
    """Whether some row's memory differs where this setting alone does."""
    known = points.dropna(subset=[name, *KINDS])
    alike = known.groupby([*ROW, *(other for other in numbers if other != name)], dropna=False)
    return bool((alike[[RETAINED, PEAK]].nunique() > 1).to_numpy().any())


def _beside_reference(points: pd.DataFrame, place: list[str]) -> pd.DataFrame:
    """With what is retained as a fraction of what backprop retains at the same place, if it is there in one form."""
    twins = points[points["method"] == reference()].drop_duplicates(place, keep=False)
    joined = points.merge(twins[[*place, RETAINED]], on=place, how="left", suffixes=("", "_twin"))
    return points.assign(**{OF_BACKPROP: (joined[RETAINED] / joined[f"{RETAINED}_twin"]).to_numpy()})


def _failures(status: "pd.Series[str]") -> str:
    return ", ".join(sorted(set(status) - {"ok"}))


def _label(words: Mapping[Any, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(words.items()) if value == value and value is not None)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _words(name: str) -> str:
    return "batch size" if name == BATCH else name
