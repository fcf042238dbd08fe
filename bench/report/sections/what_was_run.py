"""What was run, and what of it is left out."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.record.results import Results
from bench.report.blocks import Block, Facts, Text
from bench.report.numbers import exact
from bench.stats import finished


def section(results: Results) -> Iterator[Block]:
    runs = results.runs
    facts = {
        "Runs": f"{len(finished(runs))} ok of {len(runs)} attempted",
        "Methods": _values(runs["method"]),
        "Data sets": _values(runs["dataset"]),
        "Nets": _values(runs["net"]),
        "Seeds": _values(runs["seed"]),
        "Budget": "" if results.n_probed == len(results.probed) else _values(runs["budget"]),
        "Batch size": _values(runs["batch_size"]),
        "Device": _values(runs["device"]),
    }
    yield Facts([(name, value) for name, value in facts.items() if value])
    if results.n_probed:
        yield Text(
            f"Runs that were only set up and probed, not trained: {results.n_probed}. They have no accuracy, and a row "
            "among the results only where no run was trained."
        )
    for line in results.unshown:
        yield Text(f"{line[0].upper()}{line[1:]}.")


def _values(column: "pd.Series[Any]") -> str:
    present = sorted(value for value in column.dropna().unique() if value != "")
    return ", ".join(value if isinstance(value, str) else exact(value) for value in present)
