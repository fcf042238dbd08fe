"""What a method gives back, held against the interface: the same sentences in a run and in `bench check`."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.api.errors import MethodError
from bench.api.kinds import Output

METRIC = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def loss_of(metrics: Any, device: torch.device | None = None) -> Tensor:
    """The loss that a training step has returned. device: where it has to be.

    Raises: MethodError where it is not a detached 0-d tensor of a real floating-point type, or is on another device.
    """
    if not isinstance(metrics, Mapping):
        raise MethodError(f"train_step returns a {type(metrics).__name__}, not a mapping with 'loss'")
    if "loss" not in metrics:
        raise MethodError(f"train_step returns {sorted(metrics)}, without 'loss'")
    check_metric("loss", metrics["loss"])
    loss: Tensor = metrics["loss"]
    if device is not None and loss.device.type != device.type:
        raise MethodError(f"metric 'loss' is on the {loss.device.type}, not on the {device.type} like the images")
    return loss


def check_all_metrics(metrics: Any, device: torch.device | None = None) -> None:
    """What the first training step of a run has returned, `loss` and metrics of the rule's own.

    Raises: MethodError where a name is no plain identifier, or a value is not as `loss_of` has it of the loss.
    """
    loss_of(metrics, device)
    for name, value in metrics.items():
        if not (isinstance(name, str) and METRIC.fullmatch(name)):
            raise MethodError(
                f"train_step returns a metric named {str(name)[:60]!a}; a name has at most 40 letters, digits and '_', "
                "the first no digit"
            )
        check_metric(name, value)
        if device is not None and value.device.type != device.type:
            raise MethodError(
                f"metric '{name}' is on the {value.device.type}, not on the {device.type} like the images"
            )


def other_metrics(metrics: Any, names: Iterable[str]) -> MethodError:
    """To be raised where a step returns other metrics than those before it, which were called `names`."""
    if not isinstance(metrics, Mapping):
        return MethodError(f"train_step returns a {type(metrics).__name__}, not a mapping with 'loss'")
    told, before = (textwrap.shorten(", ".join(sorted(map(str, of))), 80) or "none" for of in (metrics, names))
    return MethodError(
        f"train_step returns {told}, where steps before returned {before}; return the same in every step"
    )


def check_metric(name: str, value: Any) -> None:
    """Raises: MethodError where a metric is not a detached 0-d tensor of a real floating-point type."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise MethodError(f"metric '{name}' is a {kind}; a tensor would spare the device a synchronisation")
    if value.dim() != 0:
        raise MethodError(f"metric '{name}' has shape {tuple(value.shape)}, not ()")
    if not value.is_floating_point():
        raise MethodError(f"metric '{name}' is of type {value.dtype}, not a floating-point type; add .float()")
    if value.requires_grad:
        raise MethodError(f"metric '{name}' is not detached: it keeps the whole graph alive")


def check_output(out: Any, n: int, output: Output, name: str = "predict") -> None:
    """Raises: MethodError where what a method has predicted for n examples are no outputs of the task."""
    if not isinstance(out, Tensor):
        raise MethodError(f"{name} returns {type(out).__name__}, not a tensor")
    if out.shape != (n, *output.shape):
        raise MethodError(f"{name} gives shape {tuple(out.shape)} for {n} examples, not {(n, *output.shape)}")
    if not out.is_floating_point():
        raise MethodError(f"{name} gives {out.dtype}, not a floating-point type")
