"""Plain convolutional net: 3x3 convolutions that double the channels, pooling, then a linear layer."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field
from torch import nn

from bench.api.kinds import Input, Output
from bench.api.net import Net
from bench.catalog.register import register


class CNNSettings(BaseModel):
    width: int = Field(32, ge=1, description="channels of the first block; doubled in each next one")
    depth: int = Field(3, ge=1, description="convolutional blocks; those at even places halve the image")


@register
class CNN(Net):
    """Blocks: `depth` times (conv 3x3, ReLU, 2x2 max-pooling in every other block), then flatten and linear."""

    name = "cnn"
    small: ClassVar[Mapping[str, Any]] = {"width": 8}
    Settings = CNNSettings

    def __init__(self, inputs: Input, outputs: Output, settings: CNNSettings) -> None:
        super().__init__(inputs, outputs, settings)
        channels, height, width = inputs.shape
        blocks: list[nn.Module] = []
        for k in range(settings.depth):
            out = settings.width * 2**k
            layers: list[nn.Module] = [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            if k % 2 == 0 and min(height, width) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            elif height == 1 and inputs.shape[1] == 1 and width >= 2 and k % 2 == 0:  # a signal, not an image
                layers.append(nn.MaxPool2d((1, 2)))
                width //= 2
            blocks.append(nn.Sequential(*layers))
            channels = out
        blocks.append(nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, outputs.size)))
        self.blocks = nn.ModuleList(blocks)
