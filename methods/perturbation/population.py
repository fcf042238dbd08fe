"""What perturbation methods share: the losses of a population, the step on an estimate.

All of it runs without autograd. Nets stay in evaluation mode: no dropout, running statistics kept, so that two
losses differ by the perturbation alone and evaluating leaves no trace.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import Batch, Objective
from bench.api.layer import can, members

from .._shared.bilinear import hand_over

OptimizerName = Literal["sgd", "momentum", "adam"]
Shaping = Literal["centred-ranks", "z-score", "raw"]


def population_losses(net: nn.Module, weights: Mapping[str, Tensor], batch: Batch, objective: Objective) -> Tensor:
    """The mean loss of each of k members on one mini-batch, all evaluated in one call of each layer.

    Shape: weights (k, *shape of the parameter) by name, to (k,).
    """
    with population(net, weights, len(batch.x)):
        out = net(batch.x)
    return objective.losses(out.view(-1, len(batch.x), *out.shape[1:]), batch.y).mean(dim=1)


@contextmanager
def population(net: nn.Module, weights: Mapping[str, Tensor], batch_size: int) -> Iterator[None]:
    """Inside, each linear and convolutional layer of `net` answers for k members, who are rows of the batch.

    The members of a layer are evaluated by one product; before the first layer they share the B rows, after it there
    are k B. Called by their modules, layers are seen by whoever counts calls.
    """
    layers = {name: layer for name, layer in net.named_modules() if can(members, type(layer))}
    for name, layer in layers.items():
        weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        vars(layer)["forward"] = partial(members, layer, weight, bias, batch_size)
    try:
        yield
    finally:
        for layer in layers.values():
            del vars(layer)["forward"]


@members.register
def _(layer: nn.Linear, weight: Tensor, bias: Tensor | None, batch_size: int, x: Tensor) -> Tensor:
    x = x.view(-1, batch_size, *x.shape[1:]).expand(len(weight), -1, -1)
    if bias is None:
        return torch.bmm(x, weight.mT).flatten(0, 1)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT).flatten(0, 1)


@members.register
def _(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, batch_size: int, x: Tensor) -> Tensor:
    return convolve_members(layer, x.view(-1, batch_size, *x.shape[1:]), weight, bias).flatten(0, 1)


def convolve_members(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each member's own filters, in one convolution: as a group, or as further channels where the images are shared.

    Shape: x (k or 1, B, c, h, w), weight (k, m, c, ...), bias (k, m), to (k, B, m, h', w').
    """
    y = F.conv2d(
        x.transpose(0, 1).flatten(1, 2),
        weight.flatten(0, 1),
        None if bias is None else bias.flatten(),
        layer.stride,
        layer.padding,
        layer.dilation,
        groups=len(x),
    )
    members: Tensor = y.unflatten(1, weight.shape[:2])
    return members.transpose(0, 1)


def shaped(losses: Tensor, how: Shaping) -> Tensor:
    """The costs that weigh the directions of a population. Shape: (k,) to (k,).

    centred-ranks: rank / (k - 1) - 1/2, from -1/2 (least loss) to 1/2, ties share their mean rank;
    z-score: (loss - mean) / sqrt(var + 1e-5); raw: the loss itself.
    """
    if how == "centred-ranks":
        order = losses.sort().values
        below, not_above = (torch.searchsorted(order, losses, right=right) for right in (False, True))
        return (below + not_above - 1).to(losses.dtype) / (2 * (len(losses) - 1)) - 0.5
    if how == "z-score":
        return (losses - losses.mean()) / (losses.var(correction=0) + 1e-5).sqrt()
    return losses


def build_optimizer(name: OptimizerName, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, fused=True)
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9 if name == "momentum" else 0.0, fused=True)


def apply(optimizer: torch.optim.Optimizer, estimates: Iterable[Tensor]) -> None:
    """One step of the optimiser with estimates in the place of gradients, in the order of its parameters.

    Those that are computed on the way never are so under autocast: perturbed weights, rounded, would be the weights.
    """
    parameters = optimizer.param_groups[0]["params"]
    with torch.autocast(parameters[0].device.type, enabled=False):
        for p, estimate in zip(parameters, estimates, strict=True):
            hand_over({p: estimate})
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
