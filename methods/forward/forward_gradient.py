"""Forward gradient: step along random directions by as much as the loss answers to each, without a backward pass.

Papers: Baydin, Pearlmutter, Syme, Wood, Torr 2022, "Gradients without backpropagation", arXiv 2202.08587 (weights);
Ren, Kornblith, Liao, Hinton 2023, "Scaling forward gradient with local losses", arXiv 2210.03310, Eq. 3-5 (activities).

space = weight, directions v_i over all weights, i = 1..k:

    g = 1/k sum_i (grad L . v_i) v_i,      L the mean loss of the batch

space = activity, noise u_il,n on the pre-activations a_l of each example n (and position), one scalar per example:

    c_in = sum_l dL_n/da_l,n . u_il,n,     delta_l,n = 1/k sum_i c_in u_il,n,     g_l = 1/N sum_n delta_l,n h_{l-1,n}^T

Both are unbiased if E[v v^T] = I. The inner products are exact: one pass carries the tangents of all k directions.
On localmixer noise enters behind the LayerNorm after each layer and is pulled back through it by its own Jacobian.
Noise of units that a ReLU holds at zero is dropped, as in Ren et al. (unbiased, less variance). Of the layers' inputs
and noise all are kept until the pass ends (space = activity), of the directions all (space = weight).
On nets of other layers (norms, skip connections, attention, state over time) tangents come from torch's forward mode
through the net as it is, and noise enters behind every layer with weights inside it, at each of its calls; there the
noise of units at zero is kept. With batch norm an example's loss depends on the others' activities: slopes of one
example leave these cross terms out, so that space = activity is unbiased on nets without it alone.
Deviation: the step is AdamW's, as backprop's here, where the papers take SGD.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from bench import AdamWSettings, Batch, Claims, Facts, Method, MethodInfo, Objective, Progress, Seeds, Task, register
from bench.api.net import Net

from .._shared.bilinear import Gradient, add, hand_over
from .._shared.directions import Directions, Draw, draw, split, weight_directions
from .._shared.optimizers import adamw
from .tangents import Activities, Weights, forward, refuse_activities, refuse_masks


class ForwardGradientSettings(AdamWSettings):
    space: Literal["weight", "activity"] = Field("activity", description="what is perturbed: FG-W or FG-A")
    directions: Directions = Field("gaussian", description="distribution of the perturbation's entries")
    k: int = Field(1, ge=1, description="directions per step, evaluated together")


@register
class ForwardGradient(Method):
    """One forward pass with tangents per step, none backward."""

    info = MethodInfo(
        name="forward-gradient",
        title="Forward gradient",
        family="forward-gradient",
        paper="baydin2022gradients, ren2023scaling",
        claims=Claims(reverse_mode="none", updates_wait_for="later blocks"),
        nets=("mlp", "cnn", "localmixer"),
        outputs=("classes", "class probabilities", "values"),
        needs=("noiseless",),
    )
    Config = ForwardGradientSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: ForwardGradientSettings, facts: Facts) -> str | None:
        reason = super().refuse(task, config, facts) or refuse_masks(cls.info.name, task.sketch())
        if reason or config.space == "weight":
            return reason
        return refuse_activities(cls.info.name, task.sketch(), task.input)

    def __init__(self, task: Task, config: ForwardGradientSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device)
        self.config, self.noise = config, seeds.noise
        self.optimizer = adamw(self.net.parameters(), config)

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        estimate = weight_estimate if self.config.space == "weight" else activity_estimate
        loss, gradient = estimate(self.net, batch, self.config.k, self.draw, objective=self.objective)
        hand_over(gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss}

    def draw(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return draw(shape, like, self.config.directions, self.noise)


def weight_estimate(net: Net, batch: Batch, k: int, draw: Draw, *, objective: Objective) -> tuple[Tensor, Gradient]:
    """Mean loss and forward gradient for k directions over the weights."""
    flat, directions = weight_directions(net, k, draw)
    scores, t = forward(net, batch.x, Weights(directions))
    slopes = torch.einsum("kbc,bc->k", t, objective.output_gradient(scores, batch.y)) / len(batch.y)
    return objective.loss(scores, batch.y), split(slopes @ flat / k, net)


def activity_estimate(net: Net, batch: Batch, k: int, draw: Draw, *, objective: Objective) -> tuple[Tensor, Gradient]:
    """Mean loss and forward gradient for k draws of noise on the activities."""
    space = Activities(k, draw)
    scores, t = forward(net, batch.x, space)
    # one slope per example: the mean over the batch would add the noise of every example to each
    slopes = torch.einsum("kbc,bc->kb", t, objective.output_gradient(scores, batch.y)) / (k * len(batch.y))
    gradient: Gradient = {}
    for site in space.sites:
        add(gradient, site.gradient(torch.einsum("kb,kb...->b...", slopes, site.noise)))
    return objective.loss(scores, batch.y), gradient
