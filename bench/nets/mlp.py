"""Fully connected net: `depth` hidden layers of `width` units, then a linear layer to the classes."""

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field
from torch import nn

from bench.api.kinds import Input, InputKind, Output
from bench.api.net import Net
from bench.catalog.register import register

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class MLPSettings(BaseModel):
    width: int = Field(256, ge=1, description="units per hidden layer")
    depth: int = Field(2, ge=0, description="hidden layers")
    activation: Literal["relu", "tanh"] = Field("relu", description="non-linearity of hidden layers")


@register
class MLP(Net):
    """Blocks: `depth` times linear and activation, then linear."""

    name = "mlp"
    takes: ClassVar[tuple[InputKind, ...]] = ("image", "vector", "sequence")
    small: ClassVar[Mapping[str, Any]] = {"width": 32}
    Settings = MLPSettings

    def __init__(self, inputs: Input, outputs: Output, settings: MLPSettings) -> None:
        super().__init__(inputs, outputs, settings)
        sizes = [inputs.n_features, *[settings.width] * settings.depth]
        hidden = [
            nn.Sequential(nn.Linear(n_in, n_out), ACTIVATIONS[settings.activation]())
            for n_in, n_out in itertools.pairwise(sizes)
        ]
        self.blocks = nn.ModuleList([*hidden, nn.Linear(sizes[-1], outputs.size)])
        # the first block flattens, so that a method may walk the blocks without knowing the net
        self.blocks[0] = nn.Sequential(nn.Flatten(), *_layers(self.blocks[0]))


def _layers(block: nn.Module) -> list[nn.Module]:
    return list(block) if isinstance(block, nn.Sequential) else [block]
