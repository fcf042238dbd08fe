"""States of a predictive coding net, their predictions and errors. Equations and names: predictive_coding.py."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from bench import Objective, Output
from bench.objectives.cross_entropy import CrossEntropy
from bench.objectives.mean_squared_error import MeanSquaredError

from .._shared.bilinear import Gradient
from .layers import Chain, Memory

aten: Any = torch.ops.aten

# e s'(a), from e and s(a)
DERIVATIVES: dict[type[nn.Module], Callable[[Tensor, Tensor, Tensor], None]] = {
    nn.ReLU: lambda e, mu, out: aten.threshold_backward.grad_input(e, mu, 0, grad_input=out),
    nn.Tanh: lambda e, mu, out: aten.tanh_backward.grad_input(e, mu, grad_input=out),
}
ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {nn.ReLU: torch.relu_, nn.Tanh: torch.tanh_}
ENERGIES: dict[str, type[Objective]] = {"squared-error": MeanSquaredError, "cross-entropy": CrossEntropy}


class CodingSettings(BaseModel):
    prediction: Literal["moving", "fixed"] = Field(
        "moving", description="predictions follow the states, or stay those of the forward pass"
    )
    energy: Literal["squared-error", "cross-entropy"] = Field("squared-error", description="of the output")
    nudge: Literal["target", "energy"] = Field(
        "target", description="nudging moves what the output is to be, or weights the output's energy"
    )
    state_lr: float = Field(
        0.1, gt=0, description="step size of states", json_schema_extra={"search": ["log", 1e-2, 1e0]}
    )
    momentum: float = Field(
        0.0, ge=0, lt=1, description="of states", json_schema_extra={"search": ["choice", 0.0, 0.35, 0.65]}
    )


class Relaxation:
    """States of a mini-batch like x and what pulls at them. Layer l = 1..L has index l - 1."""

    def __init__(self, chain: Chain, config: CodingSettings, x: Tensor) -> None:
        self.config, self.layers = config, chain.layers
        self.n, L = len(x), len(chain.layers)
        self.energy = ENERGIES[config.energy](Output.classes(chain.shapes[-1][0]))
        self.activate, self.derive = ACTIVATIONS[chain.activation], DERIVATIVES[chain.activation]
        self.mu, self.d, self.scaled = (Memory(chain.shapes, self.n, x) for _ in range(3))
        self.x, self.v = (Memory(chain.shapes[:-1], self.n, x) for _ in range(2))
        self.hidden_mu, self.hidden_d = self.mu.of(0, L - 1), self.d.of(0, L - 1)
        self.e = self.hidden_d if config.momentum == 0 else torch.empty_like(self.hidden_d)  # asked for by v alone
        self.behind_first = self.mu.of(1, L - 1)  # what of the predictions can move while the weights do not
        self.h, self.weight = torch.empty_like(self.mu.parts[-1]), 1.0
        deeper, moved = chain.layers[1:], self.x if config.momentum == 0 else self.v
        self.predictions = list(zip(deeper, self.x.parts, self.mu.parts[1:], strict=True))  # of an output from an input
        self.pulls = list(zip(deeper, self.d.parts[1:], moved.parts, strict=True))  # of an error on what it moves

    def start(self, x: Tensor, y: Tensor, beta: float, *, resting: bool = True) -> None:
        """The forward pass: states at their predictions, and what the output is to be, from dense targets y.

        beta: with its sign. resting: weights move only after the relaxation.
        """
        for layer, _, _ in self.predictions:
            layer.rest(resting and self.config.prediction == "moving")
        below = x
        for layer, mu in zip(self.layers[:-1], self.mu.parts, strict=False):
            layer.forward(below, mu)
            below = self.activate(mu)
        self.layers[-1].forward(below, self.mu.parts[-1])
        self.x.flat.copy_(self.hidden_mu)
        self.v.flat.zero_()
        u = self._output()
        self.weight, moved = (1.0, beta) if self.config.nudge == "target" else (beta, 1.0)
        torch.lerp(u, y.to(u), moved, out=self.h)
        self._errors()

    def move(self) -> None:
        """One step of all states."""
        eta, m = self.config.state_lr, self.config.momentum
        if m == 0:
            self.x.flat.lerp_(self.hidden_mu, eta)  # x + eta (mu - x), which is x to the last bit where mu is
            for layer, d, x in self.pulls:
                layer.transposed(d, x, by=eta)
            return
        for layer, d, v in self.pulls:
            layer.transposed(d, v, keep=m, by=-1)
        self.v.flat.add_(self.e)
        self.x.flat.sub_(self.v.flat, alpha=eta)

    def predict(self, image: Tensor | None = None) -> None:
        """Errors of the states as they now are. image: where the first layer's weights have moved too."""
        if self.config.prediction == "moving":
            if image is not None:
                self.layers[0].forward(image, self.mu.parts[0])
            for layer, x, mu in self.predictions:
                layer.forward(x, mu)
            self.activate(self.behind_first if image is None else self.hidden_mu)
        self._errors()

    def gradient(self, image: Tensor, scale: float) -> Gradient:
        """Of the energy by all weights, times scale."""
        torch.mul(self.d.flat, -scale, out=self.scaled.flat)
        inputs = self.x.parts if self.config.prediction == "moving" else self.mu.parts[:-1]
        gradient: Gradient = {}
        for layer, x, d in zip(self.layers, [image, *inputs], self.scaled.parts, strict=True):
            gradient |= layer.gradient(x, d)
        return gradient

    def energies(self) -> Tensor:
        """Of each layer, as the mean over the batch. Shape: (L,)."""
        hidden = [(x - mu).square().sum() / (2 * self.n) for x, mu in zip(self.x.parts, self.mu.parts, strict=False)]
        output = self.energy.loss(self.mu.parts[-1], self.h)
        return torch.stack([*hidden, self.weight * output])

    def _output(self) -> Tensor:
        mu = self.mu.parts[-1]
        return mu if self.config.energy == "squared-error" else mu.softmax(1)

    def _errors(self) -> None:
        self.derive(torch.sub(self.x.flat, self.hidden_mu, out=self.e), self.hidden_mu, self.hidden_d)
        torch.sub(self.h, self._output(), out=self.d.parts[-1])
        if self.weight != 1:
            self.d.parts[-1].mul_(self.weight)
