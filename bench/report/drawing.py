"""How artifacts are drawn, by their type: lines, images, heat maps. Those of one name share a figure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bench.api.artifact import Artifact, HeatMap, Images, Lines
from bench.report.panels import legend, line_handle, sheet, stacked
from bench.report.style import Look, close, columns, scaled
from bench.report.text import figure as figure_text

ACROSS, ACROSS_PAPER = 6, 4
PANELS_SHOWN = 4  # and fewer the more rows there are, so that a figure stays light and legible
OVERLAID_SHOWN = 12  # panels beside each other
COLUMNS_SHOWN = 20
NARROW = 6  # columns of images, up to which a paper's one column holds them
CELLS_WRITTEN, CELLS_WRITTEN_PAPER = 12, 6  # of a heat map's side, up to which its numbers stand in it
HEAT = "cividis"  # alike for readers with colour-vision deficiencies

Pixels = NDArray[np.float32]


class Shown(NamedTuple):
    """What one row of the tables left on one data set, and how the row looks."""

    dataset: str
    style: Look
    artifact: Artifact


def lines(several: Sequence[Shown]) -> Figure:
    """One line a panel: rows laid over each other. More: each row has panels of its own."""
    if max(np.asarray(_lines(shown).y).shape[1] for shown in several) == 1:
        return _overlaid(several)
    return _side_by_side(several)


def cut(artifact: Artifact) -> str:
    """What of it is not drawn, as a sentence; empty where all is."""
    if isinstance(artifact, Lines) and np.asarray(artifact.y).shape[1] == 1 and len(artifact.panels) > OVERLAID_SHOWN:
        return f" Drawn are the first {OVERLAID_SHOWN} of {len(artifact.panels)} panels."
    return ""


def _overlaid(several: Sequence[Shown]) -> Figure:
    datasets = sorted({shown.dataset for shown in several})
    across = min(OVERLAID_SHOWN, max(len(_lines(shown).panels) for shown in several))
    figure = sheet((4.1 * across, 2.9 * len(datasets)), wide=across > 1, paper=1.9 * len(datasets))
    for dataset, axes in zip(datasets, figure.subplots(len(datasets), across, squeeze=False), strict=True):
        here = [shown for shown in several if shown.dataset == dataset]
        axes[0].set_title(figure_text(dataset), loc="left")
        for k, shown in enumerate(here):
            art = _lines(shown)
            x, apart = np.asarray(art.x), len(art.x) // 6 + 1
            for p, (ax, y) in enumerate(zip(axes, np.asarray(art.y)[:, 0], strict=False)):
                # lines may coincide: marks at places of their own keep the lower one visible
                ax.plot(
                    x,
                    y,
                    **shown.style.line,
                    markersize=scaled(4),
                    markevery=(k * apart // len(here), apart),
                )
                ax.set_xlabel(art.x_label)
                ax.set_ylabel(art.panels[p])
                if art.logarithmic and art.logarithmic[p]:
                    ax.set_yscale("log")
                if art.limits:
                    ax.set_ylim(*art.limits)
    legend(figure, {shown.style.label: line_handle(shown.style) for shown in several})
    return figure


def _side_by_side(several: Sequence[Shown]) -> Figure:
    """A line of panels per panel of the artifact, its picture beside it; a column per row of the tables."""
    alike: dict[tuple[str, bytes], list[Shown]] = {}  # rows that were shown the same pictures stand side by side
    for shown in several:
        pictures = _lines(shown).pictures
        key = b"" if pictures is None else np.asarray(pictures).tobytes()
        alike.setdefault((shown.dataset, key), []).append(shown)
    most_across = ACROSS if columns() is None else ACROSS_PAPER
    blocks = [group[i : i + most_across] for group in alike.values() for i in range(0, len(group), most_across)]
    across = max(map(len, blocks))
    most = max(1, PANELS_SHOWN // math.ceil(len(several) / (2 * ACROSS)))
    down = [min(most, max(len(_lines(shown).panels) for shown in block)) for block in blocks]
    title_lines = 1 + max(stacked(shown.style.label).count("\n") for shown in several)
    heights = [0.35 + 0.12 * title_lines + 0.85 * n for n in down]

    tall = sum(heights) + 0.6
    figure = sheet((max(3.4, 1.1 + 1.75 * across), tall), wide=across > 1, paper=tall)
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights).flatten()
    for block, n, part in zip(blocks, down, parts, strict=True):
        part.suptitle(figure_text(block[0].dataset), x=0.01, ha="left", size=rcParams["axes.titlesize"], weight="bold")
        axes = part.subplots(n, 1 + across, squeeze=False, width_ratios=[0.55, *[1.0] * across])
        for i, (beside, *cells) in enumerate(axes):
            _beside(beside, _lines(block[0]), i)
            for ax in cells[len(block) :]:
                ax.set_visible(False)
            for j, (shown, ax) in enumerate(zip(block, cells, strict=False)):
                _panel(ax, shown, i)
                ax.tick_params(labelsize=7, labelleft=j == 0, labelbottom=i == n - 1)
                if i == 0:
                    ax.set_title(stacked(shown.style.label), size=6.5, weight="normal", **close())
    first = _lines(several[0])
    figure.supxlabel(first.x_label)
    figure.supylabel(first.y_label)
    if first.emphasis is not None:
        handles = [Line2D([], [], color="0.2", lw=scaled(2.2)), Line2D([], [], color="0.7", lw=scaled(0.8))]
        figure.legend(handles, ["the one that is meant", "each other"], loc="outside upper right", ncols=2)
    return figure


def _beside(ax: Axes, art: Lines, i: int) -> None:
    """The picture of a panel, and what the panel is called."""
    _bare(ax)
    ax.set_yticks([])
    ax.set_xticks([])
    if i < len(art.panels):
        ax.set_ylabel(figure_text(art.panels[i]), size=8)
        if art.pictures is not None:
            ax.imshow(_rescaled(np.asarray(art.pictures)[i]))


def _panel(ax: Axes, shown: Shown, i: int) -> None:
    art = _lines(shown)
    x, y = np.asarray(art.x), np.asarray(art.y)
    if i >= len(y):
        ax.set_visible(False)
        return
    if art.emphasis is None:
        ax.plot(x, y[i].T, lw=scaled(0.9))
    else:
        meant = int(np.asarray(art.emphasis)[i])
        ax.plot(x, np.delete(y[i], meant, axis=0).T, color="0.7", lw=scaled(0.8))
        ax.plot(x, y[i, meant], color=shown.style.colour, lw=scaled(2.2))
        highest = int(y[i, :, -1].argmax())
        name = art.lines[highest] if art.lines else str(highest)
        colour = shown.style.colour if highest == meant else "0.4"
        at = x[-1] + 0.03 * (x[-1] - x[0])
        ax.text(at, y[i, highest, -1], figure_text(name), color=colour, size=7, va="center", clip_on=False)
    if art.logarithmic and art.logarithmic[i]:
        ax.set_yscale("log")
    if art.limits:
        ax.set_ylim(*art.limits)


def images(several: Sequence[Shown]) -> Figure:
    """Grids of images, one below another, a column per column."""
    across = max(min(COLUMNS_SHOWN, _images(shown).images.shape[1]) for shown in several)
    heights = [0.65 * len(_images(shown).rows) + 0.15 * (1 + shown.style.label.count("\n")) for shown in several]
    wide = across > NARROW
    figure = sheet((max(3.6, 0.8 + 0.52 * across), sum(heights)), wide=wide, paper=sum(heights))
    axes = figure.subplots(len(several), 1, squeeze=False, height_ratios=heights).flatten()
    for shown, ax in zip(several, axes, strict=True):
        art = _images(shown)
        grid = np.asarray(art.images)
        n_all, (height, width) = grid.shape[1], grid.shape[-2:]
        grid = grid[:, :across]
        gap, down, n = max(1, width // 8), len(grid), grid.shape[1]
        page = np.ones((down * (height + gap) - gap, across * (width + gap) - gap, 3), np.float32)
        for i, row in enumerate(grid):
            for k, image in enumerate(row):
                top, left = i * (height + gap), k * (width + gap)
                page[top : top + height, left : left + width] = _rescaled(image)
        ax.imshow(page)
        _bare(ax)
        ax.set_yticks([i * (height + gap) + (height - 1) / 2 for i in range(down)], [figure_text(r) for r in art.rows])
        names = art.columns or tuple(map(str, range(n)))
        ax.set_xticks([k * (width + gap) + (width - 1) / 2 for k in range(n)], [figure_text(c) for c in names[:n]])
        part = f", first {n} of {n_all}" if n < n_all else ""
        title = f"{figure_text(shown.dataset)}: {shown.style.label}{part}"
        ax.set_title(title, loc="left", size=8.5, weight="normal", color=shown.style.colour)
    return figure


def heat_maps(several: Sequence[Shown]) -> Figure:
    """Matrices side by side, on one scale of colours."""
    across = min(4 if columns() is None else 3, len(several))
    down = math.ceil(len(several) / across)
    figure = sheet((3.0 * across + 0.8, 2.8 * down), wide=across > 1, paper=2.1 * down)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    matrices = [np.asarray(_heat(shown).values, dtype=float) for shown in several]
    low, high = min(float(np.nanmin(m)) for m in matrices), max(float(np.nanmax(m)) for m in matrices)
    for ax in axes[len(several) :]:
        ax.remove()
    for shown, values, ax in zip(several, matrices, axes, strict=False):
        art = _heat(shown)
        drawn = ax.imshow(values, cmap=HEAT, vmin=low, vmax=high, aspect="auto")
        ax.grid(False)
        ax.set_title(stacked(f"{shown.style.label} {figure_text(shown.dataset)}"), size=8, **close())
        for names, put in ((art.columns, ax.set_xticks), (art.rows, ax.set_yticks)):
            apart = len(names) // COLUMNS_SHOWN + 1
            put(range(0, len(names), apart), [figure_text(name) for name in names[::apart]], size=7)
        if max(values.shape) <= (CELLS_WRITTEN if columns() is None else CELLS_WRITTEN_PAPER):
            for i, j in np.argwhere(np.isfinite(values)):
                value = values[i, j]
                dark = value < (low + high) / 2
                ax.text(j, i, f"{value:.2g}", ha="center", va="center", size=6, color="white" if dark else "black")
    figure.colorbar(drawn, ax=list(axes[: len(several)]), label=figure_text(_heat(several[0]).label), shrink=0.8)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once: for many matrices that takes longer than all the rest
    return figure


def _rescaled(image: Pixels) -> Pixels:
    """An image (C, H, W) as colours (H, W, 3) in [0, 1], the mean of its channels unless it has three."""
    channels = image if len(image) == 3 else image.mean(0, keepdims=True).repeat(3, 0)
    low = channels.min((1, 2), keepdims=True)
    span = channels.max((1, 2), keepdims=True) - low
    return np.moveaxis((channels - low) / np.where(span > 0, span, 1), 0, -1)


def _bare(ax: Axes) -> None:
    """Axes that hold a picture: no frame, and labels without ticks, those of columns above it."""
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=8, pad=2)


def _lines(shown: Shown) -> Lines:
    assert isinstance(shown.artifact, Lines)
    return shown.artifact


def _images(shown: Shown) -> Images:
    assert isinstance(shown.artifact, Images)
    return shown.artifact


def _heat(shown: Shown) -> HeatMap:
    assert isinstance(shown.artifact, HeatMap)
    return shown.artifact


DRAWN: Mapping[str, Callable[[Sequence[Shown]], Any]] = {
    Lines.kind: lines,
    Images.kind: images,
    HeatMap.kind: heat_maps,
}
