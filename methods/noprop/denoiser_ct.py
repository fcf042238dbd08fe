"""NoProp's continuous-time net: one network that guesses from image, noise and time, evaluated at T times in a row.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, Figure 6 (right) and section 3.2. No batch norm anywhere.

    logits(z, x, t) = head(ReLU(W [image(x); label(z); time(t)] + b)),   W = [W_image W_label W_time]
    as a classifier (neural ODE): z_0 ~ N(0, I), T Euler steps of dz/dt = logits(z, x, t) @ W_embed on [0, 1],
    scores = log p_out(. | z_1)

W's product with the image's features does not change along the steps, and that with the time's not among the images:
both are formed once (`image_part`, `time_part`), and a step costs what depends on z alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import Net, register
from bench.api.kinds import Input, Output
from bench.api.net import Prototypes
from bench.nets.layers import noise_like

from .labels import Labels, LabelSettings
from .towers import TIME_FEATURES, ImageTower, TowerSettings, sinusoids


class DenoiserCTSettings(TowerSettings, LabelSettings):
    T: int = Field(1000, ge=1, description="steps from noise to label at inference, and wherever an ODE is solved")


class TimedDenoiser(nn.Module):
    """The classifier of (noisy embedding, image, time). Shape: see its parts; logits are (B, m)."""

    def __init__(self, image: Input, n_classes: int, settings: DenoiserCTSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        dim = n_classes if settings.embedding == "one-hot" else settings.dim
        self.image = ImageTower(image.shape, settings, batch_norm=False)
        self.label: nn.Module = (
            ImageTower(image.shape, settings, batch_norm=False)
            if settings.embedding == "prototype"
            else nn.Linear(dim, hidden)
        )
        self.time = nn.Linear(TIME_FEATURES, hidden)
        # one layer on the three concatenated, held by its parts
        joint = nn.Linear(3 * hidden, hidden)
        self.from_image, self.from_label, self.from_time = (
            nn.Linear(hidden, hidden, bias=part == "image") for part in ("image", "label", "time")
        )
        for part, columns in zip(
            (self.from_image, self.from_label, self.from_time), joint.weight.detach().chunk(3, dim=1), strict=True
        ):
            part.weight.data.copy_(columns)
        self.from_image.bias.data.copy_(joint.bias.detach())
        self.head = nn.Sequential(
            nn.Linear(hidden, hidden // 2), nn.ReLU(inplace=True), nn.Linear(hidden // 2, n_classes)
        )

    def image_part(self, x: Tensor) -> Tensor:
        """What images add before the head. Shape: (B, C, H, W) to (B, hidden)."""
        part: Tensor = self.from_image(self.image(x).relu_())
        return part

    def time_part(self, t: Tensor) -> Tensor:
        """What times add before the head. Shape: (K,) to (K, hidden)."""
        part: Tensor = self.from_time(self.time(sinusoids(t)).relu_())
        return part

    def forward(self, z: Tensor, image_part: Tensor, time_part: Tensor) -> Tensor:
        """Shape: z (B, d), image_part (B, hidden), time_part (B or 1, hidden) to logits (B, m)."""
        label_part = self.from_label(self.label(z).relu_())
        logits: Tensor = self.head(label_part.add_(image_part).add_(time_part).relu_())
        return logits


@register
class DenoiserCT(Net):
    """One block, evaluated T times, and the class embeddings with their readout."""

    name = "denoiser-ct"
    small: ClassVar[Mapping[str, Any]] = {"T": 5, "width": 4, "hidden": 32}
    Settings = DenoiserCTSettings
    stochastic = True

    def __init__(self, inputs: Input, outputs: Output, settings: DenoiserCTSettings) -> None:
        super().__init__(inputs, outputs, settings)
        self.T = self.passes = settings.T
        self.denoiser = TimedDenoiser(inputs, outputs.size, settings)
        self.blocks = nn.ModuleList([self.denoiser])
        self.labels = Labels(inputs, outputs.size, settings)

    def logits(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """One evaluation, a time for each example. Shape: z (B, d), x (B, C, H, W), t (B,) to (B, m)."""
        logits: Tensor = self.denoiser(z, self.denoiser.image_part(x), self.denoiser.time_part(t))
        return logits

    def along(self, x: Tensor, steps: int) -> Callable[[Tensor, int], Tensor]:
        """logits(z, x, k / steps) as a function of z and k = 0..steps; the parts of x and the times are formed once."""
        image_part = self.denoiser.image_part(x)
        times = torch.arange(steps + 1, dtype=x.dtype, device=x.device) / steps
        time_parts = self.denoiser.time_part(times).split(1)
        return lambda z, k: self.denoiser(z, image_part, time_parts[k])

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        z = noise_like((len(x), self.labels.dim), x, noise)
        logits = self.along(x, self.T)
        for k in range(self.T):
            z = z + logits(z, k) @ self.labels.weight / self.T
        return self.labels.scores(z)

    def start_from(self, prototypes: Prototypes) -> None:
        if self.labels.wants_prototypes:
            self.labels.place(prototypes())
