"""Random features: the linear layer upon one wide block of the net that stays as it was drawn.

Paper: Rahimi, Recht 2008, "Random features for large-scale kernel machines".
Deviations: the features are the net's own ReLU or tanh, not cosines; the readout is fitted by AdamW on the
cross-entropy, not by least squares.
"""

from typing import Any

import torch
from pydantic import Field

from bench import Claims, MethodInfo, Net, Task, register

from .last_layer import LastLayerSettings
from .whole_net import WholeNet


class RandomFeaturesSettings(LastLayerSettings):
    widen: int = Field(8, ge=1, description="features, in units of the width of the net's first block")


@register
class RandomFeatures(WholeNet):
    """A linear classifier upon one wide random block."""

    info = MethodInfo(
        name="random-features",
        title="Random features",
        role="control",
        family="backprop",
        paper="rahimi2008random",
        claims=Claims(reverse_mode="layer", updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values", "next token"),
    )
    Config = RandomFeaturesSettings

    @staticmethod
    def build_net(task: Task, config: Any, init: torch.Generator) -> Net:
        return task.build_net(init, depth=1, width=config.widen * task.net_config.width)
