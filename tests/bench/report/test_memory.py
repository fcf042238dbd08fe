"""Memory against batch and depth: the points, which settings count, the picture, and reports without any accuracy."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.report import memory_table, terminal_table, write
from bench.report.sections.memory import KINDS, growth, section, sweep
from tests.bench.report.made import COLUMNS, Made, curves_of, frame, run

MIB = 2.0**20
BATCHES, DEPTHS = (32, 64), (2, 5, 20)


def probed(method: str, B: int, T: int, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run without accuracy and its settings: backprop retains B T MiB, others B; a MiB of each other kind a block."""
    retained = B * T if method == "backprop" else B
    parts = dict.fromkeys(KINDS, T * MIB) | {"live_activations_bytes": retained * MIB}
    measured = dict.fromkeys(("test_acc", "test_acc_noise_free", "train_s", "cpu_peak_rss_bytes"), float("nan"))
    measured |= {"retained_bytes": retained * MIB, "live_peak_bytes": sum(parts.values()), **parts}
    settings = {"T": T, "lr": 0.1, **changes.pop("settings", {})}
    variant = ", ".join(f"{k}={v}" for k, v in {"T": T, "batch_size": B, **settings}.items())
    return run(method, variant=variant, batch_size=B, **measured | changes), settings


def made(*runs: tuple[dict[str, Any], dict[str, Any]]) -> Made:
    rows = [row for row, _ in runs]
    return Made(frame(rows), settings={row["run_id"]: settings for row, settings in runs}, n_probed=len(rows))


@pytest.fixture
def grid() -> Made:
    return made(*(probed(m, B, T) for m in ("noprop-dt", "backprop") for T in DEPTHS[::-1] for B in BATCHES))


def test_points_are_in_order_beside_backprop_at_the_same_place(grid: Made) -> None:
    points, numbers = sweep(grid)
    assert numbers == ["batch_size", "T"]
    places = [(B, T) for B in BATCHES for T in DEPTHS]
    assert points[["method", *numbers]].to_numpy().tolist() == [
        [m, B, T] for m in ("backprop", "noprop-dt") for B, T in places
    ]
    assert points["retained_of_backprop"].tolist() == pytest.approx([1.0] * 6 + [1 / T for _, T in places])
    assert set(points["variant"]) == {""}


def test_a_setting_in_words_makes_rows_and_one_that_moves_nothing_no_axis() -> None:
    runs = [
        probed("noprop-dt", B, 5, settings={"lr": lr, "execution": how})
        for B in BATCHES
        for lr in (0.1, 0.2)
        for how in ("loop", "stacked")
    ]
    points, numbers = sweep(made(*runs))
    assert numbers == ["batch_size", "lr"]
    assert set(points["variant"]) == {"execution=loop", "execution=stacked"}
    (_, _, picture) = section(made(*runs))
    assert [ax.get_xlabel() for ax in picture.drawing.axes if ax.get_xlabel()] == ["batch size"]  # type: ignore[union-attr]


def test_the_picture_has_what_is_retained_by_all_and_the_live_peak_of_each(grid: Made) -> None:
    """Along each axis the other one is at its largest: against T at a batch of 64, against the batch at T = 20."""
    points, numbers = sweep(grid)
    figure = growth(points, numbers)
    assert figure is not None
    against_batch, against_T, *stacked = figure.axes
    assert [list(line.get_xdata()) for line in against_T.lines] == [list(DEPTHS)] * 2
    assert [list(line.get_ydata()) for line in against_T.lines] == [[64 * T for T in DEPTHS], [64] * 3]
    assert [list(line.get_ydata()) for line in against_batch.lines] == [[20 * B for B in BATCHES], list(BATCHES)]
    assert (against_batch.get_title("right"), against_T.get_title("right")) == ("T = 20", "batch size = 64")
    assert [len(ax.collections) for ax in stacked] == [len(KINDS)] * 4
    tops = [ax.collections[-1].get_paths()[0].get_extents().ymax for ax in stacked]
    assert tops == [64 * 20 + 4 * 20] * 2 + [64 + 4 * 20] * 2  # backprop's, then noprop-dt's
    assert len({ax.get_ylim() for ax in stacked}) == 1
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["backprop", "noprop-dt", "activations"]


def test_a_run_out_of_memory_is_a_row_and_no_point() -> None:
    nothing = dict.fromkeys(("retained_bytes", "live_peak_bytes", *KINDS), float("nan"))
    failed = probed("backprop", 128, 2, status="oom", reason="no memory", **nothing)
    results = made(probed("backprop", 32, 2), probed("backprop", 64, 2), failed)
    table = memory_table(results)
    last = dict(zip(table.headers, table.rows[-1], strict=True))
    assert (last["batch size"], last["failed"], last["retained, MiB"]) == ("128", "oom", "-")
    figure = growth(*sweep(results))
    assert figure is not None
    assert list(figure.axes[0].lines[0].get_xdata()) == [32, 64]


def test_the_table_has_a_line_per_point_in_mebibytes(grid: Made) -> None:
    table = memory_table(grid)
    last = dict(zip(table.headers, table.rows[-1], strict=True))
    assert last["method"] == "noprop-dt"
    assert (last["batch size"], last["T"], last["retained, MiB"], last["retained, % of backprop"]) == (
        "64", "20", "64", "5.00",
    )  # fmt: skip
    assert "failed" not in table.headers


def test_a_report_of_runs_that_were_only_probed(grid: Made, tmp_path: Path) -> None:
    page = write(grid, tmp_path, title="memory").read_text()
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"memory_digits.png", "memory_digits.svg"}
    assert "not trained: 12" in page
    assert "Epochs" not in page
    assert "test acc" not in page
    assert "nan" not in page
    assert len(pd.read_csv(tmp_path / "tables" / "memory.csv")) == 12
    headers, rows = terminal_table(grid)
    assert "test acc, %" not in headers
    assert len(rows) == 12


def test_where_nothing_was_swept_there_is_no_section(tmp_path: Path) -> None:
    runs = frame([run(), run("noprop-dt")])
    write(Made(runs, curves_of(runs)), tmp_path, title="t")
    assert not (tmp_path / "tables" / "memory.csv").exists()
    without_split = [probed("backprop", B, 2, **dict.fromkeys(KINDS, float("nan"))) for B in BATCHES]
    assert list(section(made(*without_split))) == []


def test_the_kinds_are_those_that_are_measured() -> None:
    measured = {column.name for column in COLUMNS if column.name.startswith("live_")}
    assert measured == {"live_peak_bytes", *KINDS}
