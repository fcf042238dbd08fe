"""A method that breaks down, breaks the interface or does not fit: what its record says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import Batch, Progress
from bench.api.errors import MethodError
from tests.bench.runner.made import Toy, spec, start


class Exploding(Toy):
    """Its loss becomes NaN at the third step."""

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        super().train_step(batch, progress)
        return {"loss": torch.where(self.count < 3, 1.0, torch.nan)}


def test_a_loss_that_is_no_number_is_divergence(tmp_path: Path) -> None:
    summary = start(tmp_path, spec(method_settings={}), Exploding)[0].go()
    assert summary["status"] == "diverged"
    assert summary["reason"] == "the loss is nan at step 3 of epoch 1"
    assert "test_acc" not in summary


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ({}, "without 'loss'"),
        ({"loss": 1.0}, "is a float"),
        ({"loss": torch.zeros(3)}, r"shape \(3,\)"),
        (1.0, "float"),
    ],
    ids=["none", "float", "vector", "no-mapping"],
)
def test_a_loss_that_is_none_is_told_in_the_words_of_the_contract(
    tmp_path: Path, returned: Any, complaint: str
) -> None:
    class Broken(Toy):
        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            return returned  # type: ignore[no-any-return]

    with pytest.raises(MethodError, match=complaint):
        start(tmp_path, spec(method_settings={}), Broken)[0].go()


def test_scores_of_a_wrong_shape_are_told_in_the_words_of_the_contract(tmp_path: Path) -> None:
    class Broken(Toy):
        def predict(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return torch.zeros(len(x), 3)

    with pytest.raises(MethodError, match="shape"):
        start(tmp_path, spec(method_settings={}), Broken)[0].go()


def test_a_method_that_does_not_fit_is_skipped_with_the_reason(tmp_path: Path) -> None:
    summary = start(tmp_path, spec("noprop-dt", "mlp"))[0].go()
    assert summary == {"status": "skipped", "reason": "noprop-dt runs on denoiser, not on mlp"}
