"""Every registered method keeps its contract; sound rules pass, and what a rule foresees is shown."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task
from bench.api.method import ANY_NET
from bench.catalog.catalog import Catalog
from bench.nets.mlp import MLP
from bench.testing import CHECKS, run_checks
from bench.testing.subject import nets_of
from tests.bench.testing.made import LearnsNonsense, Settings, Sound, claiming

CATALOG = Catalog()
IMAGE_NETS = sorted(name for name, entry in CATALOG.nets.items() if "image" in entry.load().takes)
LONG = "effect"  # a training for each value of each setting: half of a contract's time


def examinations() -> Iterator[Any]:
    """Each method on each net that it runs on; quick ones are those on its first net and a net's first."""
    seen: set[str] = set()
    for name, entry in sorted(CATALOG.methods.items()):
        cls = entry.load()
        for net in IMAGE_NETS if cls.info.nets == ANY_NET else cls.info.nets:
            quick = net == nets_of(cls)[0] or net not in seen
            seen.add(net)
            yield pytest.param(name, net, id=f"{name}-{net}", marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "net"), list(examinations()))
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_method_keeps_the_contract(name: str, net: str) -> None:
    results = list(run_checks(CATALOG.methods[name].load(), CATALOG.nets[net].load(), without=[LONG]))
    assert {r.name: r.message for r in results if not r.is_fine} == {}
    assert [r.name for r in results] == [check for check in CHECKS if check != LONG]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "net"), [pytest.param(*of.values, id=of.id) for of in examinations()])
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_every_setting_of_a_method_has_an_effect(name: str, net: str) -> None:
    others = [check for check in CHECKS if check not in (LONG, "build")]
    results = list(run_checks(CATALOG.methods[name].load(), CATALOG.nets[net].load(), without=others))
    assert {r.name: r.message for r in results if not r.is_fine} == {}


class DrawsNothing(Method):
    """A linear classifier from zero: legitimate, and the same for every seed."""

    info = MethodInfo("draws-nothing", "Draws nothing", "toy", "", Claims(reverse_mode="layer", deterministic=True))
    Config = Settings

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__()
        self.lr, self.readout = config.lr, torch.nn.Linear(task.input.n_features, task.output.size)
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
        k = self.phase(progress)
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

    def phase(self, progress: Progress) -> int:
        return progress.epoch % len(self.net.blocks)

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
