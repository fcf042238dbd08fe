"""The page of a report, in Markdown. Whatever comes from outside is escaped as it is printed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.report.tables import (
    PAGE,
    Cells,
    cells,
    exact,
    failure_cells,
    published_cells,
    published_rows,
    summary_rows,
    tuning_cells,
    tuning_rows,
)
from bench.report.text import markdown as escape
from bench.stats import finished

CAPTIONS = {
    "accuracy.png": "Test accuracy. Large marks: mean and 95% interval over seeds; small marks: the seeds.",
    "curve_epoch.png": "Learning curves against epochs. Line: mean over seeds; band: their range.",
    "curve_seconds.png": "Learning curves against training time (evaluation excluded).",
    "accuracy_memory.png": "Test accuracy against peak memory. Left and up is better.",
    "accuracy_time.png": "Test accuracy against training time. Left and up is better.",
    "alignment.png": "Cosine between each method's step and backprop's gradient on the same mini-batch and weights.",
    "accuracy_steps.png": "Accuracy of the trained nets on held-out images against the number of inference steps: "
    "means over seeds, as in `tables/ways.csv`.",
    "label_path.png": "Class probabilities of a few held-out images along inference, for the first seed of each row. "
    "The number at the end is the class that is then most probable.",
    "prototypes.png": "Class embeddings that are images, at the start of training and after it, for the first seed of "
    "each row. Every image is rescaled to its own range, channel by channel.",
    "schedule.png": "Noise schedule of the first seed of each row. The weight is that of one step in the mean over "
    "steps, or at one time in the mean over time.",
}

HOW_TO_READ = """\
- **runs ok** counts the runs that ended well among all that were attempted. Every mean is over those only;
  the others are listed under *Failed runs*. A row with failures describes the survivors: read it with care.
- **±** is the half-width of the 95% Student-t interval over seeds; one seed has none and is marked (n=1).
- **test acc** is read once, at the end of a run. Where inference draws noise it is the mean over five draws,
  and **noise-free** is the accuracy with every draw at its mean.
- **vs backprop** is the difference in percentage points to backprop on the same net, data, initial weights
  and batch order, seed by seed, with the interval of that paired difference. An interval that holds 0 shows
  no difference.
- **train** leaves out evaluation, loading and set-up; **peak CPU** is memory above the base line after
  set-up, **peak GPU** what was allocated.
- In the figures a line of a learning curve ends where the first of its seeds stopped. Unrounded numbers are
  in `tables/`: `summary.csv`, `paired.csv`, `runs.csv`, `failures.csv`.
"""


def page(
    runs: pd.DataFrame,
    *,
    title: str,
    pictures: Sequence[str],
    environments: Mapping[str, Mapping[str, Any]],
    searches: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole page.

    runs: a tidy frame; pictures: file names under `figures/`; environments: facts by `env_id`;
    searches: what tuning tried and found.
    """
    parts = [f"# {escape(title)}", _what_was_run(runs), *_results(runs), *_failures(runs)]
    parts += [*_tuning(searches), *_published(runs)]
    parts += ["## Figures"] if pictures else []
    parts += [f"![{CAPTIONS[name]}](figures/{name})\n\n*{CAPTIONS[name]}*" for name in pictures]
    parts += ["## How to read this", HOW_TO_READ.rstrip()]
    parts += _environments(environments)
    return "\n\n".join(parts) + "\n"


def _what_was_run(runs: pd.DataFrame) -> str:
    facts = {
        "Runs": f"{len(finished(runs))} ok of {len(runs)} attempted",
        "Methods": _values(runs["method"]),
        "Data sets": _values(runs["dataset"]),
        "Nets": _values(runs["net"]),
        "Seeds": _values(runs["seed"]),
        "Epochs": _values(runs["epochs"]),
        "Batch size": _values(runs["batch_size"]),
        "Device": _values(runs["device"]),
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _values(column: "pd.Series[Any]") -> str:
    present = sorted(value for value in column.dropna().unique() if value != "")
    return ", ".join(escape(exact(value) if isinstance(value, float) else value) for value in present)


def _results(runs: pd.DataFrame) -> list[str]:
    if runs.empty:
        return ["There is no run yet, so there is nothing to compare."]
    parts = ["## Results"]
    if finished(runs).empty:
        parts.append("No run ended well, so there is no figure to show.")
    for dataset, group in runs.groupby("dataset"):
        parts += [f"### {escape(dataset)}", _table(cells(summary_rows(group), PAGE))]
    return parts


def _failures(runs: pd.DataFrame) -> list[str]:
    headers, rows = failure_cells(runs)
    return ["## Failed runs", _table((headers, rows))] if rows else []


def _tuning(searches: Sequence[Mapping[str, Any]]) -> list[str]:
    table = tuning_cells(tuning_rows(searches))
    note = (
        "Every method had the same number of trials, on validation data and with a seed that is not among those "
        "reported. A best value at the end of its range (*edge*) means that a wider one might serve the method better."
    )
    return ["## Settings found by search", note, _table(table)] if table[1] else []


def _published(runs: pd.DataFrame) -> list[str]:
    table = published_cells(published_rows(runs))
    note = (
        "What papers and repositories report for the same method and data set. Nets, epochs, preprocessing and tuning "
        "differ from the runs above unless the columns say otherwise: compare before you conclude."
    )
    return ["## Published figures", note, _table(table)] if table[1] else []


def _environments(environments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    parts = ["## Environment"] if environments else []
    for name, facts in sorted(environments.items()):
        lines = [f"- {escape(key)}: {escape(_plain(facts[key]))}" for key in sorted(facts)]
        parts += [f"### {escape(name)}", "\n".join(lines)]
    return parts


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _table(table: Cells) -> str:
    headers, rows = table
    texts = {"method", "variant", "net", "data set", "status", "reason", "run", "setting", "edge"}
    texts |= {"published net", "source", "read in"}
    rule = [":--" if name in texts else "--:" for name in headers]
    lines = [headers, rule, *([escape(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
