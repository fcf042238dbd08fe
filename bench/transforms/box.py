"""Places of boxes in images."""

import torch
from torch import Tensor


def inside(size: int, centre: Tensor, side: Tensor | int) -> Tensor:
    """Which of `size` pixels lie in a box of `side` pixels from centre - side // 2 on, as far as it is in the image.

    Shape: centre (...) and side (...) or a number, to (..., size) bool.
    """
    pixel = torch.arange(size, device=centre.device)
    first = (centre - side // 2).unsqueeze(-1)
    last = first + (side.unsqueeze(-1) if isinstance(side, Tensor) else side)
    return (pixel >= first) & (pixel < last)
