"""Last layer only: all but the last layer of the net stays as it was drawn.

The step is backprop's, within one layer: the floor that a rule for hidden layers has to rise above.
"""

from typing import Literal

from pydantic import Field

from bench import Claims, MethodInfo, register

from .whole_net import BackpropSettings, WholeNet


class LastLayerSettings(BackpropSettings):
    learns: Literal["all", "last"] = Field("last", description="every layer, or the last one alone")


@register
class BackpropLastLayer(WholeNet):
    """The floor: what the same net reaches when nothing but its last layer learns."""

    info = MethodInfo(
        name="backprop-last-layer",
        title="Last layer only",
        role="control",
        family="backprop",
        paper="rumelhart1986learning",
        claims=Claims(reverse_mode="layer", updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn", "triangle"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=(),
    )
    Config = LastLayerSettings
