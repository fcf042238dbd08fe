"""The figure of read-outs and the detach ladder: what is drawn, and of whom."""

from typing import Any

import pandas as pd
import pytest

from bench.record.schema import KEY
from bench.report.blocks import Picture
from bench.report.sections import ladder, read_out
from tests.bench.report.made import Made, frame, run

NET = {"net": "mlp"}
HEADS, CUTS = "backprop-deep-supervision", "local-loss"


def rungs(**values: Any) -> list[dict[str, Any]]:
    methods = ("backprop", HEADS, CUTS)
    return [
        run(m, seed=s, **NET, **values) | {"test_acc": 0.9 - 0.02 * k} for s in range(2) for k, m in enumerate(methods)
    ]


def told(runs: list[dict[str, Any]], layers: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {**{name: of[name] for name in KEY}, "layer": layer, "accuracy": 0.5 + 0.1 * layer}
        for of in runs
        for layer in range(layers)
    )


def test_read_outs_are_drawn_layer_by_layer() -> None:
    runs = [run(m, seed=s) for m in ("backprop", "noprop-dt") for s in range(3)]
    (picture,) = read_out.section(Made(frame(runs), own={"read-out": told(runs)}))
    assert isinstance(picture, Picture)
    (ax,) = picture.drawing.axes
    lines = [line for line in ax.lines if len(line.get_xdata()) == 3]  # type: ignore[arg-type]
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx([50, 60, 70])] * 2  # type: ignore[arg-type]
    assert [text.get_text() for text in picture.drawing.legends[0].get_texts()] == ["backprop", "noprop-dt"]


def test_read_outs_of_failed_runs_are_not_drawn() -> None:
    runs = [run(status="diverged")]
    assert list(read_out.section(Made(frame(runs), own={"read-out": told(runs)}))) == []
    assert list(read_out.section(Made(frame([run()])))) == []


def test_the_ladder_stands_where_all_rungs_do() -> None:
    (picture,) = ladder.section(Made(frame([*rungs(), run("backprop", net="cnn")])))
    assert isinstance(picture, Picture)
    accuracy, retained, seconds = picture.drawing.axes
    assert accuracy.get_title("left") == "digits, mlp"
    assert [tick.get_text() for tick in accuracy.get_xticklabels()] == ["backprop", "+ heads", "+ cuts"]
    paths = [list(line.get_ydata()) for line in accuracy.lines if len(line.get_xdata()) == 3]  # type: ignore[arg-type]
    assert paths == [pytest.approx([90, 88, 86])]  # type: ignore[arg-type]
    assert (retained.get_ylabel(), seconds.get_ylabel()) == ("retained, MiB", "train, s")


def test_a_rung_without_a_good_run_breaks_the_ladder() -> None:
    runs = [of if of["method"] != CUTS else of | {"status": "diverged", "test_acc": float("nan")} for of in rungs()]
    assert list(ladder.section(Made(frame(runs)))) == []


def test_variants_of_a_local_loss_share_its_rung() -> None:
    runs = [of for of in rungs() if of["method"] != CUTS]
    runs += [run(CUTS, variant=f"loss={loss}", **NET) for loss in ("pred", "predsim")]
    (picture,) = ladder.section(Made(frame(runs)))
    assert isinstance(picture, Picture)
    names = [text.get_text() for text in picture.drawing.legends[0].get_texts()]
    assert [name.partition(" ")[2] for name in names if name.startswith(CUTS)] == ["loss=pred", "loss=predsim"]
    on_last_rung = [x for line in picture.drawing.axes[0].lines for x in line.get_xdata() if x > 1.5]  # type: ignore[union-attr]
    assert len({round(float(x), 3) for x in on_last_rung}) == 2
