"""Forward target propagation: label and answer, sent to the first layer, make a target for it that travels forward.

Paper: As-Saquib, Abeer, Chien, Yoon, Kumar, Yi 2025, "Forward Target Propagation: A forward-only approach to global
error credit assignment via local losses", arXiv 2506.11030. For hidden layers l = 1 .. L-1 and one-hot labels y:

    first pass     h_l = f_l(h_{l-1}) = sigma(W_l h_{l-1}),  h_0 = x;      yhat = softmax of the last layer
    targets        tau_1 = h_1 + gamma (tanh(G y) - tanh(G yhat))
    second pass    tau_l = f_l(tau_{l-1})
    hidden layers  step down 1/(2N) sum |h_l - tau_l|^2,    h_{l-1} and tau_l constants:
                   grad W_l = 1/N sum ((h_l - tau_l) * sigma'(a_l)) h_{l-1}^T
    last layer     steps down the cross-entropy, h_{L-1} a constant

PEPITA's kin: there the error enters at the image, and what is learnt on is the activity of the second pass. While G is
small the first layer's step is that of direct feedback alignment, h_1 - tau_1 = gamma G (yhat - y). Errors go back by
the matrix G alone, reverse mode stays within a layer.

G ~ U(-1, 1) / sqrt(n_1) for n_1 units is drawn once. Convolution: h_l is the map behind the activation, before pooling,
and G has a row for each unit at each position.
Deviations from the paper: tanh stands where it has the net's own sigma. The difference of two ReLUs is positive on
average whatever the label, for an answer mixes classes, and drives activities up until nothing is learnt. AdamW, as
backprop's here, so that gamma is no step size. That the last layer has its cross-entropy, and the law of G, are choices
of this file. One hidden layer needs no second pass.
The paper has MLPs. On the suite's cnn the rule fails, and why is measured: ReLU is convex, so that f_l of a target that
is h plus something of mean 0 lies above f_l(h) on average; positions share weights, along which this adds up while what
tells classes apart averages out. From the second block on activities grow 10,000-fold in 300 steps of 1e-3 (digits).
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register

from .._shared.direct_feedback import cut, direct_feedback
from .._shared.optimizers import adamw


class ForwardTargetPropagationSettings(AdamWSettings):
    gamma: float = Field(
        1.0,
        gt=0,
        description="how far the first target is from the activity",
        json_schema_extra={"search": ["log", 1e-2, 1e1]},
    )


@register
class ForwardTargetPropagation(Method):
    """Two forward passes, then every layer's own gradient, each by itself."""

    info = MethodInfo(
        name="forward-target-propagation",
        title="Forward target propagation",
        family="target",
        paper="assaquib2025forward",
        claims=Claims(reverse_mode="layer", forward_passes=2, updates_wait_for="the output"),
        nets=("mlp", "cnn"),
        needs=("sequence",),
    )
    Config = ForwardTargetPropagationSettings
    net: Net

    def __init__(
        self, task: Task, config: ForwardTargetPropagationSettings, *, device: torch.device, seeds: Seeds
    ) -> None:
        self.config = config
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        self.stages = cut(self.net)
        self.feedback = nn.ParameterList(direct_feedback(self.stages[:1], task.input, task.output.size, seeds.init))
        self.net.to(device)
        self.feedback.to(device)
        self.optimizer = adamw(self.net.parameters(), config)

    def claims(self) -> Claims:
        return self.info.claims if len(self.stages) > 1 else replace(self.info.claims, forward_passes=1)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        h, hidden = x, list[Tensor]()
        for stage in self.stages:
            hidden.append(stage.learn(h))
            h = stage.pool(hidden[-1].detach())
        logits = self.net.blocks[-1](h)
        targets = self._targets(hidden, logits, y)
        pulls = [(a.detach() - tau).div_(len(y)) for a, tau in zip(hidden, targets, strict=True)]
        torch.autograd.backward([*hidden, logits], [*pulls, self.objective.loss_gradient(logits.detach(), y)])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": self.objective.loss(logits.detach(), y)}

    @torch.no_grad()
    def _targets(self, hidden: list[Tensor], logits: Tensor, y: Tensor) -> list[Tensor]:
        """tau_l. Shape: h_l, logits (N, C), y (N,) to as many as h_l, shaped as they are."""
        if not hidden:
            return []
        (G,) = self.feedback
        answer = torch.einsum("nc,c...->n...", logits.softmax(1), G)
        targets = [hidden[0].add(G.tanh()[y].sub_(answer.tanh_()), alpha=self.config.gamma)]
        for below, stage in pairwise(self.stages):
            targets.append(stage.learn(below.pool(targets[-1])))
        return targets

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "frozen": self.feedback}
