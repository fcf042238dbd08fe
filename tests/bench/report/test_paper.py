"""Figures for a paper: as wide as its columns, in type that publishers take, with the looks of the screen."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text

from bench.api.errors import ConfigError
from bench.record.searches import Found, Trial
from bench.report import write
from bench.report.blocks import Picture
from bench.report.sections import SECTIONS, accuracy, answer
from bench.report.style import STYLES, columns, theme
from tests.bench.report.made import CATALOG, KEY, MEASURED, Made, curves_of, frame, run
from tests.bench.report.test_drawing import curve, grid, heat, path

WIDTHS = STYLES["paper"].columns
METHODS = ["backprop", *sorted(CATALOG.methods.keys() - {"backprop"})[:27], "backprop-deep-supervision", "local-loss"]
FIGURES = {
    "accuracy", "accuracy_memory", "accuracy_time", "performance_profile", "ladder", "curve_epoch", "curve_seconds",
    "curve_flops", "tuning", "update-dependency", "alignment", "read-out", "accuracy_steps", "memory_digits",
    "memory_mnist", "curve", "grid", "heat", "way",
}  # fmt: skip


def everything(n_datasets: int = 2) -> Made:
    """Thirty methods and all that a report can draw of them."""
    datasets = ["digits", "mnist"][:n_datasets]
    rows = [
        run(m, d, s, net="mlp", batch_size=b, budget=f"batch {b}", retained_bytes=b * MEASURED["retained_bytes"],
            variant="", run_id=f"{m}-{d}-{s}-{b}", **dict.fromkeys(KINDS, b * 2.0**20))
        for m in dict.fromkeys(METHODS) for d in datasets for s, b in ((0, 32), (1, 64))
    ]  # fmt: skip
    runs = frame(rows)
    keys = runs[KEY].iloc[:: 2 * n_datasets]
    tables = {
        "alignment": _each(keys[:6], epoch=range(3), layer=["a", "b"], cosine=[0.5]),
        "read-out": _each(keys, layer=range(3), accuracy=[0.5]),
        "ways": _each(keys, sampler=["euler", "heun"], steps=[1, 10], n_images=[100], accuracy=[0.5]),
        "update-dependency": _each(keys[:5], epoch=[0], step=[0], row=range(4), column=range(4), change=[0.25]),
    }
    some = runs["run_id"].iloc[:: 2 * n_datasets].head(5)
    left: dict[str, Any] = {run_id: [curve(), grid(), heat(), path()] for run_id in some}
    trial = Trial(settings={"lr": 0.1}, stage="spread", val_acc=0.9, status="ok", train_s=1.0)
    searches = [
        Found(method=m, net="mlp", dataset=d, fixed={}, net_settings={}, best={"lr": 0.1}, val_acc=0.9,
              verdict="solved", n_trials=1, epochs=5, reported_epochs=5, batch_size=64, seed=1000, sampler="s",
              date=None, commit=None, source=None, at_chance=0.1, variant="", declared={"lr": ["log", 1e-3, 1e-1]},
              searched={"lr": ["log", 1e-3, 1e-1]}, tried=[trial])
        for d in datasets for m in METHODS
    ]  # fmt: skip
    return Made(runs, curves_of(runs), own=tables, artifacts=left, searches=searches)


KINDS = [f"live_{kind}_bytes" for kind in ("parameters", "gradients", "optimizer", "other", "activations")]


def _each(keys: pd.DataFrame, **values: Any) -> pd.DataFrame:
    found = keys
    for name, of in values.items():
        found = found.merge(pd.DataFrame({name: list(of)}), how="cross")
    return found


def pictures(results: Made) -> dict[str, Picture]:
    blocks = [block for section in SECTIONS for block in section(results)]
    return {block.name: block for block in blocks if isinstance(block, Picture)}


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)])
def drawn(request: pytest.FixtureRequest) -> dict[str, Picture]:
    """All figures, of one data set and of two, with their files made."""
    with theme("paper"):
        found = pictures(everything(request.param))
        for picture in found.values():
            assert set(picture.files) == {"svg", "png", "pdf"}
    return found


def test_every_figure_is_as_wide_as_a_column_or_two(drawn: dict[str, Picture]) -> None:
    assert FIGURES - {"memory_mnist", "performance_profile"} <= drawn.keys() <= FIGURES
    for name, picture in drawn.items():
        (width,) = re.findall(rb'<svg [^>]*width="([0-9.]+)pt"', re.sub(rb"\s+", b" ", picture.svg))
        (box,) = re.findall(rb"/MediaBox \[ 0 0 ([0-9.]+) [0-9.]+ \]", picture.files["pdf"])
        assert WIDTHS is not None
        assert min(abs(float(width) / 72 - wanted) for wanted in WIDTHS) < 1e-3, name
        assert float(box) == pytest.approx(float(width), abs=0.01), name


def test_no_text_is_too_small_or_cut_or_lies_on_another(drawn: dict[str, Picture]) -> None:
    """Names and titles; ticks of one axis may be close, and what is written in a panel may lie on lines."""
    for name, picture in drawn.items():
        figure = picture.drawing
        FigureCanvasAgg(figure)  # what texts are measured with
        edge = figure.bbox.padded(1.5)
        texts = [text for text in _texts(figure) if text.get_text().strip() and text.get_visible()]
        assert texts, name
        for text in texts:
            assert text.get_fontsize() >= 6, (name, text)
            box = text.get_window_extent()
            assert edge.contains(box.x0, box.y0), (name, text)
            assert edge.contains(box.x1, box.y1), (name, text)
        for legend in figure.findobj(Legend):
            box = legend.get_window_extent()
            for ax in figure.axes:
                assert not box.padded(-1).overlaps(ax.get_window_extent()), name


def _texts(figure: Figure) -> list[Text]:
    """All that is written; ticks beyond the ends of an axis, which are never drawn, are nowhere."""
    whole = [figure, *figure.subfigs]
    found = [text for part in whole for text in (part._suptitle, part._supxlabel, part._supylabel) if text]  # type: ignore[attr-defined]
    found += [text for part in whole for legend in part.legends for text in legend.get_texts()]
    for ax in figure.findobj(Axes):
        assert isinstance(ax, Axes)
        if not ax.get_visible():
            continue
        found += [ax.title, ax._left_title, ax._right_title, *ax.texts]  # type: ignore[attr-defined]
        for axis in (ax.xaxis, ax.yaxis):
            found += [axis.label, *(t for tick in axis._update_ticks() for t in (tick.label1, tick.label2))]
    return found


def test_names_of_thirty_methods_stand_below_the_panels(drawn: dict[str, Picture]) -> None:
    (legend,) = drawn["accuracy_time"].drawing.legends
    assert {text.get_text() for text in legend.get_texts()} >= set(METHODS)
    assert legend.get_texts()[0].get_fontsize() >= 7


def test_looks_are_those_of_the_screen() -> None:
    results = everything(1)

    def marks(style: str) -> list[Any]:
        with theme(style):
            blocks = answer.section(results)
            figure = next(b.drawing for b in blocks if isinstance(b, Picture) and b.name == "accuracy_time")
        lines = [line for line in figure.axes[0].findobj(Line2D) if line.get_marker() not in ("None", "", 2, 3)]
        return [(line.get_marker(), line.get_color(), line.get_fillstyle()) for line in lines]

    assert len(marks("screen")) > 25
    assert marks("screen") == marks("paper")


@pytest.mark.skipif(shutil.which("pdffonts") is None, reason="needs pdffonts (Debian: poppler-utils)")
def test_fonts_are_truetype_and_embedded(drawn: dict[str, Picture], tmp_path: Path) -> None:
    for name, picture in drawn.items():
        file = tmp_path / f"{name}.pdf"
        file.write_bytes(picture.files["pdf"])
        told = subprocess.run(["pdffonts", str(file)], capture_output=True, text=True, check=True).stdout
        fonts = told.splitlines()[2:]
        assert fonts, file
        for font in fonts:
            assert "TrueType" in font, font
            assert font.split()[-5] == "yes", font
        assert "STIX" in told


def test_pdfs_of_an_earlier_report_go_away(tmp_path: Path) -> None:
    results = Made(frame([run("backprop", seed=s) for s in range(2)]))
    write(results, tmp_path, title="t", style="paper")
    assert list((tmp_path / "figures").glob("*.pdf"))
    write(results, tmp_path, title="t")
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".svg", ".png"}


def test_the_same_figure_gives_the_same_pdf() -> None:
    results = Made(frame([run("backprop", seed=s) for s in range(2)]))
    with theme("paper"):
        one, two = (next(accuracy.section(results)).files["pdf"] for _ in range(2))
    assert one == two


def test_an_unknown_style_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown style 'papr'; did you mean paper"):
        write(Made(frame([run()])), tmp_path / "out", title="t", style="papr")
    assert not (tmp_path / "out").exists()
    assert columns() is None


def test_a_theme_ends_where_it_ends() -> None:
    with theme("paper"):
        assert columns() == WIDTHS
        with theme():
            assert columns() is None
        assert columns() == WIDTHS
    assert columns() is None
    assert np.isclose(STYLES["screen"].theme["font.size"], 9)
