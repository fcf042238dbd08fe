"""The figures of what trained methods leave behind, from made-up arrays: what is drawn where, and what is not."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from bench.experiment import write_report
from bench.report import exhibits, write
from bench.report.frames import tidy_runs
from bench.report.style import Look, looks
from bench.report.tables import steps_rows
from bench.stats import finished
from bench.store import RunFolder

HOSTILE = "_$x^{$ [red]<script> | a\\|b `c`\n\x1b[31m \ud800 ![i](http://x)"
PICTURES = {"accuracy_steps.png", "label_path.png", "prototypes.png", "schedule.png"}
BLUE = Look("noprop-dt", "#0072B2", "o", "-")
GREEN = Look("noprop-fm", "#009E73", "s", "--")


def run(method: str, seed: int = 0, dataset: str = "digits", status: str = "ok", variant: str = "") -> dict[str, Any]:
    identity = {"dataset": dataset, "method": method, "net": "denoiser", "variant": variant, "seed": seed}
    measured = {"test_acc": 0.9, "train_s": 2.0} if status == "ok" else {}
    return {"run_id": "-".join(map(str, identity.values())), **identity, "status": status, "reason": "", **measured}


def ways_of(runs: pd.DataFrame, samplers: tuple[str, ...] = ("euler", "heun"), n_images: int = 144) -> pd.DataFrame:
    """One step reaches 50% plus a point per seed, ten steps ten points more."""
    lines = [
        {**line, "sampler": sampler, "steps": steps, "accuracy": 0.5 + 0.01 * line["seed"] + 0.1 * (steps == 10)}
        for line in runs[["run_id", "method", "net", "dataset", "seed", "variant"]].to_dict("records")
        for sampler in samplers
        for steps in (1, 10)
    ]
    return pd.DataFrame(lines).assign(n_images=n_images)


def arrays(
    n_classes: int = 4, channels: int = 1, time: tuple[float, ...] = (0, 0.5, 1), seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    path = draw.dirichlet([1.0] * n_classes, (len(time), 6))
    weight = [math.nan, *np.geomspace(0.01, 100, len(time) - 1)]
    made = {
        "images": draw.normal(size=(6, channels, 8, 8)),
        "labels": np.arange(6) % n_classes,
        "label_path": path,
        "label_path_time": np.array(time),
        "prototypes": draw.normal(size=(2, n_classes, channels, 8, 8)),
        "schedule": np.stack([np.array(time), np.linspace(0.1, 0.9, len(time)), np.array(weight)], 1),
    }
    return {name: array.astype(int if name == "labels" else np.float32) for name, array in made.items()}


def texts(figure: Figure) -> list[str]:
    """Everything that is written in a figure, titles and legends included."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def of_rows(name: str, runs: list[dict[str, Any]], left: dict[str, dict[str, Any]]) -> list[exhibits.Exhibit]:
    tidy = tidy_runs(pd.DataFrame(runs))
    return exhibits.of_rows(name, finished(tidy), left, looks(tidy))


def drawn(out: Path) -> set[str]:
    return {path.name for path in (out / "figures").iterdir()} & PICTURES


def test_pictures_are_drawn_only_where_there_is_something_to_show(tmp_path: Path) -> None:
    """And those of an earlier report go away, with its table."""
    runs = pd.DataFrame([run("noprop-fm"), run("backprop")])
    left = {"digits-noprop-fm-denoiser--0": arrays()}
    page = write(runs, pd.DataFrame(), tmp_path, title="t", ways=ways_of(runs[:1]), exhibits=left)
    assert drawn(tmp_path) == PICTURES
    assert all(f"](figures/{name})" in page.read_text() for name in PICTURES)

    for name in ("prototypes", "schedule"):
        del left["digits-noprop-fm-denoiser--0"][name]
    page = write(runs, pd.DataFrame(), tmp_path, title="t", exhibits=left)
    assert drawn(tmp_path) == {"label_path.png"}
    assert page.read_text().count("](figures/label_path.png)") == 1
    assert "prototypes.png" not in page.read_text()
    assert not (tmp_path / "tables" / "ways.csv").exists()


def test_what_a_run_left_on_disk_reaches_its_pictures(tmp_path: Path) -> None:
    spec = {"method": "noprop-fm", "net": "denoiser-ct", "dataset": "digits", "seed": 0, "epochs": 1, "batch_size": 8}
    folder = RunFolder(tmp_path / "results", "experiment", "0123456789abcdef")
    folder.path.mkdir(parents=True)
    folder.write_json("spec.json", spec)
    folder.write_ways([{"sampler": "euler", "steps": steps, "accuracy": 0.5, "n_images": 7} for steps in (1, 2)])
    folder.write_exhibits(arrays())
    folder.finish({"status": "ok", "test_acc": 0.5})
    write_report(folder.path.parent, tmp_path / "report")
    assert drawn(tmp_path / "report") == PICTURES


