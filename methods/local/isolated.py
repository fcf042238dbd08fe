"""What rules with gradient-isolated modules share: a net cut into modules, each with a loss of its own.

    h_k = f_k(h_{k-1}),    theta_k steps down grad L_k(h_k, y),    h_{k-1} a constant to module k

f_k are consecutive blocks of the net. The last module ends in the net's output, and its loss is the task's
objective; those before it are judged by targets with weights of their own, which step with theirs.
Module k takes its step, and its graph is freed, before module k + 1 is given the output from before that step: no layer
is evaluated twice, and what is kept for the way back is the largest module's.

schedule = simultaneous: all modules on each mini-batch; sequential: one module after another over equal parts of all
steps, those before it as they stand and those behind it not evaluated. Until the last part the net's own scores are
then those of a classifier that has not learnt: budgets that ask validation when to stop do not go with it.
The step size falls by `decay` at 50, 75, 89 and 94 % of training, or of a module's own part of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, Net, Objective, Progress, Role, Seeds

from .._shared.estimators import EstimatorSettings, claims_of, learn
from .._shared.optimizers import adamw

MILESTONES = (0.5, 0.75, 0.89, 0.94)  # of training, in the code of Nokland and Eidnes


class IsolatedSettings(EstimatorSettings, AdamWSettings):
    schedule: Literal["simultaneous", "sequential"] = Field(
        "simultaneous", description="all modules on each mini-batch, or one after another over equal parts of training"
    )
    decay: float = Field(1.0, gt=0, le=1, description="factor on lr at 50, 75, 89 and 94 % of training")


@dataclass(frozen=True)
class Module:
    """Blocks of the net, what judges their output (an output and labels to a loss), and the weights of both."""

    body: nn.Sequential
    target: nn.Module
    weights: nn.ModuleList

    def __call__(self, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and output."""
        output: Tensor = self.body(h)
        return self.target(output, y), output


class Output(nn.Module):
    """The target of the last module, whose output is the net's already."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        return self.objective.loss(out, y)


class Prediction(nn.Module):
    """The target `pred`: the objective of a head's output."""

    def __init__(self, head: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.head, self.objective = head, objective

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        return self.objective.loss(self.head(h), y)


class Isolated(Method):
    """A net of modules between which no gradient passes."""

    net: Net

    def __init__(
        self,
        net: Net,
        bodies: Sequence[nn.Sequential],
        targets: Iterable[nn.Module],
        objective: Objective,
        config: Any,
        *,
        device: torch.device,
        seeds: Seeds,
    ) -> None:
        """targets: those of all modules but the last, on the CPU as the net."""
        self.net, self.targets, self.config = net.to(device), nn.ModuleList(targets).to(device), config
        self.noise = seeds.noise
        self.isolated = [
            Module(body, target, nn.ModuleList([body, target]))
            for body, target in zip(bodies, [*self.targets, Output(objective)], strict=True)
        ]
        self.optimizers = [adamw(module.weights.parameters(), config) for module in self.isolated]

    def claims(self) -> Claims:
        alone = len(self.isolated) == 1
        claims = replace(self.info.claims, forward_passes=2 if self.config.gradient == "spsa" else 1)
        claims = claims_of(replace(claims, reverse_mode="network") if alone else claims, self.config)
        if alone:
            return replace(claims, updates_wait_for="later blocks")
        if self.config.schedule == "sequential" and claims.updates_wait_for == "earlier blocks":
            return replace(claims, updates_wait_for="earlier blocks, in sequence")
        return claims

    def phase(self, progress: Progress) -> int | None:
        """The number of the module that learns; None where all do."""
        if self.config.schedule == "simultaneous":
            return None
        return min(progress.step * len(self.isolated) // progress.total_steps, len(self.isolated) - 1)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        h, y = batch
        step, total, K = progress.step, progress.total_steps, len(self.isolated)
        k = self.phase(progress)
        if k is not None:
            with torch.no_grad():
                for module in self.isolated[:k]:
                    h = module.body(h)
            loss, _ = self._learn(k, h, y, (step * K - k * total) / total)
            return {"loss": loss}
        losses = []
        for k in range(K):
            loss, h = self._learn(k, h, y, step / total)
            losses.append(loss)
        return {"loss": losses[-1], "local_loss": torch.stack(losses).mean()}

    def _learn(self, k: int, h: Tensor, y: Tensor, done: float) -> tuple[Tensor, Tensor]:
        """One step of module k: its loss and its output. done: what part of its training lies behind it."""
        module, optimizer = self.isolated[k], self.optimizers[k]
        for group in optimizer.param_groups:
            group["lr"] = self.config.lr * self.config.decay ** sum(done >= m for m in MILESTONES)
        return learn(partial(module, h, y), module.weights, optimizer, self.config, self.noise)

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.targets}

    def blocks(self) -> list[nn.Module]:
        """The modules; the net's own blocks where one module holds them all."""
        if len(self.isolated) == 1:
            return list(self.net.blocks)
        return [module.body for module in self.isolated]


def groups(blocks: Sequence[nn.Module], K: int) -> list[nn.Sequential]:
    """The blocks in K consecutive groups, as even as can be."""
    bounds = [-(-k * len(blocks) // K) for k in range(K + 1)]
    return [nn.Sequential(*blocks[start:end]) for start, end in pairwise(bounds)]


def hidden_bodies(net: Net) -> list[nn.Sequential]:
    """Each hidden block by itself, the last one with the classifier behind it."""
    *hidden, classifier = net.blocks
    return [nn.Sequential(block) for block in hidden[:-1]] + [nn.Sequential(*hidden[-1:], classifier)]
