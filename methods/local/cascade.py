"""Cascade: train the classifier first, then freeze it and train what feeds it anew, from the upper layers downwards.

Paper: Zhang, Do, Doddipatla, Loweimi, Bell, Renals 2021, "Train your classifier first: cascade neural networks training
from upper layers to lower layers", arXiv 2102.04697. For a net cut into groups of blocks g_1 (at the images) .. g_K:

    stage 1        g_1 .. g_K           step down grad CE(net(x), y)
    stage k > 1    g_1 .. g_{K-k+1}     are drawn anew and step down the same loss; those above stay as they stand

Stages take equal parts of all steps. The first starts as backprop does. A drawing takes the law of the net's first
weights, and every stage begins with an AdamW without memory; frozen weights have none, and do not decay.

The error goes back through the frozen layers to those that learn: this is backprop in another order, and neither
reverse mode's reach nor weight transport ends before the first block. No test of locality applies. Weight gradients are
computed for the layers that learn alone. Accuracy falls at every drawing: budgets that ask validation when to stop do
not go with it.

Deviations from the paper: a stage ends after its part of the budget, not when it has converged, and hands on its last
weights, not the best ones; image classifiers in place of recurrent nets and transformers of speech and text.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bench import AdamWSettings, Batch, Claims, Facts, Method, MethodInfo, Net, Progress, Seeds, Task, register
from bench.api.errors import ConfigError

from .._shared.optimizers import adamw
from .isolated import groups


class CascadeSettings(AdamWSettings):
    stages: int | None = Field(None, ge=1, description="stages, the net cut as evenly as can be; none: one a block")


@register
class Cascade(Method):
    """One forward and one backward pass through the whole net, for fewer and fewer layers that learn."""

    info = MethodInfo(
        name="cascade",
        title="Cascade (classifier first)",
        family="local",
        paper="zhang2021train",
        claims=Claims(reverse_mode="network", weight_transport=True, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("sequence",),
    )
    Config = CascadeSettings
    net: Net

    def __init__(self, task: Task, config: CascadeSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.task, self.init = task, seeds.init
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device)
        sizes = [len(group) for group in groups(list(self.net.blocks), config.stages or len(self.net.blocks))]
        self.learning = [sum(sizes[:k]) for k in range(len(sizes), 0, -1)]  # blocks from below, in each stage
        self.stage = torch.zeros((), dtype=torch.int64)  # on the CPU: to look at it is no synchronisation
        self.optimizer = adamw(self.net.parameters(), config)

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if reason := super().refuse(task, config, facts):
            return reason
        blocks = len(task.sketch().blocks)
        if config.stages is not None and config.stages > blocks:
            raise ConfigError(f"cascade: stages={config.stages}, but the net has {blocks} blocks")
        return None

    def phase(self, progress: Progress) -> int:
        """The stage."""
        K = len(self.learning)
        return min(progress.step * K // progress.total_steps, K - 1)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        stage = self.phase(progress)
        learning = self.net.blocks[: self.learning[stage]]
        if stage > int(self.stage):
            self.stage.fill_(stage)
            self._begin_anew(self.learning[stage])
        loss = self.objective.loss(self.net(batch.x), batch.y)
        torch.autograd.backward(loss, inputs=list(learning.parameters()))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.detach()}

    def _begin_anew(self, n: int) -> None:
        """Draw the first n blocks anew, and forget the moments of all."""
        drawn = self.task.build_net(self.init)
        self.net.blocks[:n].load_state_dict(drawn.blocks[:n].state_dict())
        self.optimizer.state.clear()
