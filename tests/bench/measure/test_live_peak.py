"""Peak of live tensor bytes, against counts by hand. A float32 has 4 bytes."""

import gc
import threading
from collections.abc import Callable

import torch

from bench.measure.live_peak import live_peak_bytes

N = 1000


def above_idle(act: Callable[[], object]) -> int:
    """By how much `act` lifts the peak over that of doing nothing."""
    gc.collect()
    idle = live_peak_bytes(lambda: None)
    return live_peak_bytes(act) - idle


def test_allocate_free_and_in_place() -> None:
    def act() -> None:
        a = torch.zeros(N)
        b = a.exp()  # 8 N bytes: the peak
        del a
        b.mul_(2)  # in place: nothing new
        c = torch.zeros(N // 2)  # 6 N bytes
        c.add_(b[: N // 2])  # a view: nothing new

    assert above_idle(act) == 8 * N


def test_what_was_there_counts_until_it_is_freed() -> None:
    old = [torch.zeros(N)]

    def act() -> None:
        old.clear()  # 4 N bytes less than before
        torch.zeros(3 * N)

    assert above_idle(act) == 8 * N


def test_gradients_that_python_never_met_count() -> None:
    idle = live_peak_bytes(lambda: None)
    x = torch.zeros(N, requires_grad=True)
    x.sum().backward()
    assert live_peak_bytes(lambda: None) - idle == 2 * 4 * N


def test_the_way_back() -> None:
    """tanh's output and its derivative's are alive together, beside the loss and the 1 it starts from."""
    x = torch.zeros(N, requires_grad=True)

    def act() -> None:
        loss = x.tanh().sum()
        loss.backward()

    assert above_idle(act) == 4 * N + 4 * N + 4 + 4


def test_threads_count() -> None:
    def act() -> None:
        mine = torch.zeros(N)
        thread = threading.Thread(target=lambda: torch.zeros(2 * N))
        thread.start()
        thread.join()
        mine.zero_()

    assert above_idle(act) == 3 * 4 * N
