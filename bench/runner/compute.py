"""How a run computes, apart from what: the precision of products and the memory format."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from bench.api.abilities import Compiling, compile_blocks
from bench.api.method import Method


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Inside, matrix products and convolutions are computed in float32, tf32 (CUDA alone) or, by autocast, bfloat16.

    Set in every case: torch's own default lets convolutions on CUDA use tf32 and calls it float32.
    """
    cudnn: Any = torch.backends.cudnn  # its stubs do not know `conv`
    backends: list[Any] = [torch.backends.cuda.matmul, cudnn.conv]
    before = [backend.fp32_precision for backend in backends]
    # without its cache, which keeps the cast weights for as long as one is inside: they would never be seen to learn
    autocast = torch.autocast(device.type, torch.bfloat16, cache_enabled=False) if name == "bfloat16" else nullcontext()
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if name == "tf32" else "ieee"
        with autocast:
            yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


def compile_steps(method: Method) -> None:
    """Let torch.compile have what the method's steps spend their time in."""
    if isinstance(method, Compiling):
        method.compile()
    else:
        compile_blocks(method.blocks())


def to_channels_last(method: Method) -> None:
    """Put the method's convolutions into channels-last memory format; images follow them.

    What is in that format stays where it is: it may be a view of what a method trains.
    """
    for p in (p for part in method.modules().values() for p in part.parameters()):
        if p.dim() == 4 and not p.is_contiguous(memory_format=torch.channels_last):
            p.data = p.data.contiguous(memory_format=torch.channels_last)
