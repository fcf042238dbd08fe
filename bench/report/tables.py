"""The numbers of a report: raw ones for the CSV files, rounded ones for the page and the terminal."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.published import accuracies
from bench.report.frames import tidy_runs, tidy_ways
from bench.report.text import one_line
from bench.stats import ROW, count_runs, finished, paired_differences, t_interval

WITH_INTERVAL = ["test_acc", "test_acc_noise_free", "val_acc", "train_s", "examples_per_s"]
WITHOUT_INTERVAL = [
    "test_acc_std",
    "epochs",
    "steps",
    "eval_s",
    "data_s",
    "setup_s",
    "step_ms_p50",
    "step_ms_p95",
    "gpu_peak_alloc_bytes",
    "gpu_peak_reserved_bytes",
    "cpu_peak_rss_bytes",
    "params_inference",
    "params_training_only",
]
FAILURE = [*ROW, "seed", "status", "reason", "run_id"]

SEARCHED = ["dataset", "method", "variant", "net", "setting", "best", "low", "high"]
VALIDATION = "validation acc, %"

Cells = tuple[list[str], list[list[str]]]


def summary_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """One line per (data set, method, net, variant), means over the seeds that ended `ok`.

    Columns: `n_ok`, `n_runs`, `failures`; `X_mean` in the unit of X for every measured X, with the half-width
    of its 95% interval over seeds in `X_ci95` for accuracies (fractions), training time and speed; and the
    paired difference to backprop (`twin_variant`, `n_pairs`, `test_acc_diff_mean`, `test_acc_diff_ci95`).
    """
    runs = tidy_runs(runs)
    means = []
    for row, group in finished(runs).groupby(ROW, sort=False):
        line: dict[str, Any] = dict(zip(ROW, row, strict=True))
        for name in WITH_INTERVAL:
            line[f"{name}_mean"], line[f"{name}_ci95"], _ = t_interval(group[name])
        for name in WITHOUT_INTERVAL:
            line[f"{name}_mean"] = group[name].mean()
        means.append(line)
    intervals = [f"{name}_{end}" for name in WITH_INTERVAL for end in ("mean", "ci95")]
    columns = [*ROW, *intervals, *(f"{name}_mean" for name in WITHOUT_INTERVAL)]
    summary = count_runs(runs).merge(pd.DataFrame(means, columns=columns), on=ROW, how="left")
    return summary.merge(paired_differences(runs), on=ROW, how="left")


def failure_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """One line per run that did not end `ok`, with its reason."""
    return runs.loc[runs["status"] != "ok", FAILURE]


def csv_tables(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """File name to table, unrounded, with the units in the column names."""
    return {
        "runs.csv": runs,
        "summary.csv": summary_rows(runs),
        "paired.csv": paired_differences(runs),
        "failures.csv": failure_rows(runs),
    }


def steps_rows(ways: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (a fraction, mean over the seeds that ended `ok`) per row, sampler and number of steps.

    Missing where the sampler gave numbers in `n_runs` of them alone, not in `n_failed`: their mean would flatter it.
    """
    ok = tidy_ways(ways)
    ok = ok[ok["run_id"].isin(finished(runs)["run_id"])]
    groups = ok.groupby([*ROW, "sampler", "steps", "n_images"], as_index=False)
    means: pd.DataFrame = groups.agg(
        accuracy=("accuracy", lambda of: of.mean(skipna=False)),
        n_runs=("accuracy", "count"),
        n_failed=("accuracy", lambda of: of.isna().sum()),
    )
    return means


