"""SoftHebb's net: each layer normalises its input, convolves, and lets pass what is above the mean of its channels.

Paper: Journe, Garcia Rodriguez, Guo, Moraitis 2023, "Hebbian deep learning without feedback", ICLR, arXiv 2209.11883.
With h_0 the images, N a batch norm without affine part and layers k = 1..depth of width * 4^(k-1) channels:

    u = W_k * N(h_{k-1}),    h_k = pool(max(u - mean_c u, 0)^p_k),    scores = W dropout(h_depth) + b

W_1 is 5x5, the others are 3x3; none has a bias; edges are reflected. Pools are max 4x4 with stride 2, after the last
layer mean 2x2. The middle formula is "Triangle" of Coates, Lee, Ng 2011, to a power. A power commutes with a maximum,
so it is taken of what the max-pool has left, a quarter.
Any method may run on it: `backprop`, and `backprop-last-layer`, which leaves the filters as they were drawn.
Deviations: weights start as torch's layers do; the paper's rows of length 25 are a matter of its rule.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from bench import Net, register
from bench.api.errors import ConfigError
from bench.api.forms.pointwise import gate
from bench.api.kinds import Input, Output
from bench.api.layer import Tangent, push
from bench.nets.layers import ReLUDropout

WIDEN = 4  # channels from layer to layer


class TriangleSettings(BaseModel):
    width: int = Field(96, ge=1, description="channels of the first layer; four times as many in each next one")
    depth: int = Field(3, ge=1, description="convolutional layers, each of which halves the image")
    powers: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.7, 1.4, 1.0), min_length=1, description="of Triangle, layer by layer; the last one for all that follow"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="of the read-out's inputs")


@register
class Triangle(Net):
    """Blocks: `depth` times (batch norm, convolution, Triangle, pooling), then flatten, dropout and linear."""

    name = "triangle"
    small: ClassVar[Mapping[str, Any]] = {"width": 8, "depth": 2}
    Settings = TriangleSettings

    def __init__(self, inputs: Input, outputs: Output, settings: TriangleSettings) -> None:
        super().__init__(inputs, outputs, settings)
        channels, *sides = inputs.shape
        if min(sides) < 3 or min(sides) >> settings.depth < 1:
            raise ConfigError(f"triangle: an image of {sides[0]}x{sides[1]} cannot be halved {settings.depth} times")
        blocks: list[nn.Module] = []
        for k in range(settings.depth):
            out, edge = settings.width * WIDEN**k, 2 if k == 0 else 1
            rectified = Rectified(settings.powers[min(k, len(settings.powers) - 1)])
            last = k == settings.depth - 1
            conv = nn.Conv2d(channels, out, 2 * edge + 1, bias=False)
            pooled = [rectified, nn.AvgPool2d(2)] if last else [nn.MaxPool2d(4, 2, 1), rectified]
            blocks.append(
                nn.Sequential(
                    nn.BatchNorm2d(channels, affine=False),
                    nn.ReflectionPad2d(edge),
                    conv.to(memory_format=torch.channels_last) if k == 0 else conv,
                    Centred(),
                    *pooled,
                )
            )
            channels, sides = out, [side // 2 for side in sides]
        # features are not negative, so that nothing but the dropout shows
        dropout, readout = ReLUDropout(settings.dropout), nn.Linear(channels * sides[0] * sides[1], outputs.size)
        self.blocks = nn.ModuleList([*blocks, nn.Sequential(nn.Flatten(), dropout, readout)])


class Centred(nn.Module):
    """u - mean_c u, over the channels at each position; u is overwritten. Shape: (B, C, ...) to the same.

    Maps leave channels-last, and so do those of all layers behind: on a CPU a max-pool then takes a tenth of the time.
    """

    def forward(self, u: Tensor) -> Tensor:
        if u.dim() == 4:
            u = u.contiguous(memory_format=torch.channels_last)
        return u.sub_(u.mean(1, keepdim=True))


class Rectified(nn.Module):
    """max(u, 0)^p. u is overwritten."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, u: Tensor) -> Tensor:
        u = u.relu_()
        if self.power == 1:
            return u
        return u.pow(self.power) if torch.is_grad_enabled() else u.pow_(self.power)

    def extra_repr(self) -> str:
        return f"power={self.power}"


@push.register
def _(module: Rectified, x: Tensor, t: Tangent, space: Any) -> tuple[Tensor, Tangent]:
    """Tangents p u^(p-1) t where u > 0, else 0: torch's own are no numbers at u = 0."""
    u = x.relu()
    slope = module.power * u.clamp_min(torch.finfo(u.dtype).tiny).pow(module.power - 1)
    return u.pow(module.power), None if t is None else gate(t * slope, u)


def competitive(block: nn.Module) -> nn.Sequential:
    """A block of an mlp or cnn in this net's form: batch norm before, no bias, Triangle, and a pool if it has one."""
    layers: list[nn.Module] = []
    for layer in block.children():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.bias = None
            norm = (
                nn.BatchNorm1d(layer.in_features, affine=False)
                if isinstance(layer, nn.Linear)
                else (nn.BatchNorm2d(layer.in_channels, affine=False))
            )
            layers += [norm, layer, Centred()]
        elif isinstance(layer, (nn.Flatten, nn.MaxPool2d)):
            layers.append(layer)
    return nn.Sequential(*layers, Rectified(1.0))
