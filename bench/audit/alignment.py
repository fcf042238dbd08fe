"""The angle between what a method does to each layer and what backprop would do there.

    cos_l = <-d_l, grad_l L> / (|d_l| |grad_l L|),    1: steepest descent, 0: at a right angle, below 0: uphill

d_l is the direction of the step before the optimiser reshapes it: minus the gradient estimate handed to a torch
optimiser, or, where a method moves its weights itself, the movement. L is the objective of the shared net on the
same mini-batch with the same weights. A probe takes the step, so that the run under measurement is left as it was.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bench.api.column import Value
from bench.api.instrument import EdgeProbe
from bench.api.method import Method
from bench.api.net import Net
from bench.api.objective import Objective
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress, Task
from bench.catalog.register import register


@register
class Alignment(EdgeProbe):
    """The angle at each layer, at the start and after every epoch."""

    name = "alignment"
    fields = ("layer", "cosine")

    def look(self, twin: Method, task: Task, seeds: Seeds, batch: Batch, progress: Progress) -> list[dict[str, Value]]:
        return [{"layer": layer, "cosine": value} for layer, value in cosines(twin, task, batch, progress).items()]


def cosines(twin: Method, task: Task, batch: Batch, progress: Progress) -> dict[str, float]:
    """Cosine by layer, in the order of the net; empty where a method has no shared net. Layers at rest: NaN.

    The gradient is taken through a net of its own: a method may have changed how gradients pass through its net.
    """
    net, clean = twin.net, task.build_net(torch.Generator())
    if net is None or _shapes(net) != _shapes(clean):  # not the shared net: there is no gradient to compare with
        return {}
    weights = dict(net.named_parameters())
    before = {name: w.detach().clone() for name, w in weights.items()}
    gradient = _gradient(clean.to(batch.x.device), before, batch, task.objective)
    with _estimates(weights) as estimates:
        twin.train_step(batch, progress)
    steps = {name: estimates.get(name, before[name] - w.detach()) for name, w in weights.items()}
    return {
        layer: _cosine([steps[n] for n in names], [gradient[n] for n in names])
        for layer, names in _layers(weights).items()
    }


def _gradient(net: Net, weights: Mapping[str, Tensor], batch: Batch, objective: Objective) -> dict[str, Tensor]:
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    with torch.enable_grad():
        scores = torch.func.functional_call(net, leaves, (batch.x,))
        gradients = torch.autograd.grad(objective.loss(scores, batch.y), list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(w) if g is None else g for (n, w), g in zip(leaves.items(), gradients, strict=True)}


def _shapes(net: Net) -> dict[str, torch.Size]:
    return {name: w.shape for name, w in net.named_parameters()}


@contextmanager
def _estimates(weights: dict[str, nn.Parameter]) -> Iterator[dict[str, Tensor]]:
    """The gradients that torch optimisers are about to use, by the name of the weight.

    A weight may also be a view of what an optimiser has, as where equal layers are stacked.
    """
    seen: dict[str, Tensor] = {}

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for p in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
            inside = {name: w for name, w in weights.items() if _is_part(w, p)}
            if inside:
                laid_out_alike = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device=p.device).copy_(p.grad)
                for name, w in inside.items():
                    at = w.storage_offset() - p.storage_offset()
                    seen[name] = laid_out_alike.as_strided(w.shape, w.stride(), at).clone()

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def _is_part(w: Tensor, p: Tensor) -> bool:
    """Whether w lies within p's memory."""
    first = w.storage_offset() - p.storage_offset()
    same = w.untyped_storage().data_ptr() == p.untyped_storage().data_ptr()
    return same and 0 <= int(first) <= p.numel() - w.numel()


def _layers(weights: dict[str, nn.Parameter]) -> dict[str, list[str]]:
    """Weights by the module that owns them."""
    layers: dict[str, list[str]] = {}
    for name in weights:
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return layers


def _cosine(a: list[Tensor], b: list[Tensor]) -> float:
    left, right = (torch.cat([t.flatten() for t in side]).double() for side in (a, b))
    return float(left @ right / (left.norm() * right.norm()))
