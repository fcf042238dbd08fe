"""What rules with a feedback net share: the layers of a net the other way round."""

from collections.abc import Sequence

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
        # what a convolution gives before its block pools, (H, W), so that the transposed one gives `shape`
        self.before_pooling = tuple(
            side + 2 * p - k + 1
            for side, p, k in zip(
                self.shape[1:], getattr(layer, "padding", ()), getattr(layer, "kernel_size", ()), strict=False
            )
        )

    def forward(self, h: Tensor) -> Tensor:
        below: Tensor = self.layer(h)
        return below.view(len(h), *self.shape)


def mirrors(net: Net, inputs: Input, *, bias: bool) -> nn.ModuleList:
    """Those of all blocks but the first: its input is the image, which no rule here wants back."""
    shapes = output_shapes(net.blocks, inputs)
    return nn.ModuleList(Mirror(b, s, bias=bias) for b, s in zip(net.blocks[1:], shapes[:-1], strict=True))
