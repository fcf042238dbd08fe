"""Backprop, checkpointed: a block keeps its input alone and computes the rest again on the way back.

Paper: Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost". The gradient is the same. It
gains nothing on the mlp, whose blocks hold little but their inputs.
"""

from pydantic import Field

from bench import Claims, MethodInfo, register

from .whole_net import BackpropSettings, WholeNet


class CheckpointedSettings(BackpropSettings):
    checkpoint: bool = Field(True, description="keep block inputs only and compute the rest again")


@register
class BackpropCheckpointed(WholeNet):
    """The fair opponent of block-local rules: their memory at the price of a second forward pass."""

    info = MethodInfo(
        name="backprop-checkpointed",
        title="Backprop, checkpointed",
        role="control",
        family="backprop",
        paper="rumelhart1986learning, chen2016training",
        claims=Claims(reverse_mode="network", forward_passes=2, weight_transport=True, updates_wait_for="later blocks"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=(),
    )
    Config = CheckpointedSettings
