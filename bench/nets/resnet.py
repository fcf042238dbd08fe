"""Residual nets for small images: three stages of basic blocks.

He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", section 4.2: a 3x3 convolution to `width`
channels, three stages of n = (depth - 2) / 6 basic blocks with width, 2 width and 4 width channels, the mean over
space, a linear layer. A basic block is

    h -> relu(N(K_2 * relu(N(K_1 * h))) + shortcut(h))

with 3x3 kernels, K_1 of stride 2 at the start of the second and third stage. The shortcut has no weights (option A): it
is the identity, or takes every other pixel and adds channels of zeros on both sides. N is batch norm, group norm, or
nothing (K then has a bias). Depth 20, 56, 110 have 269,722, 853,018 and 1,727,962 parameters on 3 channels, 10 classes.

A gradient that a rule sends back through a block also goes along its shortcut, unchanged by any weight, unless `skip`
cuts it there: the forward pass is the same, and blocks below then learn through residual branches alone.
Kernels start as in He et al. 2015, N(0, 2 / fan-in).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import BaseModel, Field, field_validator
from torch import Tensor, nn

from bench.api.kinds import Input, Output
from bench.api.net import Net
from bench.catalog.register import register
from bench.nets.norms import Norm, norm_of


class ResNetSettings(BaseModel):
    depth: int = Field(20, ge=8, description="layers with weights, 6 n + 2: 20, 32, 44, 56, 110")
    width: int = Field(16, ge=1, description="channels of the first stage; doubled in each next one")
    norm: Norm = Field("batch", description="normalisation behind convolutions")
    skip: Literal["open", "cut"] = Field("open", description="whether shortcuts carry gradients back")

    @field_validator("depth")
    @classmethod
    def _three_stages(cls, depth: int) -> int:
        if (depth - 2) % 6:
            raise ValueError(f"{depth} is not 6 n + 2, as 20, 32, 56 and 110 are")
        return depth


@register
class ResNet(Net):
    """Blocks: convolution, normalisation and ReLU; the basic blocks; then mean over space and linear.

    The unit of locality is the basic block: a teaching signal enters behind its last ReLU.
    """

    name = "resnet"
    small: ClassVar[Mapping[str, Any]] = {"depth": 8, "width": 4}
    Settings = ResNetSettings

    def __init__(self, inputs: Input, outputs: Output, settings: ResNetSettings) -> None:
        super().__init__(inputs, outputs, settings)
        norm, width, n = settings.norm, settings.width, (settings.depth - 2) // 6
        blocks: list[nn.Module] = [nn.Sequential(*_convolution(inputs.shape[0], width, norm), nn.ReLU())]
        channels = width
        for stage in range(3):
            for k in range(n):
                out = width * 2**stage
                stride = 2 if stage and k == 0 else 1
                blocks.append(BasicBlock(channels, out, stride, norm, cut=settings.skip == "cut"))
                channels = out
        blocks.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs.size)))
        self.blocks = nn.ModuleList(blocks)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)


class BasicBlock(nn.Module):
    """relu(residual(h) + shortcut(h)). Shape: (B, channels, H, W) to (B, out, ceil(H / stride), ceil(W / stride)).

    cut: no gradient goes back along the shortcut.
    """

    def __init__(self, channels: int, out: int, stride: int, norm: Norm, *, cut: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(channels, out, norm, stride), nn.ReLU(), *_convolution(out, out, norm)
        )
        self.stride, self.more, self.cut = stride, out - channels, cut

    def forward(self, h: Tensor) -> Tensor:
        return F.relu(self.residual(h) + self.shortcut(h.detach() if self.cut else h))

    def shortcut(self, h: Tensor) -> Tensor:
        """The identity, or every `stride`-th pixel with channels of zeros on both sides."""
        if self.stride == 1 and self.more == 0:
            return h
        below = self.more // 2
        return F.pad(h[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, below, self.more - below))


def _convolution(channels: int, out: int, norm: Norm, stride: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=norm == "none")
    return [layer, *norm_of(norm, out)]
