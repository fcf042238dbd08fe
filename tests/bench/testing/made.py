"""A sound method, of which tests break one thing at a time."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task


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
        loss = self.loss(self.net(x), batch.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(scores, y)

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        scores = self.net(x)
        return scores if noise is None else scores + 1e-3 * torch.randn(len(x), 10, generator=noise)


def claiming(**claims: Any) -> MethodInfo:
    return replace(Sound.info, claims=replace(Sound.info.claims, **claims))


class LearnsNonsense(Sound):
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return super().train_step(batch._replace(y=batch.y.roll(1)), progress)
