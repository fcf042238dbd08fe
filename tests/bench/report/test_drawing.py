"""Artifacts are drawn by their type, whatever they are called and whoever left them."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from bench.api.artifact import Artifact, HeatMap, Images, Lines
from bench.catalog.catalog import installed, reference
from bench.report import drawing, write
from bench.report.drawing import Shown, heat_maps, images, lines
from bench.report.image import png
from bench.report.sections.artifacts import shown_artifacts
from bench.report.style import Look
from tests.bench.report.made import Made, frame, run

HOSTILE = "_$x^{$ [red]<script> | a\\|b `c`\n\x1b[31m \ud800 ![i](http://x)"
BLUE = Look("noprop-dt", "#0072B2", "o", "-")
GREEN = Look("noprop-fm", "#009E73", "s", "--")
TIME = np.array([0, 0.5, 1])


def path(n_classes: int = 4, seed: int = 0, name: str = "way") -> Lines:
    """Class probabilities of six images, of which a panel each."""
    draw = np.random.default_rng(seed)
    y = draw.dirichlet([1.0] * n_classes, (6, 3)).transpose(0, 2, 1)
    labels = np.arange(6) % n_classes
    panels = tuple(f"class {k}" for k in labels)
    pictures = draw.normal(size=(6, 1, 8, 8))
    return Lines(name, "A way.", "time", TIME, y, panels, y_label="p", emphasis=labels, pictures=pictures)


def grid(n_columns: int = 4, name: str = "grid") -> Images:
    pictures = np.random.default_rng(0).normal(size=(2, n_columns, 1, 8, 8))
    return Images(name, "Some.", pictures, ("start", "learned"), tuple(map(str, range(n_columns))))


def curve(name: str = "curve") -> Lines:
    y = np.array([[[0.1, 0.5, 0.9]], [[math.nan, 0.01, 100]]])
    return Lines(name, "Two curves.", "time", TIME, y, ("signal", "weight"), logarithmic=(False, True))


def heat(name: str = "heat") -> HeatMap:
    return HeatMap(name, "Hot.", "change", np.arange(6.0).reshape(2, 3), ("a", "b"), ("x", "y", "z"))


def texts(figure: Figure) -> list[str]:
    """Everything that is written in a figure, titles and legends included."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def left_by(*rows: dict[str, Any], **artifacts: list[Artifact]) -> Any:
    return Made(frame(rows), artifacts=dict(zip([row["run_id"] for row in rows], artifacts.values(), strict=False)))


def test_artifacts_of_names_that_nobody_knows_are_drawn_and_shown(tmp_path: Path) -> None:
    """And those of an earlier report go away."""
    everything = [path(name="energy"), curve(name="loss"), grid(name="fields"), heat(name="who")]
    page = write(left_by(run("one"), run("two"), a=everything, b=everything[1:2]), tmp_path, title="t")
    names = {"energy", "loss", "fields", "who"}
    assert {figure.stem for figure in (tmp_path / "figures").iterdir()} & names == names
    assert all(f"](figures/{name}.png)" in page.read_text() for name in names)
    page = write(left_by(run("one"), a=everything[:1]), tmp_path, title="t")
    assert {figure.stem for figure in (tmp_path / "figures").iterdir()} & names == {"energy"}
    assert "fields.png" not in page.read_text()


def test_what_failed_runs_left_is_not_drawn() -> None:
    assert shown_artifacts(left_by(run("one", status="diverged"), a=[curve()])) == {}


def test_hostile_names_are_only_shown(tmp_path: Path) -> None:
    row = run(HOSTILE, HOSTILE, variant=HOSTILE)
    page = write(left_by(row, a=[curve(name="../../out"), heat(name=HOSTILE)]), tmp_path / "page", title="t")
    assert {path.name for path in tmp_path.iterdir()} == {"page"}
    assert "<script" not in page.read_text()


def test_one_name_for_two_kinds_gives_two_figures(tmp_path: Path) -> None:
    write(left_by(run("one"), run("two"), a=[curve(name="x")], b=[heat(name="x")]), tmp_path, title="t")
    assert {"x.png", "x-heat-map.png"} <= {figure.name for figure in (tmp_path / "figures").iterdir()}


def test_each_row_shows_the_first_seed_that_left_the_artifact() -> None:
    rows = [run("one", seed=seed, status="ok" if seed else "oom") for seed in range(4)]
    left: list[list[Artifact]] = [[curve()], [path()], [heat()], [heat()]]
    results = Made(frame(rows), artifacts={row["run_id"]: of for row, of in zip(rows, left, strict=True)})
    found = shown_artifacts(results)
    assert set(found) == {("way", "lines"), ("heat", "heat-map")}
    assert [shown.artifact for shown in found["heat", "heat-map"]] == [left[2][0]]


def test_the_line_that_is_meant_stands_out() -> None:
    """Of a net that answers 2 for an image of class 1: its own line thick and coloured, the answer's name grey."""
    art = path(n_classes=3)
    y = np.zeros((6, 3, 3))
    y[:, 2] = [0.4, 0.5, 0.9]
    y[1, 1] = [0.3, 0.2, 0.1]
    meant = Lines(**{**vars(art), "y": y, "emphasis": np.array([2, 1, 0, 0, 0, 0])})
    figure = lines([Shown("digits", BLUE, meant)])
    panels = [ax for ax in figure.axes if ax.lines]
    assert len(panels) == drawing.PANELS_SHOWN
    right, wrong = panels[:2]
    for panel, own, colour in ((right, [0.4, 0.5, 0.9], BLUE.colour), (wrong, [0.3, 0.2, 0.1], "0.4")):
        thin, thick = sorted({line.get_linewidth() for line in panel.lines})
        assert [line.get_color() for line in panel.lines if line.get_linewidth() == thin] == ["0.7"] * 2
        (true,) = (line for line in panel.lines if line.get_linewidth() == thick)
        assert true.get_color() == BLUE.colour
        assert list(true.get_ydata()) == pytest.approx(own)
        assert [(text.get_text(), text.get_color()) for text in panel.texts] == [("2", colour)]
    assert [ax.get_ylabel() for ax in figure.axes if ax.images] == ["class 0", "class 1", "class 2", "class 0"]


