"""Accuracy by number of inference steps: what is averaged, and what is not."""

import math
from pathlib import Path

import pandas as pd
import pytest

from bench.record.schema import KEY
from bench.report import write
from bench.report.charts import drawn
from bench.report.sections.steps import accuracy_steps, steps_frame
from bench.report.style import looks
from tests.bench.report.made import Made, frame, run


def ways_of(runs: pd.DataFrame, samplers: tuple[str, ...] = ("euler", "heun"), n_images: int = 144) -> pd.DataFrame:
    """One step reaches 50% plus a point per seed, ten steps ten points more."""
    lines = [
        {**line, "sampler": sampler, "steps": steps, "accuracy": 0.5 + 0.01 * line["seed"] + 0.1 * (steps == 10)}
        for line in runs[KEY].to_dict("records")
        for sampler in samplers
        for steps in (1, 10)
    ]
    return pd.DataFrame(lines).assign(n_images=n_images)


def test_the_table_of_steps_holds_means_over_the_seeds_that_ended_well(tmp_path: Path) -> None:
    """Seeds 0 and 2 reach 50 and 52%: a mean of 51, and of 61 with ten steps."""
    runs = frame([run("noprop-fm", seed=0), run("noprop-fm", seed=1, status="oom"), run("noprop-fm", seed=2)])
    write(Made(runs, own={"ways": ways_of(runs)}), tmp_path, title="t")
    table = pd.read_csv(tmp_path / "tables" / "ways.csv")
    assert table[["sampler", "steps"]].to_numpy().tolist() == [["euler", 1], ["euler", 10], ["heun", 1], ["heun", 10]]
    assert table["accuracy"].tolist() == pytest.approx([0.51, 0.61] * 2)
    assert table["n_runs"].tolist() == [2] * 4
    assert table["n_images"].tolist() == [144] * 4
    assert (tmp_path / "figures" / "accuracy_steps.png").exists()


def test_accuracy_against_steps_has_a_marker_per_method_and_dashes_per_sampler() -> None:
    runs = frame([run("noprop-ct", seed=0), run("noprop-ct", seed=1), run("noprop-fm", seed=0)])
    ways = pd.concat([ways_of(runs[:2], ("ancestral", "heun")), ways_of(runs[2:], ("euler", "heun"), n_images=90)])
    look = looks(runs)
    figure = drawn(accuracy_steps(steps_frame(ways, runs)), look)
    assert figure is not None
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel().replace("\n", " ") == "accuracy on 90 to 144 held-out examples, %"
    ct, fm = (look[method, "denoiser", ""].marker for method in ("noprop-ct", "noprop-fm"))
    lines = [(line.get_marker(), line.get_linestyle()) for line in ax.lines]
    assert lines == [(ct, "-"), (ct, ":"), (fm, "--"), (fm, ":")]
    assert [list(line.get_xdata()) for line in ax.lines] == [[1, 10]] * 4
    assert list(ax.lines[0].get_ydata()) == pytest.approx([50.5, 60.5])
    assert list(ax.lines[3].get_ydata()) == pytest.approx([50, 60])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["noprop-ct", "noprop-fm", "sampler: ancestral", "sampler: euler", "sampler: heun"]


def test_a_sampler_that_failed_for_a_seed_leaves_a_gap_and_no_mean_of_the_others() -> None:
    runs = frame([run("noprop-ct", seed=0), run("noprop-ct", seed=1)])
    ways = ways_of(runs, ("heun",))
    ways.loc[(ways["seed"] == 1) & (ways["steps"] == 1), "accuracy"] = math.nan
    table = steps_frame(ways, runs)
    assert table[["steps", "n_runs", "n_failed"]].to_numpy().tolist() == [[1, 1, 1], [10, 2, 0]]
    assert table["accuracy"].tolist() == pytest.approx([math.nan, 0.605], nan_ok=True)
    figure = drawn(accuracy_steps(table), looks(runs))
    assert figure is not None
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([math.nan, 60.5], nan_ok=True)
