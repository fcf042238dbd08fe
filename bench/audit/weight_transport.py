"""Whether errors travel through the transposed forward weights of a layer, by experiment.

A linear layer y = x W^T + b is given other weights, W + U P, where P projects on what is orthogonal to every vector
that W has been multiplied with in a training step: inputs, and tangents where there are any. Whatever passes forward
through the layer stays the same, to rounding. If the update of another layer of the net is another one all the same,
something else of W has been at work there: its transpose (backprop), or its signs.

An optimiser that divides by the size of a gradient makes steps of mere rounding where a gradient vanishes (that of a
bias which a normalisation takes away again, for one), so a change counts if rounding by itself makes none like it.

Not seen: layers that are not linear, those outside the shared net, and those whose inputs of one step span all that
they could be. Where one of them learns, what was not seen is not said to be absent. A list of weights that ask for no
gradient is feedback: nothing passes forward through it that could be transported.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.api.column import Column, Value
from bench.api.instrument import Trial
from bench.api.method import Method
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress
from bench.audit.dependency import restore, snapshot
from bench.audit.parts import layers
from bench.catalog.register import register

CHANGED = 0.05  # of an update's norm: rounding moves a thousandth, a changed message about all of it
UNLIKE_ROUNDING = 3.0  # times what rounding by itself changes
ENOUGH = 1e-4  # of a weight's norm, that must be left after the projection

Inputs = dict[int, list[Tensor]]  # by layer, rows that its weight was multiplied with


@register
class WeightTransport(Trial):
    """Whether errors travel through transposed forward weights, measured."""

    name = "weight-transport"
    rank: ClassVar[int] = 62
    columns = (
        Column(
            "weight_transport", "weight transport",
            "whether errors travelled back through the transposed forward weights of a layer, or their signs, "
            "measured; blank where none was seen but not every layer could be tried",
            shown="page", text=True,
        ),
    )  # fmt: skip

    def __init__(self) -> None:
        self.seen: list[bool | None] = []

    def examine(self, method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> Mapping[str, Value]:
        self.seen.append(weight_transport(method, seeds, batch, progress))
        return {"weight_transport": "yes" if any(self.seen) else None if None in self.seen else "no"}


def weight_transport(method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> bool | None:
    """None where none was seen but not all layers could be tried.

    The method is left as it was found; use a batch smaller than the layers.
    """
    every = layers(method)
    inside = set() if method.net is None else set(method.net.modules())
    linear = {k: layer for k, layer in enumerate(every) if type(layer) is nn.Linear and layer in inside}
    start = snapshot(method, seeds)

    def updates(k: int | None = None, shift: Tensor | None = None) -> list[Tensor]:
        """Of each layer, where the weight of layer k is another one."""
        if k is not None and shift is not None:
            with torch.no_grad():
                linear[k].weight.add_(shift)
        before = [_weights(layer) for layer in every]
        method.train_step(batch, progress)
        found = [_weights(layer) - old for layer, old in zip(every, before, strict=True)]
        restore(method, seeds, start)
        return found

    with _multiplied(linear) as inputs:
        usual = updates()
    changes = {k: _orthogonal_change(layer.weight.detach(), inputs[k]) for k, layer in linear.items() if k in inputs}
    for k, change in changes.items():
        if change is None:
            continue
        found = _compared(usual, updates(k, change), k)
        if any(by > CHANGED for by in found):
            rounding = _compared(usual, updates(k, _rounding(change)), k)
            if any(by > max(CHANGED, UNLIKE_ROUNDING * alone) for by, alone in zip(found, rounding, strict=True)):
                return True
    moved = [(k, layer) for k, layer in enumerate(every) if usual[k].any() and not _is_feedback(layer)]
    untried = [layer for k, layer in moved if changes.get(k) is None]
    return None if any(p.dim() > 1 for layer in untried for p in layer.parameters(recurse=False)) else False


def _is_feedback(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ParameterList) and not any(p.requires_grad for p in layer.parameters(recurse=False))


def _weights(layer: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in layer.parameters(recurse=False)])


def _compared(usual: Sequence[Tensor], other: Sequence[Tensor], but: int) -> list[float]:
    """By what part of its norm the update of each layer changed, of all but one and those at rest."""
    pairs = [pair for k, pair in enumerate(zip(usual, other, strict=True)) if k != but and pair[0].any()]
    return [float((b - a).norm() / a.norm()) for a, b in pairs]


def _rounding(change: Tensor) -> Tensor:
    """What a change of a weight costs in accuracy, and nothing else."""
    noise = torch.randn(change.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return 4 * torch.finfo(change.dtype).eps * change.square().mean().sqrt() * noise.to(change)


def _orthogonal_change(W: Tensor, rows: list[Tensor]) -> Tensor | None:
    """U P, as long as W; None where nothing is orthogonal to all rows. Shape: W (m, n), rows (., n)."""
    X = torch.cat(rows).double()
    U = torch.randn(W.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(X.device)
    _, sizes, basis = torch.linalg.svd(X, full_matrices=False)
    basis = basis[sizes > 1e-9 * sizes.max().clamp_min(1e-30)]
    left = U - (U @ basis.mT) @ basis
    if left.norm() < ENOUGH * U.norm():
        return None
    change: Tensor = left * (W.norm() / left.norm())
    return change.to(W.dtype)


@contextmanager
def _multiplied(linear: Mapping[int, nn.Linear]) -> Iterator[Inputs]:
    """The rows that weights are multiplied with inside: as an input of their layer, or in a product of their own."""
    inputs: Inputs = defaultdict(list)

    def note(layer: int, x: Tensor) -> None:
        inputs[layer].append(x.detach().flatten(0, -2).clone())

    hooks = [layer.register_forward_pre_hook(lambda _, args, k=k: note(k, args[0])) for k, layer in linear.items()]
    try:
        with _Products(linear, note):
            yield inputs
    finally:
        for hook in hooks:
            hook.remove()


class _Products(TorchDispatchMode):
    """Notes x in every product x W^T with a layer's weight."""

    NAMES = frozenset(("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"))

    def __init__(self, linear: Mapping[int, nn.Linear], note: Callable[[int, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.linear = {layer.weight.data_ptr(): (k, layer.weight) for k, layer in linear.items()}
        self.note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in self.NAMES:
            x, other = args[-2:]
            if found := self.linear.get(other.data_ptr()):
                k, weight = found
                if other.stride()[-2:] == weight.stride()[::-1] and x.shape[-1] == weight.shape[1]:
                    self.note(k, x)
        return func(*args, **(kwargs or {}))
