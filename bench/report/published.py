"""Figures that papers and repositories published, shipped as data (published.csv)."""

from importlib.resources import files

import pandas as pd

ACCURACY = "test_acc_pct"


def accuracies() -> pd.DataFrame:
    """Published test accuracies: method, variant, net, dataset, value and stderr (%), source, quality.

    quality is how the figure was read: in the `paper`, in the authors' `repository`, or at second hand.
    """
    with files("bench.report").joinpath("published.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file)
    text = ["variant", "net", "source", "quality"]
    frame[text] = frame[text].fillna("")
    return frame[frame["metric"] == ACCURACY].drop(columns="metric").drop_duplicates(ignore_index=True)
