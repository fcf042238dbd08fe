"""How far a run came, and what ended it."""

from typing import ClassVar

from bench.api.column import Column
from bench.api.instrument import Instrument
from bench.catalog.register import register


@register
class Ending(Instrument):
    """Read off the loop when it ends."""

    name = "ending"
    rank: ClassVar[int] = 25
    columns = (
        Column("epochs_done", "epochs", "passes over the training data; the last may be a part of one", shown="page"),
        Column(
            "best_epoch",
            "best epoch",
            "epoch that was best on validation data; under own convergence its state is the one tested",
        ),
        Column(
            "stopped_by",
            "stopped by",
            "what ended training: epochs, steps, seconds, flops, or patience on validation data",
            text=True,
        ),
    )
