"""Blocks that learn on their own, one after another or over the CPU's threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def in_turn(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    return [task() for task in tasks]


def threaded(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Each task on one thread of its own, as many at a time as torch has intra-op threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            return list(pool.map(lambda task: task(), tasks))
    finally:
        torch.set_num_threads(threads)
