"""One image to stand for each class: the training image closest, in the median, to the others of its class.

Source: Li, Teh, Pascanu 2025, arXiv 2503.24322, section 4 (start of prototype embeddings).
"""

import torch
from torch import Tensor

from bench.data.dataset import Dataset

CHUNK = 1024  # images whose distances to their class are held at once: 50,000 CIFAR images in some 20 MiB


def class_prototypes(data: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """The image of each class with the least median Euclidean distance to the others of it, normalised.

    Of an even number of distances the median is the lower middle one; the first image wins a tie.
    Shape: (m, C, H, W) float32 on the device. Raises: ValueError for a class without a training image.
    """
    chosen = []
    for label in range(data.output.size):
        images = data.train.x[data.train.y == label].to(device)
        if not len(images):
            raise ValueError(f"{data.name} has no training image of class {label}")
        mean, std = (of.to(device).view(-1, 1, 1) for of in (data.mean, data.std))
        images = (images.float() / 255 if images.dtype == torch.uint8 else images).sub(mean) / std
        chosen.append(images[_most_central(images.flatten(1))])
    return torch.stack(chosen)


def _most_central(points: Tensor) -> int:
    """Shape: (n, d) to an index."""
    # of n distances the least is a point's own, so the lower median of the rest is the ((n - 2) // 2 + 2)-th of all
    rank = max(1, (len(points) - 2) // 2 + 2)
    medians = [torch.cdist(chunk, points).kthvalue(rank, dim=1).values for chunk in points.split(CHUNK)]
    return int(torch.cat(medians).argmin())
