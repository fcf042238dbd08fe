"""The update-dependency matrix: how much a block's step changes when other blocks' weights do. Measured, by experiment.

    M_ij = |du_i(theta + s_j) - du_i(theta)| / |du_i(theta)|

du_i is what one training step moves block i by: the optimiser's memory, which damps changes, and weight decay are in
it. s_j moves each weight tensor of block j in a random direction by a SHIFT of its own norm. So M has no unit, and
0.1 is a step that turns out different by a tenth of its length. Batch, draws and state are restored before every step.

Above the diagonal, but for the last column, s_j also moves the layer that gives the scores, such that the scores of
the batch stay as they were. Any rule that learns from the output's error would seem to need all blocks: this way it
depends on the last one, and on those between only if it needs more of them than what comes out.

A change that rounding could have made is written as 0: every weight moved by rounding alone tells how large that is.
Weights that then take another step at once are left out of their block, for their step is mere rounding (that of an
optimiser which divides by the size of a gradient, where the gradient vanishes). A block whose weights all rest, or
step on rounding alone, has no update to compare with: its row is NaN. So is an entry for which the scores could not be
held: no single linear layer gives them, or too few of its inputs differ among the images.
"""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bench.api.column import Value
from bench.api.instrument import FEW_IMAGES, FIRST_STEPS, EdgeProbe
from bench.api.method import Method
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress, Task
from bench.audit.parts import layers
from bench.catalog.register import register

SHIFT = 0.1  # of a tensor's norm
FLOOR = 1e-4  # of an update's norm; a change below it is none
UNLIKE_ROUNDING = 3.0  # times what rounding by itself changes
HELD = 1e-5  # of the scores' norm; what is left of a difference below it is rounding
UNSTEADY = 0.1  # of an update's norm: a step that rounding changes by more is made of rounding
ROUNDING = 4 * torch.finfo(torch.float32).eps  # of a tensor's norm

Updates = list[list[Tensor]]  # by block and parameter


@register
class UpdateDependency(EdgeProbe):
    """The matrix, entry by entry: by what part of its length the step of block `row` depends on block `column`.

    Taken FIRST_STEPS further than training stands, on a few images of the batch that comes next.
    """

    name = "update-dependency"
    fields = ("row", "column", "change")

    def look(self, twin: Method, task: Task, seeds: Seeds, batch: Batch, progress: Progress) -> list[dict[str, Value]]:
        for _ in range(FIRST_STEPS):
            twin.train_step(batch, progress)
        few = Batch(batch.x[:FEW_IMAGES], batch.y[:FEW_IMAGES])
        matrix = update_dependency(twin, seeds, few, progress)
        return [
            {"row": i, "column": j, "change": None if entry != entry else entry}
            for i, row in enumerate(matrix.tolist())
            for j, entry in enumerate(row)
        ]


def update_dependency(
    method: Method, seeds: Seeds, batch: Batch, progress: Progress, columns: Iterable[int] | None = None
) -> Tensor:
    """M. Backprop's is full, that of layers trained on their own inputs a lower triangle, that of blocks which do not
    even wait for each other's forward pass the diagonal; direct feedback adds the last column to the triangle.

    columns: those that are wanted, by default all; the others are NaN. The method is left as it was found. Scores can
    be held for fewer images than the layer that gives them has inputs.

    Shape: (K, K) for K blocks, rows i, columns j.
    """
    start, last = snapshot(method, seeds), len(method.blocks()) - 1

    def updates() -> Updates:
        """Those of a step from the weights as they now are; then everything is as it was."""
        before = [[p.detach().clone() for p in block.parameters()] for block in method.blocks()]
        method.train_step(batch, progress)
        found = [
            [p.detach() - old for p, old in zip(block.parameters(), weights, strict=True)]
            for block, weights in zip(method.blocks(), before, strict=True)
        ]
        restore(method, seeds, start)
        return found

    usual = updates()
    for k, block in enumerate(method.blocks()):
        _disturb(block, ROUNDING, seed=k)
    rounded = updates()
    steady = [[_steady(*pair) for pair in zip(*of, strict=True)] for of in zip(usual, rounded, strict=True)]
    rounding = _changes(usual, rounded, steady)
    floor = (UNLIKE_ROUNDING * rounding).clamp(min=FLOOR)

    readout = _readout(method, batch.x)
    matrix = torch.full((last + 1, last + 1), torch.nan, dtype=torch.float64)
    for j in range(last + 1) if columns is None else columns:
        _disturb(method.blocks()[j], SHIFT, seed=j)
        changes = _changes(usual, updates(), steady)
        # no FLOOR here: what a block hears of block j may cancel with what it hears of the scores, which still move
        hearing = changes[:j] > 0
        if j < last and hearing.any():
            _disturb(method.blocks()[j], SHIFT, seed=j)
            held = readout is not None and _hold_scores(method, batch.x, *readout)
            changes[:j][hearing] = _changes(usual, updates(), steady)[:j][hearing] if held else torch.nan
        matrix[:, j] = changes.where(~(changes <= floor), 0.0)
    return matrix


