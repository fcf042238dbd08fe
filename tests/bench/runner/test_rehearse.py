"""How long a run will take, told from a toy whose steps and predictions take a known time."""

import time
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task
from bench.catalog.catalog import Catalog
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Parts
from bench.metrics.accuracy import Accuracy
from bench.objectives.cross_entropy import CrossEntropy
from bench.runner import rehearse
from bench.runner.state import Place

CATALOG = Catalog()
STEP_S, PREDICTION_S = 0.02, 0.05


class Slow(Method):
    info = MethodInfo("slow", "Slow", "toy", "", Claims(reverse_mode="none"))

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        self.weight = torch.zeros(1)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        time.sleep(STEP_S)
        return {"loss": torch.zeros(())}

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        time.sleep(PREDICTION_S)
        return torch.zeros(len(x), 10)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        # 12 steps an epoch; 144 images validate each time, 360 test, which take PREDICTION_S
        ({"epochs": 3}, 36 * STEP_S + (3 * 144 / 360 + 1) * PREDICTION_S),
        ({"epochs": 3, "steps": 30}, 30 * STEP_S + (3 * 144 / 360 + 1) * PREDICTION_S),
        ({"epochs": 30, "seconds": 0.3}, 0.3 + (30 * 144 / 360 + 1) * PREDICTION_S),
    ],
)
def test_seconds_are_those_of_steps_and_predictions(budget: dict[str, Any], expected: float) -> None:
    spec = RunSpec(
        method="slow", method_settings={}, method_source="", net="mlp", net_settings={}, net_source="",
        dataset="digits", data_id="", seed=0, eval_draws=1, device="cpu", batch_size=100, **budget,
    )  # fmt: skip
    parts = Parts(
        Slow,
        CATALOG.nets["mlp"].load(),
        CATALOG.dataset("digits"),
        (CATALOG.instruments["clock"].load(),),
        CrossEntropy,
        (Accuracy,),
    )
    found = rehearse.seconds(spec, parts, Place(torch.device("cpu")))
    assert expected <= found < 1.5 * expected
