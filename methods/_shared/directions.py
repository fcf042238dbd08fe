"""Random directions: independent entries of mean 0 and variance 1, of a tensor or over all weights of a module."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .bilinear import Gradient

Directions = Literal["gaussian", "rademacher"]
Draw = Callable[[tuple[int, ...], Tensor], Tensor]  # entries of this shape, of the dtype and device of the tensor

SIGN_BIT, ONE = -(2**31), 0x3F800000  # of a float32


def draw(shape: tuple[int, ...], like: Tensor, directions: Directions, generator: torch.Generator) -> Tensor:
    """Entries of N(0, 1), or +-1 alike often, of the dtype and device of `like`.

    A random bit decides a sign: on a CPU a tenth of the time of a normal draw.
    """
    if directions == "gaussian":
        return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    n = torch.Size(shape).numel()
    words = torch.empty((n + 63) // 64, dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None, generator=generator)
    places = torch.arange(32, dtype=torch.int32, device=like.device)
    signs = words.view(torch.int32).unsqueeze(1).bitwise_left_shift(places)  # each bit once at the sign's place
    signs.bitwise_and_(SIGN_BIT).bitwise_or_(ONE)
    return signs.view(torch.float32).flatten()[:n].view(shape).to(like.dtype)


def weight_directions(module: nn.Module, k: int, draw: Draw) -> tuple[Tensor, Gradient]:
    """k directions over all weights of a module, in one tensor (k, weights) and as its parts by parameter."""
    parameters = list(module.parameters())
    flat = draw((k, sum(p.numel() for p in parameters)), parameters[0])
    return flat, split(flat, module)


def split(flat: Tensor, module: nn.Module) -> Gradient:
    """Views of a tensor (..., weights) by parameter, each of shape (..., *parameter)."""
    parameters = list(module.parameters())
    parts = torch.split(flat, [p.numel() for p in parameters], dim=-1)
    return {p: part.view(*flat.shape[:-1], *p.shape) for p, part in zip(parameters, parts, strict=True)}
