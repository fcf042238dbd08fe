"""Every clause of the contract can be broken: a toy for each, which fails that check."""

import os
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench import Batch, Method, Progress, Seeds, Task
from bench.api.task import Facts
from bench.nets.mlp import MLP
from bench.testing import CHECKS, run_checks
from bench.testing.finding import ContractViolation
from bench.testing.repeating import check_predict
from bench.testing.subject import Subject, small_task
from tests.bench.testing.made import LearnsNonsense, Settings, Sound, claiming


class RequiredSetting(Sound):
    class Config(Settings):
        momentum: float = Field(description="without a default")


class UndescribedSetting(Sound):
    class Config(Settings):
        momentum: float = 0.9


class UnsearchableSetting(Sound):
    class Config(Settings):
        momentum: float = Field(0.9, description="of SGD", json_schema_extra={"search": [0.5, 0.9]})


class RefusesDigits(Sound):
    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        return "colour images only"


class GivesLabels(Sound):
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.net(x).argmax(1)


class NeedsTwoImages(Sound):
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return super().predict(x, noise).squeeze(0)


class GivesNumber(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {k: float(v) for k, v in super().train_step(batch, progress).items()}


class GivesGraph(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {**super().train_step(batch, progress), "norm": next(self.net.parameters()).norm()}


class GivesMoreAtFirst(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        found = super().train_step(batch, progress)
        return {**found, "first": found["loss"]} if progress.step == 0 else found


class ForgetsLayer(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self.optimizer = torch.optim.SGD(list(self.net.parameters())[1:], lr=config.lr, momentum=0.9)


class IgnoresSeed(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=Seeds(0))


class DrawsFromTheMachine(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x = batch.x + 1e-3 * int.from_bytes(os.urandom(2), "big") / 2**16
        return super().train_step(batch._replace(x=x), progress)


class TrainsOnGlobalDraws(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return super().train_step(batch._replace(x=F.dropout(batch.x, 0.1)), progress)


class PredictsFromGlobalDraws(Sound):
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        if noise is None:
            return self.net(x)
        torch.manual_seed(int(torch.randint(99, (), generator=noise)))
        return self.net(x) + 1e-3 * torch.randn(len(x), 10)


class ForgetsMomentum(Sound):
    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict()}


class SavesAnObject(Sound):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "claims": self.info.claims}


class CountsPredictions(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self.net.register_buffer("mean", torch.zeros(64))

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        self.net.get_buffer("mean").lerp_(x.flatten(1).mean(0), 0.1)
        return super().predict(x, noise)


class PredictsFromNoise(Sound):
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        torch.randn(1, generator=self.seeds.noise)
        return super().predict(x, noise)


class RemembersPredicting(Sound):
    scale = 1.0

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        self.scale = 0.9
        return super().predict(x, noise)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return super().train_step(batch._replace(x=self.scale * batch.x), progress)


class NeverTheSame(Sound):
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.net(x) if noise is None else super().predict(x, self.hidden)

    @property
    def hidden(self) -> torch.Generator:
        generator = torch.Generator()
        generator.seed()
        return generator


class NoisyWithoutNoise(Sound):
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return super().predict(x, noise or self.seeds.inference)


class HidesItsNoise(Sound):
    """What does not claim to draw is handed no generator; this one helps itself."""

    info = claiming(stochastic_inference=False)

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return super().predict(x, self.seeds.inference)


class BoastsOfNoise(Sound):
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.net(x)


class KeepsTheLabels(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self._last = torch.zeros(32, 10)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self._last = F.one_hot(batch.y, 10)
        return super().train_step(batch, progress)

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        scores = super().predict(x, noise)
        return scores + 99 * self._last if len(x) == len(self._last) else scores


class ClaimsLocality(Sound):
    info = claiming(reverse_mode="block")


class ClaimsToBeBackprop(Sound):
    """Trains its last layer only."""

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        *self.frozen, self.head = self.net.blocks
        for p in [p for block in self.frozen for p in block.parameters()]:
            p.requires_grad_(False)


class DeniesTransport(Sound):
    info = claiming(weight_transport=False)


class ClaimsToWaitForNothing(Sound):
    info = claiming(updates_wait_for="nothing")


class ClaimsToDrawNothing(Sound):
    info = claiming(deterministic=True)


class RunsTwice(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.net(batch.x)
        return super().train_step(batch, progress)


class PredictsTwice(Sound):
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return (self.net(x) + super().predict(x, noise)) / 2


class SweepsUnderTheRug(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {"loss": super().train_step(batch._replace(x=batch.x.nan_to_num()), progress)["loss"]}


class StopsAtNaN(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        if batch.x.isnan().any():
            raise FloatingPointError("the images are not numbers")
        return super().train_step(batch, progress)


class KeepsGraphs(Sound):
    """As `total += loss` does, the classic."""

    info = claiming(forward_passes=2)

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self._total = [torch.zeros(())]

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self._total[0] = self._total[0] + self.net(batch.x).square().mean()
        return super().train_step(batch, progress)

    def state_dict(self) -> dict[str, Any]:
        return {name: state for name, state in super().state_dict().items() if name != "_total"}


class WeighsPartsAlike(Sound):
    """The mean of the losses of parts, which differ in size."""

    parts = 1

    def use_micro_batches(self, parts: int) -> str | None:
        self.parts = parts
        return None

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        each = zip(scores.chunk(self.parts), y.chunk(self.parts), strict=True)
        return torch.stack([super(WeighsPartsAlike, self).loss(*part) for part in each]).mean()


# a toy, the check made for it, and those that cannot help failing with it
class DrawsTheSameForEverySeed(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self.feedback = torch.randn(10, 32, generator=torch.Generator().manual_seed(0))


class HidesAPhase(Sound):
    """Evaluates a layer twice in every fourth step."""

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        if progress.step % 4 == 3:
            self.net.blocks[0](batch.x)
        return super().train_step(batch, progress)


class ForgetsWhatItHasAtAnEdge(Sound):
    """From its seventh step on it goes by a number that no checkpoint has."""

    scale = 1.0

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        if progress.step == 6:
            self.scale = 0.5
        return super().train_step(batch._replace(x=batch.x * self.scale), progress)


class SettingWithoutEffect(Sound):
    class Config(Settings):
        momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")


class MovesStatistics(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self.norm = torch.nn.BatchNorm1d(10)

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.norm.train()(super().predict(x, noise))


BROKEN: list[tuple[type[Method], str, set[str]]] = [
    (RequiredSetting, "settings", {"build"}),
    (RefusesDigits, "build", set()),
    (UndescribedSetting, "settings", {"effect"}),
    (UnsearchableSetting, "settings", {"effect"}),
    (GivesLabels, "scores", {"learns", "no-leak", "inference-noise"}),
    (NeedsTwoImages, "scores", set()),
    (GivesNumber, "metrics", set()),
    (GivesGraph, "metrics", set()),
    (GivesMoreAtFirst, "metrics", set()),
    (LearnsNonsense, "learns", set()),
    (ForgetsLayer, "moves", set()),
    (IgnoresSeed, "seed", {"draws"}),
    (DrawsFromTheMachine, "seed", {"resume", "phases", "predict"}),
    (TrainsOnGlobalDraws, "generator", set()),
    (PredictsFromGlobalDraws, "generator", set()),
    (ForgetsMomentum, "resume", {"phases", "weight-transport"}),
    (SavesAnObject, "resume", {"phases", "weight-transport"}),
    (CountsPredictions, "predict", set()),
    (PredictsFromNoise, "predict", set()),
    (RemembersPredicting, "predict", set()),
    (NeverTheSame, "inference-noise", {"seed", "resume", "predict"}),
    (NoisyWithoutNoise, "inference-noise", set()),
    (HidesItsNoise, "inference-noise", set()),
    (BoastsOfNoise, "inference-noise", set()),
    (KeepsTheLabels, "no-leak", {"weight-transport"}),
    (ClaimsLocality, "reverse-mode", set()),
    (ClaimsToBeBackprop, "reverse-mode", {"weight-transport"}),
    (DeniesTransport, "weight-transport", set()),
    (ClaimsToWaitForNothing, "waiting", set()),
    (ClaimsToDrawNothing, "seed", set()),
    (RunsTwice, "passes", set()),
    (PredictsTwice, "passes", set()),
    (SweepsUnderTheRug, "divergence", set()),
    (StopsAtNaN, "divergence", set()),
    (WeighsPartsAlike, "micro-batches", set()),
    (KeepsGraphs, "memory", set()),
    (HidesAPhase, "phases", {"passes", "reverse-mode", "weight-transport"}),
    (ForgetsWhatItHasAtAnEdge, "phases", set()),
    (SettingWithoutEffect, "effect", set()),
    (DrawsTheSameForEverySeed, "draws", set()),
]


def test_a_sound_method_passes() -> None:
    assert {r.name: r.message for r in run_checks(Sound, MLP) if not r.ok} == {}


@pytest.mark.parametrize(("toy", "check", "also"), BROKEN, ids=[toy.__name__ for toy, _, _ in BROKEN])
def test_each_breach_is_found_and_nothing_else(toy: type[Method], check: str, also: set[str]) -> None:
    found = {r.name: r.message for r in run_checks(toy, MLP) if not r.ok}
    assert found.keys() == {check, *also}
    assert all(message and "\n" not in message for message in found.values())


def test_statistics_that_predict_moves_come_with_the_mend() -> None:
    with pytest.raises(ContractViolation, match="predict changes .*running_mean.*; predict in eval mode"):
        check_predict(Subject(MovesStatistics, small_task(MLP), {}))


def test_no_check_is_without_a_breach() -> None:
    assert {check for _, check, _ in BROKEN} == set(CHECKS)
