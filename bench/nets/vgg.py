"""VGG nets: 3x3 convolutions with normalisation and pooling, one after another.

Simonyan, Zisserman 2015, "Very deep convolutional networks for large-scale image recognition" (16); Nokland, Eidnes
2019, "Training neural networks with local error signals" (8b, 11b: 1,024 hidden units before the classifier); the P4
net of convergent energy nets (Laborieux, Zenke 2022, "Holomorphic equilibrium propagation"): softmax pooling, no
normalisation, no hidden linear layer. A number is a convolution with so many channels, M a 2x2 pooling:

    8b     128 256 M 256 512 M 512 M 512 M, 1024                     8.9 million parameters on 3x32x32, 10 classes
    11b    128 128 128 256 M 256 512 M 512 512 M 512 M, 1024
    16     64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M
    p4     128 M 256 M 512 M 512 M

A pooling is left out where the map is a single pixel high or wide, so that small images fit. Convolutions that a
normalisation follows have no bias. Dropout is of whole channels behind convolutions.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field
from torch import nn

from bench.api.kinds import Input, Output
from bench.api.net import Net
from bench.catalog.register import register
from bench.nets.layers import Dropout, SoftmaxPool
from bench.nets.norms import Norm, norm_of

Cfg = Literal["8b", "11b", "16", "p4"]
CHANNELS: dict[Cfg, str] = {
    "8b": "128 256 M 256 512 M 512 M 512 M",
    "11b": "128 128 128 256 M 256 512 M 512 512 M 512 M",
    "16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "p4": "128 M 256 M 512 M 512 M",
}
HIDDEN: dict[Cfg, tuple[int, ...]] = {"8b": (1024,), "11b": (1024,), "16": (), "p4": ()}


class VGGSettings(BaseModel):
    cfg: Cfg = Field("8b", description="the convolutions and poolings, by their usual name")
    width: float = Field(1.0, gt=0, le=8, description="factor on the numbers of channels and hidden units")
    norm: Norm | None = Field(None, description="normalisation; none given: none for p4, else batch")
    pool: Literal["max", "softmax"] | None = Field(None, description="pooling; none given: softmax for p4, else max")
    dropout: float = Field(0.0, ge=0, lt=1, description="probability that a channel or hidden unit is left out")


@register
class VGG(Net):
    """Blocks: convolution, normalisation, ReLU, dropout, pooling; then hidden linear layers alike; then linear.

    A teaching signal enters behind each block.
    """

    name = "vgg"
    small: ClassVar[Mapping[str, Any]] = {"cfg": "p4", "width": 0.0625, "norm": "batch", "pool": "max"}
    Settings = VGGSettings

    def __init__(self, inputs: Input, outputs: Output, settings: VGGSettings) -> None:
        super().__init__(inputs, outputs, settings)
        p4 = settings.cfg == "p4"
        norm: Norm = settings.norm or ("none" if p4 else "batch")
        pooling = SoftmaxPool if (settings.pool or ("softmax" if p4 else "max")) == "softmax" else nn.MaxPool2d
        channels, height, width = inputs.shape
        blocks: list[list[nn.Module]] = []
        for word in CHANNELS[settings.cfg].split():
            if word != "M":
                out = _scaled(int(word), settings.width)
                convolution = nn.Conv2d(channels, out, 3, padding=1, bias=norm == "none")
                blocks.append([convolution, *norm_of(norm, out), nn.ReLU(), *_dropout(settings.dropout, space=True)])
                channels = out
            elif min(height, width) > 1:
                blocks[-1].append(pooling(2))
                height, width = height // 2, width // 2
        features, flatten = channels * height * width, [nn.Flatten()]
        for units in HIDDEN[settings.cfg]:
            out = _scaled(units, settings.width)
            layers = [nn.Linear(features, out), *norm_of(norm, out, space=False), nn.ReLU()]
            blocks.append([*flatten, *layers, *_dropout(settings.dropout, space=False)])
            features, flatten = out, []
        blocks.append([*flatten, nn.Linear(features, outputs.size)])
        self.blocks = nn.ModuleList(nn.Sequential(*layers) for layers in blocks)


def _scaled(n: int, width: float) -> int:
    return max(1, round(n * width))


def _dropout(p: float, *, space: bool) -> list[nn.Module]:
    return [Dropout(p, channels=space)] if p else []
