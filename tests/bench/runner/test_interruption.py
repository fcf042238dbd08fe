"""What is interrupted ends as if it had not been."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import Batch, Progress
from bench.record.schema import CUT
from bench.runner.evaluate import EVAL_BATCH
from bench.runner.events import Resumed
from tests.bench.runner.made import Hungry, least_peak, spec, start, stop_at_step, tensors


@pytest.mark.parametrize(("method", "net"), [("noprop-dt", "denoiser"), ("backprop", "denoiser"), ("backprop", "mlp")])
@pytest.mark.parametrize("stop_after", [3, 11])
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path, method: str, net: str, stop_after: int) -> None:
    """Bit for bit, wherever it was stopped: within an epoch or across its edge."""
    wanted = spec(method, net, instruments=("alignment",))
    unbroken = start(tmp_path / "a", wanted)[0]
    expected = unbroken.go()

    first, _ = start(tmp_path / "b", wanted, meddle=lambda session: stop_at_step(session, stop_after))
    assert first.go()["status"] == "interrupted"
    found: list[tuple[int, int]] = []
    second, told = start(
        tmp_path / "b", wanted, meddle=lambda session: found.append((session.run.state.epoch, session.run.state.step))
    )
    summary = second.go()
    assert found == [(stop_after // 10, stop_after % 10)]
    assert [event.curve for event in told if isinstance(event, Resumed)] == [second.run.state.curve[:1]] * (
        stop_after // 10
    )

    for key in ("test_acc", "test_acc_std", "test_acc_noise_free", "val_acc", "train_loss", "steps", "retained_bytes"):
        assert summary[key] == expected[key], key
    for a, b in zip(tensors(unbroken.run.method), tensors(second.run.method), strict=True):
        assert torch.equal(a, b)
    assert [r["val_acc"] for r in second.run.state.curve] == [r["val_acc"] for r in unbroken.run.state.curve]
    assert repr(second.run.state.tables) == repr(unbroken.run.state.tables)  # a NaN is no equal to itself


def test_a_checkpoint_that_lacks_what_a_gauge_has_read_is_not_gone_on_from(tmp_path: Path) -> None:
    """Its figures would be of the rest of the run alone."""
    first, _ = start(tmp_path, spec(), meddle=lambda session: stop_at_step(session, 3))
    first.go()
    kept = first.folder.load_checkpoint()
    assert kept is not None
    del kept["gauges"]["contamination"]
    first.folder.save_checkpoint(kept)
    found: list[int] = []
    second, _ = start(tmp_path, spec(), meddle=lambda session: found.append(session.run.state.step))
    assert second.go()["steps"] == 2 * 10
    assert found == [0]


@pytest.mark.parametrize(("first_parts", "then", "at"), [(1, 2, 0), (2, 1, 0), (2, 2, 3)])
def test_a_run_goes_on_only_from_batches_that_were_cut_alike(
    tmp_path: Path, first_parts: int, then: int, at: int
) -> None:
    """A record is of steps of one kind: its memory and its time are."""
    first, _ = start(tmp_path, spec(), meddle=lambda session: stop_at_step(session, 3))
    first.micro_batches = first_parts
    first.go()
    found: list[int] = []
    second, _ = start(tmp_path, spec(), meddle=lambda session: found.append(session.run.state.step))
    second.micro_batches = then
    summary = second.go()
    assert found == [at]
    assert (summary["steps"], summary["forward_passes"]) == (2 * 10, then)
    assert summary[CUT] == (then if then > 1 else None)
    assert second.run.test.batch_size == EVAL_BATCH // then


def test_a_resumed_run_keeps_the_peak_of_what_went_before(tmp_path: Path) -> None:
    class Shrinking(Hungry):
        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            return {"loss": torch.ones((40 if progress.step < 3 else 1) * 2**18).mean()}

    def go(folder: Path) -> dict[str, Any]:
        start(folder, wanted, Shrinking, lambda session: stop_at_step(session, 5))[0].go()
        return start(folder, wanted, Shrinking)[0].go()

    wanted = spec(method_settings={})
    assert 39 * 2**20 < least_peak(tmp_path, go) < 50 * 2**20
