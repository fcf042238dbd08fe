"""What rules with a feedback net share: the layers of a net the other way round, and what undoes their pooling."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.kinds import Input
from bench.api.net import Net

from .._shared.shapes import output_shapes
from ..feedback.direct import cut


class Mirror(nn.Module):
    """The one layer with weights of a block, from its output to its input: of a linear layer a linear one, of a
    convolution a transposed convolution. It starts by torch's law, from the global generator: see `drawn_from`.

    Shape: what the layer gives, (B, *units), to what the block is given, (B, *shape).
    """

    def __init__(self, block: nn.Module, shape: Sequence[int], *, bias: bool) -> None:
        super().__init__()
        self.shape = tuple(shape)
        layer = next(m for m in block.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
        self.layer: nn.Linear | nn.ConvTranspose2d
        if isinstance(layer, nn.Linear):
            self.layer = nn.Linear(layer.out_features, prod(shape), bias=bias)
        else:
            # the nets' convolutions have stride 1, so that shapes come back without further ado
            kernel, padding = layer.kernel_size, layer.padding
            assert isinstance(padding, tuple)
            self.layer = nn.ConvTranspose2d(layer.out_channels, layer.in_channels, kernel, padding=padding, bias=bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        below: Tensor = self.layer(h)
        return below.view(len(h), *self.shape)


def mirrors(net: Net, inputs: Input, *, bias: bool) -> nn.ModuleList:
    """Those of all blocks but the first: its input is the image, which no rule here wants back."""
    shapes = output_shapes(net.blocks, inputs)
    return nn.ModuleList(Mirror(b, s, bias=bias) for b, s in zip(net.blocks[1:], shapes[:-1], strict=True))


@dataclass(frozen=True)
class Stage:
    """A block taken apart: `block(h) == pool(activation(weigh(h)))`."""

    weigh: nn.Module
    activation: nn.Module
    pool: nn.Module


def stages(net: Net) -> list[Stage]:
    """All blocks; the last one has neither activation nor pooling."""
    hidden = [Stage(of.learn[:-1], of.learn[-1], of.pool) for of in cut(net)]  # type: ignore[index]
    return [*hidden, Stage(net.blocks[-1], nn.Identity(), nn.Identity())]


def pooled(pool: nn.Module, a: Tensor) -> tuple[Tensor, Tensor | None]:
    """Max-pooling, and the places of the maxima; a itself and None where there is none."""
    layer = _pooling(pool)
    if layer is None:
        return a, None
    h, places = F.max_pool2d(a, layer.kernel_size, layer.stride, layer.padding, return_indices=True)
    return h, places


def unpooled(pool: nn.Module, h: Tensor, places: Tensor | None, size: Sequence[int]) -> Tensor:
    """Each value back at its place, zeros elsewhere.

    Shape: h (m N, C, ...) for places (N, C, ...) and the (N, C, H, W) of `size` before pooling; to (m N, C, H, W).
    """
    layer = _pooling(pool)
    if layer is None or places is None:
        return h
    where = places.repeat(len(h) // len(places), 1, 1, 1)
    unpool = nn.MaxUnpool2d(layer.kernel_size, layer.stride, layer.padding)
    lifted: Tensor = unpool(h, where, output_size=list(size[2:]))
    return lifted


def _pooling(pool: nn.Module) -> nn.MaxPool2d | None:
    return next((m for m in pool.modules() if isinstance(m, nn.MaxPool2d)), None)
