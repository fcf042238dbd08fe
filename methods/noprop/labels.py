"""Class embeddings and what reads a class off a point among them: W_embed and p_out of NoProp.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, section 3 and Eq. 15-16.

    one-hot     W_embed = I, fixed
    learned     `dim` numbers per class, trained
    prototype   as many numbers as an image has pixels, trained; a class starts as the training image of it whose
                median distance to the others of the class is least
    softmax     log p_out(y | z) = theta_out(z)_y up to a constant, theta_out linear
    posterior   log p_out(y | z) = -|softmax(theta_out(z)) W_embed - u_y|^2 / (2 sigma^2) up to a constant

Left open by the paper and chosen here: lengths at the start, on which depends what the noise schedule means (learned:
1, as for one-hot; prototype: that of the standardised image, or sqrt(d) for another start, since the towers that read
z do not learn from images a thirtieth as strong; measured on digits, 98% against 50%); theta_out starts at the rows of
W_embed over their squared lengths, the identity among orthogonal embeddings; sigma.
"""

import math
from typing import Literal, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from bench.api.kinds import Input

Start = Literal["orthogonal", "random", "prototype"]


class LabelSettings(BaseModel):
    embedding: Literal["one-hot", "learned", "prototype"] = Field("one-hot", description="kind of class embedding")
    dim: int = Field(20, ge=1, description="length of a learned embedding; a prototype is as long as an image")
    start: Literal["auto", "orthogonal", "random", "prototype"] = Field(
        "auto", description="where a trained embedding starts; auto: prototypes for prototype, else orthogonal"
    )
    scale: float = Field(1.0, gt=0, description="factor on the length of trained embeddings at the start")
    class_probability: Literal["softmax", "posterior"] = Field("softmax", description="p_out: linear, or Eq. 15-16")
    sigma: float = Field(0.5, gt=0, description="spread of the posterior class probability")

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        if self.embedding == "one-hot" and self.start != "auto":
            raise ValueError(f"a one-hot embedding is fixed and has no start={self.start}; drop it or use learned")
        if self.embedding == "learned" and self.start == "prototype":
            raise ValueError("start=prototype needs embedding=prototype: only an image can start as one")
        return self

    def first(self) -> Start:
        """The start that `auto` stands for."""
        if self.start != "auto":
            return self.start
        return "prototype" if self.embedding == "prototype" else "orthogonal"


class Labels(nn.Module):
    """W_embed `weight` (m, d) and theta_out `readout`; d is the number of classes, `dim`, or the image's size."""

    weight: Tensor

    def __init__(self, image: Input, n_classes: int, settings: LabelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.image_shape = image.shape if settings.embedding == "prototype" else None
        if settings.embedding == "one-hot":
            self.register_buffer("weight", torch.eye(n_classes))
        else:
            dim = image.n_features if self.image_shape else settings.dim
            self.weight = nn.Parameter(torch.empty(n_classes, dim))
        self.start: Tensor  # for the report: where images of classes began
        self.register_buffer("start", None if self.image_shape is None else torch.empty_like(self.weight.detach()))
        self.readout = nn.Linear(self.dim, n_classes)
        nn.init.zeros_(self.readout.bias)
        self.place(torch.eye(n_classes) if settings.embedding == "one-hot" else self._drawn())

    @property
    def learned(self) -> bool:
        return self.settings.embedding != "one-hot"

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    @property
    def wants_prototypes(self) -> bool:
        return self.learned and self.settings.first() == "prototype"

    @torch.no_grad()
    def place(self, rows: Tensor) -> None:
        """Start at these embeddings, times `scale` where they are trained. Shape: (m, ...) to (m, d)."""
        self.weight.copy_((self.settings.scale if self.learned else 1.0) * rows.flatten(1))
        if self.image_shape is not None:
            self.start.copy_(self.weight)
        self.readout.weight.copy_(self.weight / self.weight.square().sum(1, keepdim=True))

    def scores(self, z: Tensor) -> Tensor:
        """log p_out(y | z) up to a constant. Shape: (..., d) to (..., m)."""
        scores: Tensor = self.readout(z)
        if self.settings.class_probability == "softmax":
            return scores
        return -squared_distances(mean_embedding(scores, self.weight), self.weight) / (2 * self.settings.sigma**2)

    def _drawn(self) -> Tensor:
        """Orthogonal rows where there is room for them, else (and on request) independent normal ones."""
        n_classes, dim = self.weight.shape
        length = 1.0 if self.image_shape is None else math.sqrt(dim)
        rows = torch.randn(n_classes, dim) / math.sqrt(dim)
        if self.settings.first() == "orthogonal" and n_classes <= dim:
            nn.init.orthogonal_(rows)
        return length * rows


def mean_embedding(logits: Tensor, weight: Tensor) -> Tensor:
    """softmax(logits) @ W_embed, never under autocast: a probability of 1 - 1e-3 is 1 in bfloat16, and its error gone.

    Shape: logits (..., m), weight (m, d) to (..., d).
    """
    with torch.autocast(weight.device.type, enabled=False):
        mean: Tensor = logits.to(weight.dtype).softmax(-1) @ weight
    return mean


def squared_distances(z: Tensor, points: Tensor) -> Tensor:
    """|z - p|^2 for each point p, never under autocast: large squares cancel. Shape: (..., d), (m, d) to (..., m)."""
    with torch.autocast(points.device.type, enabled=False):
        z = z.to(points.dtype)
        return z.square().sum(-1, keepdim=True) - 2 * z @ points.mT + points.square().sum(1)
