"""What rules share whose error travels back layer by layer along matrices of its own: the layers, B, the way back.

    delta_l = (B_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T,    B shaped as W

A convolution sends its message through the transposed convolution with B. The first layer sends none and has no B.
On nets with norms, skip connections or attention the layers' matrices alone are replaced: norms, activations, pooling,
products of activities and skip paths carry the true gradient, as in BioTorch's nets, and norms' own weights learn by
it. A table of embeddings is a first layer: it mixes nothing and sends no message.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from math import sqrt
from typing import cast

import torch
from torch import Tensor, nn

from bench import Net
from bench.api.layer import can, routed
from bench.api.structure import weighted

Layer = nn.Linear | nn.Conv2d


def sending_layers(net: Net) -> list[Layer]:
    """The layers that send a message to the one below: all but the first."""
    _, *layers = weighted(net)
    return [cast(Layer, layer) for layer in layers if can(routed, type(layer))]


def bound(layer: Layer) -> float:
    """1 / sqrt(fan_in): torch draws a layer's weights from U(-bound, bound)."""
    return 1 / sqrt(layer.weight[0].numel())


def uniform(layer: Layer, init: torch.Generator) -> Tensor:
    """B drawn by the law of the layer's own weights, on the CPU; after the net, whose start is that of every method."""
    b = bound(layer)
    return torch.empty(layer.weight.shape).uniform_(-b, b, generator=init)


def lay(layers: Sequence[Layer], matrices: Iterable[Tensor]) -> nn.ParameterList:
    """Give each layer its B, on the layer's device, for the way back. They ask for no gradient."""
    feedback = nn.ParameterList(
        nn.Parameter(B.to(layer.weight.device), requires_grad=False) for layer, B in zip(layers, matrices, strict=True)
    )
    for layer, B in zip(layers, feedback, strict=True):
        layer.forward = partial(routed, layer, B)  # type: ignore[method-assign]
    return feedback