def test_what_failed_runs_left_is_not_drawn(tmp_path: Path) -> None:
    runs = pd.DataFrame([run("noprop-fm", status="diverged"), run("backprop")])
    left = {"digits-noprop-fm-denoiser--0": arrays()}
    write(runs, pd.DataFrame(), tmp_path, title="t", ways=ways_of(runs[:1]), exhibits=left)
    assert drawn(tmp_path) == set()
    assert not (tmp_path / "tables" / "ways.csv").exists()


def test_hostile_names_are_only_shown(tmp_path: Path) -> None:
    runs = pd.DataFrame([run(HOSTILE, dataset=HOSTILE, variant=HOSTILE)])
    ways = ways_of(runs, samplers=(HOSTILE,))
    write(runs, pd.DataFrame(), tmp_path, title="t", ways=ways, exhibits={runs["run_id"][0]: arrays()})
    assert drawn(tmp_path) == PICTURES


def test_the_table_of_steps_holds_means_over_the_seeds_that_ended_well(tmp_path: Path) -> None:
    """Seeds 0 and 2 reach 50 and 52%: a mean of 51, and of 61 with ten steps."""
    runs = pd.DataFrame([run("noprop-fm", 0), run("noprop-fm", 1, status="oom"), run("noprop-fm", 2)])
    write(runs, pd.DataFrame(), tmp_path, title="t", ways=ways_of(runs))
    table = pd.read_csv(tmp_path / "tables" / "ways.csv")
    assert table[["sampler", "steps"]].to_numpy().tolist() == [["euler", 1], ["euler", 10], ["heun", 1], ["heun", 10]]
    assert table["accuracy"].tolist() == pytest.approx([0.51, 0.61] * 2)
    assert table["n_runs"].tolist() == [2] * 4
    assert table["n_images"].tolist() == [144] * 4


def test_accuracy_against_steps_has_a_colour_per_method_and_dashes_per_sampler() -> None:
    runs = pd.DataFrame([run("noprop-ct", 0), run("noprop-ct", 1), run("noprop-fm", 0)])
    ways = pd.concat([ways_of(runs[:2], ("ancestral", "heun")), ways_of(runs[2:], ("euler", "heun"), n_images=90)])
    look = looks(tidy_runs(runs))
    figure = exhibits.accuracy_steps(steps_rows(ways, runs), look)
    assert figure is not None
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "accuracy on 90 to 144 held-out images, %"
    ct, fm = (look[method, "denoiser", ""].colour for method in ("noprop-ct", "noprop-fm"))
    lines = [(line.get_color(), line.get_linestyle()) for line in ax.lines]
    assert lines == [(ct, "-"), (ct, ":"), (fm, "--"), (fm, ":")]
    assert [list(line.get_xdata()) for line in ax.lines] == [[1, 10]] * 4
    assert list(ax.lines[0].get_ydata()) == pytest.approx([50.5, 60.5])
    assert list(ax.lines[3].get_ydata()) == pytest.approx([50, 60])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["noprop-ct", "noprop-fm", "sampler: ancestral", "sampler: euler", "sampler: heun"]


def test_a_sampler_that_failed_for_a_seed_leaves_a_gap_and_no_mean_of_the_others() -> None:
    runs = pd.DataFrame([run("noprop-ct", 0), run("noprop-ct", 1)])
    ways = ways_of(runs, ("heun",))
    ways.loc[(ways["seed"] == 1) & (ways["steps"] == 1), "accuracy"] = math.nan
    table = steps_rows(ways, runs)
    assert table[["steps", "n_runs", "n_failed"]].to_numpy().tolist() == [[1, 1, 1], [10, 2, 0]]
    assert table["accuracy"].tolist() == pytest.approx([math.nan, 0.605], nan_ok=True)
    figure = exhibits.accuracy_steps(table, looks(tidy_runs(runs)))
    assert figure is not None
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([math.nan, 60.5], nan_ok=True)


def test_each_row_shows_the_first_seed_that_left_the_array() -> None:
    runs = [run("noprop-fm", seed, status="ok" if seed else "oom") for seed in (2, 1, 0, 3)]
    left = {f"digits-noprop-fm-denoiser--{seed}": {"schedule": np.full((2, 3), seed)} for seed in (0, 2, 3)}
    left["digits-noprop-fm-denoiser--1"] = {"label_path": np.zeros(())}
    (shown,) = of_rows("schedule", runs, left)
    assert (shown.arrays["schedule"] == 2).all()
    assert shown.style.label == "noprop-fm"


