"""Every registered method keeps the contract, and every clause of it can be broken."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task
from bench.api.method import ANY_NET
from bench.api.task import Facts
from bench.catalog.catalog import Catalog
from bench.nets.mlp import MLP
from bench.testing import CHECKS, run_checks, run_dataset_checks, run_net_checks
from bench.testing.subject import default_net

CATALOG = Catalog()


def examinations() -> Iterator[Any]:
    """Each method on each net that it runs on; quick ones are those on its first net and a net's first."""
    seen: set[str] = set()
    for name, entry in sorted(CATALOG.methods.items()):
        cls = entry.load()
        for net in sorted(CATALOG.nets) if cls.info.nets == ANY_NET else cls.info.nets:
            quick = net == default_net(cls) or net not in seen
            seen.add(net)
            yield pytest.param(name, net, id=f"{name}-{net}", marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "net"), list(examinations()))
def test_method_keeps_the_contract(name: str, net: str) -> None:
    results = list(run_checks(CATALOG.methods[name].load(), CATALOG.nets[net].load()))
    assert {r.name: r.message for r in results if not r.is_fine} == {}
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
        Claims(reverse_mode="network", weight_transport=True, stochastic_inference=True),
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

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        scores = self.net(x)
        return scores if noise is None else scores + 1e-3 * torch.randn(len(x), 10, generator=noise)


def claiming(**claims: Any) -> MethodInfo:
    return replace(Sound.info, claims=replace(Sound.info.claims, **claims))


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


class LearnsNonsense(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return super().train_step(batch._replace(y=batch.y.roll(1)), progress)


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

    def cut_batches(self, parts: int) -> str | None:
        self.parts = parts
        return None

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x = batch.x + 0.01 * torch.randn(batch.x.shape, generator=self.seeds.noise)
        each = zip(self.net(x).chunk(self.parts), batch.y.chunk(self.parts), strict=True)
        loss = torch.stack([F.cross_entropy(scores, y) for scores, y in each]).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}


# a toy, the check made for it, and those that cannot help failing with it
BROKEN: list[tuple[type[Method], str, set[str]]] = [
    (RequiredSetting, "settings", {"build"}),
    (RefusesDigits, "build", set()),
    (UndescribedSetting, "settings", set()),
    (UnsearchableSetting, "settings", set()),
    (GivesLabels, "scores", {"learns", "no-leak", "inference-noise"}),
    (NeedsTwoImages, "scores", set()),
    (GivesNumber, "metrics", set()),
    (GivesGraph, "metrics", set()),
    (LearnsNonsense, "learns", set()),
    (ForgetsLayer, "moves", set()),
    (IgnoresSeed, "seed", set()),
    (DrawsFromTheMachine, "seed", {"resume", "predict"}),
    (TrainsOnGlobalDraws, "generator", set()),
    (PredictsFromGlobalDraws, "generator", set()),
    (ForgetsMomentum, "resume", {"weight-transport"}),
    (SavesAnObject, "resume", {"weight-transport"}),
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
]


def test_a_sound_method_passes() -> None:
    assert {r.name: r.message for r in run_checks(Sound, MLP) if not r.ok} == {}


@pytest.mark.parametrize(("toy", "check", "also"), BROKEN, ids=[toy.__name__ for toy, _, _ in BROKEN])
def test_each_breach_is_found_and_nothing_else(toy: type[Method], check: str, also: set[str]) -> None:
    found = {r.name: r.message for r in run_checks(toy, MLP) if not r.ok}
    assert found.keys() == {check, *also}
    assert all(message and "\n" not in message for message in found.values())


def test_no_check_is_without_a_breach() -> None:
    assert {check for _, check, _ in BROKEN} == set(CHECKS)


class DrawsNothing(Method):
    """A linear classifier from zero: legitimate, and the same for every seed."""

    info = MethodInfo("draws-nothing", "Draws nothing", "toy", "", Claims(reverse_mode="layer", deterministic=True))
    Config = Settings

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__()
        self.lr, self.readout = config.lr, torch.nn.Linear(task.n_features, task.n_classes)
        for p in self.readout.parameters():
            torch.nn.init.zeros_(p)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        loss = F.cross_entropy(self.readout(batch.x.flatten(1)), batch.y)
        parameters = list(self.readout.parameters())
        with torch.no_grad():
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p -= self.lr * g
        return {"loss": loss.detach()}

    @torch.no_grad()
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.readout(x.flatten(1))


