"""Growth of the memory that this process holds, exact enough to see a graph that was kept."""

import ctypes
import gc
from collections.abc import Callable
from functools import cache
from statistics import median

from torch import Tensor

HALF = 5
CALLS = 5


def growth(act: Callable[[], object]) -> float:
    """Bytes by which memory in use grows with each call of `act`.

    The median of some readings against that of as many later ones: short-lived threads and caches move single
    readings up and down, a leak moves all.
    """
    gc.freeze()  # what is older than the first reading need not be searched again
    try:
        readings = [_read_after(act) for _ in range(2 * HALF)]
    finally:
        gc.unfreeze()
    return (median(readings[HALF:]) - median(readings[:HALF])) / (HALF * CALLS)


def _read_after(act: Callable[[], object]) -> int:
    for _ in range(CALLS):
        act()
    gc.collect()
    return _in_use()


def _in_use() -> int:
    """Bytes held from the C allocator, which sees autograd's graphs; elsewhere from the tensors Python sees.

    Source: mallinfo2(3), glibc 2.33 or later.
    """
    read = _mallinfo2()
    if read is None:
        return sum(t.nbytes for t in gc.get_objects() if isinstance(t, Tensor))
    info = read()
    return int(info.uordblks + info.hblkhd)


class _MallInfo(ctypes.Structure):
    """struct mallinfo2: of ten counters, those of bytes mapped and of bytes in use."""

    _fields_ = [
        *((f"skipped_{k}", ctypes.c_size_t) for k in range(4)),
        ("hblkhd", ctypes.c_size_t),
        *((f"skipped_{k}", ctypes.c_size_t) for k in range(5, 7)),
        ("uordblks", ctypes.c_size_t),
        *((f"skipped_{k}", ctypes.c_size_t) for k in range(8, 10)),
    ]


@cache
def _mallinfo2() -> Callable[[], _MallInfo] | None:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    function.restype = _MallInfo
    return function
