"""Two folders cell by cell: pairs by seed, identical digits counted, cells of one side kept."""

import math

import pytest

from bench.stats import t_interval, versus
from tests.bench.report.made import COLUMNS, frame, run

TRAIN_S = [column for column in COLUMNS if column.name == "train_s"]


def test_pairs_are_those_of_the_seed() -> None:
    """Seeds of one side alone, a failed run and another order of rows enter no difference."""
    a = frame([run(seed=seed, test_acc=0.9 + 0.01 * seed, train_s=2.0) for seed in range(3)])
    b = [run(seed=seed, test_acc=acc, train_s=3.0) for seed, acc in ((7, 0.1), (2, 0.95), (1, 0.91))]
    (cell,) = versus(a, frame([*b, run(seed=0, status="oom")]), 0.01, TRAIN_S).to_dict("records")
    expected = t_interval([0.0, 0.03])
    assert (cell["n_a"], cell["n_b"], cell["n_pairs"], cell["identical"]) == (3, 3, 2, 1)
    assert (cell["b_minus_a_diff_mean"], cell["b_minus_a_diff_ci95"]) == pytest.approx(expected[:2])
    assert cell["test_acc_a"] == pytest.approx(0.91)
    assert cell["train_s_ratio"] == pytest.approx(1.5)


def test_a_cell_of_one_side_stands_with_what_it_has() -> None:
    a, b = frame([run("backprop", seed=s) for s in range(2)]), frame([run("noprop-dt", seed=s) for s in range(2)])
    cells = versus(a, b, 0.01).set_index("method")
    assert list(cells["n_a"]) == [2, 0]
    assert list(cells["n_b"]) == [0, 2]
    assert cells["b_minus_a_diff_mean"].isna().all()
    assert list(cells["conclusion"]) == ["", ""]


def test_the_direction_is_that_of_the_second_folder() -> None:
    a = frame([run(seed=s, test_acc=0.80 + 0.001 * s) for s in range(5)])
    b = frame([run(seed=s, test_acc=0.90 - 0.001 * s) for s in range(5)])
    assert versus(a, b, 0.01)["conclusion"][0] == "higher"
    assert versus(b, a, 0.01)["conclusion"][0] == "lower"
    assert versus(a, a, 0.01)["conclusion"][0] == "equivalent within 1 point"
    assert versus(a, a, 0.01)["identical"][0] == 5


def test_conclusions_are_corrected_for_the_number_of_cells() -> None:
    def side(shift: float) -> list[dict[str, object]]:
        wobble = (0.0, 0.004, -0.003)
        return [run(m, seed=s, test_acc=0.9 + shift * (1 + wobble[s] * 50)) for m in "abcdefgh" for s in range(3)]

    whole = versus(frame(side(0)), frame(side(0.01)), 0.05)
    alone = versus(frame(side(0)[:3]), frame(side(0.01)[:3]), 0.05)
    assert whole["p_differs"][0] == pytest.approx(alone["p_differs"][0])
    assert whole["p_differs_corrected"][0] == pytest.approx(min(1, 8 * alone["p_differs_corrected"][0]))
    assert not math.isnan(whole["p_differs"][0])
