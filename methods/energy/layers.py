"""What rules that relax states share: a net's layers as products both ways, and states of all layers in one memory.

A block gives f_l(h) = s(P(W_l h + b_l)) with an activation s and, behind a convolution, max-pooling P. ReLU and tanh
never decrease, so pooling may stand before them, and all elementwise work is on states of one shape. A relaxation then
costs two products for each layer and step, W_l h and W_l^T d, and a few kernels for all layers together. Weights that
rest meanwhile lie there both ways round, since a CPU multiplies by rows faster than by columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from functools import partial
from itertools import accumulate, pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import Net
from bench.api.kinds import Input
from bench.api.layer import weight_gradient
from bench.api.structure import mixing_layer

from .._shared.bilinear import Gradient
from .._shared.shapes import output_shapes
from .._shared.stages import Stage, pooled, stages, unpooled


class Layer(ABC):
    """P(W h + b) and the transposed map, into memory that is there already."""

    module: nn.Linear | nn.Conv2d

    def rest(self, resting: bool) -> None:  # noqa: B027 (nothing, where there is nothing to gain)
        """From now on the weights stay as they are; or they may move."""

    @abstractmethod
    def forward(self, h: Tensor, out: Tensor) -> None:
        """out <- P(W h + b)"""

    @abstractmethod
    def transposed(self, d: Tensor, into: Tensor, *, keep: float = 1.0, by: float = 1.0) -> None:
        """into <- keep into + by W^T P^T d, where P^T puts each entry back to the maximum that it was taken from."""

    @abstractmethod
    def gradient(self, h: Tensor, d: Tensor) -> Gradient:
        """Of sum(d * P(W h + b)), by the weights."""


class Linear(Layer):
    def __init__(self, module: nn.Linear) -> None:
        self.module, self.weight, self.bias = module, module.weight, module.bias
        self.transpose: Tensor | None = None  # W^T by rows, of weights that rest
        # the layer itself writes into given memory: called as a module, it is seen by whoever counts calls
        module.forward = partial(affine, module.weight, module.bias)  # type: ignore[method-assign]

    def rest(self, resting: bool) -> None:
        self.transpose = self.weight.detach().t().contiguous() if resting else None

    def forward(self, h: Tensor, out: Tensor, scale: float = 1.0) -> None:
        """out <- scale (W h + b)"""
        self.module(_rows(h), self.transpose, out, scale)

    def transposed(self, d: Tensor, into: Tensor, *, keep: float = 1.0, by: float = 1.0) -> None:
        _rows(into).addmm_(d, self.weight, beta=keep, alpha=by)

    def gradient(self, h: Tensor, d: Tensor) -> Gradient:
        return weight_gradient(self.module, _rows(h), d)


def affine(
    weight: Tensor,
    bias: Tensor,
    h: Tensor,
    transpose: Tensor | None = None,
    out: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """scale (W h + b), of nn.Linear's form where there is no `out`. transpose: of W, where that is there already."""
    if out is None:
        return F.linear(h, weight, bias)
    return torch.addmm(bias, h, weight.t() if transpose is None else transpose, beta=scale, alpha=scale, out=out)


def _rows(h: Tensor) -> Tensor:
    return h if h.dim() == 2 else h.flatten(1)


class Convolution(Layer):
    def __init__(self, stage: Stage, module: nn.Conv2d) -> None:
        self.module, self.pool = module, stage.pool
        self.places: Tensor | None = None  # of the maxima, since the last `forward`
        self.size = torch.Size()

    def forward(self, h: Tensor, out: Tensor) -> None:
        a: Tensor = self.module(h)
        h, self.places = pooled(self.pool, a)
        self.size = a.shape
        out.copy_(h)

    def transposed(self, d: Tensor, into: Tensor, *, keep: float = 1.0, by: float = 1.0) -> None:
        of = self.module
        assert isinstance(of.padding, tuple)  # the nets' convolutions have stride 1, so that shapes come back
        back = F.conv_transpose2d(self._lifted(d), of.weight, padding=of.padding)
        into.mul_(keep).add_(back, alpha=by)

    def gradient(self, h: Tensor, d: Tensor) -> Gradient:
        return weight_gradient(self.module, h, self._lifted(d))

    def _lifted(self, d: Tensor) -> Tensor:
        return unpooled(self.pool, d, self.places, self.size)


class Chain:
    """A net's layers, what each gives for an image, and the activation of hidden ones. Made of a net on the CPU."""

    def __init__(self, net: Net, inputs: Input) -> None:
        self.shapes = output_shapes(net.blocks, inputs)
        of = stages(net)
        self.activation = type(of[0].activation)  # Identity where there is no hidden layer
        self.layers = [_layer(stage) for stage in of]


def unknown_activation(net: Net, known: Container[type[nn.Module]]) -> str | None:
    """Why relaxations cannot handle the net's activations, None where they can: one kind for all hidden layers."""
    activations = {type(stage.activation) for stage in stages(net)[:-1]}
    odd = sorted(kind.__name__ for kind in activations if kind not in known)
    if odd:
        return f"no derivative is known of {odd[0]}"
    return f"hidden layers of {net.name} have several activations" if len(activations) > 1 else None


def _layer(stage: Stage) -> Layer:
    module = mixing_layer(stage.weigh)
    return Linear(module) if isinstance(module, nn.Linear) else Convolution(stage, module)


class Memory:
    """States of several layers side by side: `flat` for what is done to all of them, `parts` for products.

    Shape: parts (n, *shape) each, flat (n * sum of prod(shape),).
    """

    def __init__(self, shapes: Sequence[Sequence[int]], n: int, like: Tensor) -> None:
        self.ends = [0, *accumulate(n * prod(shape) for shape in shapes)]
        self.flat = like.new_zeros(self.ends[-1])
        self.parts = [
            self.flat[start:end].view(n, *shape)
            for (start, end), shape in zip(pairwise(self.ends), shapes, strict=True)
        ]

    def of(self, first: int, last: int) -> Tensor:
        """The part of `flat` that holds layers from `first` up to and without `last`."""
        return self.flat[self.ends[first] : self.ends[last]]
