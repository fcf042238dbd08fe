"""Residual mlp for questions of depth, up to 128 layers and more.

Innocenti, Achour, Buckley 2025, "muPC: scaling predictive coding to 100+ layer networks". With L layers of weights, D
inputs and N hidden units, without biases:

    z_1 = a_1 W_1 x,    z_l = z_{l-1} + a W_l s(z_{l-1}),   l = 2..L-1,    f = a_L W_L s(z_{L-1})

    mup    a_1 = 1 / sqrt(D),  a = 1 / sqrt(N L),  a_L = 1 / N,   all weights N(0, 1)
    sp     a_1 = a = a_L = 1,   weights by torch's law, uniform within 1 / sqrt(inputs)

The first and the last layer have no shortcut. N = 128, L = 30 on 784 inputs and 10 classes: 560,384 parameters.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field
from torch import nn

from bench.api.kinds import Input, InputKind, Output
from bench.api.net import Net
from bench.catalog.register import register
from bench.nets.layers import Residual, Scale
from bench.nets.mlp import ACTIVATIONS


class ResMLPSettings(BaseModel):
    width: int = Field(128, ge=1, description="units of each hidden layer")
    depth: int = Field(8, ge=2, le=1024, description="layers with weights, the first and the last with them")
    parameterisation: Literal["sp", "mup"] = Field("mup", description="scales of layers and laws of weights")
    activation: Literal["relu", "tanh"] = Field("relu", description="non-linearity before each layer but the first")
    skip: Literal["open", "cut"] = Field("open", description="whether shortcuts carry gradients back")


@register
class ResMLP(Net):
    """Blocks: linear; `depth` - 2 times h plus linear of activation; activation and linear.

    A teaching signal enters behind each block, where the shortcut has joined.
    """

    name = "resmlp"
    takes: ClassVar[tuple[InputKind, ...]] = ("image", "vector", "sequence")
    small: ClassVar[Mapping[str, Any]] = {"width": 32, "depth": 4}
    Settings = ResMLPSettings

    def __init__(self, inputs: Input, outputs: Output, settings: ResMLPSettings) -> None:
        super().__init__(inputs, outputs, settings)
        D, N, L = inputs.n_features, settings.width, settings.depth
        mup, activation = settings.parameterisation == "mup", ACTIVATIONS[settings.activation]
        first = nn.Sequential(nn.Flatten(), *_scale(D**-0.5, mup), nn.Linear(D, N, bias=False))
        inner = [
            Residual(
                nn.Sequential(activation(), nn.Linear(N, N, bias=False)),
                (N * L) ** -0.5 if mup else 1.0,
                cut=settings.skip == "cut",
            )
            for _ in range(L - 2)
        ]
        last = nn.Sequential(activation(), *_scale(1 / N, mup), nn.Linear(N, outputs.size, bias=False))
        self.blocks = nn.ModuleList([first, *inner, last])
        if mup:
            for p in self.parameters():
                nn.init.normal_(p)


def _scale(factor: float, mup: bool) -> list[nn.Module]:
    return [Scale(factor)] if mup else []
