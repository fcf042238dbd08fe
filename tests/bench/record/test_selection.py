"""Which runs are looked at: by what names them and by their settings, and what is said where none is left."""

from pathlib import Path

import pytest

from bench.api.errors import ConfigError
from bench.record.selection import selection
from tests.bench.record.test_results import record, results

OK = {"status": "ok", "reason": None, "test_acc": 0.5}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for method, seed in (("backprop", 0), ("backprop", 1), ("spsa", 0)):
        record(tmp_path, OK, method=method, seed=seed)
    record(tmp_path, OK, method="spsa", seed=1, batch_size=32)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 4),
        ("method=spsa", 2),
        ("method=spsa,backprop", 4),
        ("method=spsa seed=0", 1),
        ("batch_size=32", 1),
        ("width=8", 4),
    ],
)
def test_conditions_hold_together(root: Path, text: str, expected: int) -> None:
    assert len(results(root, select=selection(text)).runs) == expected


def test_rows_are_told_apart_by_what_is_left(root: Path) -> None:
    """A label that names a setting in which no row that is shown differs would puzzle a reader."""
    assert set(results(root).runs["variant"]) == {"", "batch_size=64", "batch_size=32"}
    assert set(results(root, select=selection("batch_size=64")).runs["variant"]) == {""}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("spsa", "'spsa' is no condition; write it as FIELD=VALUE"),
        ("method=", "'method=' is no condition"),
        ("metod=spsa", "unknown field 'metod'; did you mean method"),
        ("method=spsaa", "no run has that; there is backprop, spsa"),
        ("method=spsa seed=7", "--select seed=7: no run has that; there is 0, 1"),
    ],
)
def test_a_condition_that_nothing_meets_is_named(root: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        _ = results(root, select=selection(text)).runs
