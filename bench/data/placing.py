"""Whether a data set lies on the device as a whole, or on the host, from where batches are streamed."""

import torch

from bench.data.dataset import Dataset

SHARE = 0.5  # of the device's free memory that the data may take; the rest is for training


def on_host(data: Dataset, device: torch.device, asked: str) -> bool:
    """asked: auto, device or host. On a CPU both are one place, and nothing is streamed."""
    if device.type != "cuda":
        return False
    if asked != "auto":
        return asked == "host"
    free, _ = torch.cuda.mem_get_info(device)
    return n_bytes(data) > SHARE * free


def n_bytes(data: Dataset) -> int:
    """Of the arrays of all splits."""
    return sum(array.nbytes for split in (data.train, data.val, data.test) for array in split)
