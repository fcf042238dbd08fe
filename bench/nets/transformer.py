"""Transformer: attention over patches of an image or steps of a sequence, or causal over tokens.

Vaswani et al. 2017, "Attention is all you need"; Dosovitskiy et al. 2021, "An image is worth 16x16 words" (patches).
For positions h (T, d) with learnt position vectors added at the start, and layer norm N before each part (or none):

    h <- h + W_o heads(N h),   head_i = softmax(Q_i K_i^T / sqrt(d / heads)) V_i,   (Q, K, V) = W_qkv N h
    h <- h + W_2 gelu(W_1 N h),     W_1: d to 4 d

For next tokens attention is causal and each position has its output; for other outputs positions see each other, and
their mean is read. Linear layers have no bias. Four blocks of d = 64 on 32 tokens of 65 kinds, without layer norm:
206,976 parameters.

A gradient that a rule sends back through a block also goes along its two shortcuts, unless `skip` cuts it there.
Embeddings and positions start at N(0, 0.02^2), linear layers by torch's law.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from bench.api.errors import ConfigError
from bench.api.kinds import Input, InputKind, Output, OutputKind
from bench.api.net import Net
from bench.catalog.register import register
from bench.nets.layers import Residual


class TransformerSettings(BaseModel):
    depth: int = Field(4, ge=1, description="blocks of attention and mlp")
    width: int = Field(64, ge=1, description="numbers that stand for a position, d")
    heads: int = Field(4, ge=1, description="attention heads; they share d evenly")
    patch: int = Field(4, ge=1, description="side of an image's patches, in pixels")
    norm: Literal["layer", "none"] = Field("layer", description="layer norm before attention, mlp and read-out")
    skip: Literal["open", "cut"] = Field("open", description="whether shortcuts carry gradients back")


@register
class Transformer(Net):
    """Blocks: embedding of positions; `depth` times attention and mlp, each with a shortcut; norm, mean, linear.

    The unit of locality is a block of attention and mlp: a teaching signal enters behind it, at every position.
    """

    name = "transformer"
    takes: ClassVar[tuple[InputKind, ...]] = ("image", "sequence", "tokens")
    gives: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities", "values", "next token")
    small: ClassVar[Mapping[str, Any]] = {"depth": 2, "width": 16, "heads": 2}
    Settings = TransformerSettings

    def __init__(self, inputs: Input, outputs: Output, settings: TransformerSettings) -> None:
        super().__init__(inputs, outputs, settings)
        d, each = settings.width, outputs.kind == "next token"
        if d % settings.heads:
            raise ConfigError(f"transformer: {settings.heads} heads do not divide a width of {d}")
        if each and (outputs.positions,) != inputs.shape:
            raise ConfigError(f"transformer predicts a token after each of {inputs.shape[0]}, not {outputs.positions}")

        def residual(*layers: nn.Module) -> Residual:
            return Residual(nn.Sequential(*_norm(settings, d), *layers), cut=settings.skip == "cut")

        blocks = [
            nn.Sequential(
                residual(Attention(d, settings.heads, causal=each)),
                residual(nn.Linear(d, 4 * d, bias=False), nn.GELU(), nn.Linear(4 * d, d, bias=False)),
            )
            for _ in range(settings.depth)
        ]
        last = [*_norm(settings, d), *([] if each else [Mean()]), nn.Linear(d, outputs.size, bias=False)]
        self.blocks = nn.ModuleList([_embedding(inputs, settings), *blocks, nn.Sequential(*last)])


class Attention(nn.Module):
    """Multi-head self-attention by torch's fused kernel. Shape: (B, T, d) to the same."""

    def __init__(self, d: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.mix, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        B, T, d = h.shape
        q, k, v = self.mix(h).view(B, T, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.out(heads.transpose(1, 2).reshape(B, T, d))
        return out


class Patches(nn.Module):
    """Patches of an image, row by row. Shape: (B, C, H, W) to (B, H W / p^2, C p^2)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return F.unfold(x, self.side, stride=self.side).mT


class Positions(nn.Module):
    """Adds a learnt vector to each position. Shape: (B, T, d) to the same."""

    def __init__(self, steps: int, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(steps, d))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.weight


class Mean(nn.Module):
    """The mean over positions. Shape: (B, T, d) to (B, d)."""

    def forward(self, h: Tensor) -> Tensor:
        return h.mean(1)


def _norm(settings: TransformerSettings, d: int) -> list[nn.Module]:
    return [nn.LayerNorm(d)] if settings.norm == "layer" else []


def _embedding(inputs: Input, settings: TransformerSettings) -> nn.Sequential:
    d, p = settings.width, settings.patch
    if inputs.kind == "tokens":
        embedding = nn.Embedding(inputs.vocabulary, d)
        nn.init.normal_(embedding.weight, std=0.02)
        return nn.Sequential(embedding, Positions(inputs.shape[0], d))
    if inputs.kind == "sequence":
        steps, features = inputs.shape
        return nn.Sequential(nn.Linear(features, d, bias=False), Positions(steps, d))
    channels, height, width = inputs.shape
    if height % p or width % p:
        raise ConfigError(f"transformer: patches of {p}x{p} do not divide an image of {height}x{width}; set patch")
    return nn.Sequential(Patches(p), nn.Linear(channels * p * p, d, bias=False), Positions(height * width // p**2, d))