def _changes(usual: Updates, other: Updates, steady: list[list[bool]]) -> Tensor:
    """By what part of its length the update of each block changed; NaN where it has none. Shape: (K,)."""
    found = []
    for one, two, kept in zip(usual, other, steady, strict=True):
        pairs = [(a, b) for a, b, keep in zip(one, two, kept, strict=True) if keep]
        length = _norm(a for a, _ in pairs)
        found.append(_norm(b - a for a, b in pairs) / length if length else torch.nan)
    return torch.tensor(found, dtype=torch.float64)


def _steady(usual: Tensor, rounded: Tensor) -> bool:
    return _norm([rounded - usual]) <= UNSTEADY * _norm([usual])


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


@torch.no_grad()
def _disturb(module: nn.Module, size: float, seed: int) -> None:
    """Move each weight tensor in a random direction by a part of its norm; one at zero stays there."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        direction = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
        p.add_(size * p.norm() / direction.norm() * direction)


@torch.no_grad()
def _readout(method: Method, x: Tensor) -> tuple[nn.Linear, Tensor] | None:
    """The linear layer whose output the scores of x are, and its input (B, n); None where they are no layer's."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda of, args, output: calls.append((of, args[0], output)))
        for layer in layers(method)
        if isinstance(layer, nn.Linear)
    ]
    try:
        scores = method.predict(x)
    finally:
        for hook in hooks:
            hook.remove()
    return next(((layer, h) for layer, h, output in calls[-1:] if torch.equal(output, scores)), None)


@torch.no_grad()
def _hold_scores(method: Method, x: Tensor, layer: nn.Linear, before: Tensor) -> bool:
    """Make the least change of the layer's weights that gives x the scores it had when the layer's input was `before`.

    Returns whether there is one.
    """
    now = _readout(method, x)
    assert now is not None
    H, W = now[1].double(), layer.weight.double()
    lost = (before.double() - H) @ W.mT
    layer.weight.add_((torch.linalg.pinv(H) @ lost).mT.to(layer.weight))
    left = lost - H @ (layer.weight.double() - W).mT
    return _norm([left]) <= HELD * _norm([before.double() @ W.mT])


def snapshot(method: Method, seeds: Seeds) -> tuple[Any, ...]:
    return tuple(map(_copied, (method.state_dict(), seeds.state_dict(), torch.get_rng_state())))


def restore(method: Method, seeds: Seeds, snapshot: tuple[Any, ...]) -> None:
    of_method, of_seeds, of_torch = map(_copied, snapshot)
    method.load_state_dict(of_method)
    seeds.load_state_dict(of_seeds)
    torch.set_rng_state(of_torch)


def _copied(value: Any) -> Any:
    """As deepcopy gives it, in a fraction of the time where most of it are tensors."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        copied = copy.copy(value)  # with what a module's state has for attributes
        copied.update((key, _copied(of)) for key, of in value.items())
        return copied
    return [_copied(of) for of in value] if type(value) is list else copy.deepcopy(value)
