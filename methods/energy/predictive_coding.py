"""Predictive coding: states of all layers relax to a compromise between neighbours; each layer learns the error left.

Papers: Whittington, Bogacz 2017, "An approximation of the error backpropagation algorithm in a predictive coding
network with local Hebbian synaptic plasticity"; Salvatori et al. 2024, "A stable, fast, and fully automatic learning
algorithm for predictive coding networks" (iPC, learning=incremental); Pinchetti et al. 2025, "Benchmarking predictive
coding networks - made simple" (nudging); Millidge, Tschantz, Buckley 2022, "Predictive coding approximates backprop
along arbitrary computation graphs" (prediction=fixed). For layers l = 1..L with states x_l, x_0 the image, x_L = h:

    E = sum_{l<L} 1/2 |e_l|^2 + E_L,     e_l = x_l - mu_l,      mu_l = f_l(x_{l-1}) = s(W_l x_{l-1} + b_l)
    E_L = 1/2 |h - mu_L|^2  or  -h . log softmax(mu_L)
    x_l <- x_l - eta v_l,      v_l <- m v_l + dE/dx_l,      dE/dx_l = e_l - W_{l+1}^T d_{l+1},      d_l = e_l s'(mu_l)
    grad W_l = -1/(beta N) sum d_l x_{l-1}^T

Predictions are s(W x + b), as in PCX: a state is what a layer gives, and s' stands at the layer's own pre-activation.
Whittington and Bogacz predict W f(x) + b: there a state is a pre-activation, and f' stands at the state below.
States start at the forward pass, x_l = mu_l, and relax at once, for `steps` steps. The weights step at the last state
(equilibrium), or with every step of the states, from the same state as these (incremental). d_L is h - mu_L or
h - softmax(mu_L); h is the one-hot label y where the output is clamped (beta = 1). Nudged, with u = mu_L or its softmax
as it is at the start, -beta for beta where nudged away, and the two in turn, a mini-batch each, where centred:

    nudge=target    h = u - beta (u - y)
    nudge=energy    h = y,  beta E_L for E_L  (Millidge et al. 2023, "Backpropagation at the infinitesimal inference
                    limit of energy-based models")

With prediction=fixed mu_l, s' and the input of a layer's gradient stay those of the forward pass; e_l then relaxes to
minus backprop's gradient of E_L by x_l: in L - 1 steps, exactly, with eta = 1, m = 0. With moving predictions the
fixed point's gradient is backprop's up to O(beta) with nudge=energy, and the mean of both signs up to O(beta^2). With
nudge=target it is not: states take over a part of the error. In place of y - u the limit passes back
(1 + H sum_{l<L} J_l J_l^T)^-1 (y - u), J_l = dmu_L/dx_l, H the Jacobian of u by mu_L.

Deviations from the papers: the step is AdamW's with a constant step size (PCX: warm-up and cosine); centred changes its
sign with each mini-batch (PCX: with epochs, by a table); the target of cross-entropy is moved as a softmax. For pooling
see layers.py. Without momentum a state moves by x + eta (mu - x) first, which is x to the last bit where x = mu: a
layer that no error has reached keeps a gradient of exactly 0, of whose rounding AdamW would make whole steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench import AdamWSettings, Batch, Claims, Facts, Method, MethodInfo, Net, Progress, Seeds, Task, register
from bench.api.artifact import Artifact, Lines
from bench.api.errors import ConfigError

from .._shared.bilinear import hand_over
from .._shared.optimizers import adamw
from .coding import DERIVATIVES, CodingSettings, Relaxation
from .layers import Chain, unknown_activation


class PredictiveCodingSettings(CodingSettings, AdamWSettings):
    learning: Literal["equilibrium", "incremental"] = Field(
        "equilibrium", description="weights step after the relaxation, or with every step of it (iPC)"
    )
    output: Literal["clamped", "positive", "negative", "centred"] = Field(
        "clamped", description="the output is the label, or nudged towards it, away from it, or both in turn"
    )
    beta: float = Field(
        0.5, gt=0, le=1, description="part of the way that nudging goes", json_schema_extra={"search": ["log", 1e-2, 1]}
    )
    steps: int = Field(
        8, ge=1, description="steps of a relaxation", json_schema_extra={"search": ["choice", 4, 8, 16, 32]}
    )


@register
class PredictiveCoding(Method):
    """A forward pass, `steps` steps of all states at once, and the product of error and input for each layer."""

    info = MethodInfo(
        name="predictive-coding",
        title="Predictive coding",
        family="energy",
        paper="whittington2017approximation, salvatori2024stable, pinchetti2025benchmarking, "
        "millidge2022predictive, millidge2023backpropagation",
        claims=Claims(reverse_mode="none", weight_transport=True, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("chain", "hidden"),
    )
    Config = PredictiveCodingSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if config.prediction == "fixed" and config.learning == "incremental":
            raise ConfigError(
                "predictive-coding: prediction=fixed is of one forward pass; it needs learning=equilibrium"
            )
        if config.energy == "cross-entropy" and task.output.kind == "values":
            return "energy=cross-entropy is of classes; values need energy=squared-error"
        return super().refuse(task, config, facts) or unknown_activation(task.sketch(), DERIVATIVES)

    def __init__(self, task: Task, config: PredictiveCodingSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config = config
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        self.chain = Chain(self.net, task.input)
        self.net.to(device)
        self.optimizer = adamw(self.net.parameters(), config)
        self.relaxation: Relaxation | None = None

    def claims(self) -> Claims:
        T, moving = self.config.steps, self.config.prediction == "moving"
        passes = T if self.config.learning == "incremental" else T + 1
        return replace(self.info.claims, forward_passes=passes if moving else 1)

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, target = batch.x, self.objective.embed(batch.y)
        relaxation, beta = self._relaxation(x), self._beta(progress.step)
        relaxation.start(x, target, beta, resting=self.config.learning == "equilibrium")
        u = relaxation.mu.parts[-1]
        loss = relaxation.energy.loss(u, batch.y)
        scale = 1 / (beta * len(x))
        for t in range(self.config.steps):
            if self.config.learning == "incremental":
                hand_over(relaxation.gradient(x, scale))
                relaxation.move()
                self.optimizer.step()
                if t + 1 < self.config.steps:
                    relaxation.predict(x)
            else:
                relaxation.move()
                relaxation.predict()
        if self.config.learning == "equilibrium":
            hand_over(relaxation.gradient(x, scale))
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss}

    def _beta(self, step: int) -> float:
        away = self.config.output == "negative" or (self.config.output == "centred" and step % 2 == 1)
        beta = 1.0 if self.config.output == "clamped" else self.config.beta
        return -beta if away else beta

    def _relaxation(self, x: Tensor) -> Relaxation:
        """With memory for these images; kept from step to step."""
        kept = self.relaxation
        if kept is None or kept.n != len(x) or kept.h.dtype != x.dtype:
            self.relaxation = kept = Relaxation(self.chain, self.config, x)
        return kept

    def compile(self) -> None:
        """Nothing: what a step spends its time in are products in given memory."""

    @torch.no_grad()
    def artifacts(self, shown: Batch, noise: torch.Generator) -> Iterator[Artifact]:
        relaxation = Relaxation(self.chain, self.config, shown.x)
        relaxation.start(shown.x, self.objective.embed(shown.y), self._beta(0))
        energies = list[Tensor]()
        for _ in range(self.config.steps):
            relaxation.move()
            relaxation.predict()
            energies.append(relaxation.energies())
        names = *(f"layer {k}" for k in range(1, len(relaxation.layers))), "output"
        yield Lines(
            "coding-energies",
            "Energy of each layer while the states relax, mean over a few held-out images with their labels.",
            "step",
            torch.arange(1, self.config.steps + 1),
            torch.stack(energies, 1).unsqueeze(0),
            panels=("energy",),
            lines=names,
            logarithmic=(True,),
        )
