"""Layers that torch lacks in the form needed here."""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


class ReLUDropout(nn.Module):
    """ReLU and inverted dropout, which draws its mask from a generator of its own.

    y = max(x, 0) * keep / (1 - p), keep ~ Bernoulli(1 - p); x is overwritten. Unlike nn.Dropout it leaves the global
    generator alone, so that blocks trained in parallel draw what they would draw one after another.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x.relu_()
        # drawn in the order of memory, so that a channels-last input gets a mask of its own layout
        return self.drop(x, self.keep((x.numel(),), x.device, self.generator).as_strided(x.shape, x.stride()))

    def keep(self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
        """A mask of int16 that is 1 with probability 1 - p, else 0.

        16 random bits decide a unit (p is met within 2^-17): on a CPU a tenth of the time of bernoulli_. They become
        the mask where they are, for torch's kernels that make bools, or multiply by them, are not vectorised.
        """
        n = math.prod(shape)
        bits = torch.empty((n + 3) // 4, dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
        return bits.view(torch.int16)[:n].ge_(min(round(self.p * 2**16), 2**16 - 1) - 2**15).view(shape)

    def drop(self, x: Tensor, keep: Tensor) -> Tensor:
        """max(x, 0) * keep / (1 - p)"""
        return (x.relu_() * keep).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_DropoutNd):
    """Inverted dropout that draws from a generator of its own, a function of the net's initial draws.

    y = x * keep / (1 - p), keep ~ Bernoulli(1 - p), one draw a number, or one a channel. All rules that share the net
    draw the same masks, the global generator stays untouched, and a resumed run draws on.
    """

    def __init__(self, p: float, *, channels: bool = False) -> None:
        super().__init__(p)
        self.channels = channels
        self.seed = int(torch.randint(2**31, (), device="cpu"))
        self.generator: torch.Generator | None = None
        self.loaded: Tensor | None = None  # a state that the generator takes with the next draw

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.generator is None or self.generator.device != x.device:
            self.generator = torch.Generator(x.device).manual_seed(self.seed)
        if self.loaded is not None:
            self.generator.set_state(self.loaded)
            self.loaded = None
        shape = (*x.shape[:2], *[1] * (x.dim() - 2)) if self.channels else x.shape
        keep = torch.rand(shape, generator=self.generator, device=x.device) >= self.p
        return x * keep.to(x.dtype).mul_(1 / (1 - self.p))

    def get_extra_state(self) -> Tensor:
        """The state of the generator, empty before the first draw."""
        if self.loaded is not None:
            return self.loaded
        return torch.empty(0, dtype=torch.uint8) if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator, self.loaded = None, state.cpu() if len(state) else None

    def extra_repr(self) -> str:
        return f"p={self.p}, channels={self.channels}"


class SoftmaxPool(nn.Module):
    """Pooling by the mean that softmax weights: sum_i x_i exp(x_i) / sum_j exp(x_j) over windows without overlap.

    Stergiou, Poppe, Kalliatakis 2021, "Refining activation downsampling with SoftPool". Rows and columns that fill no
    window are dropped. Shape: (B, C, H, W) to (B, C, H // k, W // k).
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        k = self.kernel_size
        windows = x.unfold(2, k, k).unfold(3, k, k).flatten(-2)
        pooled: Tensor = torch.linalg.vecdot(windows.softmax(-1), windows)
        return pooled

    def extra_repr(self) -> str:
        return f"{self.kernel_size}"


class Scale(nn.Module):
    """x times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:g}"


class Residual(nn.Module):
    """h + scale inner(h). cut: no gradient goes back along the shortcut."""

    def __init__(self, inner: nn.Module, scale: float = 1.0, *, cut: bool = False) -> None:
        super().__init__()
        self.inner, self.scale, self.cut = inner, scale, cut

    def forward(self, h: Tensor) -> Tensor:
        return torch.add(h.detach() if self.cut else h, self.inner(h), alpha=self.scale)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}, cut={self.cut}"


def lend_generator(module: nn.Module, generator: torch.Generator, *, idle_only: bool = False) -> None:
    """Let every ReLUDropout inside `module` draw from `generator`. idle_only: those alone that have none yet."""
    for layer in module.modules():
        if isinstance(layer, ReLUDropout) and not (idle_only and layer.generator is not None):
            layer.generator = generator


def noise_like(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal draws of the dtype and device of `like`; their mean, 0, where there is no generator."""
    if generator is None:
        return like.new_zeros(shape)
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
