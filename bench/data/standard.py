"""From raw examples to what a net is given: numbers standardised by the training split, tokens as they are.

uint8 images: mean and std of each channel on the 0..1 scale. float32: of each channel of images, of each feature of
vectors and sequences, in the data's own unit. A channel or feature that is constant in the training split has std 1.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

CHUNK = 4096  # examples held in float64 at once


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel or feature, (C,) float32 each; empty for tokens."""
    if x.dtype == torch.uint8:
        return _of_levels(x)
    if not x.is_floating_point():
        return torch.empty(0), torch.empty(0)
    parts = [_features_last(part) for part in x.split(CHUNK)]
    n = sum(part[..., 0].numel() for part in parts)
    mean = _total(part.double() for part in parts) / n
    std = (_total((part.double() - mean).square() for part in parts) / n).sqrt()
    flat = [part.reshape(-1, part.shape[-1]) for part in parts]
    low, high = (torch.stack([getattr(part, of)(0) for part in flat]) for of in ("amin", "amax"))
    return mean.float(), std.masked_fill(low.amin(0) == high.amax(0), 1.0).float()


class Standard:
    """Standardises gathered examples. Those that are float32 are overwritten."""

    def __init__(self, like: Tensor, mean: Tensor, std: Tensor, device: torch.device | str) -> None:
        """like: raw examples, for their type and number of axes. Shape: mean and std (C,), as `statistics` gives."""
        shape = (-1, 1, 1) if like.ndim == 4 else (-1,)
        self._is_tokens = not (like.is_floating_point() or like.dtype == torch.uint8)
        self._is_uint8 = like.dtype == torch.uint8
        # uint8: (pixel / 255 - mean) / std as one multiplication and one addition, rounded to float32 at the end.
        # float32: the mean is taken off first, as a mean far above the spread would cost digits otherwise
        scale = 1 / (255 * std.double()) if self._is_uint8 else 1 / std.double()
        shift = -mean.double() / std.double() if self._is_uint8 else -mean.double()
        self._scale = scale.float().view(shape).to(device)
        self._shift = shift.float().view(shape).to(device)

    def __call__(self, x: Tensor) -> Tensor:
        """Shape: (B, ...) raw to (B, ...) float32, or int64 where these are tokens."""
        if self._is_tokens:
            return x
        if self._is_uint8:
            return x.float().mul_(self._scale).add_(self._shift)
        return x.add_(self._shift).mul_(self._scale)


def _of_levels(x: Tensor) -> tuple[Tensor, Tensor]:
    """On the 0..1 scale, from exact counts of the 256 levels. Shape: (N, C, H, W) uint8 to (C,) and (C,) float32."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = share @ levels
    std = (share * (levels - mean[:, None]).square()).sum(1).sqrt()
    # a constant channel carries nothing; divided by 1 it comes out as 0 instead of NaN
    constant = (counts > 0).sum(1) == 1
    return mean.float(), std.masked_fill(constant, 1.0).float()


def _features_last(x: Tensor) -> Tensor:
    """Shape: (N, C, H, W) to (N, H, W, C); vectors and sequences as they are."""
    return x.movedim(1, -1) if x.ndim == 4 else x


def _total(parts: Iterable[Tensor]) -> Tensor:
    """The sum over all axes but the last. Shape: any number of (..., C) to (C,)."""
    return torch.stack([part.flatten(0, -2).sum(0) for part in parts]).sum(0)
