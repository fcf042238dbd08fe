"""Evaluation mode, owned by the harness: rules and nets never set it for a prediction."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def inference(*modules: nn.Module) -> Iterator[None]:
    """Inside, the modules are in evaluation mode and no gradient is recorded; afterwards each has its mode of before.

    The modes are set one by one, past any `train` of their own, so that statistics and dropout rest in all of them.
    """
    parts = [part for module in modules for part in module.modules()]
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
