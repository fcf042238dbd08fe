"""Guided forward gradient: step along a local guess of the gradient by as much as the loss answers to it.

Paper: Fournier, Rivaud, Belilovsky, Eickenberg, Oyallon 2023, "Can forward gradient match backpropagation?", ICML,
arXiv 2306.06968: global target, local guess. Block b gives z_b; its head's loss l_b sees z_b and the labels alone.

    space = activity    v_b,n = dl_b,n / dz_b,n       w_b,n = <dL_n/dz_b,n , v_b,n> / |v_b,n|^2, one per example
    space = weight      v_b = grad_{W_b} l_b          w_b = <grad_{W_b} L, v_b> / |v_b|^2, one for all examples

    g_b = grad_{W_b} 1/N sum_n w_b,n l_b,n

In space = weight g_b is the projection of the gradient on the guess; in space = activity w_b,n v_b,n is that of
dL_n/dz_b,n, and g_b what the block's own backward pass makes of it. Neither turns against what it projects.
The inner products are forward-mode derivatives, one direction a block. Heads learn by the gradient of their own loss,
which reaches their block only as a guess; the net's last layer has its true gradient. A head starts at zero, so the
first step moves no block.
Cost for K hidden blocks: a forward and a backward pass of each block with its head, and tangents: the direction of a
block goes through all blocks behind it, K / 2 forward passes in all. The graphs of all blocks are kept until the
slopes are known (space = activity), or of one block at a time and the guesses of all (space = weight).
Deviations from the paper: the guess is projected by forward mode, where the authors' code computes the gradient by
backprop and projects it; the step is AdamW's, as backprop's here, where theirs is SGD's.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import (
    AdamWSettings,
    Batch,
    Claims,
    Facts,
    Method,
    MethodInfo,
    Objective,
    Progress,
    Role,
    Seeds,
    Task,
    register,
)
from bench.api.inference import inference
from bench.api.layer import Tangent, push, weight_gradient
from bench.api.net import Net
from bench.api.seeds import drawn_from
from bench.api.structure import hidden_shapes
from bench.nets.localmixer import PatchMean

from .._shared.bilinear import Gradient, hand_over
from .._shared.heads import HeadSettings, build_head
from .._shared.optimizers import adamw
from .tangents import Carried, refuse_masks, refuse_resting

Space = Literal["activity", "weight"]
Step = Callable[[Tensor], Gradient]  # a block's gradient, for the slopes of the examples' losses along its guess, (B,)
Guessed = tuple[Tensor, Tensor, Step, Gradient]  # output, tangents (k + 1, B, ...), step, gradient of the head


class GuidedForwardGradientSettings(AdamWSettings, HeadSettings):
    space: Space = Field("activity", description="where gradient and guess are compared: at block outputs or weights")


@register
class GuidedForwardGradient(Method):
    """Local backward passes for the guesses, one forward pass with their tangents for the steps."""

    info = MethodInfo(
        name="guided-forward-gradient",
        title="Guided forward gradient",
        family="forward-gradient",
        paper="fournier2023can",
        claims=Claims(
            reverse_mode="block", forward_passes=2, weight_transport=True, updates_wait_for="later blocks"
        ),  # the error goes back through the head's weights, within a block
        nets=("mlp", "cnn", "localmixer"),
        outputs=("classes", "class probabilities", "values"),
        needs=("noiseless", "sequence", "readout"),
    )
    Config = GuidedForwardGradientSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: GuidedForwardGradientSettings, facts: Facts) -> str | None:
        reason = super().refuse(task, config, facts) or refuse_resting(cls.info.name, task.sketch())
        if reason := reason or refuse_masks(cls.info.name, task.sketch()):
            return reason
        if config.head == "conv" and any(len(shape) != 3 for shape in hidden_shapes(task.sketch(), task.input)):
            return f"head=conv needs outputs with space in them, which the blocks of {task.net.name} do not give"
        return None

    def __init__(
        self, task: Task, config: GuidedForwardGradientSettings, *, device: torch.device, seeds: Seeds
    ) -> None:
        self.objective = task.objective
        net = task.build_net(seeds.init)
        self.has_space = any(len(shape) == 3 for shape in hidden_shapes(net, task.input))
        with drawn_from(seeds.init):
            self.heads = _heads(net, task, config).to(device)
        self.net, self.config = net.to(device), config
        self.optimizer = adamw([*self.net.parameters(), *self.heads.parameters()], config)

    def claims(self) -> Claims:
        if len(self.heads) > 1 or (self.heads and self.config.space == "weight"):
            return self.info.claims
        once = replace(self.info.claims, forward_passes=1)
        return once if self.heads else replace(once, reverse_mode="none", weight_transport=False)

    def inert(self) -> Mapping[str, str]:
        return {} if self.has_space else {"pool": "there is no space to pool over"}

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        loss, gradient = estimate(self.net, self.heads, batch, self.config.space, objective=self.objective)
        hand_over(gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss}

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.heads}


@torch.no_grad()
def estimate(
    net: Net, heads: nn.ModuleList, batch: Batch, space: Space, *, objective: Objective
) -> tuple[Tensor, Gradient]:
    """Mean loss, and the gradient that each block, each head and the last layer step along."""
    *body, last = net.blocks
    h, t, y = batch.x, None, batch.y
    gradient: Gradient = {}
    steps = []
    for block, head in zip(body, heads, strict=True):
        guess = _at_weights if space == "weight" else _at_activities
        h, t, step, of_head = guess(block, head, Batch(h, y), t, objective)
        gradient |= of_head
        steps.append(step)
    scores, t = push(last, h, t, Carried())
    error = objective.output_gradient(scores, y)
    *before, linear = last if isinstance(last, nn.Sequential) else [last]
    gradient |= weight_gradient(linear, nn.Sequential(*before)(h), error / len(y))
    if t is not None:
        for step, slopes in zip(steps, torch.einsum("kbc,bc->kb", t, error), strict=True):
            gradient |= step(slopes)
    return objective.loss(scores, y), gradient


def _at_activities(block: nn.Module, head: nn.Module, batch: Batch, t: Tangent, objective: Objective) -> Guessed:
    parameters = list(block.parameters())
    with torch.enable_grad():
        z = block(batch.x)
        losses = objective.losses(head(z), batch.y)
        v, *of_head = torch.autograd.grad(losses.mean(), [z, *head.parameters()], retain_graph=True)
    v = v * len(v)  # of each example's own loss
    length = _length(v.flatten(1).norm(dim=1))

    def step(slopes: Tensor) -> Gradient:
        with torch.enable_grad():
            weighted = (slopes / length * losses).mean()
        return dict(zip(parameters, torch.autograd.grad(weighted, parameters), strict=True))

    carried = None if t is None else push(block, batch.x, t, Carried(at_rest=True))[1]
    own = (v / length.view(-1, *[1] * (v.dim() - 1)))[None]
    return z.detach(), _joined(carried, own), step, dict(zip(head.parameters(), of_head, strict=True))


def _at_weights(block: nn.Module, head: nn.Module, batch: Batch, t: Tangent, objective: Objective) -> Guessed:
    parameters = list(block.parameters())
    with torch.enable_grad():
        loss = objective.loss(head(block(batch.x)), batch.y)
        found = torch.autograd.grad(loss, [*parameters, *head.parameters()])
    v, of_head = found[: len(parameters)], found[len(parameters) :]
    length = _length(torch.stack(torch._foreach_norm(v)).norm())
    direction = dict(zip(parameters, torch._foreach_div(v, length), strict=True))

    def step(slopes: Tensor) -> Gradient:
        along = slopes.mean()
        return {p: along * d for p, d in direction.items()}

    at_rest = None if t is None else torch.cat([t, torch.zeros_like(t[:1])])
    z, t = push(block, batch.x, at_rest, Carried({p: d[None] for p, d in direction.items()}, at_rest=True))
    assert t is not None
    return z, t, step, dict(zip(head.parameters(), of_head, strict=True))


def _length(norm: Tensor) -> Tensor:
    """Where there is no guess there is no step, and no division by zero."""
    return norm.clamp_min(torch.finfo(norm.dtype).tiny ** 0.5)


def _joined(carried: Tangent, own: Tensor) -> Tensor:
    return own if carried is None else torch.cat([carried, own])


def _heads(net: Net, task: Task, config: HeadSettings) -> nn.ModuleList:
    """A head for each hidden block; of patches it sees the mean."""
    heads, z = nn.ModuleList(), task.input.zeros(1)
    with inference(net):
        for block in net.blocks[:-1]:
            z = block(z)
            patches = z.dim() == 3
            head = build_head((z.shape[-1],) if patches else z.shape[1:], task.output.size, config)
            heads.append(nn.Sequential(PatchMean(), *head) if patches else head)
    return heads
