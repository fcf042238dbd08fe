"""States of a layered net with symmetric weights, which relax by the primitive function of equilibrium propagation.

    s_k <- clip(1/2 (W_k s_{k-1} + b_k + W_{k+1}^T s_{k+1} - beta dl/ds_k), 0, 1)

Equations and names: equilibrium_propagation.py.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from .._shared.bilinear import Gradient
from .layers import Chain, Linear, Memory


class HopfieldSettings(BaseModel):
    loss: Literal["mse", "ce"] = Field("mse", description="squared error of the last states, or a softmax read-out")
    relaxation: Literal["synchronous", "asynchronous"] = Field(
        "asynchronous", description="all layers at once, or odd ones and then even ones"
    )


class Relaxation:
    """States of as many images as x. Layer l = 1.. that relaxes has index l - 1; one more is the read-out of ce."""

    def __init__(self, chain: Chain, config: HopfieldSettings, x: Tensor) -> None:
        self.config, self.n = config, len(x)
        self.layers: Sequence[Linear] = chain.layers  # type: ignore[assignment]
        K = len(chain.layers) - (config.loss == "ce")
        order = [*range(0, K, 2), *range(1, K, 2)] if config.relaxation == "asynchronous" else list(range(K))
        self.place = [order.index(k) for k in range(K)]
        shapes = [chain.shapes[k] for k in order]
        states, drives, self.kept, self.change = (Memory(shapes, self.n, x) for _ in range(4))
        self.flat = states.flat
        self.s = [self._of(states, k) for k in range(K)]
        self.a = [self._of(drives, k) for k in range(K)]  # half of dPhi/ds - beta dl/ds
        cuts = [0, (K + 1) // 2, K] if config.relaxation == "asynchronous" else [0, K]
        self.sweeps = [(order[i:j], drives.of(i, j), states.of(i, j)) for i, j in pairwise(cuts) if i < j]
        self.first, self.error = torch.empty_like(self.a[0]), x.new_empty(self.n, *chain.shapes[-1])
        self.scores = torch.empty_like(self.error)

    def start(self, x: Tensor) -> None:
        """From s = 0; what the first layer is given never changes."""
        self.flat.zero_()
        for layer in self.layers[1:]:
            layer.rest(True)
        self.layers[0].forward(x, self.first, 0.5)

    def run(self, steps: int, nudge: tuple[Tensor, Tensor] | None = None) -> None:
        """Steps of all states. nudge: y one-hot, and half of beta with its sign, a 0-d tensor."""
        for _ in range(steps):
            for layers, drive, states in self.sweeps:
                for k in layers:
                    self._drive(k)
                if nudge is not None and len(self.s) - 1 in layers:
                    self._nudge(*nudge)
                torch.clamp(drive, 0, 1, out=states)

    def _drive(self, k: int) -> None:
        a, above = self.a[k], k + 1 < len(self.s)
        if k > 0:
            self.layers[k].forward(self.s[k - 1], a, 0.5)
        elif above:
            torch.addmm(self.first, self.s[1], self.layers[1].weight, alpha=0.5, out=a)
            return
        else:
            a.copy_(self.first)
        if above:
            self.layers[k + 1].transposed(self.s[k + 1], a, by=0.5)

    def _nudge(self, y: Tensor, by: Tensor) -> None:
        if self.config.loss == "mse":
            self.a[-1].add_(torch.sub(y, self.s[-1], out=self.error).mul_(by))
        else:
            self.layers[-1].transposed(self.readout_error(y).mul_(by), self.a[-1])

    def readout_error(self, y: Tensor) -> Tensor:
        """y - softmax, minus the gradient of ce by the scores. Shape: (N, C)."""
        return torch.sub(y, self.read().softmax(1), out=self.error)

    def keep(self) -> None:
        self.kept.flat.copy_(self.flat)

    def swap(self) -> None:
        """Go on from the states kept, and keep those that are."""
        now = self.flat.clone()
        self.flat.copy_(self.kept.flat)
        self.kept.flat.copy_(now)

    def gradient(self, x: Tensor, beta: Tensor) -> Gradient:
        """-(dPhi(s) - dPhi(kept)) / (beta N) by weights, taken from differences of states so that none is lost."""
        torch.sub(self.kept.flat, self.flat, out=self.change.flat).div_(beta * self.n)
        gradient: Gradient = {}
        for k, layer in enumerate(self.layers[: len(self.s)]):
            d = self._of(self.change, k)
            gradient |= layer.gradient(self._of(self.kept, k - 1) if k else x, d)
            if k:
                weight = layer.weight
                by_weight = gradient[weight].to(weight.dtype)  # autocast has a say in products, none in sums in place
                gradient[weight] = by_weight.addmm_(self.s[k].T, self._of(self.change, k - 1))
        return gradient

    def readout_gradient(self, y: Tensor) -> Gradient:
        """Of ce by the read-out's weights; nothing where there is none."""
        if self.config.loss == "mse":
            return {}
        return self.layers[-1].gradient(self.s[-1], self.readout_error(y).div_(-self.n))

    def _of(self, memory: Memory, k: int) -> Tensor:
        return memory.parts[self.place[k]]

    def read(self) -> Tensor:
        """Scores of the states as they are."""
        self.layers[-1].forward(self.s[-1 if self.config.loss == "ce" else -2], self.scores)
        return self.scores

    def energies(self, x: Tensor) -> Tensor:
        """|s_l|^2 - s_l . (W_l s_{l-1} + b_l), mean over the batch. Shape: (layers that relax,)."""
        below = [x.flatten(1), *self.s]
        inputs = [F.linear(h, layer.weight, layer.bias) for h, layer in zip(below, self.layers, strict=False)]
        return torch.stack([(s * (s - a)).sum() / self.n for s, a in zip(self.s, inputs, strict=False)])
