"""Figures that papers and repositories published, shipped as data (published.csv), and how ours compare with them."""

import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import pandas as pd

from bench.stats import Interval

ACCURACY = "test_acc_pct"
AS_IS = "as is"  # images neither augmented nor otherwise changed
OF_THEIRS = ("acc", "stderr", "variant", "net", "epochs", "data")
TOLERANCE = 0.005  # of a single run, which has no interval
WIDEST = 0.01  # half-width of an interval up to which holding a figure means anything
LEAST_TRAINED = 0.95  # of the training images; sources seldom say whether they held some out


def accuracies() -> pd.DataFrame:
    """Published test accuracies: method, dataset, source, quality, and as `published_X` the X acc, stderr (fractions),
    variant, net, epochs and data (what was done to the images; `as is`: nothing).

    quality is how the figure was read: in the `paper`, in the authors' `repository`, or at second hand. our_net and
    our_settings (`T=10 width=32`, of net or method) say what is the same here. Empty where the source is silent.
    """
    with files("bench.report").joinpath("published.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file)
    text = ["variant", "net", "source", "quality", "our_net", "our_settings", "data"]
    frame[text] = frame[text].fillna("")
    frame = frame[frame["metric"] == ACCURACY].drop(columns="metric").drop_duplicates(ignore_index=True)
    frame = frame.assign(acc=frame.pop("value") / 100, stderr=frame["stderr"] / 100)
    return frame.rename(columns={name: f"published_{name}" for name in OF_THEIRS})


def obstacles(spec: Mapping[str, Any], figure: Mapping[str, Any]) -> list[str]:
    """What keeps a run (its spec) and a published figure (a row of `accuracies`) from being compared.

    `net`, `settings` of the same net, or `data` where they differ, `epochs` where ours are fewer; each also where the
    source or the record does not say.
    """
    ours = {**spec.get("net_settings", {}), **spec.get("method_settings", {})}
    theirs = dict(part.split("=", 1) for part in figure["our_settings"].split())
    held_out = spec.get("val_fraction", 1.0)
    same_net = figure["our_net"] != "" and figure["our_net"] == spec.get("net")
    same_settings = all(str(ours.get(name)) == value for name, value in theirs.items())
    holds = {
        "net": same_net,
        "settings": not same_net or same_settings,
        "epochs": spec.get("epochs", 0) >= figure["published_epochs"],  # not so for NaN: the source is silent
        "data": figure["published_data"] == AS_IS and 1 - held_out >= LEAST_TRAINED,
    }
    return [name for name, so in holds.items() if not so]


def verdict(ours: Interval, published: float, stderr: float, apart: list[str]) -> str:
    """`reproduced`, `lower`, `higher` (ours than theirs), or why that is not known. Fractions.

    Reproduced: the difference is within its 95% interval, sqrt(half_width^2 + (1.96 stderr)^2), or within half a point
    where ours is a single run. An interval wider than a point on either side holds too much to reproduce a figure: then
    `lower, within +- 60.0 points of 3 seeds` says where ours stands and how little is known. apart: in what the runs
    differ from the published ones, for `not comparable (net, epochs)`.
    """
    if apart:
        return f"not comparable ({', '.join(apart)})"
    difference = ours.mean - published
    error = 0.0 if math.isnan(stderr) else 1.96 * stderr
    within = TOLERANCE if ours.n == 1 else math.hypot(ours.half_width, error)
    direction = "higher" if difference > 0 else "lower"
    if abs(difference) > within:
        return direction
    return "reproduced" if within <= WIDEST else f"{direction}, within +- {100 * within:.1f} points of {ours.n} seeds"