def test_lines_of_which_none_is_meant_need_neither_pictures_nor_names() -> None:
    art = Lines("energies", "By layer.", "step", np.arange(5), np.random.default_rng(0).random((1, 3, 5)), ("energy",))
    figure = lines([Shown("digits", BLUE, art), Shown("digits", GREEN, art)])
    assert sum(len(ax.lines) == 3 for ax in figure.axes) == 2


def test_paths_stand_beside_the_pictures_that_they_belong_to() -> None:
    """Seven rows on one set of images and one on another: blocks of six, one and one, each with its own images."""
    shown = [Shown("digits", BLUE, path()) for _ in range(7)]
    shown.insert(3, Shown("digits", GREEN, path(seed=1)))
    figure = lines(shown)
    blocks = [[ax for ax in part.axes if ax.lines] for part in figure.subfigs]
    assert [len(block) for block in blocks] == [6 * 4, 4, 4]
    assert [block[0].get_title() for block in blocks] == ["noprop-dt", "noprop-dt", "noprop-fm"]
    first = [next(ax for ax in part.axes if ax.images).images[0].get_array() for part in figure.subfigs]
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])


def test_curves_of_several_rows_are_laid_over_each_other() -> None:
    figure = lines([Shown(dataset, style, curve()) for dataset in ("digits", "mnist") for style in (BLUE, GREEN)])
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "log"] * 2
    signal, weight = figure.axes[2:]
    assert [line.get_color() for line in signal.lines] == [BLUE.colour, GREEN.colour]
    assert list(signal.lines[1].get_ydata()) == pytest.approx([0.1, 0.5, 0.9])
    assert list(weight.lines[1].get_ydata()) == pytest.approx([math.nan, 0.01, 100], nan_ok=True)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["noprop-dt", "noprop-fm"]
    assert {"digits", "mnist"} <= set(texts(figure))


def test_images_are_each_rescaled_to_their_own_range() -> None:
    """Two columns of 2 x 2 pixels: each image spans black to white by itself, a plain one is black."""
    start = [[[[0, 1], [2, 4]]], [[[5, 5], [5, 5]]]]
    learned = [[[[-3, -1], [-2, -3]]], [[[0, 0], [0, 8]]]]
    art = Images("pictures", "", np.array([start, learned], np.float32), ("start", "learned"))
    (ax,) = images([Shown("digits", BLUE, art)]).axes
    page = ax.images[0].get_array()
    assert page[..., 0].tolist() == [[0, 0.25, 1, 0, 0], [0.5, 1, 1, 0, 0], [1] * 5, [0, 1, 1, 0, 0], [0.5, 0, 1, 0, 1]]
    assert (page == page[..., :1]).all()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["start", "learned"]
    assert list(ax.get_yticks()) == [0.5, 3.5]
    assert list(ax.get_xticks()) == [0.5, 3.5]


def test_images_in_colour_are_rescaled_channel_by_channel() -> None:
    image = np.zeros((2, 1, 3, 2, 2), np.float32)
    image[:, 0, :, 0, 0] = [1, 10, -100]
    (ax,) = images([Shown("digits", BLUE, Images("p", "", image, ("a", "b")))]).axes
    page = ax.images[0].get_array()
    assert page[0, 0].tolist() == [1, 1, 0]
    assert page[1, 1].tolist() == [0, 0, 1]


def test_of_many_columns_the_first_are_shown_and_the_figure_says_so() -> None:
    figure = images([Shown("digits", BLUE, grid(100)), Shown("digits", GREEN, grid(4))])
    assert [len(ax.get_xticklabels()) for ax in figure.axes] == [drawing.COLUMNS_SHOWN, 4]
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["digits: noprop-dt, first 20 of 100", "digits: noprop-fm"]


def test_heat_maps_share_their_scale_and_small_ones_are_written_out() -> None:
    small, large = heat(), HeatMap("heat", "", "change", np.full((30, 30), 10.0), ("r",) * 30, ("c",) * 30)
    figure = heat_maps([Shown("digits", BLUE, small), Shown("digits", GREEN, large)])
    one, other = (ax for ax in figure.axes if ax.get_title())
    assert one.images[0].get_clim() == other.images[0].get_clim() == (0, 10)
    assert [text.get_text() for text in one.texts] == ["0", "1", "2", "3", "4", "5"]
    assert list(other.texts) == []
    assert len(other.get_xticks()) <= drawing.COLUMNS_SHOWN


def test_a_family_keeps_its_colour_in_a_palette() -> None:
    """A single mark of each family beside a picture of many greys: median cut would turn some to grey."""
    colours = installed().methods[reference()].colours
    figure = Figure(figsize=(4, 4))
    ax, beside = figure.subplots(1, 2)
    ax.imshow(np.arange(900.0).reshape(30, 30), cmap="cividis")
    for k, colour in enumerate(colours.values()):
        beside.plot([0], [k], "o", color=colour, ms=5)
    found = np.unique(np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB")).reshape(-1, 3), axis=0)
    for name, colour in colours.items():
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert np.abs(found.astype(int) - wanted).max(axis=1).min() <= 16, name
