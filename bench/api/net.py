"""A net that rules share: a stem, ordered blocks and a head."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from bench.api.errors import ConfigError
from bench.api.kinds import Input, InputKind, Output, OutputKind
from bench.api.seeds import drawn_from

# gives one training image of each class, (m, C, H, W), normalised; computed when first asked for
Prototypes = Callable[[], Tensor]


class Net(nn.Module, ABC):
    """A net made of `blocks`. Shape: (B, *inputs.shape) to (B, *outputs.shape), class scores for instance.

    Subclasses set `name` and `Settings` and fill `blocks`. `__init__` raises ConfigError for inputs that do not fit.
    takes, gives: the kinds of input and output that it is made for.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]]
    takes: ClassVar[tuple[InputKind, ...]] = ("image",)
    gives: ClassVar[tuple[OutputKind, ...]] = ("classes", "class probabilities", "values")
    stochastic: ClassVar[bool] = False  # whether `forward` draws from `noise`
    small: ClassVar[Mapping[str, Any]] = {}  # settings at which checks and tests are quick
    passes: int = 1  # evaluations of the busiest layer in one forward pass
    blocks: nn.ModuleList

    @abstractmethod
    def __init__(self, inputs: Input, outputs: Output, settings: Any) -> None:
        super().__init__()

    @classmethod
    def build(cls, inputs: Input, outputs: Output, settings: Mapping[str, Any], init: torch.Generator) -> Self:
        """A net on the CPU whose weights depend on `init`, the class and the settings alone."""
        with drawn_from(init):
            return cls(inputs, outputs, cls.Settings(**settings))

    @classmethod
    def misfit(cls, inputs: Input, outputs: Output, settings: Mapping[str, Any]) -> str | None:
        """Why the net is not made for this input or output, None where it is: a run on it is then `skipped` with it.

        Default: what `takes` and `gives` say, then `__init__` in a ConfigError, asked without memory or time, on the
        meta device.
        """
        for found, made_for in ((inputs.kind, cls.takes), (outputs.kind, cls.gives)):
            if found not in made_for:
                return f"{cls.name} is made for {', '.join(made_for)}, not for {found}"
        try:
            with torch.device("meta"):
                cls(inputs, outputs, cls.Settings(**settings))
        except ConfigError as error:
            return str(error)
        except Exception:  # an `__init__` that the meta device cannot follow says nothing about inputs
            return None
        return None

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """The output. `noise` feeds the draws of a stochastic net; without it they are at their mean."""
        h = self.stem(x, noise)
        for k in range(len(self.blocks)):
            h = self.block(k, h, x)
        return self.head(h)

    # the three parts of `forward`: rules cut a net between them, workers share it by them

    def stem(self, x: Tensor, noise: torch.Generator | None) -> Tensor:
        """The input of the first block."""
        return x

    def block(self, k: int, h: Tensor, x: Tensor) -> Tensor:
        """The output of block k, k = 0, 1, ..., from the output before it and the input."""
        out: Tensor = self.blocks[k](h)
        return out

    def head(self, h: Tensor) -> Tensor:
        """The net's output, from that of the last block."""
        return h

    def start_from(self, prototypes: Prototypes) -> None:
        """Take from the training images what the start needs; most nets need nothing."""
