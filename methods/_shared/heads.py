"""Heads of gradient-isolated modules: a module's output to class scores.

    linear    W pool(h) + b,                  W = 0, b = 0 at the start
    mlp       the same upon relu(V pool(h) + c)
    conv      the same upon pool(relu(K * h)), K a 3x3 convolution that keeps the channels

pool averages a spatial map over k x k windows, k the least with which a head has at most so many inputs; windows at the
edge are smaller, so that all of the map is seen. Vectors stay as they are. At zero a head sends nothing back, and its
module begins to learn with the second step.
"""

import math
from typing import Literal

from pydantic import BaseModel, Field
from torch import nn

from .shapes import Shape


class HeadSettings(BaseModel):
    head: Literal["linear", "mlp", "conv"] = Field("linear", description="what turns a module's output into scores")
    head_units: int = Field(256, ge=1, description="hidden units of head=mlp")
    pool: int = Field(2048, ge=1, description="inputs of a head at most; larger maps are average-pooled")


def build_head(shape: Shape, n_classes: int, config: HeadSettings) -> nn.Sequential:
    """A head for outputs of this shape. Its hidden layers are drawn from the global generator: see `drawn_from`."""
    layers: list[nn.Module] = []
    if config.head == "conv":
        layers += [nn.Conv2d(shape[0], shape[0], 3, padding=1), nn.ReLU()]
    k = window(shape, config.pool)
    if k > 1:
        layers.append(nn.AvgPool2d(k, ceil_mode=True))
    n = _inputs(shape, k)
    if len(shape) > 1:
        layers.append(nn.Flatten())
    if config.head == "mlp":
        layers += [nn.Linear(n, config.head_units), nn.ReLU()]
        n = config.head_units
    return nn.Sequential(*layers, zero_linear(n, n_classes))


def zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer at zero, which draws nothing."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out)
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def window(shape: Shape, limit: int) -> int:
    """The least k for which an output pooled over k x k windows has at most `limit` entries; 1 for vectors."""
    if len(shape) == 1:
        return 1
    largest = max(shape[1:])
    return next((k for k in range(1, largest) if _inputs(shape, k) <= limit), largest)


def _inputs(shape: Shape, k: int) -> int:
    return shape[0] * math.prod(-(-side // k) for side in shape[1:])
