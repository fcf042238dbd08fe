"""NoProp's discrete-time net: T blocks, each of which guesses the label embedding from image and noise.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, Figure 6 (left) and Eq. 17-19.

    uhat_t(z, x) = softmax(logits_t(z, x)) @ W_embed
    z_0 ~ N(0, I),  z_t = (1 - g_t) z_{t-1} + g_t uhat_t(z_{t-1}, x),  g_t = tanh(w_t),  scores = theta_out(z_T)

Deviations, none of which changes what a block computes: ReLU follows max-pooling (equal values, a quarter of
the work), convolutions run channels-last. Left open by the paper and chosen here: theta_out starts at W_embed
(a default start keeps the backprop baseline from learning) and g_t at tanh(1).
"""

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from bench.nets.base import Net
from bench.nets.layers import Dropout


class DenoiserSettings(BaseModel):
    T: int = Field(10, ge=1, description="blocks, that is steps from noise to label")
    width: int = Field(32, ge=1, description="channels of the first convolution; doubled twice")
    hidden: int = Field(256, ge=2, description="units of the fully connected layers")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout after each convolution")


class ImageTower(nn.Module):
    """Image to features, Figure 6. Shape: (B, C, H, W) to (B, hidden)."""

    def __init__(self, image_shape: tuple[int, int, int], settings: DenoiserSettings) -> None:
        super().__init__()
        channels, height, width = image_shape
        w, pooled = settings.width, (height // 2 // 2) * (width // 2 // 2)
        self.conv1 = nn.Conv2d(channels, w, 3, padding=1)
        self.conv2 = nn.Conv2d(w, 2 * w, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * w, 4 * w, 3, padding=1)
        self.drop1, self.drop2, self.drop3 = (Dropout(settings.dropout) for _ in range(3))
        self.fc = nn.Linear(4 * w * pooled, settings.hidden)
        self.norm = nn.BatchNorm1d(settings.hidden)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.drop1(F.max_pool2d(self.conv1(x), 2).relu_())
        x = self.drop2(self.conv2(x).relu_())
        x = self.drop3(F.max_pool2d(self.conv3(x), 2).relu_())
        features: Tensor = self.norm(self.fc(x.flatten(1)))
        return features


class LabelPath(nn.Module):
    """Noisy embedding to features, with one residual pair of layers. Shape: (B, d) to (B, hidden)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(dim, hidden), nn.BatchNorm1d(hidden)
        self.fc2, self.norm2 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)
        self.fc3, self.norm3 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)

    def forward(self, z: Tensor) -> Tensor:
        h = self.norm1(self.fc1(z)).relu_()
        return h + self.norm3(self.fc3(self.norm2(self.fc2(h)).relu_()))  # type: ignore[no-any-return]


class DenoiserBlock(nn.Module):
    """One step's classifier of (noisy embedding, image). Shape: (B, d), (B, C, H, W) to logits (B, m)."""

    def __init__(self, image_shape: tuple[int, int, int], n_classes: int, dim: int, settings: DenoiserSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.image = ImageTower(image_shape, settings)
        self.label = LabelPath(dim, hidden)
        self.head = nn.Sequential(
            nn.Linear(2 * hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden // 2),
            nn.BatchNorm1d(hidden // 2),
            nn.ReLU(inplace=True),
            nn.Linear(hidden // 2, n_classes),
        )

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat((self.image(x), self.label(z)), dim=1))
        return logits


class Denoiser(Net):
    """T blocks, a class embedding (one-hot), a linear readout theta_out and the gates of Eq. 18."""

    Settings = DenoiserSettings
    stochastic = True

    def __init__(self, image_shape: tuple[int, int, int], n_classes: int, settings: DenoiserSettings) -> None:
        super().__init__(image_shape, n_classes, settings)
        self.embedding: Tensor
        self.register_buffer("embedding", torch.eye(n_classes))
        dim = self.embedding.shape[1]
        self.blocks = nn.ModuleList(DenoiserBlock(image_shape, n_classes, dim, settings) for _ in range(settings.T))
        self.readout = nn.Linear(dim, n_classes)
        with torch.no_grad():
            self.readout.weight.copy_(self.embedding)
            self.readout.bias.zero_()
        self.gates = nn.Parameter(torch.ones(settings.T))

    def u_hat(self, t: int, z: Tensor, x: Tensor) -> Tensor:
        """Block t's guess of u_y, t = 1..T. Shape: z (B, d), x (B, C, H, W) to (B, d)."""
        logits: Tensor = self.blocks[t - 1](z, x)
        return logits.softmax(dim=1) @ self.embedding

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        shape = len(x), self.embedding.shape[1]
        z = torch.zeros(shape, device=x.device) if noise is None else noise_like(shape, noise)
        for t, gate in enumerate(self.gates.tanh(), start=1):
            z = z + gate * (self.u_hat(t, z, x) - z)
        scores: Tensor = self.readout(z)
        return scores


def noise_like(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal draws on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)
