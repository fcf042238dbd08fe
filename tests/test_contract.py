"""Every registered method keeps the contract, and every clause of it can be broken."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task
from bench.method import ANY_NET
from bench.nets import NETS
from bench.registry import Registry
from bench.testing import CHECKS, run_checks
from bench.testing.subject import default_net


def examinations() -> Iterator[Any]:
    """Each method on each net that it runs on; quick ones are those on its first net and a net's first."""
    seen: set[str] = set()
    for name, entry in sorted(Registry().entries.items()):
        cls = entry.load()
        for net in sorted(NETS) if cls.info.nets == ANY_NET else cls.info.nets:
            quick = net == default_net(cls) or net not in seen
            seen.add(net)
            yield pytest.param(name, net, id=f"{name}-{net}", marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "net"), list(examinations()))
def test_method_keeps_the_contract(registry: Registry, name: str, net: str) -> None:
    results = list(run_checks(registry[name].load(), net=net))
    assert {r.name: r.message for r in results if not r.ok} == {}
    assert [r.name for r in results] == list(CHECKS)


class Settings(BaseModel):
    lr: float = Field(0.05, gt=0, description="step size")


class Sound(Method):
    """Backprop with momentum and an initial disturbance of its own: everything that a check looks at."""

    info = MethodInfo(
        "sound",
        "Sound",
        "toy",
        "nobody1900nothing",
        Claims(reverse_mode="network", stochastic_inference=True),
    )
    Config = Settings

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        self.seeds = seeds
        self.net = task.build_net(seeds.init)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr, momentum=0.9)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x = batch.x + 0.01 * torch.randn(batch.x.shape, generator=self.seeds.noise)
        loss = F.cross_entropy(self.net(x), batch.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x) + 1e-3 * torch.randn(len(x), 10, generator=self.seeds.inference)

    def predict_noise_free(self, x: Tensor) -> Tensor:
        return self.net(x)


def claiming(**claims: Any) -> MethodInfo:
    return replace(Sound.info, claims=replace(Sound.info.claims, **claims))


class RequiredSetting(Sound):
    class Config(Settings):
        momentum: float = Field(description="without a default")


class UndescribedSetting(Sound):
    class Config(Settings):
        momentum: float = 0.9


class RefusesDigits(Sound):
    @classmethod
    def supports(cls, task: Task, device: torch.device) -> str | None:
        return "colour images only"


class GivesLabels(Sound):
    def predict(self, x: Tensor) -> Tensor:
        return self.net(x).argmax(1)


