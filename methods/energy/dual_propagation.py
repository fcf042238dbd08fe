"""Dual propagation: each unit has two states, whose mean goes up and whose difference goes down.

Papers: Hoier, Staudt, Zach 2023, "Dual propagation: accelerating contrastive Hebbian learning with dyadic neurons"
(form=original); Hoier, Kalinin, Ernoult, Zach 2024, "Two tales of single-phase contrastive Hebbian learning"
(form=adversarial). For layers l = 1..L with x_0 the input, weights W_l, b_l, and an example's loss ell:

    mean x_l = alpha p_l + (1 - alpha) m_l,     difference d_l = p_l - m_l,     a_l = W_l x_{l-1} + b_l
    p_l = s(a_l + up V_l),     m_l = s(a_l - down V_l),     V_l = W_{l+1}^T d_{l+1}
    d_L = -beta grad ell(a_L)
    grad W_l = -1/(beta N) sum d_l x_{l-1}^T

    adversarial   up = 1 - alpha,  down = alpha        the mean stays s(a_l) to first order in beta, at every alpha
    original      up = alpha,      down = 1 - alpha    the mean moves by (2 alpha - 1) s' V_l

At alpha = 1/2 the two are the same. States start at the forward pass. A sweep takes layers from the output down, each
with the difference above and the mean below; with beta -> 0 one sweep gives backprop's gradient, as d_l / beta is a
finite difference of s along it. On linear layers the adversarial form gives that gradient at every beta, alpha and
number of sweeps. Behind a convolution max-pooling is part of the map: a_l = P(W_l x_{l-1} + b_l), V_l goes back to the
maxima (ReLU and tanh never decrease, so pooling may stand before them).

Deviations from the papers: the loss is linearised at the output, in place of a nudged minimisation, so that any
objective serves; the step is AdamW's, as in backprop here; a sweep of the papers' code begins below, which the forward
pass of the start stands for.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench import AdamWSettings, Batch, Claims, Facts, Method, MethodInfo, Net, Progress, Seeds, Task, register

from .._shared.bilinear import hand_over
from .._shared.optimizers import adamw
from .coding import ACTIVATIONS
from .layers import Chain, Memory, unknown_activation


class DualPropagationSettings(AdamWSettings):
    form: Literal["adversarial", "original"] = Field(
        "adversarial", description="which of the two states is nudged by alpha, which by 1 - alpha"
    )
    alpha: float = Field(
        0.5,
        ge=0,
        le=1,
        description="weight of the first state in the mean",
        json_schema_extra={"search": ["choice", 0.0, 0.5, 1.0]},
    )
    beta: float = Field(
        0.1, gt=0, description="nudging of the output", json_schema_extra={"search": ["log", 1e-2, 1e0]}
    )
    sweeps: int = Field(1, ge=1, description="sweeps over all layers, from the output down")


@register
class DualPropagation(Method):
    """A forward pass, sweeps of pairs of states from the output down, and products of difference and mean."""

    info = MethodInfo(
        name="dual-propagation",
        title="Dual propagation",
        family="energy",
        paper="hoier2023dual, hoier2024two",
        claims=Claims(reverse_mode="none", weight_transport=True, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("chain", "hidden"),
    )
    Config = DualPropagationSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        return super().refuse(task, config, facts) or unknown_activation(task.sketch(), ACTIVATIONS)

    def __init__(self, task: Task, config: DualPropagationSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.objective = config, task.objective
        self.net = task.build_net(seeds.init)
        self.chain = Chain(self.net, task.input)
        self.net.to(device)
        self.optimizer = adamw(self.net.parameters(), config)
        self.pairs: Pairs | None = None

    def claims(self) -> Claims:
        return replace(self.info.claims, forward_passes=self.config.sweeps)

    def inert(self) -> Mapping[str, str]:
        return {"form": "both forms are the same at alpha=0.5"} if self.config.alpha == 0.5 else {}

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        pairs, beta = self._pairs(x), self.config.beta
        out = pairs.start(x)
        loss = self.objective.loss(out, y)
        for sweep in range(self.config.sweeps):
            if sweep:
                pairs.predict()
            torch.mul(self.objective.output_gradient(out, y), -beta, out=pairs.d.parts[-1])
            pairs.descend()
        hand_over(pairs.gradient(x, -1 / (beta * len(x))))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss}

    def _pairs(self, x: Tensor) -> "Pairs":
        """With memory for inputs of this size; kept from step to step."""
        kept = self.pairs
        if kept is None or kept.n != len(x) or kept.a.flat.dtype != x.dtype:
            self.pairs = kept = Pairs(self.chain, self.config, x)
        return kept

    def compile(self) -> None:
        """Nothing: what a step spends its time in are products in given memory."""


class Pairs:
    """Means and differences of all layers for a mini-batch like x. Layer l = 1..L has index l - 1."""

    def __init__(self, chain: Chain, config: DualPropagationSettings, x: Tensor) -> None:
        self.layers, self.n, self.alpha = chain.layers, len(x), config.alpha
        self.activate = ACTIVATIONS[chain.activation]
        adversarial = config.form == "adversarial"
        self.up, self.down = (1 - self.alpha, self.alpha) if adversarial else (self.alpha, 1 - self.alpha)
        self.a, self.d = (Memory(chain.shapes, self.n, x) for _ in range(2))
        self.x = Memory(chain.shapes[:-1], self.n, x)

    def start(self, x: Tensor) -> Tensor:
        """The forward pass; the output, which `predict` overwrites."""
        for k, layer in enumerate(self.layers):
            a = self.a.parts[k]
            layer.forward(x if k == 0 else self.x.parts[k - 1], a)
            if k < len(self.x.parts):
                self.activate(self.x.parts[k].copy_(a))
        return self.a.parts[-1]

    def predict(self) -> None:
        """a_l of all means as they are now; that of the first layer rests with the input."""
        for layer, x, a in zip(self.layers[1:], self.x.parts, self.a.parts[1:], strict=True):
            layer.forward(x, a)

    def descend(self) -> None:
        """Both states of all hidden layers, from the last one down, for the difference at the output."""
        for k in reversed(range(len(self.x.parts))):
            a, mean, difference = self.a.parts[k], self.x.parts[k], self.d.parts[k]
            self.layers[k + 1].transposed(self.d.parts[k + 1], mean, keep=0)
            plus = self.activate(torch.add(a, mean, alpha=self.up))
            minus = self.activate(torch.sub(a, mean, alpha=self.down))
            torch.sub(plus, minus, out=difference)
            torch.add(minus, difference, alpha=self.alpha, out=mean)

    def gradient(self, x: Tensor, scale: float) -> dict[Tensor, Tensor]:
        """Sum of products of difference and mean, times scale, by weight."""
        self.d.flat.mul_(scale)
        gradient: dict[Tensor, Tensor] = {}
        for layer, below, d in zip(self.layers, [x, *self.x.parts], self.d.parts, strict=True):
            gradient |= layer.gradient(below, d)
        return gradient
