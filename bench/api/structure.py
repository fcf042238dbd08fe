"""How a net is made, as far as rules depend on it: asked before anything runs, of a net without memory."""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from bench.api.inference import inference
from bench.api.kinds import Input, Output
from bench.api.layer import ABILITIES, can
from bench.api.net import Net

Need = Literal["noiseless", "sequence", "hidden", "chain", "unordered", "readout", "feedback", "outer"]
"""What a rule may need of a net.

noiseless: its forward pass draws nothing. sequence: the blocks, one behind the other, are the whole net. hidden: a
block before the last. chain: a sequence in which each hidden block is a linear layer or convolution (stride 1, with
bias), an activation and at most a max-pooling, and the last block is a linear layer. unordered: no hidden block gives a
sequence, features at positions in a row. readout: the last block ends in a linear layer and has no other weights.
feedback: of all layers that mix what they are given. outer: a closed form of the gradient by a layer's own parameters,
of all layers with parameters. See bench.api.layer.
"""


def sketch(net: type[Net], inputs: Input, outputs: Output, settings: Mapping[str, Any]) -> Net:
    """The net without its numbers, on the meta device where it bears that."""
    return _sketch(net, inputs, outputs, json.dumps(dict(settings), sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _sketch(net: type[Net], inputs: Input, outputs: Output, settings: str) -> Net:
    values = net.Settings(**json.loads(settings))
    try:
        with torch.device("meta"):
            return net(inputs, outputs, values)
    except Exception:  # a net may compute its start, which the meta device cannot follow
        return net.build(inputs, outputs, values.model_dump(), torch.Generator())


def unmet(needs: tuple[Need, ...], net: Net, inputs: Input) -> str | None:
    """Why the net does not give what a rule needs, None where it does."""
    for need in needs:
        if need == "unordered":
            ordered = any(len(shape) == 2 for shape in hidden_shapes(net, inputs))
            fault = f"hidden blocks of {net.name} give sequences" if ordered else None
        else:
            fault = _CHECKS[need](net) if need in _CHECKS else _lacks(net, need)
        if fault is not None:
            return fault
    return None


def hidden_blocks(net: Net) -> list[nn.Module]:
    """All blocks but the last."""
    return list(net.blocks)[:-1]


def hidden_shapes(net: Net, inputs: Input) -> list[tuple[int, ...]]:
    """What each hidden block of a sequence gives for an example."""
    parameter = next(net.parameters(), None)
    h, shapes = inputs.zeros(1, None if parameter is None else parameter.device), list[tuple[int, ...]]()
    with inference(net):
        for block in hidden_blocks(net):
            h = block(h)
            shapes.append(tuple(h.shape[1:]))
    return shapes


def is_flat(net: Net) -> bool:
    """Whether its layers with weights are linear ones alone, so that hidden layers have no positions."""
    return all(type(layer) is nn.Linear for layer in weighted(net))


def is_sequence(net: Net) -> bool:
    """Whether its blocks, one behind the other, are the whole net."""
    return _sequence(net) is None


def owners(module: nn.Module) -> list[nn.Module]:
    """Layers that own parameters."""
    return [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]


def weighted(module: nn.Module) -> list[nn.Module]:
    """Layers that own a weight with two axes or more: those that mix what they are given."""
    return [m for m in module.modules() if any(p.dim() > 1 for p in m.parameters(recurse=False))]


def mixing_layer(block: nn.Module) -> Any:
    """The first layer of a block that mixes what it is given: of a link of a chain the only one."""
    return next(m for m in block.modules() if any(p.dim() > 1 for p in m.parameters(recurse=False)))


def _noiseless(net: Net) -> str | None:
    return f"{net.name} draws noise in its forward pass" if net.stochastic else None


def _sequence(net: Net) -> str | None:
    for name in ("forward", "stem", "block", "head"):
        if getattr(type(net), name) is not getattr(Net, name):
            return f"{net.name} is more than its blocks in sequence: it defines {name}"
    return None


def _hidden(net: Net) -> str | None:
    return None if len(net.blocks) > 1 else f"{net.name} has no hidden block"


def _chain(net: Net) -> str | None:
    if fault := _sequence(net):
        return fault
    for k, block in enumerate(net.blocks):
        fault = _link(block, last=k == len(net.blocks) - 1)
        if fault is not None:
            return f"block {k + 1} of {net.name} {fault}"
    return None


def _link(block: nn.Module, *, last: bool) -> str | None:
    """What keeps a block from being a link of a chain."""
    layers = list(block) if isinstance(block, nn.Sequential) else [block]
    if layers and isinstance(layers[0], nn.Flatten):
        del layers[0]
    if not layers or type(layers[0]) not in (nn.Linear, nn.Conv2d):
        return (
            f"begins with {type(layers[0]).__name__ if layers else 'nothing'}, not with a linear layer or convolution"
        )
    first, *rest = layers
    if first.bias is None:
        return "has a layer without bias"
    if isinstance(first, nn.Conv2d) and (first.stride, first.dilation, first.groups) != ((1, 1), (1, 1), 1):
        return "has a strided, dilated or grouped convolution"
    if last:
        return None if type(first) is nn.Linear and not rest else "is not a linear layer alone"
    if not rest or _owns_numbers(rest[0]) or isinstance(rest[0], nn.MaxPool2d):
        return "has no activation behind its layer" if not rest else f"has {type(rest[0]).__name__} behind its layer"
    odd = [layer for layer in rest[1:] if not isinstance(layer, nn.MaxPool2d)]
    if odd or len(rest) > 2:
        return f"has {type((odd or rest)[-1]).__name__} behind its activation"
    return None


def _readout(net: Net) -> str | None:
    last = net.blocks[-1]
    layers = list(last) if isinstance(last, nn.Sequential) else [last]
    if not layers or type(layers[-1]) is not nn.Linear or len(weighted(last)) != 1:
        return f"the last block of {net.name} is not a linear layer behind layers without weights"
    return None


def _owns_numbers(layer: nn.Module) -> bool:
    return next(iter(layer.parameters()), None) is not None or next(iter(layer.buffers()), None) is not None


def _lacks(net: Net, need: Need) -> str | None:
    # the rows of a table mix nothing: a gradient by them needs no way back
    layers = owners(net) if need == "outer" else [m for m in weighted(net) if type(m) is not nn.Embedding]
    lacking = next((layer for layer in layers if not can(ABILITIES[need], type(layer))), None)
    return None if lacking is None else f"no {_CALLED[need]} of {type(lacking).__name__}, a layer of {net.name}"


_CALLED = {"feedback": "feedback is known", "outer": "closed form of the weights' gradient is known"}

_CHECKS: dict[str, Callable[[Net], str | None]] = {
    "noiseless": _noiseless,
    "sequence": _sequence,
    "hidden": _hidden,
    "chain": _chain,
    "readout": _readout,
}
