"""Fully connected net on tokens: a window of embeddings, `depth` hidden layers of `width` units, then a linear layer.

Bengio, Ducharme, Vincent, Jauvin 2003, "A neural probabilistic language model", without the direct connections from
embeddings to the output. For next tokens each position has a window of its own, the T tokens that end with it, and all
positions share their weights; what lies before the start is zero. A position therefore sees no later token. For other
outputs the one window is the whole sequence.
"""

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn.functional import pad

from bench.api.errors import ConfigError
from bench.api.kinds import Input, InputKind, Output, OutputKind
from bench.api.net import Net
from bench.catalog.register import register
from bench.nets.mlp import ACTIVATIONS


class EmbeddedSettings(BaseModel):
    features: int = Field(16, ge=1, description="numbers that stand for a token")
    width: int = Field(256, ge=1, description="units per hidden layer")
    depth: int = Field(1, ge=0, description="hidden layers")
    activation: Literal["relu", "tanh"] = Field("relu", description="non-linearity of hidden layers")


@register
class Embedded(Net):
    """Blocks: window of embeddings with the first linear layer and activation, the other hidden layers, then linear."""

    name = "embedded"
    takes: ClassVar[tuple[InputKind, ...]] = ("tokens",)
    gives: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities", "values", "next token")
    small: ClassVar[Mapping[str, Any]] = {"width": 32, "features": 4}
    Settings = EmbeddedSettings

    def __init__(self, inputs: Input, outputs: Output, settings: EmbeddedSettings) -> None:
        super().__init__(inputs, outputs, settings)
        (steps,) = inputs.shape
        each = outputs.kind == "next token"
        if each and outputs.positions != steps:
            raise ConfigError(f"embedded predicts a token after each of {steps}, not after {outputs.positions}")
        sizes = [steps * settings.features, *[settings.width] * settings.depth]
        hidden = [
            [nn.Linear(n_in, n_out), ACTIVATIONS[settings.activation]()] for n_in, n_out in itertools.pairwise(sizes)
        ]
        first, *others = [*hidden, [nn.Linear(sizes[-1], outputs.size)]]
        window = Windows(inputs.vocabulary, settings.features, each=each)
        self.blocks = nn.ModuleList([nn.Sequential(window, *first), *(nn.Sequential(*layers) for layers in others)])


class Windows(nn.Module):
    """Embeddings of the tokens that each position sees, or of all. Shape: (B, T) to (B, T, T * d), or (B, T * d)."""

    def __init__(self, vocabulary: int, features: int, *, each: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, features)
        self.each = each

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(x)
        if not self.each:
            return embedded.flatten(1)
        steps = x.shape[1]
        return pad(embedded, (0, 0, steps - 1, 0)).unfold(1, steps, 1).flatten(2)
