"""Reversible net: additive couplings, from whose output the input can be had back.

Paper: Gomez, Ren, Urtasun, Grosse 2017, "The reversible residual network: Backpropagation without storing
activations", Eq. 6-7. A coupling splits its input into halves of the channels:

    y1 = x1 + F(x2),    y2 = x2 + G(y1)            x2 = y2 - G(y1),    x1 = y1 - F(x2)

F and G are pre-activation, W relu(.) + b, of one linear layer or one 3x3 convolution each. What cannot be inverted
stands outside of the couplings: the first layer, and the last with the pooling before it.
Deviations from the paper: one layer in F and G, where it has bottlenecks of three; no batch norm; no stages of other
sizes between couplings.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from bench.api.kinds import Input, Output
from bench.api.net import Net
from bench.catalog.register import register
from bench.nets.mlp import ACTIVATIONS


class ReversibleSettings(BaseModel):
    layers: Literal["linear", "conv"] = Field("linear", description="what residual functions are made of")
    width: int = Field(256, ge=2, multiple_of=2, description="units or channels, half of them to each stream; even")
    depth: int = Field(4, ge=1, description="couplings, of two residual functions each")
    activation: Literal["relu", "tanh"] = Field("relu", description="non-linearity before each layer of a coupling")


@register
class Reversible(Net):
    """Blocks: a linear layer or convolution, `depth` couplings, then activation, pooling of images, and linear."""

    name = "reversible"
    small: ClassVar[Mapping[str, Any]] = {"width": 32, "depth": 3}
    Settings = ReversibleSettings

    def __init__(self, inputs: Input, outputs: Output, settings: ReversibleSettings) -> None:
        super().__init__(inputs, outputs, settings)
        channels, height, width = inputs.shape
        units, activation = settings.width, ACTIVATIONS[settings.activation]
        conv = settings.layers == "conv"

        def layer(n_in: int, n_out: int) -> nn.Module:
            return nn.Conv2d(n_in, n_out, 3, padding=1) if conv else nn.Linear(n_in, n_out)

        def residual() -> nn.Module:
            return nn.Sequential(activation(), layer(units // 2, units // 2))

        first = layer(channels, units) if conv else nn.Sequential(nn.Flatten(), layer(channels * height * width, units))
        shrink = conv and min(height, width) >= 2
        pooling = [nn.MaxPool2d(2)] if shrink else []
        flat = units * (height // 2) * (width // 2) if shrink else units * (height * width if conv else 1)
        last = nn.Sequential(activation(), *pooling, nn.Flatten(), nn.Linear(flat, outputs.size))
        self.blocks = nn.ModuleList([first, *(Coupling(residual(), residual()) for _ in range(settings.depth)), last])


class Coupling(nn.Module):
    """y1 = x1 + F(x2), y2 = x2 + G(y1). Shape: (B, 2 c, ...) to the same; F and G keep (B, c, ...)."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        y1 = x1 + self.f(x2)
        return torch.cat([y1, x2 + self.g(y1)], dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """x, from y = forward(x)."""
        y1, y2 = y.chunk(2, dim=1)
        x2 = y2 - self.g(y1)
        return torch.cat([y1 - self.f(x2), x2], dim=1)
