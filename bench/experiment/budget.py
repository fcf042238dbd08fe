"""How long a run trains: a budget that is the same for all, or until validation no longer gets better."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from bench.experiment.flag import Flag

Protocol = Literal["matched", "convergence"]

MATCHED = ("steps", "seconds", "flops")  # what may end a run before its epochs are over, alike for all methods
PATIENCE = 10  # epochs, under own convergence where none is given
LONGEST = 10  # times the matched epochs: the bound of own convergence where both protocols stand side by side

LONG = Flag("How long")


class Budget(BaseModel):
    """What may end training before `epochs` are over: in a run at most one, and none where epochs are its budget."""

    steps: Annotated[int | None, LONG] = Field(
        None, ge=1, le=1_000_000_000, description="training steps, in place of epochs, which follow from them"
    )
    seconds: Annotated[float | None, LONG] = Field(
        None, gt=0, le=1e9, allow_inf_nan=False, description="seconds in training steps (train_s), within the epochs"
    )
    flops: Annotated[float | None, LONG] = Field(
        None,
        gt=0,
        le=1e30,
        allow_inf_nan=False,
        description="FLOPs in training steps, within the epochs",
    )
    patience: Annotated[int | None, LONG] = Field(
        None,
        ge=1,
        le=1_000_000,
        description="epochs without a new best on validation data, within the epochs; the best is tested",
    )


def kind(spec: Mapping[str, Any]) -> str:
    """What the budget of a recorded spec is counted in: a field of Budget, or epochs."""
    return next((name for name in Budget.model_fields if spec.get(name) is not None), "epochs")


def protocol(spec: Mapping[str, Any]) -> Protocol:
    """Under which protocol it was run."""
    return "convergence" if kind(spec) == "patience" else "matched"


def words(spec: Mapping[str, Any]) -> str:
    """Its budget, for readers."""
    epochs = "1 epoch" if spec["epochs"] == 1 else f"{spec['epochs']} epochs"
    forms = {
        "epochs": "{1}",
        "steps": "{0} steps",
        "seconds": "{0:g} s within {1}",
        "flops": "{0:g} FLOPs within {1}",
        "patience": "patience {0} within {1}",
    }
    of = kind(spec)
    return forms[of].format(spec[of], epochs)
