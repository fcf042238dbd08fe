"""DRTP: every hidden layer learns from a random image of the label, while the forward pass goes by.

Paper: Frenkel, Lefebvre, Bol 2021, "Learning without feedback: fixed random learning signals allow for feedforward
training of deep neural networks" (direct random target projection).

    delta_l = (B_l y / N) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T,    y one-hot

The output layer has its true gradient e h^T with e = (softmax - y) / N. A layer needs nothing from those behind it
and is done, its activations freed, before the next one starts. N is the batch size: hidden and output layers both
follow the mean over the batch (the authors' code divides the output's error alone). B_l is symmetric about zero, so
the sign of y is a convention. Where the signal enters, and B_l: see direct.py.
The step is AdamW's, one optimiser to a layer; normalised steps free the rule from the scale of B_l.
The signal never vanishes: weights grow as long as training lasts, and only a bounded activation (mlp with
activation=tanh) holds the scores steady.
Deviations from the paper: cross-entropy of a softmax, not of sigmoids; the net's own activation, where the paper
has tanh; that optimiser.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register

from .._shared.direct_feedback import Stage, cut, direct_feedback
from .._shared.optimizers import adamw


@register
class DRTP(Method):
    """One forward pass, in which each layer takes its step before the next one is evaluated."""

    info = MethodInfo(
        name="drtp",
        title="Direct random target projection",
        family="feedback",
        paper="frenkel2021learning",
        claims=Claims(reverse_mode="layer", updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("sequence",),
    )
    Config = AdamWSettings
    net: Net

    def __init__(self, task: Task, config: AdamWSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        self.stages = cut(self.net)
        self.feedback = nn.ParameterList(direct_feedback(self.stages, task.input, task.output.size, seeds.init))
        self.net.to(device)
        self.feedback.to(device)
        *self.optimizers, self.output_optimizer = [adamw(block.parameters(), config) for block in self.net.blocks]

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        h = x
        for stage, B, optimizer in zip(self.stages, self.feedback, self.optimizers, strict=True):
            h = _learn(stage, optimizer, h, self.objective.project(y, B) / len(y))
        logits = self.net.blocks[-1](h)
        _step(self.output_optimizer, logits, self.objective.loss_gradient(logits.detach(), y))
        return {"loss": self.objective.loss(logits.detach(), y)}

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "frozen": self.feedback}


def _learn(stage: Stage, optimizer: AdamW, h: Tensor, delta: Tensor) -> Tensor:
    """Train one hidden layer; the next one's input is all that is left of it."""
    a = stage.learn(h)
    _step(optimizer, a, delta)
    pooled: Tensor = stage.pool(a.detach())
    return pooled


def _step(optimizer: AdamW, output: Tensor, delta: Tensor) -> None:
    """One step of the layer that gave `output`, whose error there is `delta`; its graph is freed at once."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(output, delta)
    optimizer.step()
