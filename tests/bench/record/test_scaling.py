"""Points of scaling on disk: written, packed, read again, and told of where they are corrupt."""

from pathlib import Path

import pytest

from bench.api.errors import StoreError
from bench.record import scaling
from bench.record.pack import pack
from tests.bench.report.test_scaling import POINTS


def test_points_outlive_packing(tmp_path: Path) -> None:
    for point in POINTS:
        scaling.save(tmp_path / "mine", point)
    pack(tmp_path / "mine", tmp_path / "packed")
    assert scaling.load(tmp_path / "packed") == scaling.load(tmp_path / "mine")
    assert len(scaling.load(tmp_path / "packed")) == len(POINTS)


def test_a_corrupt_point_is_named(tmp_path: Path) -> None:
    scaling.save(tmp_path, POINTS[0])
    (path,) = (tmp_path / "scaling").iterdir()
    path.write_text("{}")
    with pytest.raises(StoreError, match="remove it and run `bench scale` again"):
        scaling.load(tmp_path)
    problems: list[str] = []
    assert scaling.load(tmp_path, problems) == []
    assert len(problems) == 1
