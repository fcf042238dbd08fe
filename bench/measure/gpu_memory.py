"""Peak memory of torch's GPU allocator, in bytes; None without a GPU."""

import torch


def reset(device: torch.device) -> None:
    """Give cached memory back, and put the peaks down to what is in use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_allocated(device: torch.device) -> int | None:
    """Most bytes held by live tensors at one time."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def peak_reserved(device: torch.device) -> int | None:
    """Most bytes taken from the driver, the allocator's cache included."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
