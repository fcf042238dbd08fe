"""Test accuracy per row, with its interval, its seeds and the count of its runs."""

import math
from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.record.primary import ACCURACY, Primary, apart
from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.panels import (
    HIGHEST,
    below,
    by_error,
    by_row,
    datasets_of,
    make_room,
    n_lines,
    panel_per,
    spread_of_errors,
)
from bench.report.rows import Mean, ends_of_bar, means, named, seeds
from bench.report.style import Key, Look, close, looks
from bench.report.summary import ordered
from bench.report.text import figure as figure_text
from bench.stats import finished, t_interval

FEW = 20  # rows
CAPTION = "Test {word}. Large marks: mean and 95% interval over seeds; small marks: the seeds."


def section(results: Results) -> Iterator[Block]:
    for primary, runs in apart(ordered(results.runs), results.primaries):
        drawn = accuracy(runs, looks(runs), primary)
        if drawn is not None:
            yield Picture(named("accuracy", primary), CAPTION.format(word=primary.word), drawn)


def accuracy(runs: pd.DataFrame, look: dict[Key, Look], primary: Primary = ACCURACY) -> Figure | None:
    """The primary metric per row: the mean with its 95% interval, the seeds below it, and the count of runs."""
    datasets, scale = datasets_of(finished(runs).dropna(subset=[primary.test])), primary.scale
    if not datasets:
        return None
    lines = [n_lines(style.label) for style in look.values()]
    of_row = 0.42 if len(look) <= FEW else max(0.28, 0.15 * max(lines))  # a higher figure would be a coarser PNG
    paper = 0.65 + 0.06 * len(look) + 0.11 * sum(lines)
    figure, panels = panel_per(datasets, height=0.9 + of_row * len(look), width=3.6, paper=paper, shared_rows=True)
    make_room(figure, [style.label for style in look.values()])
    noise_free_shown = False
    for dataset, ax in panels:
        groups = dict(by_row(runs[runs["dataset"] == dataset]))
        dots, marks = [], []
        for y, (key, style) in enumerate(look.items()):
            if key not in groups:
                continue
            ok = finished(groups[key])
            accuracies = scale * ok[primary.test]
            dots.append((style, accuracies.tolist(), [y + 0.27] * len(accuracies)))
            noise_free = t_interval(scale * ok[f"{primary.test}_noise_free"])
            interval = t_interval(accuracies)
            if noise_free.n and not math.isclose(noise_free.mean, interval.mean, abs_tol=1e-6):
                noise_free_shown = True
                ax.plot(noise_free.mean, y, "d", color=style.colour, mfc="white", zorder=2)
            marks.append(Mean(style, interval.mean, y, ends_of_bar(interval, primary)))
            count = f"{len(ok)}/{len(groups[key])}"
            colour = "0.3" if len(ok) == len(groups[key]) else "#B00000"
            ax.text(1.02, y, count, transform=ax.get_yaxis_transform(), va="center", color=colour, size=7.5)
        seeds(ax, dots, size=3)
        means(ax, marks, level=True)
        ax.text(1.02, 1.01, "runs ok", transform=ax.transAxes, va="bottom", color="0.3", size=7.5)
        ax.set_yticks(range(len(look)), [style.label for style in look.values()], **close())
        ax.set_ylim(len(look) - 0.4, -0.6)
        ax.grid(False, axis="y")
        ended = [finished(group)[primary.test] for group in groups.values()]
        if primary.is_percentage and spread_of_errors(scale * values.mean() for values in ended):
            by_error(ax, "x", scale * max(values.max() for values in ended))
        else:
            if primary.is_percentage:
                ax.set_xlim(right=min(ax.get_xlim()[1], HIGHEST))
            ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel(figure_text(primary.axis("test")))
    if noise_free_shown:
        handle = Line2D([], [], color="0.3", marker="d", mfc="white", ls="")
        below(figure, {f"mean {primary.word} with noise-free inference": handle})
    return figure
