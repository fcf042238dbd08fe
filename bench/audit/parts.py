"""The trainable parts that a method holds, whatever it declares of them."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from bench.api.method import Method


def held(method: Method) -> Iterator[nn.Module | Tensor]:
    """Modules and tensors in the method's attributes, in containers there, and in its declared parts."""
    yield from _flatten([vars(method), method.modules(), method.blocks()])


def layers(method: Method) -> list[nn.Module]:
    """Every module that owns parameters itself, each once."""
    found = {
        id(layer): layer
        for part in held(method)
        if isinstance(part, nn.Module)
        for layer in part.modules()
        if next(layer.parameters(recurse=False), None) is not None
    }
    return list(found.values())


def _flatten(value: object) -> Iterator[nn.Module | Tensor]:
    if isinstance(value, (nn.Module, Tensor)):
        yield value
    elif isinstance(value, (list, tuple, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _flatten(item)
