"""What a step costs and waits for is that of all phases of training, declared or not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import Batch, Progress, Seeds, Task
from bench.api.errors import MethodError
from tests.bench.runner.made import Toy, spec, start

B, UNITS = 128, 16
LAYER = 2 * B * UNITS * UNITS  # of one product of a batch with a layer
STEPS = 12


class Alone(nn.Module):
    """K layers, each with its own square loss upon a constant input."""

    def __init__(self, K: int, seeds: Seeds) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(UNITS, UNITS, bias=False) for _ in range(K))
        for p in self.parameters():
            nn.init.normal_(p, std=0.3, generator=seeds.init)


class InTurn(Toy):
    """Layer k learns in part k of training, from the output of those below; the last layer never does."""

    K, resting = 3, 0

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        self.alone = Alone(self.K + self.resting, seeds)
        self.at = torch.zeros(())

    def blocks(self) -> list[nn.Module]:
        return list(self.alone.blocks)

    def turn(self, progress: Progress) -> int:
        return progress.step * self.K // progress.total_steps

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        k, layers = self.turn(progress), self.alone.blocks
        with torch.no_grad():
            h = batch.x.flatten(1)[:, :UNITS]
            for layer in layers[:k]:
                h = torch.tanh(layer(h))
        loss = (torch.tanh(layers[k](h)) - 0.5).square().mean()
        (gradient,) = torch.autograd.grad(loss, layers[k].weight)
        with torch.no_grad():
            layers[k].weight -= gradient
        return {"loss": loss.detach()}


class Declared(InTurn):
    def phase(self, progress: Progress) -> int:
        return self.turn(progress)


class Rests(InTurn):
    resting = 1


class Alternates(InTurn):
    def turn(self, progress: Progress) -> int:
        return progress.step % 2


def summary(folder: Path, cls: type, **changes: Any) -> dict[str, Any]:
    return start(folder, spec(method_settings={}, **{"epochs": 2, "steps": STEPS, **changes}), cls)[0].go()


@pytest.mark.parametrize("cls", [InTurn, Declared])
def test_flops_are_summed_over_phases(tmp_path: Path, cls: type) -> None:
    """A step on layer k takes k + 1 products, and one on the way back for its weight: 2, 3 and 4 of them."""
    found = summary(tmp_path, cls)
    assert found["flops_per_step"] == 3 * LAYER
    assert found["train_flops"] == STEPS * 3 * LAYER
    assert found["flops_by_phase"].count("33.3% of steps") == 3
    assert found["updates_wait_for"] == "earlier blocks, in sequence"


def test_flops_of_a_training_that_ends_early_are_those_of_the_steps_taken(tmp_path: Path) -> None:
    """Steps 0 to 9 of an epoch of ten are of the first of three phases."""
    found = summary(tmp_path, Declared, steps=None, epochs=4, patience=1)
    assert found["steps"] < 40
    turns = [k * 3 // 40 for k in range(found["steps"])]
    assert found["train_flops"] == pytest.approx(sum(2 + turn for turn in turns) * LAYER)


class TwoPhases(Declared):
    """Steps 0 to 4 on the first layer, all others on the second, by hand."""

    def turn(self, progress: Progress) -> int:
        return int(progress.step >= 5)


def test_a_curve_says_the_flops_of_the_steps_up_to_each_point(tmp_path: Path) -> None:
    """Epochs of ten steps: 5 steps of 2 products and 5 of 3, then ten of 3, then five."""
    session, _ = start(tmp_path, spec(method_settings={}, epochs=3, steps=25), TwoPhases)
    found = session.go()
    curve = pd.read_csv(session.folder.path / "curve.csv")
    assert curve["step"].tolist() == [10, 20, 25]
    assert (curve["train_flops"] / LAYER).tolist() == [25, 55, 70]
    assert found["train_flops"] == pytest.approx(70 * LAYER)


@pytest.mark.parametrize("steps", [3, 10, 17])
def test_a_budget_of_flops_pays_for_each_phase(tmp_path: Path, steps: int) -> None:
    """Phases stretch over all steps that the budget allows."""
    price = sum(2 + k * 3 // steps for k in range(steps)) * LAYER
    found = summary(tmp_path, Declared, steps=None, flops=float(price), epochs=2)
    assert (found["steps"], found["stopped_by"]) == (steps, "flops")
    assert found["train_flops"] == pytest.approx(price)


def test_what_a_block_waits_for_that_rests_cannot_be_told(tmp_path: Path) -> None:
    assert summary(tmp_path, Rests)["updates_wait_for"] == "cannot tell"


def test_nothing_is_said_of_steps_that_differ_without_a_plan(tmp_path: Path) -> None:
    found = summary(tmp_path, Alternates)
    assert "flops_per_step" not in found
    assert found["train_flops"] is None
    assert "names no phases" in found["flops_by_phase"]
    refused = summary(tmp_path / "flops", Alternates, steps=None, flops=1e9)
    assert (refused["status"], "could not be measured" in refused["reason"]) == ("skipped", True)


class Forgets(Toy):
    """Keeps its momentum in a dict, which is no state that a checkpoint has."""

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        self.net = task.build_net(seeds.init)
        self.momentum: dict[str, Tensor] = {}

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        loss = F.cross_entropy(self.net(batch.x), batch.y)
        gradients = torch.autograd.grad(loss, list(self.net.parameters()))
        with torch.no_grad():
            for (name, p), g in zip(self.net.named_parameters(), gradients, strict=True):
                self.momentum[name] = 0.9 * self.momentum.get(name, torch.zeros_like(g)) + g
                p -= 0.1 * self.momentum[name]
        return {"loss": loss.detach()}


def test_state_that_a_checkpoint_lacks_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"state_dict\(\) lacks what train_step needs: restored, inference\.net"):
        summary(tmp_path, Forgets)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (torch.tensor(3), "is of type torch.int64, not a floating-point type"),
        (torch.tensor(True), "is of type torch.bool, not a floating-point type"),
        (torch.tensor(1j), "is of type torch.complex64, not a floating-point type"),
        (torch.zeros(2), r"has shape \(2,\), not \(\)"),
        (torch.zeros((), requires_grad=True), "is not detached"),
        (torch.zeros((), device="meta"), "is on the meta, not on the cpu"),
    ],
    ids=["integer", "bool", "complex", "vector", "attached", "elsewhere"],
)
def test_a_loss_of_another_kind_is_told_in_words(tmp_path: Path, loss: Tensor, said: str) -> None:
    class Gives(Toy):
        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            return {"loss": loss}

    with pytest.raises(MethodError, match=said):
        summary(tmp_path, Gives)
