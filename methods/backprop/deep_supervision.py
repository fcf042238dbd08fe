"""Backprop, deep supervision: L + supervision * sum_l CE(head_l(h_l)), a linear head on each hidden block.

Paper: Lee, Xie, Gallagher, Zhang, Tu 2015, "Deeply-supervised nets". Nothing is detached.
Deviations: cross-entropies, where theirs are hinge losses whose weight decays.
"""

from pydantic import Field

from bench import Claims, MethodInfo, register

from .whole_net import BackpropSettings, WholeNet


class DeepSupervisionSettings(BackpropSettings):
    supervision: float = Field(1.0, ge=0, description="weight of the loss at each hidden block's own head; 0: no heads")


@register
class BackpropDeepSupervision(WholeNet):
    """The heads of local rules without their cuts: what it shows is owed to the heads, not to locality."""

    info = MethodInfo(
        name="backprop-deep-supervision",
        title="Backprop, deep supervision",
        role="control",
        rung="heads",
        family="backprop",
        paper="rumelhart1986learning, lee2015deeply",
        claims=Claims(reverse_mode="network", weight_transport=True, updates_wait_for="later blocks"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=(),
    )
    Config = DeepSupervisionSettings
