"""Our accuracies beside those that papers and repositories report, and whether ours reproduce them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.record.primary import ACCURACY, apart
from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Text
from bench.report.derived import table
from bench.report.published import accuracies, obstacles, verdict
from bench.report.summary import ordered
from bench.stats import ROW, Interval, finished, t_interval

NOTE = (
    "What papers and repositories report for the same method and data set. Optimiser, preprocessing and tuning may "
    "differ even where the verdict compares."
)
COLUMNS = (
    Column("budget", "budget", "how long ours was trained", shown="page", text=True),
    Column("test_acc", "test acc, %", "ours", scale=100, decimals=2, interval=True, shown="page"),
    Column("published_acc", "published, %", "theirs", scale=100, decimals=2, shown="page"),
    Column(
        "verdict",
        "verdict",
        "reproduced where theirs is within the 95% interval of the difference, or within half a point of our single "
        "run, else ours is lower or higher; where that interval is wider than a point on either side it is told; not "
        "comparable where net, settings, data or a sufficient number of epochs are not known to be the same (data: "
        "images as they are, 95% or more of those for training in use)",
        shown="page",
        text=True,
    ),
    Column("published_as", "published net", "net and variant in the source's words", shown="page", text=True),
    Column("source", "source", "where the figure stands", shown="page", text=True),
    Column("quality", "read in", "the paper, a repository, or at second hand", shown="page", text=True),
)


def section(results: Results) -> Iterator[Block]:
    judged = [of for primary, of in apart(results.runs, results.primaries) if primary.key == ACCURACY.key]
    if not judged:
        return  # only accuracies are known of others
    rows = beside_published(judged[0], results.specs)
    if rows.empty:
        return
    yield Data("published", rows)
    yield Heading("Published figures")
    yield Text(NOTE)
    names = zip(rows["published_net"], rows["published_variant"], strict=True)
    yield from table(rows.assign(published_as=[", ".join(filter(None, pair)) for pair in names]), COLUMNS)


def beside_published(runs: pd.DataFrame, specs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Published accuracies of every (method, data set) that ended `ok` here, beside our means (fractions).

    A figure published for a variant that has a row of its own here (mode=usf, uSF) stands beside that row alone.
    specs: what each run was asked to do, by run_id.
    """
    lines = []
    measured = finished(ordered(runs)).dropna(subset=["test_acc"])
    for (*row, epochs, budget), group in measured.groupby([*ROW, "epochs", "budget"], sort=False):
        ours = t_interval(group["test_acc"])
        lines.append((*row, epochs, budget, group["run_id"].iloc[0], ours.mean, ours.half_width, ours.n))
    means = pd.DataFrame(lines, columns=[*ROW, "epochs", "budget", "run_id", "test_acc_mean", "test_acc_ci95", "n_ok"])
    joined: pd.DataFrame = means.merge(accuracies(), on=["method", "dataset"])
    named: dict[str, set[str]] = {}
    for method, variant in zip(means["method"], means["variant"], strict=True):
        named.setdefault(method, set()).update(_values(variant))
    pairs = zip(joined["method"], joined["variant"], joined["published_variant"].str.lower(), strict=True)
    fits = [theirs not in named[method] or theirs in _values(variant) for method, variant, theirs in pairs]
    beside = joined[pd.Series(fits, index=joined.index, dtype=bool)].reset_index(drop=True)
    verdicts = [_verdict(line, specs.get(line["run_id"], {})) for line in beside.to_dict("records")]
    return beside.assign(verdict=verdicts).drop(columns=["run_id", "our_net", "our_settings"])


def _verdict(line: Mapping[Any, Any], spec: Mapping[str, Any]) -> str:
    ours = Interval(line["test_acc_mean"], line["test_acc_ci95"], line["n_ok"])
    return verdict(ours, line["published_acc"], line["published_stderr"], obstacles(spec, line))


def _values(variant: str) -> set[str]:
    """What a variant's label sets its settings to: 'mode=usf, k=2' to {'usf', '2'}."""
    return {part.rpartition("=")[2].lower() for part in variant.split(", ") if part}