def test_the_path_of_the_true_class_stands_out() -> None:
    """Of a net that answers 2 for an image of class 1: its own path thick and coloured, the answer's number grey."""
    left = arrays(n_classes=3)
    left["labels"] = np.array([2, 1, 0, 0, 0, 0])
    left["label_path"] = np.zeros((3, 6, 3), np.float32)
    left["label_path"][:, :, 2] = [[0.4], [0.5], [0.9]]
    left["label_path"][:, 1, 1] = [0.3, 0.2, 0.1]
    figure = exhibits.label_paths([exhibits.Exhibit("digits", BLUE, left)])
    assert figure is not None
    panels = [ax for ax in figure.axes if ax.lines]
    assert len(panels) == exhibits.IMAGES_SHOWN
    right, wrong = panels[:2]
    for panel, path, colour in ((right, [0.4, 0.5, 0.9], BLUE.colour), (wrong, [0.3, 0.2, 0.1], "0.4")):
        thin, thick = sorted({line.get_linewidth() for line in panel.lines})
        assert [line.get_color() for line in panel.lines if line.get_linewidth() == thin] == ["0.7"] * 2
        (true,) = (line for line in panel.lines if line.get_linewidth() == thick)
        assert true.get_color() == BLUE.colour
        assert list(true.get_ydata()) == pytest.approx(path)
        assert list(true.get_xdata()) == [0, 0.5, 1]
        assert [(text.get_text(), text.get_color()) for text in panel.texts] == [("2", colour)]
    assert [ax.get_ylabel() for ax in figure.axes if ax.images] == ["class 2", "class 1", "class 0", "class 0"]


def test_paths_stand_beside_the_images_that_they_belong_to() -> None:
    """Seven rows on one set of images and one on another: blocks of six, one and one, each with its own images."""
    shown = [exhibits.Exhibit("digits", BLUE, arrays()) for _ in range(7)]
    shown.insert(3, exhibits.Exhibit("digits", GREEN, arrays(seed=1)))
    figure = exhibits.label_paths(shown)
    assert figure is not None
    blocks = [[ax for ax in part.axes if ax.lines] for part in figure.subfigs]
    assert [len(block) for block in blocks] == [6 * exhibits.IMAGES_SHOWN, exhibits.IMAGES_SHOWN, exhibits.IMAGES_SHOWN]
    assert [block[0].get_title() for block in blocks] == ["noprop-dt", "noprop-dt", "noprop-fm"]
    first = [next(ax for ax in part.axes if ax.images).images[0].get_array() for part in figure.subfigs]
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])


def test_prototypes_stand_at_the_start_above_those_learned() -> None:
    """Two classes of 2 x 2 pixels: each image spans black to white by itself, a plain one is black."""
    start = [[[[0, 1], [2, 4]]], [[[5, 5], [5, 5]]]]
    learned = [[[[-3, -1], [-2, -3]]], [[[0, 0], [0, 8]]]]
    left = {"prototypes": np.array([start, learned], np.float32)}
    figure = exhibits.prototypes([exhibits.Exhibit("digits", BLUE, left)])
    assert figure is not None
    (ax,) = figure.axes
    page = ax.images[0].get_array()
    assert page[..., 0].tolist() == [[0, 0.25, 1, 0, 0], [0.5, 1, 1, 0, 0], [1] * 5, [0, 1, 1, 0, 0], [0.5, 0, 1, 0, 1]]
    assert (page == page[..., :1]).all()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["start", "learned"]
    assert list(ax.get_yticks()) == [0.5, 3.5]
    assert list(ax.get_xticks()) == [0.5, 3.5]


def test_prototypes_in_colour_are_rescaled_channel_by_channel() -> None:
    image = np.zeros((2, 1, 3, 2, 2), np.float32)
    image[:, 0, :, 0, 0] = [1, 10, -100]
    figure = exhibits.prototypes([exhibits.Exhibit("digits", BLUE, {"prototypes": image})])
    assert figure is not None
    page = figure.axes[0].images[0].get_array()
    assert page[0, 0].tolist() == [1, 1, 0]
    assert page[1, 1].tolist() == [0, 0, 1]


def test_of_many_classes_the_first_are_shown_and_the_figure_says_so() -> None:
    many, few = (exhibits.Exhibit("digits", style, arrays(n)) for style, n in ((BLUE, 100), (GREEN, 4)))
    figure = exhibits.prototypes([many, few])
    assert figure is not None
    assert [len(ax.get_xticklabels()) for ax in figure.axes] == [exhibits.CLASSES_SHOWN, 4]
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["digits: noprop-dt, first 20 of 100 classes", "digits: noprop-fm"]


def test_schedules_are_drawn_against_time_with_weights_on_a_logarithmic_axis() -> None:
    left = arrays()
    shown = [exhibits.Exhibit(dataset, style, left) for dataset in ("digits", "mnist") for style in (BLUE, GREEN)]
    figure = exhibits.schedules(shown)
    assert figure is not None
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "log"] * 2
    signal, weight = figure.axes[2:]
    assert [line.get_color() for line in signal.lines] == [BLUE.colour, GREEN.colour]
    assert list(signal.lines[1].get_ydata()) == pytest.approx([0.1, 0.5, 0.9])
    assert list(weight.lines[1].get_ydata()) == pytest.approx([math.nan, 0.01, 100], nan_ok=True)
    assert [list(line.get_xdata()) for line in weight.lines] == [[0, 0.5, 1]] * 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["noprop-dt", "noprop-fm"]
    assert {"digits", "mnist"} <= set(texts(figure))
