"""What a kind of layer can do beside its forward pass: one open function for each ability.

Rules without backprop ask layers for more than autograd knows: tangents along many directions, outer products, a whole
population of weights at once, a message back by other weights, a layer the other way round. Each ability is a
function with a form for each kind of layer; a layer joins by registering its own form in the file that defines it:

    from bench.api.layer import weight_gradient

    @weight_gradient.register
    def _(layer: MyLayer, x: Tensor, delta: Tensor) -> Gradient: ...

Torch's own layers are registered in `bench.api.forms`, which this module imports: whoever asks sees the same forms,
whatever rules were imported before. They lie in the public part because they need torch alone, and because a net's
structure (bench.api.structure) is asked about them. Their code is part of the hashes of rules that import this module.

    layer                      tangents  weight gradient  members  feedback  mirror
    Linear, any leading axes   fast      fast             fast     fast      flat inputs
    Conv2d, any shape          fast      fast             fast     fast      stride and dilation 1, one group
    ReLU, Tanh, MaxPool2d,     fast      -                -        -         -
      Flatten, Sequential
    LayerNorm, GroupNorm,      general   closed form      fast     exact     -
      BatchNorm1d, BatchNorm2d
    Embedding                  general   closed form      fast     exact     -
    any other                  general   -                general  -         -

general: forward mode through the module as it is (bench.api.forms.general), one direction after another; a population
by torch.func.vmap over the whole net. Right for every layer that torch differentiates in forward mode, and slower.
exact: the gradient passes as in backprop, for the layer mixes nothing that a matrix of its own could carry back.
A rule whose card names an ability under `needs` is `skipped`, with the layer's name, on nets that have a layer without.

Shape: x (B, ...), tangents (k, B, ...), weight directions (k, *shape of the weight).
"""

from typing import Any

from torch import nn

from bench.api.forms import convolution, embedding, linear, norms, pointwise
from bench.api.forms.ability import (
    Gradient,
    Tangent,
    along_input,
    along_weights,
    members,
    mirrored,
    push,
    routed,
    seen,
    weight_gradient,
)

__all__ = [
    "ABILITIES",
    "Gradient",
    "Tangent",
    "along_input",
    "along_weights",
    "can",
    "members",
    "mirrored",
    "push",
    "routed",
    "seen",
    "weight_gradient",
]

TORCH = (linear, convolution, pointwise, norms, embedding)  # imported for what they register

# what a rule's card may name under `needs`
ABILITIES: dict[str, Any] = {"feedback": routed, "outer": weight_gradient}


def can(ability: Any, layer: type[nn.Module]) -> bool:
    """Whether a kind of layer has registered an ability. A subclass may compute something else: it registers, too."""
    return layer in ability.registry
