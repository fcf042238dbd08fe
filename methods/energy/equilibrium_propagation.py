"""Equilibrium propagation: a net with symmetric weights relaxes freely, then nudged, and learns the difference.

Papers: Scellier, Bengio 2017, "Equilibrium propagation: bridging the gap between energy-based models and
backpropagation"; Ernoult et al. 2019, "Updates of equilibrium prop match gradients of backprop through time in an RNN
with static input" (the primitive function); Laborieux et al. 2021, "Scaling equilibrium propagation to deep ConvNets by
drastically reducing its gradient estimator bias" (signs of beta, softmax read-out). For states s_1..s_L, s_0 the image:

    Phi = sum_l s_l . (W_l s_{l-1} + b_l),    s <- sigma(dPhi/ds - beta dl/ds),    sigma(a) = (1 + hardtanh(a - 1)) / 2
    l   = 1/2 |s_L - y|^2   (mse)   or   -y . log softmax(W_out s_{L-1} + b_out)   (ce: the last layer is a read-out)

sigma is a / 2 clipped to [0, 1]: a fixed point is one of projected descent of E + beta l with E = |s|^2 - Phi. From
s = 0 the free phase takes `free_steps` steps to s^0, `nudged_steps` with beta lead from there to s^beta. N images give

    one-sided       grad = -(dPhi(s^beta) - dPhi(s^0)) / (beta N)                  off by O(beta)
    random-sign     the same with beta or -beta, one draw a mini-batch             O(beta), in the mean O(beta^2)
    centred         grad = -(dPhi(s^beta) - dPhi(s^-beta)) / (2 beta N)            O(beta^2), for one more nudged phase

from the gradient of l at the free fixed point; dPhi is by weights, for the read-out that of Phi - beta l. Steps are of
all layers at once (synchronous) or of odd layers and then of even ones (asynchronous: no step raises E). A prediction
is a free phase, and its scores are W_L s_{L-1} + b_L, which with mse sigma makes s_L of.

The weights are those of the mlp's linear layers, used both ways; its activation is not used, for sigma is what bounds
the states. Other nets are refused: pooling would have to be part of Phi.
Deviations from the papers: the step is AdamW's with one step size for all layers; weights start by torch's law.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench import (
    AdamWSettings,
    Batch,
    Claims,
    Facts,
    Method,
    MethodInfo,
    Net,
    Progress,
    Seeds,
    Task,
    register,
    step_size,
)
from bench.api.artifact import Artifact, Lines
from bench.api.structure import is_flat
from bench.objectives.cross_entropy import CrossEntropy
from bench.objectives.mean_squared_error import MeanSquaredError

from .._shared.bilinear import hand_over
from .._shared.directions import draw
from .._shared.optimizers import adamw
from .hopfield import HopfieldSettings, Relaxation
from .layers import Chain


class EquilibriumPropagationSettings(HopfieldSettings, AdamWSettings):
    estimator: Literal["one-sided", "random-sign", "centred"] = Field(
        "centred", description="nudged towards the label, there or away by chance, or both"
    )
    lr: float = step_size(3e-3)
    beta: float = Field(1.0, gt=0, lt=2, description="nudging", json_schema_extra={"search": ["log", 1e-2, 1e0]})
    free_steps: int = Field(
        15, ge=1, description="steps of the free phase", json_schema_extra={"search": ["choice", 15, 30, 60]}
    )
    nudged_steps: int = Field(
        5, ge=1, description="steps of a nudged phase", json_schema_extra={"search": ["choice", 5, 10, 15]}
    )


@register
class EquilibriumPropagation(Method):
    """A free phase, one or two nudged ones, and the difference of products of neighbouring states."""

    info = MethodInfo(
        name="equilibrium-propagation",
        title="Equilibrium propagation",
        family="energy",
        paper="scellier2017equilibrium, ernoult2019updates, laborieux2021scaling",
        claims=Claims(reverse_mode="none", weight_transport=True, updates_wait_for="later blocks"),
        nets=("mlp",),
        outputs=("classes", "class probabilities", "values"),
        needs=("chain", "hidden"),
    )
    Config = EquilibriumPropagationSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if config.loss == "ce" and task.output.kind == "values":
            return "loss=ce is of classes; values need loss=mse"
        if reason := super().refuse(task, config, facts):
            return reason
        return (
            None if is_flat(task.sketch()) else f"equilibrium propagation relaxes vectors, not maps of {task.net.name}"
        )

    def __init__(
        self, task: Task, config: EquilibriumPropagationSettings, *, device: torch.device, seeds: Seeds
    ) -> None:
        self.config, self.noise = config, seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        self.chain = Chain(self.net, task.input)
        self.net.to(device)
        self.optimizer = adamw(self.net.parameters(), config)
        self.relaxation: Relaxation | None = None

    def claims(self) -> Claims:
        config, phases = self.config, 2 if self.config.estimator == "centred" else 1
        relaxed, read = config.free_steps + phases * config.nudged_steps, 1 + phases * (config.nudged_steps + 1)
        if config.loss == "mse":  # the last layer relaxes and gives the scores as well
            return replace(self.info.claims, forward_passes=relaxed, inference_passes=config.free_steps + 1)
        deep = len(self.chain.layers) > 2  # else no layer that relaxes is given what moves
        return replace(
            self.info.claims,
            forward_passes=max(relaxed, read) if deep else read,
            inference_passes=config.free_steps if deep else 1,
        )

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, config = batch.x, self.config
        y = self.objective.embed(batch.y).to(x)
        relaxation = self._relaxation(x)
        relaxation.start(x)
        relaxation.run(config.free_steps)
        loss = self._loss(relaxation, batch.y)
        beta = torch.full((), config.beta, dtype=x.dtype, device=x.device)
        if config.estimator == "random-sign":
            beta *= draw((1,), x, "rademacher", self.noise)[0]
        relaxation.keep()
        relaxation.run(config.nudged_steps, (y, beta / 2))
        readout = relaxation.readout_gradient(y)
        if config.estimator == "centred":
            relaxation.swap()
            relaxation.run(config.nudged_steps, (y, -beta / 2))
            readout = {p: (g + readout[p]) / 2 for p, g in relaxation.readout_gradient(y).items()}
            beta = -2 * beta  # what the last states differ by from those kept
        hand_over(relaxation.gradient(x, beta) | readout)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss}

    def _loss(self, relaxation: Relaxation, y: Tensor) -> Tensor:
        if self.config.loss == "ce":
            return CrossEntropy(self.objective.output).loss(relaxation.read(), y)
        return MeanSquaredError(self.objective.output).loss(relaxation.s[-1], y)

    def _relaxation(self, x: Tensor) -> Relaxation:
        """With memory for these images; kept from step to step."""
        kept = self.relaxation
        if kept is None or kept.n != len(x) or kept.flat.dtype != x.dtype:
            self.relaxation = kept = Relaxation(self.chain, self.config, x)
        return kept

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        relaxation = Relaxation(self.chain, self.config, x)
        relaxation.start(x)
        relaxation.run(self.config.free_steps)
        return relaxation.read()

    def compile(self) -> None:
        """Nothing: what a step spends its time in are products in given memory."""

    @torch.no_grad()
    def artifacts(self, shown: Batch, noise: torch.Generator) -> Iterator[Artifact]:
        x, config = shown.x, self.config
        relaxation, energies = Relaxation(self.chain, config, x), list[Tensor]()
        nudge = self.objective.embed(shown.y).to(x), torch.full_like(x[0, 0, 0, 0], config.beta / 2)
        relaxation.start(x)
        for t in range(config.free_steps + config.nudged_steps):
            relaxation.run(1, nudge if t >= config.free_steps else None)
            energies.append(relaxation.energies(x))
        yield Lines(
            "phase-energies",
            "Energy of each layer in the free and then in the nudged phase, mean over a few held-out images.",
            "step",
            torch.arange(1, len(energies) + 1),
            torch.stack(energies, 1).unsqueeze(0),
            panels=("energy",),
            lines=tuple(f"layer {k + 1}" for k in range(len(relaxation.s))),
        )
