"""Settings that many learning rules share, declared once; a method's Config composes them by inheritance."""

from typing import Any

from pydantic import BaseModel, Field


def step_size(default: float) -> Any:
    """The field of a step size, with the range over which it is searched."""
    return Field(default, gt=0, description="step size", json_schema_extra={"search": ["log", 1e-5, 1e-1]})


class NoSettings(BaseModel):
    """The settings of a method or an executor that has none."""


class StepSize(BaseModel):
    """Of every rule that takes steps."""

    lr: float = step_size(1e-3)


class AdamWSettings(StepSize):
    """Of rules whose estimate of the gradient goes through AdamW, as backprop's does."""

    weight_decay: float = Field(1e-3, ge=0, description="decoupled weight decay, per step and unit of lr")


class AdamSettings(StepSize):
    """Of rules that step by Adam with the penalty inside the gradient, as NoProp's in continuous time."""

    weight_decay: float = Field(1e-3, ge=0, description="Adam's L2 penalty, part of the gradient")
