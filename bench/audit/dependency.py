"""The update-dependency matrix: whose weights enter whose training step. Measured, not read off a graph."""

import copy

import torch
from torch import Tensor, nn

from bench.api.column import Value
from bench.api.instrument import EdgeProbe
from bench.api.method import Method
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress, Task
from bench.catalog.register import register

SHIFT = 0.1


@register
class UpdateDependency(EdgeProbe):
    """The matrix, entry by entry: whether the update of block `row` depends on the weights of block `column`."""

    name = "update-dependency"
    fields = ("row", "column", "depends")

    def look(self, twin: Method, task: Task, seeds: Seeds, batch: Batch, progress: Progress) -> list[dict[str, Value]]:
        matrix = update_dependency(twin, seeds, batch, progress).tolist()
        return [
            {"row": i, "column": j, "depends": int(entry)}
            for i, row in enumerate(matrix)
            for j, entry in enumerate(row)
        ]


def update_dependency(method: Method, seeds: Seeds, batch: Batch, progress: Progress) -> Tensor:
    """Whether the step of block i changes to the last bit when the weights of block j are others.

    Backprop's matrix is full, that of layers trained on their own inputs a lower triangle, that of blocks
    which do not even wait for each other's forward pass the diagonal. Its diagonal says which blocks move.
    The method is left as it was found.

    Shape: (K, K) bool for K blocks, rows i, columns j.
    """
    start = snapshot(method, seeds)
    before = [_weights(block) for block in method.blocks()]
    method.train_step(batch, progress)
    after = [_weights(block) for block in method.blocks()]
    restore(method, seeds, start)

    depends = torch.diag(torch.tensor([not torch.equal(b, a) for b, a in zip(before, after, strict=True)]))
    for j, shifted in enumerate(method.blocks()):
        with torch.no_grad():
            for p in shifted.parameters():
                p.add_(SHIFT * torch.randn(p.shape, generator=torch.Generator().manual_seed(j)).to(p))
        method.train_step(batch, progress)
        for i, block in enumerate(method.blocks()):
            if i != j:
                depends[i, j] = not torch.equal(_weights(block), after[i])
        restore(method, seeds, start)
    return depends


def _weights(block: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in block.parameters()])


def snapshot(method: Method, seeds: Seeds) -> tuple[object, ...]:
    return copy.deepcopy((method.state_dict(), seeds.state_dict(), torch.get_rng_state()))


def restore(method: Method, seeds: Seeds, snapshot: tuple[object, ...]) -> None:
    of_method, of_seeds, of_torch = copy.deepcopy(snapshot)
    method.load_state_dict(of_method)  # type: ignore[arg-type]
    seeds.load_state_dict(of_seeds)  # type: ignore[arg-type]
    torch.set_rng_state(of_torch)  # type: ignore[arg-type]
