"""What a learning rule is handed: the task, mini-batches, and where training stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.api.errors import ConfigError
from bench.api.net import Net, Prototypes


class Batch(NamedTuple):
    """One mini-batch on the device. Shape: x (B, C, H, W) float32, y (B,) int64."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Progress:
    """Where training stands, so that schedules see the whole budget. All counts start at 0.

    total_steps: those of the budget; where seconds or validation end training, the most that there may be.
    """

    step: int
    total_steps: int
    epoch: int
    total_epochs: int
    data_pass: int


@dataclass(frozen=True)
class Facts:
    """What else is known of a run before it begins. device: a torch device type, `cpu` or `cuda`."""

    device: str
    epochs: int
    batch_size: int
    compile: bool = False


@dataclass(frozen=True)
class Task:
    """What is to be learnt: a classification problem, and the net that methods share.

    image_shape is (C, H, W). prototypes gives one training image of each class, for nets that start from them.
    """

    name: str
    n_classes: int
    image_shape: tuple[int, int, int]
    n_train: int
    net: type[Net]
    net_settings: Mapping[str, Any] = field(default_factory=dict)
    prototypes: Prototypes | None = None

    @property
    def n_features(self) -> int:
        channels, height, width = self.image_shape
        return channels * height * width

    @property
    def net_config(self) -> Any:
        """The net's settings, an instance of the `Settings` that it declares, defaults filled in."""
        return self.net.Settings(**self.net_settings)

    def build_net(self, init: torch.Generator, **settings: Any) -> Net:
        """The run's net with weights drawn from `init`, on the CPU. settings: those that differ from the run's.

        Raises: ConfigError where it starts from training images and the task has none.
        """
        net = self.net.build(self.image_shape, self.n_classes, {**self.net_settings, **settings}, init)
        net.start_from(self._prototypes)
        return net

    def _prototypes(self) -> Tensor:
        if self.prototypes is None:
            raise ConfigError(f"the net starts from training images, and the task '{self.name}' brings none")
        return self.prototypes()
