"""Our accuracies beside those that papers and repositories report."""

from collections.abc import Iterator

import pandas as pd

from bench.record.results import Results
from bench.report.blocks import Block, Data, Heading, Table, Text
from bench.report.numbers import exact, percent
from bench.report.published import accuracies
from bench.report.summary import ordered
from bench.stats import ROW, finished

WORDS = frozenset(("data set", "method", "net", "variant", "published net", "source", "read in"))
NOTE = (
    "What papers and repositories report for the same method and data set. Nets, epochs, preprocessing and tuning "
    "differ from the runs above unless the columns say otherwise: compare before you conclude."
)


def section(results: Results) -> Iterator[Block]:
    rows = beside_published(results.runs)
    if rows.empty:
        return
    yield Data("published", rows)
    yield Heading("Published figures")
    yield Text(NOTE)
    nets = zip(rows["published_net"], rows["published_variant"], strict=True)
    cells = {
        "data set": rows["dataset"].tolist(),
        "method": rows["method"].tolist(),
        "net": rows["net"].tolist(),
        "variant": rows["variant"].tolist(),
        "epochs": rows["epochs"].map(exact).tolist(),
        "test acc, %": rows["test_acc"].map(percent).tolist(),
        "published, %": rows["published_acc"].map(percent).tolist(),
        "published net": [", ".join(filter(None, pair)) for pair in nets],
        "source": rows["source"].tolist(),
        "read in": rows["quality"].tolist(),
    }
    kept = {title: values for title, values in cells.items() if any(values)}
    lines = [[value or "-" for value in line] for line in zip(*kept.values(), strict=True)]
    yield Table(
        list(kept), lines, frozenset(("data set", "method", "net", "variant", "published net", "source", "read in"))
    )


def beside_published(runs: pd.DataFrame) -> pd.DataFrame:
    """Published accuracies of every (method, data set) that ended `ok` here, beside our means (fractions).

    A figure published for a variant that has a row of its own here (mode=usf, uSF) stands beside that row alone.
    """
    ours = finished(ordered(runs)).groupby([*ROW, "epochs"], as_index=False)["test_acc"].mean()
    theirs = accuracies().rename(columns={"net": "published_net", "variant": "published_variant"})
    theirs = theirs.assign(published_acc=theirs["value"] / 100, published_stderr=theirs["stderr"] / 100)
    joined: pd.DataFrame = ours.merge(theirs.drop(columns=["value", "stderr"]), on=["method", "dataset"])
    named: dict[str, set[str]] = {}
    for method, variant in zip(ours["method"], ours["variant"], strict=True):
        named.setdefault(method, set()).update(_values(variant))
    pairs = zip(joined["method"], joined["variant"], joined["published_variant"].str.lower(), strict=True)
    fits = [theirs not in named[method] or theirs in _values(variant) for method, variant, theirs in pairs]
    return joined[pd.Series(fits, index=joined.index, dtype=bool)].reset_index(drop=True)


def _values(variant: str) -> set[str]:
    """What a variant's label sets its settings to: 'mode=usf, k=2' to {'usf', '2'}."""
    return {part.rpartition("=")[2].lower() for part in variant.split(", ") if part}
