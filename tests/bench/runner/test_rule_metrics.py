"""Metrics that a rule returns beside its loss are kept: means over the steps of an epoch, in the learning curve."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import Batch, Progress
from bench.api.errors import MethodError
from bench.record.files import csv_rows
from bench.runner.events import EpochEnded
from tests.bench.runner.made import Toy, spec, start, stop_at_step

STEPS = 10  # of an epoch


class Counts(Toy):
    """Returns the number of each step, and a metric in another precision."""

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.count += 1
        return {"loss": torch.ones(()), "k": self.count.clone(), "half": self.count.double() / 2}


def curve(folder: Path) -> list[dict[str, float]]:
    (file,) = folder.glob("exp/*/curve.csv")
    fields, lines = csv_rows(file.read_bytes())
    rows = [dict(zip(fields, line, strict=True)) for line in lines]
    return [{name: float(row[name] or "nan") for name in ("step", "rule_k", "rule_half")} for row in rows]


def mean_of(first: int, last: int) -> dict[str, float]:
    k = fmean(range(first, last + 1))
    return {"step": last, "rule_k": k, "rule_half": k / 2}


def test_the_curve_has_their_means_over_each_epoch(tmp_path: Path) -> None:
    session, told = start(tmp_path, spec(), Counts)
    assert session.go()["status"] == "ok"
    assert curve(tmp_path) == [mean_of(1, STEPS), mean_of(STEPS + 1, 2 * STEPS)]
    (first, _) = [event.row for event in told if isinstance(event, EpochEnded)]
    assert (first["rule_k"], first["rule_half"]) == (5.5, 2.75)


@pytest.mark.parametrize("stop_after", [3, 10, 11])
def test_an_interruption_changes_none(tmp_path: Path, stop_after: int) -> None:
    first, _ = start(tmp_path, spec(), Counts, lambda session: stop_at_step(session, stop_after))
    assert first.go()["status"] == "interrupted"
    start(tmp_path, spec(), Counts)[0].go()
    assert curve(tmp_path) == [mean_of(1, STEPS), mean_of(STEPS + 1, 2 * STEPS)]


def test_a_checkpoint_without_them_gives_no_mean_of_a_part(tmp_path: Path) -> None:
    first, _ = start(tmp_path, spec(), Counts, lambda session: stop_at_step(session, 3))
    first.go()
    kept = first.folder.load_checkpoint()
    assert kept is not None
    del kept["state"]["rule_metrics"]
    first.folder.save_checkpoint(kept)
    start(tmp_path, spec(), Counts)[0].go()
    before, after = curve(tmp_path)
    assert before["rule_k"] != before["rule_k"]
    assert after == mean_of(STEPS + 1, 2 * STEPS)


class Returns(Toy):
    """Returns what `returned` has; from step `since` on what `later` has."""

    returned: Any
    later: Any = None
    since = STEPS * 100

    def train_step(self, batch: Batch, progress: Progress) -> Any:
        return self.returned if progress.step < self.since else self.later


ONE = torch.ones(())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("a b", ONE, "a metric named 'a b'; a name has at most 40 letters"),
        ("1st", ONE, "a metric named '1st'"),
        ("\u00e4", ONE, "a metric named"),
        ("x" * 41, ONE, "a metric named"),
        (3, ONE, "a metric named '3'"),
        ("k", 0.5, "metric 'k' is a float; a tensor would spare"),
        ("k", torch.zeros(2), "metric 'k' has shape"),
        ("k", torch.tensor(3), "metric 'k' is of type torch.int64"),
        ("k", torch.zeros((), requires_grad=True), "metric 'k' is not detached"),
        ("k", torch.zeros((), device="meta"), "metric 'k' is on the meta, not on the cpu"),
    ],
)
def test_what_is_no_metric_is_refused(tmp_path: Path, name: Any, value: Any, said: str) -> None:
    class Bad(Returns):
        returned = {"loss": ONE, name: value}  # noqa: RUF012  (never changed)

    with pytest.raises(MethodError, match=said) as error:
        start(tmp_path, spec(), Bad)[0].go()
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("since", [4, STEPS], ids=["within an epoch", "between two"])
@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"loss": ONE}, "train_step returns loss, where steps before returned k, loss; return the same in every step"),
        ({"loss": ONE, "k": ONE, "more": ONE}, "returns k, loss, more, where"),
        ({"k": ONE}, "returns k, where|without 'loss'"),
        (ONE, "returns a Tensor, not a mapping"),
        ({"loss": ONE, "k": 1.0}, "metric 'k' is a float"),
    ],
)
def test_other_metrics_than_before_are_refused(tmp_path: Path, since: int, later: Any, said: str) -> None:
    bad = type("Bad", (Returns,), {"returned": {"loss": ONE, "k": ONE}, "later": later, "since": since})
    with pytest.raises(MethodError, match=said):
        start(tmp_path, spec(), bad)[0].go()


def test_a_mapping_that_is_used_again_is_not_taken_for_the_same(tmp_path: Path) -> None:
    class Grows(Toy):
        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            found: dict[str, Tensor] = vars(self).setdefault("found", {"loss": ONE})
            if progress.step == 4:
                found["k"] = ONE
            return found

    with pytest.raises(MethodError, match="returns k, loss, where steps before returned loss"):
        start(tmp_path, spec(), Grows)[0].go()
