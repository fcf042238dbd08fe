"""Backprop, micro-batches: grad L = sum_i (n_i / n) grad L_i over parts of the batch, one after another.

The same gradient but for rounding, unless the net has batch norm, whose statistics are then those of a part.
"""

from pydantic import Field

from bench import Claims, MethodInfo, register

from .whole_net import BackpropSettings, WholeNet


class MicroBatchSettings(BackpropSettings):
    micro_batches: int = Field(4, ge=1, description="parts of a batch whose gradients are added up")


@register
class BackpropMicroBatch(WholeNet):
    """The other way to less memory: the same update from parts of the batch, one after another."""

    info = MethodInfo(
        name="backprop-micro-batch",
        title="Backprop, micro-batches",
        role="control",
        family="backprop",
        paper="rumelhart1986learning",
        claims=Claims(reverse_mode="network", forward_passes=4, weight_transport=True, updates_wait_for="later blocks"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=(),
    )
    Config = MicroBatchSettings
