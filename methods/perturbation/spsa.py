"""SPSA: step along a random direction by as much as the loss answers to it, in place and without memory.

Papers: Spall 1992, "Multivariate stochastic approximation using a simultaneous perturbation gradient
approximation"; Malladi et al. 2023, "Fine-tuning language models with just forward passes", arXiv 2305.17333
(MeZO, Algorithm 1, and n-SPSA). On one mini-batch, for n directions z over all weights, E[z z^T] = I:

    two sides:  g = (L(theta + eps z) - L(theta - eps z)) / (2 eps) z        E[g] = grad L + O(eps^2)
    one side:   g = (L(theta + eps z) - L(theta)) / eps z                    E[g] = grad L + O(eps^2)
    theta <- theta - lr / n sum g

Memory is that of inference: z is drawn again from the same place of the generator instead of stored, +eps,
-2 eps, then one pass both undoes the perturbation and takes the step. As in the paper the net is in evaluation
mode: no dropout, BatchNorm with its running statistics, which stay as they are.
Deviations from the papers: the generator's state stands for the seed, which spares a synchronisation with the
device; Rademacher directions (Spall's own) are on offer, for they are cheaper to draw than the net is to run.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Net, Progress, Seeds, StepSize, Task, register, step_size

from .._shared.directions import Directions, draw


class SPSASettings(StepSize):
    lr: float = step_size(4e-3)
    eps: float = Field(1e-3, gt=0, description="length of the perturbation, in units of the weights")
    sides: Literal["one", "two"] = Field("two", description="where the loss is measured: ahead, or ahead and behind")
    n: int = Field(1, ge=1, description="directions per step, one after another")
    directions: Directions = Field("rademacher", description="distribution of the directions")


@register
class SPSA(Method):
    """Two forward passes per direction, none backward, nothing stored."""

    info = MethodInfo(
        name="spsa",
        title="SPSA (MeZO)",
        family="perturbation",
        paper="spall1992multivariate, malladi2023mezo",
        claims=Claims(reverse_mode="none", forward_passes=2, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=("noiseless",),
    )
    Config = SPSASettings
    net: Net

    def __init__(self, task: Task, config: SPSASettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device).eval()
        self.config = config
        self.noise = seeds.noise

    def claims(self) -> Claims:
        n = self.config.n
        return replace(self.info.claims, forward_passes=2 * n if self.config.sides == "two" else n + 1)

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        c = self.config
        here = self._loss(batch) if c.sides == "one" else None
        losses, moves = [], []
        for k in range(c.n):
            place = self.noise.get_state()
            self._move(c.eps, place)
            above = self._loss(batch)
            if here is None:
                self._move(-2 * c.eps, place)
                below = self._loss(batch)
                slope, back = (above - below) / (2 * c.eps), c.eps
                losses.append((above + below) / 2)
            else:
                slope, back = (above - here) / c.eps, -c.eps
                losses.append(here)
            if k < c.n - 1:  # the next direction starts from the same weights
                self._move(back, place)
                back = 0.0
            moves.append((back - c.lr / c.n * slope, place))
        for by, place in moves:  # the last move leaves the generator behind all draws of this step
            self._move(by, place)
        return {"loss": torch.stack(losses).mean()}

    def _loss(self, batch: Batch) -> Tensor:
        return self.objective.loss(self.net(batch.x), batch.y)

    def _move(self, by: float | Tensor, place: Tensor) -> None:
        """theta <- theta + by z, where z is drawn from the generator's state `place`, one parameter at a time.

        Shape: by is a number or a 0-d tensor.
        """
        self.noise.set_state(place)
        for p in self.net.parameters():
            p.add_(draw(p.shape, p, self.config.directions, self.noise).mul_(by))