class NeedsTwoImages(Sound):
    def predict_noise_free(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(0)


class GivesNumber(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {k: float(v) for k, v in super().train_step(batch, progress).items()}


class GivesGraph(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {**super().train_step(batch, progress), "norm": next(self.net.parameters()).norm()}


class LearnsNonsense(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return super().train_step(batch._replace(y=batch.y.roll(1)), progress)


class ForgetsLayer(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self.optimizer = torch.optim.SGD(list(self.net.parameters())[1:], lr=config.lr, momentum=0.9)


class IgnoresSeed(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        fixed = Seeds(0)
        fixed.inference = seeds.inference
        super().__init__(task, config, device=device, seeds=fixed)


class DrawsFromTheMachine(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x = batch.x + 1e-3 * int.from_bytes(os.urandom(2), "big") / 2**16
        return super().train_step(batch._replace(x=x), progress)


class TrainsOnGlobalDraws(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return super().train_step(batch._replace(x=F.dropout(batch.x, 0.1)), progress)


class PredictsFromGlobalDraws(Sound):
    def predict(self, x: Tensor) -> Tensor:
        torch.manual_seed(int(torch.randint(99, (), generator=self.seeds.inference)))
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

    def predict(self, x: Tensor) -> Tensor:
        self.net.get_buffer("mean").lerp_(x.flatten(1).mean(0), 0.1)
        return super().predict(x)


class PredictsFromNoise(Sound):
    def predict(self, x: Tensor) -> Tensor:
        torch.randn(1, generator=self.seeds.noise)
        return super().predict(x)


class RemembersPredicting(Sound):
    scale = 1.0

    def predict(self, x: Tensor) -> Tensor:
        self.scale = 0.9
        return super().predict(x)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return super().train_step(batch._replace(x=self.scale * batch.x), progress)


class NeverTheSame(Sound):
    def predict(self, x: Tensor) -> Tensor:
        return self.net(x) + 1e-3 * torch.randn(len(x), 10, generator=self.hidden)

    @property
    def hidden(self) -> torch.Generator:
        generator = torch.Generator()
        generator.seed()
        return generator


class NoisyWithoutNoise(Sound):
    def predict_noise_free(self, x: Tensor) -> Tensor:
        return self.predict(x)


class HidesItsNoise(Sound):
    info = claiming(stochastic_inference=False)


class BoastsOfNoise(Sound):
    def predict(self, x: Tensor) -> Tensor:
        return self.predict_noise_free(x)


class KeepsTheLabels(Sound):
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        self._last = torch.zeros(32, 10)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self._last = F.one_hot(batch.y, 10)
        return super().train_step(batch, progress)

    def predict(self, x: Tensor) -> Tensor:
        scores = super().predict(x)
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


class RunsTwice(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.net(batch.x)
        return super().train_step(batch, progress)


class PredictsTwice(Sound):
    def predict(self, x: Tensor) -> Tensor:
        return (self.net(x) + super().predict(x)) / 2


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


# a toy, the check made for it, and those that cannot help failing with it
BROKEN: list[tuple[type[Method], str, set[str]]] = [
    (RequiredSetting, "settings", {"build"}),
    (RefusesDigits, "build", set()),
    (UndescribedSetting, "settings", set()),
    (GivesLabels, "scores", {"learns", "no-leak", "inference-noise"}),
    (NeedsTwoImages, "scores", set()),
    (GivesNumber, "metrics", {"seed", "resume", "predict", "divergence"}),
    (GivesGraph, "metrics", set()),
    (LearnsNonsense, "learns", set()),
    (ForgetsLayer, "moves", set()),
    (IgnoresSeed, "seed", set()),
    (DrawsFromTheMachine, "seed", {"resume", "predict"}),
    (TrainsOnGlobalDraws, "generator", set()),
    (PredictsFromGlobalDraws, "generator", set()),
    (ForgetsMomentum, "resume", set()),
    (SavesAnObject, "resume", set()),
    (CountsPredictions, "predict", set()),
    (PredictsFromNoise, "predict", set()),
    (RemembersPredicting, "predict", set()),
    (NeverTheSame, "inference-noise", {"seed", "resume", "predict"}),
    (NoisyWithoutNoise, "inference-noise", set()),
    (HidesItsNoise, "inference-noise", set()),
    (BoastsOfNoise, "inference-noise", set()),
    (KeepsTheLabels, "no-leak", set()),
    (ClaimsLocality, "reverse-mode", set()),
    (ClaimsToBeBackprop, "reverse-mode", set()),
    (RunsTwice, "passes", set()),
    (PredictsTwice, "passes", set()),
    (SweepsUnderTheRug, "divergence", set()),
    (StopsAtNaN, "divergence", set()),
    (KeepsGraphs, "memory", set()),
]


def test_a_sound_method_passes() -> None:
    assert {r.name: r.message for r in run_checks(Sound) if not r.ok} == {}


@pytest.mark.parametrize(("toy", "check", "also"), BROKEN, ids=[toy.__name__ for toy, _, _ in BROKEN])
def test_each_breach_is_found_and_nothing_else(toy: type[Method], check: str, also: set[str]) -> None:
    found = {r.name: r.message for r in run_checks(toy) if not r.ok}
    assert found.keys() == {check, *also}
    assert all(message and "\n" not in message for message in found.values())


def test_no_check_is_without_a_breach() -> None:
    assert {check for _, check, _ in BROKEN} == set(CHECKS)
