"""Recurrent net: a tanh or gated cell over steps of a sequence, rows of an image, or tokens; a linear read-out.

Elman 1990, "Finding structure in time" (tanh); Cho et al. 2014, "Learning phrase representations using RNN
encoder-decoder" (gru), in torch's form:

    tanh   s_t = tanh(W x_t + b + U s_{t-1} + c)
    gru    r, z = sigma(W_rz x_t + b_rz + U_rz s_{t-1} + c_rz)
           n = tanh(W_n x_t + b_n + r (U_n s_{t-1} + c_n)),    s_t = (1 - z) n + z s_{t-1}

s_0 = 0. Rows of an image are its steps, (C W) numbers each; tokens are embedded. The read-out sees the last state, or
each state where each token's successor is predicted.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from bench.api.errors import ConfigError
from bench.api.kinds import Input, InputKind, Output, OutputKind
from bench.api.recurrent import Recurrent
from bench.catalog.register import register

LAYERS: dict[str, Any] = {"tanh": nn.RNN, "gru": nn.GRU}
CELLS: dict[str, Any] = {"tanh": torch.rnn_tanh_cell, "gru": torch.gru_cell}


class RNNSettings(BaseModel):
    cell: Literal["tanh", "gru"] = Field("gru", description="what makes the next state")
    width: int = Field(128, ge=1, description="units of the state")
    features: int = Field(32, ge=1, description="numbers that stand for a token")


@register
class RNN(Recurrent):
    """Blocks: the recurrence over all steps, which gives the last state (all states for next tokens), then linear.

    A teaching signal enters behind the recurrence: at the last state, or at every state for next tokens.
    """

    name = "rnn"
    takes: ClassVar[tuple[InputKind, ...]] = ("image", "sequence", "tokens")
    gives: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities", "values", "next token")
    small: ClassVar[Mapping[str, Any]] = {"width": 16, "features": 4}
    Settings = RNNSettings

    def __init__(self, inputs: Input, outputs: Output, settings: RNNSettings) -> None:
        super().__init__(inputs, outputs, settings)
        each = outputs.kind == "next token"
        if each and (outputs.positions,) != inputs.shape:
            raise ConfigError(f"rnn predicts a token after each of {inputs.shape[0]}, not after {outputs.positions}")
        self.blocks = nn.ModuleList([Recurrence(inputs, settings, each=each), nn.Linear(settings.width, outputs.size)])

    @property
    def recurrence(self) -> "Recurrence":
        block = self.blocks[0]
        assert isinstance(block, Recurrence)
        return block

    def steps(self, x: Tensor) -> Tensor:
        return self.recurrence.by_step(x).transpose(0, 1)

    def start(self, x: Tensor) -> Tensor:
        weight: Tensor = self.recurrence.layer.weight_hh_l0
        return weight.new_zeros(len(x), weight.shape[1])

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        layer = self.recurrence.layer
        weights = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0
        out: Tensor = CELLS[self.recurrence.cell](x, state, *weights)
        return out

    def read(self, state: Tensor) -> Tensor:
        out: Tensor = self.blocks[1](state)
        return out


class Recurrence(nn.Module):
    """A cell over all steps. Shape: (B, *inputs.shape) to (B, width), or to (B, T, width) where `each` step is read."""

    def __init__(self, inputs: Input, settings: RNNSettings, *, each: bool) -> None:
        super().__init__()
        self.kind, self.cell, self.each = inputs.kind, settings.cell, each
        if inputs.kind == "tokens":
            self.embedding = nn.Embedding(inputs.vocabulary, settings.features)
            features = settings.features
        else:
            features = inputs.n_features // inputs.shape[-2]
        self.layer = LAYERS[settings.cell](features, settings.width, batch_first=True)

    def by_step(self, x: Tensor) -> Tensor:
        """Shape: (B, *inputs.shape) to (B, T, F)."""
        if self.kind == "tokens":
            embedded: Tensor = self.embedding(x)
            return embedded
        return x.transpose(1, 2).flatten(2) if self.kind == "image" else x

    def forward(self, x: Tensor) -> Tensor:
        states, last = self.layer(self.by_step(x))
        out: Tensor = states if self.each else last[0]
        return out
