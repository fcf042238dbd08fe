"""Whole training steps on 3-channel images in float64, beside a re-derivation in numpy, weight for weight.

    method = in_double(make_method(NAME, task=colour_task("cnn")))
    blocks = numpy_blocks(method.net)
    ... the rule's equations on `blocks`, with the building blocks of rederived.py ...
    train(method, batches(3))
    assert_weights(method.net, blocks)

The images are 3x6x6, with 4 classes, so that mistakes that a single channel or a square matrix hides show.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import Batch, Method, Net, Progress, Task
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing.subject import image_task
from tests.methods.rederived import Array, Block

IMAGE_SHAPE = (3, 6, 6)
N_CLASSES = 4
SETTINGS: Mapping[str, dict[str, Any]] = {"mlp": {"width": 7, "depth": 3}, "cnn": {"width": 3, "depth": 3}}
CLASSES: Mapping[str, type[Net]] = {"mlp": MLP, "cnn": CNN}
ON = sorted(SETTINGS)  # nets, to parametrise over


def colour_task(net: str = "mlp", n_classes: int = N_CLASSES, **settings: Any) -> Task:
    """A task on 3-channel images and a small net, three hidden blocks deep."""
    return image_task("colours", n_classes, IMAGE_SHAPE, 60, CLASSES[net], SETTINGS[net] | settings, prototypes)


def prototypes() -> Tensor:
    return batches(1, 2 * N_CLASSES)[0].x[:N_CLASSES].float()


def batches(steps: int, size: int = 5, n_classes: int = N_CLASSES) -> list[Batch]:
    """Batches of random images, others at each step; every batch holds two labels at least, one of them twice."""
    generator = torch.Generator().manual_seed(7)
    made = []
    for step in range(steps):
        x = torch.randn(size, *IMAGE_SHAPE, generator=generator, dtype=torch.float64)
        y = torch.randint(n_classes, (size,), generator=generator)
        y[0], y[1], y[2] = step % n_classes, step % n_classes, (step + 1) % n_classes
        made.append(Batch(x, y))
    return made


def in_double(method: Method) -> Any:
    """The method with all its modules and tensors in float64, so that rounding hides no wrong factor."""
    for name, value in list(vars(method).items()):
        setattr(method, name, _double(value))
    return method


def _double(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return value.double()
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    if isinstance(value, list):
        value[:] = [_double(v) for v in value]
    if isinstance(value, dict):
        value.update({k: _double(v) for k, v in value.items()})
    return value


def progress(step: int, total: int) -> Progress:
    return Progress(step, total, 0)


def train(method: Any, data: Sequence[Batch], total: int | None = None, first: int = 0) -> list[dict[str, float]]:
    """Whole steps `first`, first + 1, ... of `total`; what each returned."""
    total = total or first + len(data)
    found = [method.train_step(batch, progress(first + k, total)) for k, batch in enumerate(data)]
    return [{name: float(value) for name, value in of.items()} for of in found]


def number(t: Tensor) -> Array:
    """A copy of the numbers in a tensor."""
    return np.array(t.detach().double().numpy(), copy=True)


def numbers(of: nn.Module | Iterable[Tensor]) -> list[Array]:
    """Copies of a module's parameters, in order."""
    return [number(p) for p in (of.parameters() if isinstance(of, nn.Module) else of)]


def numpy_block(module: nn.Module) -> Block:
    """A block of an mlp or a cnn, with copies of its weights."""
    parts = list(module.modules())
    layer = next(part for part in parts if isinstance(part, (nn.Linear, nn.Conv2d)))
    act = {nn.ReLU: "relu", nn.Tanh: "tanh"}
    found = [name for kind, name in act.items() if any(isinstance(part, kind) for part in parts)]
    pool = any(isinstance(part, nn.MaxPool2d) for part in parts)
    return Block(number(layer.weight), number(layer.bias), found[0] if found else "identity", pool)


def numpy_blocks(net: Any) -> list[Block]:
    """Copies of all blocks of a net."""
    return [numpy_block(block) for block in net.blocks]


def weights_of(blocks: Sequence[Block]) -> list[Array]:
    """All weights of these blocks, in the order of the net's parameters: the arrays themselves, no copies."""
    return [w for block in blocks for w in block.weights]


def assert_weights(
    module: nn.Module | Iterable[Tensor], expected: Iterable[Block | Array], rtol: float = 1e-9, atol: float = 1e-11
) -> None:
    """All weights of the module, in order, against blocks or arrays."""
    wanted = [w for one in expected for w in (one.weights if isinstance(one, Block) else [one])]
    found = numbers(module)
    assert len(found) == len(wanted) > 0
    for k, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=f"weight {k}")
