"""The parts that NoProp's two nets share: the image tower and the sinusoidal embedding of time.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, Figure 6. Deviations, none of which changes what a tower computes: ReLU
follows max-pooling (equal values, a quarter of the work), convolutions run channels-last.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from bench.api.errors import ConfigError
from bench.nets.layers import ReLUDropout

TIME_FEATURES = 64
TIME_SCALE = 1000.0  # t in [0, 1] must spread over the sinusoids' periods, or neighbouring times look alike


class TowerSettings(BaseModel):
    width: int = Field(32, ge=1, description="channels of the first convolution; doubled twice")
    hidden: int = Field(256, ge=2, description="units of the fully connected layers")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout after each convolution")


class ImageTower(nn.Module):
    """Image to features before their last non-linearity. Shape: (B, C, H, W) or flat (B, C H W) to (B, hidden)."""

    def __init__(self, image_shape: tuple[int, ...], settings: TowerSettings, *, batch_norm: bool) -> None:
        super().__init__()
        channels, height, width = image_shape
        if min(height, width) < 4:
            raise ConfigError(f"images of {height} x {width} are too small for two poolings; 4 x 4 is the least")
        w, pooled = settings.width, (height // 2 // 2) * (width // 2 // 2)
        self.image_shape = image_shape
        self.conv1 = nn.Conv2d(channels, w, 3, padding=1)
        self.conv2 = nn.Conv2d(w, 2 * w, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * w, 4 * w, 3, padding=1)
        self.drop1, self.drop2, self.drop3 = (ReLUDropout(settings.dropout) for _ in range(3))
        self.fc = nn.Linear(4 * w * pooled, settings.hidden)
        self.norm = nn.BatchNorm1d(settings.hidden) if batch_norm else nn.Identity()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, *self.image_shape).contiguous(memory_format=torch.channels_last)
        x = self.drop1(F.max_pool2d(self.conv1(x), 2))
        x = self.drop2(self.conv2(x))
        x = self.drop3(F.max_pool2d(self.conv3(x), 2))
        if x.requires_grad:
            # flattening hands back a gradient in another order of memory, and kernels of mixed orders crawl
            x.register_hook(partial(torch.Tensor.contiguous, memory_format=torch.channels_last))
        features: Tensor = self.norm(self.fc(x.flatten(1)))
        return features


def sinusoids(t: Tensor) -> Tensor:
    """Sines and cosines of time at geometrically spaced frequencies. Shape: (B,) in [0, 1] to (B, TIME_FEATURES).

    Vaswani et al. 2017, "Attention is all you need", section 3.5, of 1000 t.
    """
    half = TIME_FEATURES // 2
    frequencies = torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * (-math.log(10_000) / half))
    angles = TIME_SCALE * t[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)
