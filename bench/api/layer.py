"""What a kind of layer can do beside its forward pass: one open function for each ability.

Rules without backprop ask layers for more than autograd knows: tangents along many directions, outer products, a whole
population of weights at once, a message back by other weights, a layer the other way round. Each ability is a
`functools.singledispatch` function; a layer joins by registering its own form in the file that defines it:

    from bench.api.layer import weight_gradient

    @weight_gradient.register
    def _(layer: MyLayer, x: Tensor, delta: Tensor) -> Gradient: ...

A rule whose card names an ability under `needs` is `skipped`, with the layer's name, on nets that have a layer without.
Torch's own layers and those of the suite's nets are registered beside the rules that use them.

Shape: x (B, ...), tangents (k, B, ...), weight directions (k, *shape of the weight).
"""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

from torch import Tensor, nn

Gradient = dict[Tensor, Tensor]  # by weight


@singledispatch
def along_input(layer: nn.Module, t: Tensor) -> Tensor:
    """df/dx t of a layer that is linear in x. Shape: (k, B, ...) to (k, B, ...)."""
    raise _unable("forward-mode rule", layer)


@singledispatch
def along_weights(layer: nn.Module, x: Tensor, v: Tensor, v_bias: Tensor) -> Tensor:
    """df/dw v of a layer that is linear in w. Shape: x (B, ...), v (k, *weight), v_bias (k, *bias) to (k, B, ...)."""
    raise _unable("forward-mode rule", layer)


@singledispatch
def weight_gradient(layer: nn.Module, x: Tensor, delta: Tensor) -> Gradient:
    """Outer product of input and pre-activation gradient, summed over examples and positions."""
    raise _unable("weight gradient", layer)


@singledispatch
def push(module: nn.Module, x: Tensor, t: Any, space: Any) -> tuple[Tensor, Any]:
    """A module's output and its tangents, perturbed as `space` says; t is None where no direction has come so far.

    Shape: x (B, ...), t (k, B, ...) to the same.
    """
    raise _unable("forward-mode rule", module)


@singledispatch
def members(layer: nn.Module, weight: Tensor, bias: Tensor | None, batch_size: int, x: Tensor) -> Tensor:
    """The layer's output for k members, each with weights of its own, as rows of one batch.

    Shape: weight (k, *weight), bias (k, *bias), x (B or k B, ...) to (k B, ...).
    """
    raise _unable("form for a population of weights", layer)


@singledispatch
def routed(layer: nn.Module, B: Tensor, x: Tensor) -> Tensor:
    """The layer's output, whose message back goes through B in place of its weights. Shape: B as the weight."""
    raise _unable("message back by other weights", layer)


@singledispatch
def mirrored(layer: nn.Module, shape: Sequence[int], *, bias: bool) -> nn.Module:
    """A layer the other way round, from outputs to inputs (B, *shape), drawn by torch's law."""
    raise _unable("layer the other way round", layer)


# what a rule's card may name under `needs`
ABILITIES: dict[str, Any] = {"tangents": push, "members": members, "feedback": routed}


def can(ability: Any, layer: type[nn.Module]) -> bool:
    """Whether a kind of layer has registered an ability. A subclass may compute something else: it registers, too."""
    return layer in ability.registry and layer is not object


def _unable(ability: str, layer: nn.Module) -> TypeError:
    return TypeError(f"no {ability} for {type(layer).__name__}")
