"""What two published forms of forward-forward disagree about: goodness, threshold, normalisation, step.

                   hinton                                   mean-goodness
    source         Hinton's Matlab, Lowe's PyTorch          Pezeshki's PyTorch
    G              sum_u h_u^2, theta = 1 per unit          mean_u h_u^2, theta = 2
    norm           to mean square 1                         to length 1
    relu           gradient passes where h = 0, too         its own gradient
    + L_l          0.03 mean_u (mean_v r_v - r_u)^2,        -
                   r: running mean (0.9, from 0.5) of
                   each unit, or channel, on z+
    step           SGD, momentum 0.9, weight decay 3e-4,    Adam, lr 0.03
                   lr 1e-3, in the second half to 0
    predict_by     head                                     goodness
    looks at       all layers but the first                 all layers
    start          weights N(0, 1 / n_out), biases 0        as torch's layers

h_u = 0 leaves the goodness as it is in every direction, so that peer normalisation alone can wake a dead unit; for
this the gradient passes it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from bench.api.structure import weighted

MOMENTUM = 0.9  # of SGD, and of the running means of peer normalisation
EPS = 1e-8  # beside the length of an output, which is 0 where all units are off

Negatives = Literal["wrong", "all", "hard"]


@dataclass(frozen=True)
class Recipe:
    """One column of the table. defaults: of settings, where they differ from the first column's."""

    summed: bool
    straight_through: bool
    peer: float
    cools: bool
    looks_from: int
    defaults: dict[str, Any] = field(default_factory=dict)

    def layer(self, block: nn.Module) -> nn.Sequential:
        """A hidden block of the net, with its weights."""
        return nn.Sequential(
            *(
                StraightThroughReLU() if self.straight_through and isinstance(part, nn.ReLU) else part
                for part in block.children()
            )
        )

    @torch.no_grad()
    def start(self, layer: nn.Module) -> None:
        """The published form's first weights, drawn from the global generator. n_out of a convolution: its fan-out."""
        if not self.summed:
            return
        mixing: list[Any] = [*weighted(layer)]
        for part in mixing:
            weight = part.weight
            weight.normal_(0, (weight.numel() / weight.shape[1]) ** -0.5)
            if part.bias is not None:
                part.bias.zero_()

    def optimizer(self, layer: nn.Module, lr: float) -> Optimizer:
        if self.summed:
            return SGD(layer.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=3e-4, fused=True)
        return Adam(layer.parameters(), lr=lr, fused=True)

    def norm(self, h: Tensor) -> Tensor:
        """Takes away what a goodness can be read from: the length of each row. Shape: (rows, ...) to the same."""
        length: Tensor = torch.linalg.vector_norm(h, dim=tuple(range(1, h.dim())), keepdim=True)
        return h * ((h[0].numel() ** 0.5 if self.summed else 1.0) / (length + EPS))

    def goodness(self, h: Tensor) -> Tensor:
        """Shape: (rows, ...) to (rows,)."""
        total = h.flatten(1).pow(2).sum(1)
        return total if self.summed else total / h[0].numel()

    def threshold(self, theta: float, h: Tensor) -> float:
        return theta * h[0].numel() if self.summed else theta


RECIPES = {
    "hinton": Recipe(summed=True, straight_through=True, peer=0.03, cools=True, looks_from=1),
    "mean-goodness": Recipe(
        summed=False, straight_through=False, peer=0.0, cools=False, looks_from=0,
        defaults={"lr": 0.03, "theta": 2.0, "predict_by": "goodness"},
    ),
}  # fmt: skip


class StraightThroughReLU(nn.Module):
    """relu(a), with the gradient of a."""

    def forward(self, a: Tensor) -> Tensor:
        h: Tensor = _StraightThrough.apply(a)
        return h


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a.relu()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0]


def wrong_labels(kind: Negatives, y: Tensor, C: int, noise: torch.Generator, scores: Tensor | None = None) -> Tensor:
    """Labels other than y: one an image, or all C - 1, which follow each other batch by batch. Shape: (B,) to (m B,).

    wrong: drawn evenly. hard: as likely as softmax(scores) has them, the true label excepted; scores (B, C).
    """
    if kind == "all":
        return ((y + torch.arange(1, C, device=y.device).unsqueeze(1)) % C).flatten()
    if kind == "wrong":
        return (y + torch.randint(1, C, y.shape, generator=noise, device=y.device)) % C
    assert scores is not None
    # a categorical draw as the largest of Gumbel variables: multinomial would stop a run that diverges
    gumbel = -torch.empty_like(scores).exponential_(generator=noise).log()
    chosen: Tensor = (scores.nan_to_num() + gumbel).scatter(1, y.unsqueeze(1), -torch.inf).argmax(1)
    return chosen
