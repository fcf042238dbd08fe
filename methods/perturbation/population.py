"""What perturbation methods share: the losses of a population, the step on an estimate.

All of it runs without autograd. Nets stay in evaluation mode: no dropout, running statistics kept, so that two
losses differ by the perturbation alone and evaluating leaves no trace.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench import Batch, Net, Objective
from bench.api.layer import can, members
from bench.api.structure import is_sequence, owners

from .._shared.bilinear import hand_over

OptimizerName = Literal["sgd", "momentum", "adam"]
Shaping = Literal["centred-ranks", "z-score", "raw"]


def population_losses(net: Net, weights: Mapping[str, Tensor], batch: Batch, objective: Objective) -> Tensor:
    """The mean loss of each of k members on one mini-batch, all evaluated in one call of each layer.

    Shape: weights (k, *shape of the parameter) by name, to (k,).
    """
    B = len(batch.x)
    if all(can(members, type(layer)) for layer in owners(net)):
        k = len(next(iter(weights.values())))
        with population(net, weights, B):
            out = net(batch.x if shares_its_first_layer(net) else batch.x.expand(k, *batch.x.shape).flatten(0, 1))
        out = out.view(-1, B, *out.shape[1:])
    else:
        out = of_each_member(net, weights, batch.x)
    return objective.losses(out, batch.y).mean(dim=1)


def of_each_member(net: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Outputs of k members, whatever the net is made of. Shape: x (B, ...) to (k, B, ...)."""

    def one(member: dict[str, Tensor]) -> Tensor:
        out: Tensor = functional_call(net, member, (x,))
        return out

    if any(isinstance(layer, nn.RNNBase) for layer in net.modules()):  # torch's fused recurrences take no more axes
        k = len(next(iter(weights.values())))
        return torch.stack([one({name: w[i] for name, w in weights.items()}) for i in range(k)])
    with sdpa_kernel(SDPBackend.MATH):  # of the fused kernels none takes one more axis
        found: Tensor = vmap(one)(dict(weights))
    return found


def shares_its_first_layer(net: Net) -> bool:
    """Whether the first layer sees the batch before anything else does, so that its members can share the rows."""
    first = net.blocks[0]
    plain = not list(first.children()) or (
        type(first) is nn.Sequential and not any(list(layer.children()) for layer in first)
    )
    return is_sequence(net) and plain


@contextmanager
def population(net: nn.Module, weights: Mapping[str, Tensor], batch_size: int) -> Iterator[None]:
    """Inside, each layer of `net` that has parameters answers for k members, who are rows of the batch.

    The members of a layer are evaluated by one product; before the first layer they share the B rows, after it there
    are k B. Called by their modules, layers are seen by whoever counts calls.
    Raises: TypeError where the net used a layer's parameters past its forward pass, or not at all.
    """
    owning = {*owners(net)}
    layers = {name: layer for name, layer in net.named_modules() if layer in owning}
    asked = set[str]()

    def answer(name: str, layer: nn.Module, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
        asked.add(name)
        return members(layer, own, batch_size, x)

    for name, layer in layers.items():
        own = {n: weights[f"{name}.{n}" if name else n] for n, _ in layer.named_parameters(recurse=False)}
        vars(layer)["forward"] = partial(answer, name, layer, own)
    try:
        yield
    finally:
        for layer in layers.values():
            del vars(layer)["forward"]
    if left := next((name for name in layers if name not in asked), None):
        raise TypeError(f"the forward pass of the net never calls its layer {left}, which owns parameters")


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