class OneBlockAPass(Sound):
    """Trains one layer in each pass over the data, as Algorithm 1 of NoProp trains its blocks."""

    info = claiming(reverse_mode="layer", weight_transport=False)
    Config = Settings

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__(task, config, device=device, seeds=seeds)
        hidden = self.net.blocks[:-1]
        self.heads = torch.nn.ModuleList(torch.nn.Linear(32, 10, device="meta").to_empty(device="cpu") for _ in hidden)
        for p in self.heads.parameters():
            torch.nn.init.normal_(p, std=0.1, generator=seeds.init)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        k = progress.data_pass % len(self.net.blocks)
        with torch.no_grad():
            h = batch.x
            for block in self.net.blocks[:k]:
                h = block(h)
        out = self.net.blocks[k](h)
        loss = F.cross_entropy(out if k == len(self.heads) else out @ self.heads[k].weight.detach().T, batch.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def modules(self) -> Mapping[Any, torch.nn.Module]:
        return {"inference": self.net, "frozen": self.heads}


@pytest.mark.parametrize("legitimate", [DrawsNothing, OneBlockAPass])
def test_legitimate_rules_are_not_rejected(legitimate: type[Method]) -> None:
    assert {r.name: r.message for r in run_checks(legitimate, MLP) if not r.ok} == {}


@pytest.mark.parametrize("arguments", [(), (1, "two")])
def test_the_base_class_can_be_initialised_however_one_likes(arguments: tuple[object, ...]) -> None:
    class Calls(Sound):
        def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
            Method.__init__(self, *arguments)
            super().__init__(task, config, device=device, seeds=seeds)

    assert next(iter(run_checks(Calls, MLP))).ok
    assert [r.name for r in run_checks(Calls, MLP) if not r.ok] == []


def test_an_expected_failure_is_shown_with_its_reason_and_is_fine() -> None:
    class Foreseen(LearnsNonsense):
        expected_failures = {"learns": "it is meant to show what nonsense does"}  # noqa: RUF012

    (found,) = [r for r in run_checks(Foreseen, MLP) if not r.ok]
    assert (found.name, found.expected) == ("learns", "it is meant to show what nonsense does")
    assert found.message
    assert found.is_fine


def test_an_expectation_that_is_out_of_date_is_not_fine() -> None:
    class Outgrown(Sound):
        expected_failures = {"learns": "long ago"}  # noqa: RUF012

    (found,) = [r for r in run_checks(Outgrown, MLP) if not r.is_fine]
    assert found.name == "learns"
    assert "passes, though a failure is expected: long ago" in found.message


def test_an_expectation_of_an_unknown_check_is_told() -> None:
    class Misspelt(Sound):
        expected_failures = {"lerns": "?"}  # noqa: RUF012

    (_, build) = list(run_checks(Misspelt, MLP))
    assert build.message == "expected_failures names no such check: lerns"


@pytest.mark.parametrize("name", sorted(CATALOG.nets))
def test_every_net_keeps_its_contract(name: str) -> None:
    assert {r.name: r.message for r in run_net_checks(CATALOG.nets[name].load()) if not r.ok} == {}


def test_a_net_that_breaks_its_contract_is_told() -> None:
    class Drawn(MLP):
        def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
            return super().forward(x) + torch.randn(1)

    assert {r.name: r.message for r in run_net_checks(Drawn) if not r.ok} == {
        "scores": "two calls without noise differ"
    }


def test_a_data_set_keeps_its_contract_or_is_told(tmp_path: Path) -> None:
    digits = CATALOG.dataset("digits")
    assert all(r.ok for r in run_dataset_checks(digits, tmp_path))
    digits.info = replace(digits.info, n_train=1000)  # type: ignore[misc]
    (found,) = run_dataset_checks(digits, tmp_path)
    assert found.message == "its card says n_train=1000, read were 1437"
