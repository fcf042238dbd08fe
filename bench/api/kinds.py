"""What goes into a task and what comes out of it: the kind and the shape of one example. Free of torch at import."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal, Self

from bench.api.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

InputKind = Literal["image", "vector", "sequence", "tokens"]
OutputKind = Literal["classes", "class probabilities", "values", "next token"]

CLASSES: tuple[OutputKind, ...] = ("classes", "class probabilities")
FLAT: tuple[OutputKind, ...] = (*CLASSES, "values")  # one row of numbers for each example
ALL: tuple[OutputKind, ...] = (*FLAT, "next token")

AXES: dict[InputKind, int] = {"image": 3, "vector": 1, "sequence": 2, "tokens": 1}


@dataclass(frozen=True)
class Input:
    """The input of one example.

    shape: (C, H, W) of an image, (F,) of a vector, (T, F) of a sequence, all float32; (T,) of tokens, which are int64
    below `vocabulary`.
    """

    kind: InputKind
    shape: tuple[int, ...]
    vocabulary: int = 0

    def __post_init__(self) -> None:
        if self.kind not in AXES:
            raise ConfigError(f"input kind '{self.kind}': write one of {', '.join(AXES)}")
        if len(self.shape) != AXES[self.kind] or min(self.shape) < 1:
            raise ConfigError(f"the input kind '{self.kind}' has {AXES[self.kind]} axes, not the shape {self.shape}")
        if (self.kind == "tokens") != (self.vocabulary > 0):
            raise ConfigError("tokens need a vocabulary, and no other input has one")

    @classmethod
    def image(cls, channels: int, height: int, width: int) -> Self:
        return cls("image", (channels, height, width))

    @classmethod
    def vector(cls, features: int) -> Self:
        return cls("vector", (features,))

    @classmethod
    def sequence(cls, steps: int, features: int) -> Self:
        return cls("sequence", (steps, features))

    @classmethod
    def tokens(cls, steps: int, vocabulary: int) -> Self:
        return cls("tokens", (steps,), vocabulary)

    def __str__(self) -> str:
        """As in `image 1x8x8` and `tokens 16 of 20`."""
        return f"{self.kind} {'x'.join(map(str, self.shape))}" + (f" of {self.vocabulary}" if self.vocabulary else "")

    @property
    def n_features(self) -> int:
        """Numbers in one example."""
        return prod(self.shape)

    def draw(self, n: int, device: "torch.device | None" = None) -> "Tensor":
        """n random examples from the global generator: standard normal, or uniform tokens. Shape: (n, *shape)."""
        import torch

        if self.kind == "tokens":
            return torch.randint(self.vocabulary, (n, *self.shape), device=device)
        return torch.randn(n, *self.shape, device=device)

    def zeros(self, n: int, device: "torch.device | None" = None) -> "Tensor":
        """n examples of zeros, as a probe of shapes. Shape: (n, *shape)."""
        import torch

        dtype = torch.int64 if self.kind == "tokens" else torch.get_default_dtype()
        return torch.zeros(n, *self.shape, dtype=dtype, device=device)


@dataclass(frozen=True)
class Output:
    """What is predicted of one example, and how its label is given.

    classes: `size` scores; the label is a class, () int64. class probabilities: `size` scores; the label is a
    distribution, (size,) float32. values: `size` numbers; the label is (size,) float32, standardised by the harness.
    next token: `size` scores at each of `positions`; the label is the token that follows each, (positions,) int64.

    scale, offset: values alone: a standardised 1 and a standardised 0 in the data's own unit, for each value.
    """

    kind: OutputKind
    size: int
    positions: int = 0
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()

    @classmethod
    def classes(cls, size: int) -> Self:
        return cls("classes", size)

    @classmethod
    def values(cls, size: int = 1) -> Self:
        return cls("values", size)

    def __str__(self) -> str:
        """As in `10 classes`, `1 value` and `next of 20 tokens`."""
        if self.kind == "next token":
            return f"next of {self.size} tokens"
        return f"{self.size} {'value' if (self.kind, self.size) == ('values', 1) else self.kind}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what a net gives for one example."""
        return (self.positions, self.size) if self.kind == "next token" else (self.size,)

    def in_own_unit(self, out: "Tensor") -> "Tensor":
        """Predicted or true values in the data's own unit, scale * out + offset. Shape: (..., size).

        Raises: ConfigError where the output is not of values.
        """
        if self.kind != "values":
            raise ConfigError(f"only values have a unit of their own, not {self.kind}")
        scale, offset = self.scale or (1.0,) * self.size, self.offset or (0.0,) * self.size
        return out * out.new_tensor(scale) + out.new_tensor(offset)

    def draw(self, n: int, device: "torch.device | None" = None) -> "Tensor":
        """n labels for probes: each class in turn; standard normal values; uniform distributions."""
        import torch

        if self.kind == "values":
            return torch.randn(n, self.size, device=device)
        if self.kind == "class probabilities":
            return torch.full((n, self.size), 1 / self.size, device=device)
        labels = torch.arange(n * max(1, self.positions), device=device) % self.size
        return labels.view(n, self.positions) if self.kind == "next token" else labels
