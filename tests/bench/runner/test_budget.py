"""Every budget ends training where an independent count says, and own convergence tests the best epoch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bench import Batch, Progress, Seeds
from bench.api.column import Column
from bench.api.instrument import Probe, Reading
from bench.api.method import Method
from bench.api.task import Task
from bench.measure import clock
from bench.runner import checkpoint
from bench.runner.events import EpochEnded, Stepped
from tests.bench.runner.made import Toy, Watched, least_peak, spec, start, stop_at_step, tensors

STEPS = 10  # an epoch, of the digits in batches of 128
N_VAL, N_TEST = 144, 360


class Counting(Toy):
    """Remembers where it was told that training stands."""

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self.told: list[Progress] = []

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.told.append(progress)
        return super().train_step(batch, progress)


def counting(session: Watched) -> list[Progress]:
    assert isinstance(session.run.method, Counting)
    return session.run.method.told


class FakeFlops(Probe):
    """A step takes so many FLOPs as a test says."""

    name = "fake-flops"
    columns = (Column("flops_per_step", "FLOPs a step", "made up"),)
    of_step: ClassVar[float | None]

    @contextmanager
    def watch(self, method: Method, outside: Sequence[Tensor]) -> Iterator[Reading]:
        yield lambda: {"flops_per_step": self.of_step}


def probed(session: Watched, of_step: float | None) -> None:
    instrument = type("Fake", (FakeFlops,), {"of_step": of_step})
    session.parts = replace(session.parts, instruments=(*session.parts.instruments, instrument))


@pytest.mark.parametrize(
    ("steps", "at", "epochs"),
    [(25, [10, 20, 25], [1, 2, 2.5]), (20, [10, 20], [1, 2]), (7, [7], [0.7])],
    ids=["part", "edge", "first"],
)
@pytest.mark.parametrize("budget", ["steps", "flops"])
def test_steps_and_flops_end_with_their_last_step(
    tmp_path: Path, budget: str, steps: int, at: list[int], epochs: list[float]
) -> None:
    limit = {"steps": {"steps": steps}, "flops": {"flops": 100.0 * steps + 99}}[budget]
    session, told = start(tmp_path, spec(method_settings={}, epochs=3, **limit), Counting)
    probed(session, 100)
    summary = session.go()
    assert (summary["status"], summary["stopped_by"]) == ("ok", budget)
    assert [p.step for p in counting(session)] == list(range(steps))
    assert {p.total_steps for p in counting(session)} == {steps}
    assert (summary["steps"], summary["epochs_done"]) == (steps, epochs[-1])
    rows = [event.row for event in told if isinstance(event, EpochEnded)]
    assert [row["step"] for row in rows] == at
    assert [row["epoch"] for row in rows] == pytest.approx(epochs)
    assert all(row["val_acc"] is not None for row in rows)


@pytest.mark.parametrize("limit", [{}, {"steps": 99}, {"seconds": 1e6}, {"flops": 1e6}, {"patience": 2}], ids=str)
def test_epochs_bound_every_budget(tmp_path: Path, limit: dict[str, Any]) -> None:
    session, _ = start(tmp_path, spec(method_settings={}, epochs=2, **limit), Counting)
    probed(session, 100)
    summary = session.go()
    assert (summary["stopped_by"], summary["steps"], summary["epochs_done"]) == ("epochs", 2 * STEPS, 2)
    assert {p.total_steps for p in counting(session)} == {2 * STEPS}


@pytest.mark.parametrize(
    ("of_step", "reason"), [(None, "could not be measured"), (101.0, "takes 101 FLOPs, more than the whole budget")]
)
def test_flops_that_pay_for_no_step_or_are_unknown_skip_the_run(
    tmp_path: Path, of_step: float | None, reason: str
) -> None:
    session, _ = start(tmp_path, spec(method_settings={}, flops=100.0), Counting)
    probed(session, of_step)
    summary = session.go()
    assert summary["status"] == "skipped"
    assert reason in summary["reason"]


class Clockwork(Counting):
    """A step takes as long as the hands move: 1 second and 3 by turns."""

    now = 0.0

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        Clockwork.now += 3.0 if progress.step % 2 else 1.0
        return super().train_step(batch, progress)


@pytest.mark.parametrize("interrupted_after", [None, 1, 13])
def test_seconds_end_with_the_first_step_past_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted_after: int | None
) -> None:
    """After 33 steps 65 seconds have gone, after 34 of them 68; those before an interruption count."""
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: Clockwork.now))
    wanted = spec(method_settings={}, epochs=9, seconds=66.5)
    if interrupted_after is not None:
        stopped, _ = start(tmp_path, wanted, Clockwork, lambda session: stop_at_step(session, interrupted_after))
        assert stopped.go()["status"] == "interrupted"
    session, told = start(tmp_path, wanted, Clockwork)
    summary = session.go()
    assert (summary["status"], summary["stopped_by"], summary["steps"]) == ("ok", "seconds", 34)
    assert summary["train_s"] == pytest.approx(68, abs=0.4)  # prepare_for_eval is clocked by the real one
    assert [row["step"] for row in session.run.state.curve] == [10, 20, 30, 34]
    assert {p.total_steps for p in counting(session)} == {9 * STEPS}
    assert sum(isinstance(event, Stepped) for event in told) < 12  # so seldom was the clock read within an epoch


class Scripted(Toy):
    """After each epoch it is as good as its script says: on validation images, and on test images."""

    val: ClassVar[Sequence[float]]
    test: ClassVar[Sequence[float]]
    labels: Mapping[int, Tensor] = {}  # by number of images, which tells the splits apart

    def predict(self, x: Tensor) -> Tensor:  # type: ignore[override]
        y = self.labels.get(len(x))
        if y is None:
            return torch.zeros(len(x), 10)
        script = {N_VAL: self.val, N_TEST: self.test}[len(x)]
        hits = round(script[int(self.count) // STEPS - 1] * len(x))
        return torch.eye(10)[torch.where(torch.arange(len(x)) < hits, y, (y + 1) % 10)]


def scripted(val: Sequence[float], test: Sequence[float]) -> type[Method]:
    return type("Script", (Scripted,), {"val": val, "test": test})


def with_labels(session: Watched) -> None:
    splits = [torch.cat([batch.y for batch in split]) for split in (session.run.val, session.run.test)]
    session.run.method.labels = {len(y): y for y in splits}  # type: ignore[attr-defined]


# the second epoch is best, equalled by the fourth; by test images, which must not be asked, others are
VAL, TEST = (0.2, 0.5, 0.4, 0.5, 0.3, 0.6, 0.1), (0.9, 0.3, 0.8, 0.7, 0.6, 0.4, 0.95)


@pytest.mark.parametrize(
    ("patience", "epochs", "ended", "best", "by"),
    [
        (1, 7, 3, 2, "patience"),
        (2, 7, 4, 2, "patience"),
        (3, 7, 5, 2, "patience"),
        (4, 7, 7, 6, "epochs"),
        (3, 3, 3, 2, "epochs"),
        (3, 5, 5, 2, "patience"),
    ],
)
def test_patience_ends_training_and_the_best_epoch_is_tested(
    tmp_path: Path, patience: int, epochs: int, ended: int, best: int, by: str
) -> None:
    wanted = spec(method_settings={}, epochs=epochs, patience=patience)
    session, _ = start(tmp_path, wanted, scripted(VAL, TEST), with_labels)
    summary = session.go()
    assert (summary["stopped_by"], summary["epochs_done"], summary["best_epoch"]) == (by, ended, best)
    assert summary["steps"] == ended * STEPS
    assert summary["val_acc"] == pytest.approx(VAL[best - 1], abs=1 / N_VAL)
    assert summary["test_acc"] == pytest.approx(TEST[best - 1], abs=1 / N_TEST)


def test_without_patience_the_last_epoch_is_tested(tmp_path: Path) -> None:
    summary = start(tmp_path, spec(method_settings={}, epochs=3), scripted(VAL, TEST), with_labels)[0].go()
    assert (summary["stopped_by"], summary["best_epoch"]) == ("epochs", 2)
    assert summary["test_acc"] == pytest.approx(TEST[2], abs=1 / N_TEST)


def test_without_validation_no_epoch_is_best(tmp_path: Path) -> None:
    summary = start(tmp_path, spec(method_settings={}, epochs=1, val_fraction=0), Toy)[0].go()
    assert summary["best_epoch"] is None


def test_the_best_epoch_outlives_an_interruption(tmp_path: Path) -> None:
    wanted = spec(method_settings={}, epochs=7, patience=2)

    def meddle(session: Watched) -> None:
        with_labels(session)
        stop_at_step(session, 35)

    assert start(tmp_path, wanted, scripted(VAL, TEST), meddle)[0].go()["status"] == "interrupted"
    summary = start(tmp_path, wanted, scripted(VAL, TEST), with_labels)[0].go()
    assert (summary["best_epoch"], summary["epochs_done"]) == (2, 4)
    assert summary["test_acc"] == pytest.approx(TEST[1], abs=1 / N_TEST)


@pytest.mark.parametrize(
    ("limit", "stop_after"),
    [
        ({"steps": 25}, 3),
        ({"steps": 25}, 25),
        ({"flops": 2500.0}, 24),
        ({"patience": 1}, 10),
        ({"patience": 1}, 15),
        ({"patience": 1}, 35),
    ],
    ids=str,
)
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path, limit: dict[str, Any], stop_after: int) -> None:
    """Bit for bit; the step size is so large that validation soon gets worse."""
    wanted = spec(method_settings={"lr": 0.1, "weight_decay": 0.0}, epochs=5, **limit)

    def session(folder: str, stop: int | None = None) -> Watched:
        made, _ = start(tmp_path / folder, wanted, meddle=None if stop is None else lambda of: stop_at_step(of, stop))
        probed(made, 100)
        return made

    unbroken, second = session("a"), session("b")
    expected = unbroken.go()
    assert expected["stopped_by"] == next(iter(limit))
    assert session("b", stop_after).go()["status"] == "interrupted"
    summary = second.go()
    for key in ("test_acc", "val_acc", "train_loss", "steps", "epochs_done", "best_epoch", "stopped_by"):
        assert summary[key] == expected[key], key
    assert all(torch.equal(a, b) for a, b in zip(tensors(unbroken.run.method), tensors(second.run.method), strict=True))
    assert [row["val_acc"] for row in second.run.state.curve] == [row["val_acc"] for row in unbroken.run.state.curve]


def test_a_run_killed_after_training_goes_on_to_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the checkpoint after its last, partial epoch, without one more step."""
    monkeypatch.setattr(checkpoint.Saver, "is_due", lambda self: True)
    wanted = spec(method_settings={}, steps=15)
    killed, _ = start(tmp_path, wanted, Counting)
    killed.go()
    killed.folder.path.joinpath("curve.csv").unlink()
    session, _ = start(tmp_path, wanted, Counting)
    summary = session.go()
    assert counting(session) == []
    assert (summary["status"], summary["steps"], summary["stopped_by"]) == ("ok", 15, "steps")


def test_the_best_state_is_not_counted_as_training_s_memory(tmp_path: Path) -> None:
    """40 MiB, better with every epoch, while a step takes next to nothing."""

    class Large(scripted((0.1, 0.2, 0.3, 0.4), (0.5,) * 4)):  # type: ignore[misc]
        def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
            super().__init__(task, config, device=device, seeds=seeds)
            self.weights = torch.ones(40 * 2**18)

    wanted = spec(method_settings={}, epochs=4, patience=2)
    assert least_peak(tmp_path, lambda folder: start(folder, wanted, Large, with_labels)[0].go()) < 10 * 2**20
