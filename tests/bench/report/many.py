"""Thousands of made-up runs on disk, as a pack."""

import json
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.record.files import csv_bytes
from bench.record.schema import CURVE, SCHEMA
from tests.bench.report.made import CATALOG, MEASURED

METHODS = sorted(CATALOG.methods)[:25]
DATASETS, NETS, SEEDS, EPOCHS = ("digits", "mnist", "kmnist", "svhn"), ("mlp", "cnn"), 10, 20


def write_many(root: Path) -> int:
    """An experiment of 25 methods on 4 data sets and 2 nets, 10 seeds each, of 20 epochs. Returns how many runs."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    cells = list(product(METHODS, DATASETS, NETS, range(SEEDS)))
    with zipfile.ZipFile(root / "records.zip", "w", zipfile.ZIP_STORED) as pack:
        for k, (method, dataset, net, seed) in enumerate(cells):
            best = 0.98 - 0.01 * METHODS.index(method) + 0.005 * rng.standard_normal()
            failed = k % 97 == 5
            pace = 1 + METHODS.index(method) % 7
            curve = [
                {"epoch": e, "step": 30 * e, "train_loss": 1 / e, "val_acc": best - 0.4 / e, "train_s": pace * e}
                for e in range(1, EPOCHS + 1)
            ]
            summary: dict[str, Any] = {"status": "ok", "reason": None, "val_acc": best, "test_acc": best, **MEASURED}
            summary |= {"train_s": pace * EPOCHS, "cpu_peak_rss_bytes": (30 + pace) * 2**20}
            if failed:
                summary = {"status": "crashed", "reason": f"RuntimeError: number {k}"}
            spec = {
                "method": method, "net": net, "dataset": dataset, "seed": seed, "epochs": EPOCHS, "batch_size": 128,
                "device": "cpu", "val_fraction": 0.1, "precision": "float32", "schema": SCHEMA, "numerics": 2,
                "method_settings": {"lr": 1e-3, "optimizer": "adamw", "weight_decay": 1e-3, "clip": 1.0},
                "net_settings": {"width": 256, "depth": 3, "activation": "relu"},
            }  # fmt: skip
            files = {
                "spec.json": json.dumps(spec).encode(),
                "summary.json": json.dumps(summary).encode(),
                "env.json": json.dumps({"env_id": "e1", "cpu": "some", "git_commit": "0" * 40}).encode(),
                "curve.csv": csv_bytes(CURVE, curve),
            }
            if failed:
                files["stderr.txt"] = f"Traceback\nRuntimeError: number {k}\n".encode()
            for name, data in files.items():
                pack.writestr(f"{k:016x}/{name}", data)
    return len(cells)
