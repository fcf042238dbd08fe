"""LocalMixer: an MLP-Mixer whose patches and channel groups stay apart, so that each can have a loss of its own.

Paper: Ren, Kornblith, Liao, Hinton 2023, "Scaling forward gradient with local losses", ICLR, arXiv 2210.03310,
Figure 1 and Table 2. With N a LayerNorm without affine part over the channels (N_g: over each of G groups) and
f(.) = N(W N(.) + b), tokens z (B, P, C) of P patches:

    block 0:       z = relu(f_group(relu(f_channel(patches(x)))))
    block k >= 1:  z = relu(z + f_group(relu(f_channel(relu(f_token(z))))))          f_token mixes patches, per channel
    last:          scores = W mean_p z + b,   W = 0, b = 0 at the start              f_group uses N_g on both sides

Sizes of the paper read size/patches per side/groups: `size="M/8/16"`.
Deviations: weights start as torch's linear layers do, which the LayerNorm after each makes a matter of step size only.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from bench.api.errors import ConfigError
from bench.api.kinds import Input, Output
from bench.api.layer import Gradient, along_input, along_weights, weight_gradient
from bench.api.net import Net
from bench.catalog.register import register

SIZES = {
    "S/1/1": {"depth": 1, "patches": 1, "channels": 256, "groups": 1},
    "M/1/16": {"depth": 1, "patches": 1, "channels": 512, "groups": 16},
    "M/8/16": {"depth": 4, "patches": 8, "channels": 512, "groups": 16},
    "L/8/64": {"depth": 4, "patches": 8, "channels": 2048, "groups": 64},
}


class LocalMixerSettings(BaseModel):
    size: Literal["S/1/1", "M/1/16", "M/8/16", "L/8/64"] | None = Field(
        None, description="a size of the paper, the default of the four settings below"
    )
    depth: int = Field(4, ge=1, description="mixer blocks")
    patches: int = Field(4, ge=1, description="patches per side of the image")
    channels: int = Field(256, ge=2, description="channels of each patch")
    groups: int = Field(8, ge=1, description="channel groups, apart from each other in the last layer of a block")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_size(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("size") in SIZES:
            return {**SIZES[given["size"]], **given}
        return given

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
        if self.channels % self.groups or self.channels == self.groups:
            raise ValueError(f"{self.channels} channels cannot be split into {self.groups} groups of two or more")
        return self


@register
class LocalMixer(Net):
    """Blocks: `depth` times mixer block, then the mean over patches and linear."""

    name = "localmixer"
    small: ClassVar[Mapping[str, Any]] = {"depth": 2, "patches": 2, "channels": 32, "groups": 4}
    Settings = LocalMixerSettings

    def __init__(self, inputs: Input, outputs: Output, settings: LocalMixerSettings) -> None:
        super().__init__(inputs, outputs, settings)
        cut = Patches(settings.patches, inputs)
        C, P, G = settings.channels, settings.patches**2, settings.groups
        first = nn.Sequential(cut, Normed(nn.Linear(cut.dim, C)), nn.ReLU(), Normed(GroupedLinear(C, G), G), nn.ReLU())
        later = [
            nn.Sequential(
                Residual(
                    Normed(TokenLinear(P, P)),
                    nn.ReLU(),
                    Normed(nn.Linear(C, C)),
                    nn.ReLU(),
                    Normed(GroupedLinear(C, G), G),
                ),
                nn.ReLU(),
            )
            for _ in range(settings.depth - 1)
        ]
        readout = nn.Linear(C, outputs.size)
        nn.init.zeros_(readout.weight)
        nn.init.zeros_(readout.bias)
        self.blocks = nn.ModuleList([first, *later, nn.Sequential(PatchMean(), readout)])


class Patches(nn.Module):
    """An image as non-overlapping square patches. Shape: (B, C, H, W) to (B, side**2, C H W / side**2)."""

    def __init__(self, side: int, image: Input) -> None:
        super().__init__()
        channels, height, width = image.shape
        self.side, self.dim = side, channels * height * width // side**2
        if height % side or width % side:
            raise ConfigError(f"localmixer: {side} patches per side do not divide an image of {height}x{width}")
        if self.dim < 2:
            raise ConfigError("localmixer: patches of one number; normalising them leaves nothing")

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        s = self.side
        cut = x.view(B, C, s, H // s, s, W // s).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(B, s * s, -1)


class PatchMean(nn.Module):
    """Mean over patches. Shape: (B, P, C) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class TokenLinear(nn.Linear):
    """A linear map of the patches, one for all channels. Shape: (B, P, C) to (B, P, C)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Linear gave it)
        return super().forward(input.mT).mT


class GroupedLinear(nn.Module):
    """A linear map of each channel group by itself. Shape: (..., C) to (..., C), weight (G, C/G out, C/G in)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups, dim = groups, channels // groups
        bound = 1 / math.sqrt(dim)
        self.weight = nn.Parameter(torch.empty(groups, dim, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...gi,goi->...go", in_groups(x, self.groups), self.weight)
        return y.flatten(-2) + self.bias


class Normed(nn.Module):
    """LayerNorm without affine part, per channel group, on both sides of a linear layer. Shape: (B, P, C)."""

    def __init__(self, layer: nn.Module, groups: int = 1) -> None:
        super().__init__()
        self.layer, self.groups = layer, groups

    def norm(self, x: Tensor) -> Tensor:
        grouped = in_groups(x, self.groups)
        return F.layer_norm(grouped, grouped.shape[-1:]).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(self.norm(x)))


class Residual(nn.Sequential):
    """The layers inside, added to their input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Sequential gave it)
        y = input
        for layer in self:
            y = layer(y)
        return input + y


def in_groups(x: Tensor, groups: int) -> Tensor:
    """The last axis cut into groups. Shape: (..., C) to (..., G, C/G)."""
    return x.reshape(*x.shape[:-1], groups, -1)


@along_input.register
def _(layer: TokenLinear, t: Tensor) -> Tensor:
    return layer.weight @ t


@along_weights.register
def _(layer: TokenLinear, x: Tensor, v: Tensor, v_bias: Tensor) -> Tensor:
    return v[:, None] @ x + v_bias[:, None, :, None]


@weight_gradient.register
def _(layer: TokenLinear, x: Tensor, delta: Tensor) -> Gradient:
    return {layer.weight: torch.einsum("bpc,bqc->pq", delta, x), layer.bias: delta.sum((0, 2))}


@along_input.register
def _(layer: GroupedLinear, t: Tensor) -> Tensor:
    return torch.einsum("...gi,goi->...go", in_groups(t, layer.groups), layer.weight).flatten(-2)


@along_weights.register
def _(layer: GroupedLinear, x: Tensor, v: Tensor, v_bias: Tensor) -> Tensor:
    product = torch.einsum("bpgi,kgoi->kbpgo", in_groups(x, layer.groups), v)
    return product.flatten(-2) + v_bias[:, None, None]


@weight_gradient.register
def _(layer: GroupedLinear, x: Tensor, delta: Tensor) -> Gradient:
    grouped = in_groups(delta, layer.groups), in_groups(x, layer.groups)
    return {layer.weight: torch.einsum("bpgo,bpgi->goi", *grouped), layer.bias: delta.sum((0, 1))}
