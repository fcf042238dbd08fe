"""What rules with a feedback net share: the layers of a net the other way round."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from bench.api.kinds import Input
from bench.api.layer import can, mirrored
from bench.api.net import Net

from .._shared.shapes import output_shapes


class Mirror(nn.Module):
    """The one layer with weights of a block, from its output to its input: of a linear layer a linear one, of a
    convolution a transposed convolution. It starts by torch's law, from the global generator: see `drawn_from`.

    Shape: what the layer gives, (B, *units), to what the block is given, (B, *shape).
    """

    def __init__(self, block: nn.Module, shape: Sequence[int], *, bias: bool) -> None:
        super().__init__()
        self.shape = tuple(shape)
        layer = next(m for m in block.modules() if can(mirrored, type(m)))
        self.layer = mirrored(layer, self.shape, bias=bias)

    def forward(self, h: Tensor) -> Tensor:
        below: Tensor = self.layer(h)
        return below.view(len(h), *self.shape)


def mirrors(net: Net, inputs: Input, *, bias: bool) -> nn.ModuleList:
    """Those of all blocks but the first: its input is the image, which no rule here wants back."""
    shapes = output_shapes(net.blocks, inputs)
    return nn.ModuleList(Mirror(b, s, bias=bias) for b, s in zip(net.blocks[1:], shapes[:-1], strict=True))


@mirrored.register
def _(layer: nn.Linear, shape: Sequence[int], *, bias: bool) -> nn.Module:
    return nn.Linear(layer.out_features, prod(shape), bias=bias)


@mirrored.register
def _(layer: nn.Conv2d, shape: Sequence[int], *, bias: bool) -> nn.Module:
    # the nets' convolutions have stride 1, so that shapes come back without further ado
    kernel, padding = layer.kernel_size, layer.padding
    assert isinstance(padding, tuple)
    return nn.ConvTranspose2d(layer.out_channels, layer.in_channels, kernel, padding=padding, bias=bias)  # type: ignore[arg-type]
