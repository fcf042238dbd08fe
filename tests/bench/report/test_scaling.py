"""The section on scaling: which points it shows, what it holds them against, and that simulated ones say so."""

from typing import Any

import pytest

from bench.record.scaling import Point
from bench.report.sections.scaling import frame_of, newest, panels


def point(workers: int, rate: float, kind: Any = "measured", way: Any = "blocks", **changes: Any) -> Point:
    return Point(**{
        "point_id": f"{way}{workers}{kind}", "date": "2026-01-01", "kind": kind, "status": "ok", "method": "noprop-dt",
        "net": "denoiser", "dataset": "digits", "way": way, "workers": workers, "batch_size": 128, "n_micro": 8,
        "steps": 5, "warm_up": 1, "settings": {"lr": 0.1}, "net_settings": {}, "images_per_s": rate, "idle": [0.1, 0.3],
        "sent_bytes": 2e6, "device": "cpu", "environment": {}, **changes,
    })  # fmt: skip


POINTS = [point(1, 100.0), point(4, 300.0, "simulated"), point(2, 150.0), point(2, 199.0, "simulated")]


def test_a_place_is_shown_once_as_it_was_measured_where_it_was() -> None:
    assert [(p.workers, p.kind) for p in newest(POINTS)] == [(1, "measured"), (2, "measured"), (4, "simulated")]
    later = [point(2, 180.0, date="2026-01-02"), point(2, 0.0, status="crashed", date="2026-01-03")]
    assert [p.images_per_s for p in newest([*POINTS, *later])] == [100.0, 180.0, 300.0]


def test_points_are_held_against_one_worker() -> None:
    frame = frame_of(newest(POINTS))
    assert frame["speed_up"].tolist() == [1.0, 1.5, 3.0]
    assert frame["ideal_images_per_s"].tolist() == [100.0, 200.0, 400.0]
    assert frame["idle"].tolist() == pytest.approx([0.2] * 3)


def test_settings_that_differ_make_rows_of_their_own() -> None:
    frame = frame_of(newest([*POINTS, point(1, 50.0, settings={"lr": 0.2})]))
    assert frame["variant"].unique().tolist() == ["blocks, lr=0.1", "blocks, lr=0.2"]


def test_simulated_points_have_a_line_of_their_own_from_the_last_measured_one() -> None:
    throughput, waiting, messages = panels(frame_of(newest(POINTS)))
    lines = {series.note: (series.dashes, list(series.x), list(series.y)) for series in throughput.series}
    assert lines == {
        "ideal": (":", [1, 2, 4], [100.0, 200.0, 400.0]),
        "measured": ("-", [1, 2], [100.0, 150.0]),
        "simulated": ("--", [2, 4], [150.0, 300.0]),
    }
    assert [series.y for series in messages.series] == [[2.0, 2.0], [2.0, 2.0]]
    assert waiting.series[0].y == pytest.approx([20.0, 20.0])
