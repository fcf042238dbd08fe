"""Results made up in memory, with the properties of those read from disk."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.api.column import Column
from bench.catalog.catalog import Catalog
from bench.record.primary import arranged
from bench.record.results import MARGIN, Results
from bench.record.schema import CURVE, IDENTITY, KEY

CATALOG = Catalog()
COLUMNS = arranged(CATALOG.columns(), {"acc"}, ())
MEASURED = {
    "train_s": 2.0,
    "step_ms_p50": 1.25,
    "step_ms_p95": 1.5,
    "examples_per_s": 51200.0,
    "cpu_peak_rss_bytes": 32.0 * 2**20,
    "retained_bytes": 2.0**20,
    "live_peak_bytes": 3.0 * 2**20,
    "params_inference": 12345.0,
    "params_training_only": 0.0,
    "flops_per_step": 2.5e9,
    "forward_passes": 1.0,
    "reverse_mode": "network",
}


NAMED = ("variant", "data_id", "tuned", "conditions", "net_settings")


class Made(Results):
    """Results of these frames and facts, where others read their folder. own: tables that runs brought, by name."""

    def __init__(
        self,
        runs: pd.DataFrame,
        curves: pd.DataFrame | None = None,
        environments: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        own: Mapping[str, pd.DataFrame] | None = None,
        columns: Sequence[Column] = tuple(COLUMNS),
        margin: float = MARGIN,
        target: float | None = None,
        problems: Sequence[str] = (),
        **facts: Any,
    ) -> None:
        super().__init__(Path("made"), columns=columns, margin=margin, target=target, catalog=CATALOG)
        self._own, self._problems = own or {}, list(problems)
        of_runs = ("settings", "specs", "artifacts", "stderr")
        # in place of what cached properties would read
        vars(self).update(
            {name: {} for name in of_runs},
            searches=[],
            scaling=[],
            n_probed=0,
            n_older=0,
            n_other_data=0,
            n_repeats=0,
            n_contradictions=0,
        )
        vars(self).update(runs=runs, probed=runs, columns=columns, tables=sorted(self._own))
        vars(self).update(environments=environments or {}, curves=_no_curves() if curves is None else curves)
        vars(self).update(facts)

    def table(self, name: str) -> pd.DataFrame:
        return self._own.get(name, pd.DataFrame(columns=KEY))


def _no_curves() -> pd.DataFrame:
    return pd.DataFrame(columns=[*KEY, *CURVE])


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column] = tuple(COLUMNS)) -> pd.DataFrame:
    """Runs, with every column there is."""
    runs = pd.DataFrame(list(rows)).reindex(columns=[*IDENTITY, *(c.name for c in columns), *NAMED])
    return runs.astype({c.name: float for c in columns if not c.text})


def run(method: str = "backprop", dataset: str = "digits", seed: int = 0, **values: Any) -> dict[str, Any]:
    """One run, that ended well unless `status` says otherwise: backprop at 96% and a point more each seed."""
    accuracy = {"backprop": 0.96, "noprop-dt": 0.94}.get(method, 0.9) + 0.01 * seed
    measured = {"test_acc": accuracy, "test_acc_noise_free": accuracy, **MEASURED}
    measured["train_s"] = 2.0 + 100 * (method != "backprop") + seed
    if values.get("status", "ok") != "ok":
        measured = dict.fromkeys(measured, math.nan) | {"reverse_mode": None}
    identity = {"method": method, "net": "denoiser", "dataset": dataset, "seed": seed, "variant": ""} | {
        name: values[name] for name in ("net", "variant") if name in values
    }
    plain = {"status": "ok", "reason": "", "device": "cpu", "epochs": 5, "batch_size": 128, "experiment": "e"}
    plain |= {
        "net_settings": "{}",
        "data_id": "d",
        "tuned": "",
        "conditions": "",
        "protocol": "matched",
        "budget": "5 epochs",
    }
    return {"run_id": "-".join(map(str, identity.values())), **identity, **plain, **measured, **values}


def curves_of(runs: pd.DataFrame, *, epochs: int = 3, val_acc: float = 0.9) -> pd.DataFrame:
    points = [
        {**line, "epoch": e, "step": 10 * e, "train_loss": 1 / e, "val_acc": val_acc - 0.5 / e, "train_s": e}
        for line in runs[KEY].to_dict("records")
        for e in range(1, epochs + 1)
    ]
    return pd.DataFrame(points, columns=[*KEY, *CURVE])


def two_methods() -> pd.DataFrame:
    runs = [run(m, d, s) for m in ("noprop-dt", "backprop") for d in ("digits", "mnist") for s in range(3)]
    runs[1] = run("noprop-dt", "digits", 1, status="diverged", reason="the loss was NaN at step 12")
    return frame(runs)
