"""Our figures against published ones: verdicts on constructed cases, and what the shipped table holds."""

import math
from typing import Any

import pytest

from bench.catalog.catalog import Catalog
from bench.report.published import AS_IS, accuracies, obstacles, verdict
from bench.report.sections.published import beside_published
from bench.stats import Interval
from tests.bench.report.made import frame, run

FIGURE = {"our_net": "mlp", "our_settings": "width=256 mode=fa", "published_epochs": 10.0, "published_data": AS_IS}
SPEC = {
    "net": "mlp",
    "net_settings": {"width": 256},
    "method_settings": {"mode": "fa", "lr": 0.1},
    "epochs": 10,
    "val_fraction": 0.05,
}


@pytest.mark.parametrize(
    ("ours", "published", "stderr", "words"),
    [
        (Interval(0.974, 0.004, 3), 0.971, math.nan, "reproduced"),
        (Interval(0.974, 0.004, 3), 0.977, math.nan, "reproduced"),
        (Interval(0.974, 0.004, 3), 0.979, math.nan, "lower"),
        (Interval(0.974, 0.004, 3), 0.969, math.nan, "higher"),
        (Interval(0.974, 0.004, 3), 0.969, 0.0021, "reproduced"),  # hypot(0.4, 1.96 x 0.21) = 0.57 points
        (Interval(0.974, 0.020, 3), 0.969, math.nan, "higher, within +- 2.0 points of 3 seeds"),
        (Interval(0.45, 0.60, 3), 0.94, math.nan, "lower, within +- 60.0 points of 3 seeds"),
        (Interval(0.974, 0.020, 3), 0.999, math.nan, "lower"),
        (Interval(0.974, math.nan, 1), 0.9785, math.nan, "reproduced"),
        (Interval(0.974, math.nan, 1), 0.9795, 0.1, "lower"),
        (Interval(0.974, math.nan, 1), 0.9685, math.nan, "higher"),
    ],
)
def test_verdicts(ours: Interval, published: float, stderr: float, words: str) -> None:
    assert verdict(ours, published, stderr, []) == words


@pytest.mark.parametrize(
    ("theirs", "ours", "apart"),
    [
        ({}, {}, []),
        ({}, {"epochs": 11}, []),
        ({"our_net": ""}, {}, ["net"]),
        ({}, {"net": "cnn"}, ["net"]),
        ({}, {"net_settings": {"width": 128}}, ["settings"]),
        ({}, {"method_settings": {}}, ["settings"]),  # an older record does not say
        ({}, {"epochs": 9}, ["epochs"]),
        ({"published_epochs": math.nan}, {}, ["epochs"]),
        ({"published_data": ""}, {}, ["data"]),
        ({"published_data": "jitter"}, {}, ["data"]),
        ({}, {"val_fraction": 0.1}, ["data"]),
        ({"our_net": ""}, {"epochs": 1, "val_fraction": 0.5}, ["net", "epochs", "data"]),
    ],
)
def test_what_keeps_figures_apart_is_named(theirs: dict[str, Any], ours: dict[str, Any], apart: list[str]) -> None:
    assert obstacles(SPEC | ours, FIGURE | theirs) == apart


def test_a_run_of_which_nothing_is_known_is_not_comparable() -> None:
    assert obstacles({}, FIGURE) == ["net", "epochs", "data"]
    assert verdict(Interval(0.9, 0.1, 3), 0.9, math.nan, ["net", "data"]) == "not comparable (net, data)"


def test_the_shipped_settings_are_settings_of_our_nets_and_methods() -> None:
    catalog = Catalog()
    known = accuracies()
    known = known[known["our_net"] != ""]
    assert len(known) > 50
    for line in known.to_dict("records"):
        net, method = catalog.nets[line["our_net"]].load(), catalog.methods[line["method"]].load()
        fields = {**method.Config.model_fields, **net.Settings.model_fields}
        assert {part.split("=")[0] for part in line["our_settings"].split()} <= fields.keys()


def test_the_papers_own_setting_is_compared() -> None:
    """Two passes over all of MNIST on the paper's net: half a point below 98.62 is reproduced, more is not."""
    rows = [run("adjoint", "mnist", 0, net="denoiser-ct", epochs=2, test_acc=0.983)]
    net = {"T": 1000, "width": 32, "hidden": 256, "dropout": 0.2, "embedding": "one-hot"}
    spec = {"net": "denoiser-ct", "net_settings": net, "epochs": 2, "val_fraction": 0.0}
    for accuracy, words in ((0.983, "reproduced"), (0.97, "lower"), (0.995, "higher")):
        runs = frame([rows[0] | {"test_acc": accuracy}])
        (line,) = beside_published(runs, {rows[0]["run_id"]: spec}).to_dict("records")
        assert (line["published_acc"], line["verdict"]) == (pytest.approx(0.9862), words)
