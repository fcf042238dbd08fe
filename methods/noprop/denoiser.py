"""NoProp's discrete-time net: T blocks, each of which guesses the label embedding from image and noise.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, Figure 6 (left) and Eq. 17-19.

    uhat_t(z, x) = softmax(logits_t(z, x)) @ W_embed
    z_0 ~ N(0, I),  z_t = (1 - g_t) z_{t-1} + g_t uhat_t(z_{t-1}, x),  g_t = tanh(w_t),  scores = log p_out(. | z_T)

Where the embeddings are images (prototypes), z goes through a tower like the image's. Left open by the paper and
chosen here: g_t starts at tanh(1), theta_out as labels.py says (a default start of it keeps the backprop
baseline from learning).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import Net, register
from bench.api.kinds import Input, Output
from bench.api.net import Prototypes
from bench.nets.layers import noise_like

from .labels import Labels, LabelSettings, mean_embedding
from .towers import ImageTower, TowerSettings


class DenoiserSettings(TowerSettings, LabelSettings):
    T: int = Field(10, ge=1, description="blocks, that is steps from noise to label")


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

    def __init__(self, image: Input, n_classes: int, settings: DenoiserSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        dim = n_classes if settings.embedding == "one-hot" else settings.dim
        self.image = ImageTower(image.shape, settings, batch_norm=True)
        self.label: nn.Module = (
            ImageTower(image.shape, settings, batch_norm=True)
            if settings.embedding == "prototype"
            else LabelPath(dim, hidden)
        )
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


@register
class Denoiser(Net):
    """T blocks, the class embeddings with their readout, and the gates of Eq. 18."""

    name = "denoiser"
    small: ClassVar[Mapping[str, Any]] = {"T": 3, "width": 4, "hidden": 32}
    Settings = DenoiserSettings
    stochastic = True

    def __init__(self, inputs: Input, outputs: Output, settings: DenoiserSettings) -> None:
        super().__init__(inputs, outputs, settings)
        self.blocks = nn.ModuleList(DenoiserBlock(inputs, outputs.size, settings) for _ in range(settings.T))
        self.labels = Labels(inputs, outputs.size, settings)
        self.gates = nn.Parameter(torch.ones(settings.T))

    def u_hat(self, t: int, z: Tensor, x: Tensor) -> Tensor:
        """Block t's guess of u_y, t = 1..T. Shape: z (B, d), x (B, C, H, W) to (B, d)."""
        logits: Tensor = self.blocks[t - 1](z, x)
        return mean_embedding(logits, self.labels.weight)

    def stem(self, x: Tensor, noise: torch.Generator | None) -> Tensor:
        return noise_like((len(x), self.labels.dim), x, noise)

    def block(self, k: int, h: Tensor, x: Tensor) -> Tensor:
        return h + self.gates[k].tanh() * (self.u_hat(k + 1, h, x) - h)

    def head(self, h: Tensor) -> Tensor:
        return self.labels.scores(h)

    def start_from(self, prototypes: Prototypes) -> None:
        if self.labels.wants_prototypes:
            self.labels.place(prototypes())