def tuning_rows(searches: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One line per search: what was found, in how many trials, and whether it lies at an end of what was tried."""
    rows = []
    for search in searches:
        scores = {trial["value"]: trial["val_acc"] for trial in search["tried"]}
        best = search["best"]
        rows.append(
            {
                **{name: search[name] for name in SEARCHED},
                "val_acc": math.nan if best is None else scores[best],
                "n_trials": len(scores),
                "n_failed": sum(score is None for score in scores.values()),
                "edge": best is not None and best in (min(scores), max(scores)),
            }
        )
    return pd.DataFrame(rows)


def tuning_cells(rows: pd.DataFrame) -> Cells:
    """Headers and rounded cells of `tuning_rows`."""
    table: dict[str, list[str]] = {
        name: []
        for name in ("data set", "method", "variant", "net", "setting", "best", "range", VALIDATION, "trials", "edge")
    }
    for row in rows.to_dict("records"):
        failed = f" ({row['n_failed']} failed)" if row["n_failed"] else ""
        cells_of_row = (
            row["dataset"],
            row["method"],
            row["variant"],
            row["net"],
            row["setting"],
            "none; default kept" if pd.isna(row["best"]) else f"{row['best']:g}",
            f"{row['low']:g} to {row['high']:g}",
            _percent_only(row["val_acc"]),
            f"{row['n_trials']}{failed}",
            "edge" if row["edge"] else "",
        )
        for name, cell in zip(table, cells_of_row, strict=True):
            table[name].append(cell)
    return _without_empty(table)


def published_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Published accuracies of every (method, data set) that ended `ok` here, beside our means (fractions).

    A figure published for a variant that has a row of its own here (mode=usf, uSF) stands beside that row alone.
    """
    ok = finished(tidy_runs(runs))
    ours = ok.groupby([*ROW, "epochs"], as_index=False)["test_acc"].mean()
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


def published_cells(rows: pd.DataFrame) -> Cells:
    """Headers and rounded cells of `published_rows`."""
    table = {
        "data set": rows["dataset"].tolist(),
        "method": rows["method"].tolist(),
        "net": rows["net"].tolist(),
        "variant": rows["variant"].tolist(),
        "epochs": rows["epochs"].map(exact).tolist(),
        "test acc, %": rows["test_acc"].map(_percent_only).tolist(),
        "published, %": rows["published_acc"].map(_percent_only).tolist(),
        "published net": [
            ", ".join(filter(None, pair)) for pair in zip(rows["published_net"], rows["published_variant"], strict=True)
        ],
        "source": rows["source"].tolist(),
        "read in": rows["quality"].tolist(),
    }
    return _without_empty(table)


def _percent_only(fraction: float) -> str:
    return "" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def csv(frame: pd.DataFrame) -> bytes:
    """The table as CSV, at a precision at which 0.97 reads as such and a seed as a whole number."""
    return frame.to_csv(index=False, float_format="%.15g").encode(errors="replace")


def exact(value: float) -> str:
    """A number that nobody measured, such as a seed or a count: never rounded, and without separators."""
    return "" if math.isnan(value) else f"{value:.15g}"


def _percent(mean: float, half_width: float, style: str = ".2f") -> str:
    if math.isnan(mean):
        return ""
    spread = " (n=1)" if math.isnan(half_width) else f" ± {100 * half_width:.2f}"
    return f"{100 * mean:{style}}{spread}"


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _noise_free(row: Mapping[str, Any]) -> str:
    mean = row["test_acc_noise_free_mean"]
    same = math.isclose(mean, row["test_acc_mean"], abs_tol=1e-9)
    return "" if same else _percent(mean, row["test_acc_noise_free_ci95"])


def _difference(row: Mapping[str, Any]) -> str:
    text = _percent(row["test_acc_diff_mean"], row["test_acc_diff_ci95"], "+.2f")
    fewer = text and 1 < row["n_pairs"] < row["n_ok"]
    return f"{text} (n={row['n_pairs']:.0f})" if fewer else text


def _runs(row: Mapping[str, Any]) -> str:
    failures = f" ({row['failures']})" if row["failures"] else ""
    return f"{row['n_ok']}/{row['n_runs']}{failures}"


def _parameters(row: Mapping[str, Any]) -> str:
    only_training = row["params_training_only_mean"]
    further = f" + {_number(only_training)} in training" if only_training > 0 else ""
    return _number(row["params_inference_mean"]) + further


NAMES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "data set": lambda r: r["dataset"],
    "method": lambda r: r["method"],
    "variant": lambda r: r["variant"],
    "net": lambda r: r["net"],
}
COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = NAMES | {
    "runs ok": _runs,
    "test acc, %": lambda r: _percent(r["test_acc_mean"], r["test_acc_ci95"]),
    "noise-free, %": _noise_free,
    "vs backprop, points": _difference,
    "train, s": lambda r: _number(r["train_s_mean"]),
    "step p50, ms": lambda r: _number(r["step_ms_p50_mean"]),
    "step p95, ms": lambda r: _number(r["step_ms_p95_mean"]),
    "examples/s": lambda r: _number(r["examples_per_s_mean"]),
    "peak GPU, MiB": lambda r: _number(r["gpu_peak_alloc_bytes_mean"] / 2**20),
    "peak CPU, MiB": lambda r: _number(r["cpu_peak_rss_bytes_mean"] / 2**20),
    "parameters": _parameters,
}
PAGE = [name for name in COLUMNS if name != "data set"]
TERMINAL = [name for name in COLUMNS if name not in ("step p95, ms", "examples/s", "parameters")]


def cells(summary: pd.DataFrame, columns: Sequence[str]) -> Cells:
    """Headers and rounded cells; a column in which every cell is empty is left out."""
    lines: list[dict[Any, Any]] = summary.to_dict("records")
    return _without_empty({name: [COLUMNS[name](line) for line in lines] for name in columns})


def failure_cells(runs: pd.DataFrame) -> Cells:
    """Headers and cells of the runs that failed."""
    failures = failure_rows(runs).rename(columns={"dataset": "data set", "run_id": "run"})
    failures["seed"] = failures["seed"].map(exact)
    return _without_empty({name: failures[name].tolist() for name in failures.columns})


def _without_empty(columns: Mapping[str, list[str]]) -> Cells:
    kept = {name: values for name, values in columns.items() if any(values)}
    return list(kept), [[value or "-" for value in row] for row in zip(*kept.values(), strict=True)]


def terminal_table(runs: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the result table, as plain one-line text without terminal codes.

    The cells are not rich markup: print them as `rich.text.Text`, so that a `[name]` stays one.
    """
    headers, rows = cells(summary_rows(runs), TERMINAL)
    return headers, [[one_line(value, limit=60) for value in row] for row in rows]
