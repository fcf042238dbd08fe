"""Nets with a state over time, which rules may step through their input."""

from abc import abstractmethod

from torch import Tensor

from bench.api.net import Net


class Recurrent(Net):
    """A net that reads its input step by step and keeps a state.

        s_0 = start(B),    s_t = step(x_t, s_{t-1}),    output = read(s_T), or read(s_t) at each step for next tokens

    `forward` gives the same, computed as fast as it can be. Shape: x_t (B, F), states (B, H).
    """

    @abstractmethod
    def steps(self, x: Tensor) -> Tensor:
        """The input by time. Shape: (B, *inputs.shape) to (T, B, F)."""

    @abstractmethod
    def start(self, x: Tensor) -> Tensor:
        """The state before the first step, for a batch like x. Shape: (B, H)."""

    @abstractmethod
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """The next state. Shape: (B, F) and (B, H) to (B, H)."""

    @abstractmethod
    def read(self, state: Tensor) -> Tensor:
        """The output of a state. Shape: (..., H) to (..., outputs.size)."""
