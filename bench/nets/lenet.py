"""LeNet-5 with ReLU and max-pooling, and its wider form for colour images.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition"; layers and sizes as in
BioTorch (Sanfiz, Akrout 2021), whose error rates of feedback rules are on these nets:

    mnist    image padded to 32x32: conv5x5-6, pool, conv5x5-16, pool, conv5x5-120, linear-84, linear        61,706
    cifar    image padded to 32x32: conv3x3-32, pool, conv3x3-64, pool, conv3x3-128, mean pool, linear-256, linear

(parameters for 1 channel and 10 classes). Convolutions have no padding of their own; that of the first one pads the
image. Every pooling is 2x2. Deviation from BioTorch: an activation follows the last hidden layer, unless
`linear_features` leaves it out as there.
"""

from typing import Literal

from pydantic import BaseModel, Field
from torch import nn

from bench.api.errors import ConfigError
from bench.api.kinds import Input, Output
from bench.api.net import Net
from bench.catalog.register import register

SIDE = 32  # pixels of the padded image
FORMS = {"mnist": ((6, 16, 120), 5, 84), "cifar": ((32, 64, 128), 3, 256)}  # channels, kernel, hidden units


class LeNetSettings(BaseModel):
    form: Literal["mnist", "cifar"] | None = Field(
        None, description="sizes of the layers; none: mnist for one channel, cifar for more"
    )
    linear_features: bool = Field(False, description="no activation behind the last hidden layer")


@register
class LeNet(Net):
    """Blocks: three times convolution, ReLU and pooling (the mnist form does not pool the third), linear, linear.

    A teaching signal enters behind each block.
    """

    name = "lenet"
    Settings = LeNetSettings

    def __init__(self, inputs: Input, outputs: Output, settings: LeNetSettings) -> None:
        super().__init__(inputs, outputs, settings)
        channels, height, width = inputs.shape
        if height != width or height > SIDE or height % 2:
            raise ConfigError(
                f"lenet pads square images of an even side up to {SIDE} to {SIDE}x{SIDE}, not {height}x{width}"
            )
        form = settings.form or ("mnist" if channels == 1 else "cifar")
        sizes, kernel, units = FORMS[form]
        poolings = [nn.MaxPool2d(2), nn.MaxPool2d(2), *([nn.AvgPool2d(2)] if form == "cifar" else [])]
        side, blocks = SIDE, list[nn.Module]()
        for k, out in enumerate(sizes):
            convolution = nn.Conv2d(channels, out, kernel, padding=0 if k else (SIDE - height) // 2)
            blocks.append(nn.Sequential(convolution, nn.ReLU(), *poolings[k : k + 1]))
            channels, side = out, (side - kernel + 1) // (2 if k < len(poolings) else 1)
        features = [] if settings.linear_features else [nn.ReLU()]
        blocks.append(nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, units), *features))
        self.blocks = nn.ModuleList([*blocks, nn.Linear(units, outputs.size)])
