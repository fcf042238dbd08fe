"""What a learning rule is handed: the task, mini-batches, and where training stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.api.errors import ConfigError
from bench.api.kinds import Input, Output
from bench.api.metric import Metric
from bench.api.net import Net, Prototypes
from bench.api.objective import Objective
from bench.api.structure import sketch


class Batch(NamedTuple):
    """One mini-batch on the device, as the task's `input` and `output` say.

    Shape: for image classifiers x (B, C, H, W) float32, y (B,) int64.
    """

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


@dataclass(frozen=True)
class Facts:
    """What else is known of a run before it begins. device: a torch device type, `cpu` or `cuda`."""

    device: str
    epochs: int
    batch_size: int
    compile: bool = False


@dataclass(frozen=True)
class Task:
    """What is to be learnt: from which input which output, under which objective, and the net that methods share.

    metrics: how predictions are judged; the first is the primary one. prototypes gives one training image of each
    class, for nets that start from them.
    """

    name: str
    input: Input
    output: Output
    objective: Objective
    n_train: int
    net: type[Net]
    net_settings: Mapping[str, Any] = field(default_factory=dict)
    prototypes: Prototypes | None = None
    metrics: tuple[type[Metric], ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a task on images. Raises: ConfigError on any other."""
        if self.input.kind != "image":
            raise ConfigError(f"the task '{self.name}' has {self.input.kind} inputs, not images")
        channels, height, width = self.input.shape
        return channels, height, width

    @property
    def n_classes(self) -> int:
        """Of a task on classes. Raises: ConfigError on any other."""
        if self.output.kind == "values":
            raise ConfigError(f"the task '{self.name}' has values for outputs, not classes")
        return self.output.size

    @property
    def primary(self) -> type[Metric]:
        """The metric that selection, search and statistics follow."""
        return self.metrics[0]

    @property
    def net_config(self) -> Any:
        """The net's settings, an instance of the `Settings` that it declares, defaults filled in."""
        return self.net.Settings(**self.net_settings)

    def sketch(self) -> Net:
        """The run's net without its numbers, to ask how it is made."""
        return sketch(self.net, self.input, self.output, self.net_settings)

    def build_net(self, init: torch.Generator, **settings: Any) -> Net:
        """The run's net with weights drawn from `init`, on the CPU. settings: those that differ from the run's.

        Raises: ConfigError where it starts from training images and the task has none.
        """
        net = self.net.build(self.input, self.output, {**self.net_settings, **settings}, init)
        net.start_from(self._prototypes)
        return net

    def _prototypes(self) -> Tensor:
        if self.prototypes is None:
            raise ConfigError(f"the net starts from training images, and the task '{self.name}' brings none")
        return self.prototypes()
