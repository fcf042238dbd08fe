"""Shapes of what the parts of a net give, asked with one example of zeros."""

from collections.abc import Iterable, Sequence

from torch import nn

from bench.api.inference import inference
from bench.api.kinds import Input

Shape = Sequence[int]  # of one example: (n,) or (C, H, W)


def output_shapes(bodies: Iterable[nn.Module], inputs: Input) -> list[Shape]:
    """What each of the bodies, one behind the other, gives for an example. In evaluation mode: no statistics move."""
    bodies = list(bodies)
    h, shapes = inputs.zeros(1), list[Shape]()
    with inference(*bodies):
        for body in bodies:
            h = body(h)
            shapes.append(tuple(h.shape[1:]))
    return shapes
