"""Embeddings: rows of a table. Shape: x (B, ...) of whole numbers, weight (V, D), to (B, ..., D)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.forms.ability import Gradient, members, weight_gradient


@weight_gradient.register
def _(layer: nn.Embedding, x: Tensor, delta: Tensor) -> Gradient:
    rows = delta.flatten(0, -2)
    if layer.scale_grad_by_freq:
        raise TypeError("no weight gradient for an Embedding with scale_grad_by_freq")
    table = rows.new_zeros(layer.weight.shape).index_add_(0, x.flatten(), rows)
    if layer.padding_idx is not None:  # this row learns nothing
        table[layer.padding_idx] = 0
    return {layer.weight: table}


@members.register
def _(layer: nn.Embedding, weights: Mapping[str, Tensor], batch_size: int, x: Tensor) -> Tensor:
    if layer.max_norm is not None:  # it shortens rows of the table in the forward pass
        raise TypeError("no form for a population of weights for an Embedding with max_norm")
    table = weights["weight"]
    k, V = table.shape[:2]
    x = x.view(-1, batch_size, *x.shape[1:])
    own = torch.arange(k, device=x.device).mul_(V).view(-1, *[1] * (x.dim() - 1))
    return F.embedding(x + own, table.flatten(0, 1)).flatten(0, 1)
