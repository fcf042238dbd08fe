"""The figures of what trained methods leave behind: accuracy by number of steps, ways to a label, class
prototypes and noise schedules. Arrays are those of `Method.exhibits`, from the first seed of each row.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bench.report.panels import HIGHEST, by_row, datasets_of, legend, line_handle, log_axis, panel_per, stacked
from bench.report.style import DASHES, Key, Look
from bench.report.text import figure as figure_text
from bench.stats import ROW

PATHS_ACROSS = 6
IMAGES_SHOWN = 4
CLASSES_SHOWN = 20

Arrays = Mapping[str, NDArray[np.float32]]


class Exhibit(NamedTuple):
    """What one row of the tables left on one data set, and how the row looks."""

    dataset: str
    style: Look
    arrays: Arrays


def of_rows(name: str, ok: pd.DataFrame, arrays: Mapping[str, Arrays], look: Mapping[Key, Look]) -> list[Exhibit]:
    """One exhibit per row that left the named array: its first seed, in the order of the tables.

    ok: tidy runs, hence sorted by row and seed; arrays: by run.
    """
    first = ok[ok["run_id"].isin([run_id for run_id, left in arrays.items() if name in left])].drop_duplicates(ROW)
    return [
        Exhibit(dataset, look[method, net, variant], arrays[run_id])
        for dataset, method, net, variant, run_id in first[[*ROW, "run_id"]].to_numpy(dtype=str).tolist()
    ]


def accuracy_steps(points: pd.DataFrame, look: Mapping[Key, Look]) -> Figure | None:
    """Accuracy against the number of inference steps: a colour per method, dashes per sampler, mean over seeds.

    points: as `bench.report.tables.steps_rows` gives them; a gap where the sampler failed for a seed.
    """
    if points.empty:
        return None
    dashes = {str(s): DASHES[i % len(DASHES)] for i, s in enumerate(sorted(points["sampler"].unique()))}
    figure, per_dataset = panel_per(datasets_of(points))
    shown: set[Key] = set()
    for dataset, ax in per_dataset:
        panel = points[points["dataset"] == dataset]
        for key, group in by_row(panel):
            shown.add(key)
            for sampler, line in group.groupby("sampler"):
                style = look[key]._replace(dashes=dashes[str(sampler)])
                ax.plot(
                    line["steps"],
                    100 * line["accuracy"],
                    color=style.colour,
                    linestyle=style.dashes,
                    marker=style.marker,
                    markersize=3.5,
                )
        log_axis(ax, (1.0, 2.0, 5.0))
        ax.set_ylim(top=min(ax.get_ylim()[1], HIGHEST))
        ax.set_xlabel("inference steps")
        counts = " to ".join(f"{n:.0f}" for n in sorted({panel["n_images"].min(), panel["n_images"].max()}))
        ax.set_ylabel(f"accuracy on {counts} held-out images, %")
    rows = {style.label: line_handle(style._replace(dashes="")) for key, style in look.items() if key in shown}
    samplers = {f"sampler: {figure_text(s)}": Line2D([], [], color="0.3", ls=ls) for s, ls in dashes.items()}
    legend(figure, rows | samplers)
    return figure


def label_paths(exhibits: list[Exhibit]) -> Figure | None:
    """A few images, each with its class probabilities along inference: a panel per image and row of the tables."""
    if not exhibits:
        return None
    alike: dict[tuple[str, bytes], list[Exhibit]] = {}  # rows that were shown the same images stand side by side
    for exhibit in exhibits:
        alike.setdefault((exhibit.dataset, exhibit.arrays["images"].tobytes()), []).append(exhibit)
    blocks = [group[i : i + PATHS_ACROSS] for group in alike.values() for i in range(0, len(group), PATHS_ACROSS)]
    across = max(map(len, blocks))
    down = [min(IMAGES_SHOWN, len(block[0].arrays["labels"])) for block in blocks]
    title_lines = 1 + max(stacked(exhibit.style.label).count("\n") for exhibit in exhibits)
    heights = [0.35 + 0.12 * title_lines + 0.85 * n for n in down]

    figure = Figure(figsize=(max(3.4, 1.1 + 1.75 * across), sum(heights) + 0.6), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights).flatten()
    for block, n, part in zip(blocks, down, parts, strict=True):
        part.suptitle(figure_text(block[0].dataset), x=0.01, ha="left", size=10, weight="bold")
        axes = part.subplots(n, 1 + across, squeeze=False, width_ratios=[0.55, *[1.0] * across])
        for i, (picture, *cells) in enumerate(axes):
            arrays = block[0].arrays
            picture.imshow(_shown(arrays["images"][i]))
            _bare(picture)
            picture.set_yticks([])
            picture.set_xticks([])
            picture.set_ylabel(f"class {arrays['labels'][i]}", size=8)
            for ax in cells[len(block) :]:
                ax.set_visible(False)
            for j, (exhibit, ax) in enumerate(zip(block, cells, strict=False)):
                _path(ax, exhibit, i)
                ax.tick_params(labelsize=7, labelleft=j == 0, labelbottom=i == n - 1)
                if i == 0:
                    ax.set_title(stacked(exhibit.style.label), size=6.5, weight="normal")
    figure.supxlabel("time, from noise (0) to label (1)", size=9)
    figure.supylabel("class probability", size=9)
    handles = [Line2D([], [], color="0.2", lw=2.2), Line2D([], [], color="0.7", lw=0.8)]
    figure.legend(handles, ["true class", "each other class"], loc="outside upper right", ncols=2)
    return figure


def _path(ax: Axes, exhibit: Exhibit, i: int) -> None:
    time, path, label = (exhibit.arrays[name] for name in ("label_path_time", "label_path", "labels"))
    true = int(label[i])
    others = np.arange(path.shape[2]) != true
    ax.plot(time, path[:, i, others], color="0.7", lw=0.8)
    ax.plot(time, path[:, i, true], color=exhibit.style.colour, lw=2.2)
    answer = int(path[-1, i].argmax())
    colour = exhibit.style.colour if answer == true else "0.4"
    ax.text(time[-1] + 0.03, path[-1, i, answer], str(answer), color=colour, size=7, va="center", clip_on=False)
    ax.set_ylim(-0.04, 1.04)
    ax.set_yticks([0, 0.5, 1])
    ax.set_xticks([0, 0.5, 1])


def prototypes(exhibits: list[Exhibit]) -> Figure | None:
    """Class embeddings that are images, at the start above what they became: a column per class."""
    if not exhibits:
        return None
    across = max(min(CLASSES_SHOWN, exhibit.arrays["prototypes"].shape[1]) for exhibit in exhibits)
    heights = [1.3 + 0.15 * (1 + exhibit.style.label.count("\n")) for exhibit in exhibits]
    figure = Figure(figsize=(max(3.6, 0.8 + 0.52 * across), sum(heights)), layout="constrained")
    for exhibit, ax in zip(
        exhibits, figure.subplots(len(exhibits), 1, squeeze=False, height_ratios=heights).flatten(), strict=True
    ):
        lines = exhibit.arrays["prototypes"][:, :across]
        n_all, n, (height, width) = exhibit.arrays["prototypes"].shape[1], lines.shape[1], lines.shape[-2:]
        gap = max(1, width // 8)
        page = np.ones((2 * (height + gap) - gap, across * (width + gap) - gap, 3), np.float32)
        for line, images in enumerate(lines):
            for k, image in enumerate(images):
                top, left = line * (height + gap), k * (width + gap)
                page[top : top + height, left : left + width] = _shown(image)
        ax.imshow(page)
        _bare(ax)
        ax.set_yticks([(height - 1) / 2, height + gap + (height - 1) / 2], ["start", "learned"])
        ax.set_xticks([k * (width + gap) + (width - 1) / 2 for k in range(n)], [str(k) for k in range(n)])
        part = f", first {n} of {n_all} classes" if n < n_all else ""
        name = f"{figure_text(exhibit.dataset)}: {exhibit.style.label}{part}"
        ax.set_title(name, loc="left", size=8.5, weight="normal", color=exhibit.style.colour)
    return figure


def schedules(exhibits: list[Exhibit]) -> Figure | None:
    """The noise schedule of each row: abar, and the weight of the denoising loss, against time."""
    if not exhibits:
        return None
    datasets = sorted({exhibit.dataset for exhibit in exhibits})
    figure = Figure(figsize=(8.2, 2.9 * len(datasets)), layout="constrained")
    for dataset, (signal, weight) in zip(datasets, figure.subplots(len(datasets), 2, squeeze=False), strict=True):
        signal.set_title(figure_text(dataset), loc="left")
        here = [exhibit for exhibit in exhibits if exhibit.dataset == dataset]
        for k, exhibit in enumerate(here):
            time, abar, loss_weight = exhibit.arrays["schedule"].T
            apart = len(time) // 6 + 1
            for ax, values in ((signal, abar), (weight, loss_weight)):
                # schedules may coincide: marks at places of their own keep the lower line visible
                ax.plot(
                    time,
                    values,
                    color=exhibit.style.colour,
                    linestyle=exhibit.style.dashes,
                    marker=exhibit.style.marker,
                    markersize=4,
                    markevery=(k * apart // len(here), apart),
                )
        weight.set_yscale("log")
        signal.set_ylim(-0.03, 1.03)
        signal.set_ylabel(r"$\bar{\alpha}$: share of signal in $z_t$")
        weight.set_ylabel("weight of the denoising loss")
        for ax in (signal, weight):
            ax.set_xlim(-0.03, 1.03)
            ax.set_xlabel("time t, from noise (0) to label (1)")
    legend(figure, {exhibit.style.label: line_handle(exhibit.style) for exhibit in exhibits})
    return figure


def _shown(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """A normalised image (C, H, W) as colours (H, W, 3) in [0, 1], the mean of its channels unless it has three."""
    channels = image if len(image) == 3 else image.mean(0, keepdims=True).repeat(3, 0)
    low = channels.min((1, 2), keepdims=True)
    span = channels.max((1, 2), keepdims=True) - low
    return np.moveaxis((channels - low) / np.where(span > 0, span, 1), 0, -1)


def _bare(ax: Axes) -> None:
    """Axes that hold a picture: no frame, and labels without ticks, those of classes above it."""
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=8, pad=2)
