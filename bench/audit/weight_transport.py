"""Whether errors travel through the transposed forward weights of a layer, by experiment.

A linear layer y = x W^T + b is given other weights, W + U P, where P projects on what is orthogonal to every vector
that W has been multiplied with in a training step: inputs, and tangents where there are any. Whatever passes forward
through the layer stays the same, to rounding. If the update of another layer of the net is another one all the same,
something else of W has been at work there: its transpose (backprop), or its signs.

Not seen: layers that are not linear, and those whose inputs of one step span all that they could be.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.api.method import Method
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress
from bench.audit.dependency import restore, snapshot

CHANGED = 0.05  # of an update's norm: rounding moves a thousandth, a changed message about all of it
ENOUGH = 1e-4  # of a weight's norm, that must be left after the projection

Inputs = dict[str, list[Tensor]]  # by layer, rows that its weight was multiplied with


def weight_transport(method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> bool | None:
    """None where no layer could be tried. The method is left as it was found; use a batch smaller than the layers."""
    if method.net is None:
        return None
    weights = dict(method.net.named_parameters())
    layers = {name: m for name, m in method.net.named_modules() if type(m) is nn.Linear}
    start = snapshot(method, seeds)
    before = {name: w.detach().clone() for name, w in weights.items()}

    def updates() -> dict[str, Tensor]:
        method.train_step(batch, progress)
        return {name: w.detach() - before[name] for name, w in weights.items()}

    with _multiplied(layers) as inputs:
        usual = updates()
    restore(method, seeds, start)
    tried = False
    for layer, rows in inputs.items():
        change = _orthogonal_change(before[f"{layer}.weight"], rows)
        if change is None:
            continue
        tried = True
        with torch.no_grad():
            layers[layer].weight.add_(change)
        other = updates()
        restore(method, seeds, start)
        elsewhere = [name for name in weights if name.rpartition(".")[0] != layer and usual[name].norm() > 0]
        if any((other[name] - usual[name]).norm() > CHANGED * usual[name].norm() for name in elsewhere):
            return True
    return False if tried else None


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
def _multiplied(layers: Mapping[str, nn.Linear]) -> Iterator[Inputs]:
    """The rows that weights are multiplied with inside: as an input of their layer, or in a product of their own."""
    inputs: Inputs = defaultdict(list)

    def note(layer: str, x: Tensor) -> None:
        inputs[layer].append(x.detach().flatten(0, -2).clone())

    hooks = [
        of.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0])) for name, of in layers.items()
    ]
    try:
        with _Products(layers, note):
            yield inputs
    finally:
        for hook in hooks:
            hook.remove()


class _Products(TorchDispatchMode):
    """Notes x in every product x W^T with a layer's weight."""

    NAMES = frozenset(("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"))

    def __init__(self, layers: Mapping[str, nn.Linear], note: Callable[[str, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = {layer.weight.data_ptr(): (name, layer.weight) for name, layer in layers.items()}
        self.note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in self.NAMES:
            x, other = args[-2:]
            if found := self.layers.get(other.data_ptr()):
                name, weight = found
                if other.stride()[-2:] == weight.stride()[::-1] and x.shape[-1] == weight.shape[1]:
                    self.note(name, x)
        return func(*args, **(kwargs or {}))
