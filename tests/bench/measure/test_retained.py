"""Bytes retained for backward, against counts by hand. A float32 has 4 bytes."""

import gc
import threading

import torch
from torch import Tensor, nn

from bench.measure.retained import retained_bytes

N = 1000


def chain(x: Tensor, length: int) -> Tensor:
    for _ in range(length):
        x = x.tanh()  # which saves its output
    return x.sum()  # which saves nothing


def test_each_layer_retains_what_its_derivative_needs() -> None:
    """tanh keeps its output; a linear layer without a gradient to its input keeps the input alone."""
    x = torch.randn(N, requires_grad=True)
    assert retained_bytes(lambda: chain(x, 3).backward()) == 3 * 4 * N
    layer, images = nn.Linear(20, 30), torch.randn(50, 20)
    assert retained_bytes(lambda: layer(images).sum().backward(), layer.parameters()) == 4 * 50 * 20


def test_parameters_do_not_count() -> None:
    """With a gradient to its input a linear layer saves its weight too, which is there anyway."""
    layer, x = nn.Linear(20, 30), torch.randn(50, 20, requires_grad=True)
    assert retained_bytes(lambda: layer(x).sum().backward()) == 4 * (50 * 20 + 20 * 30)
    assert retained_bytes(lambda: layer(x).sum().backward(), layer.parameters()) == 4 * 50 * 20


def test_a_storage_counts_whole_and_once() -> None:
    """Views of one storage keep all of it, however many layers save one."""
    storage, w = torch.randn(N), torch.zeros(10, requires_grad=True)
    assert retained_bytes(lambda: (storage[:10] * w + storage[500:510] * w).sum().backward()) == 4 * N


def test_nothing_is_retained_without_reverse_mode() -> None:
    layer, x = nn.Linear(20, 30), torch.randn(50, 20)

    def forward_only() -> None:
        with torch.no_grad():
            layer(x).tanh().sum()

    assert retained_bytes(forward_only) == 0
    assert retained_bytes(lambda: x.tanh().exp()) == 0


def test_what_is_freed_between_blocks_does_not_add_up() -> None:
    """Blocks that step one after another retain the bytes of the largest, joint ones the sum."""
    x = torch.randn(N, requires_grad=True)
    lengths = (1, 4, 2)

    def in_turn() -> None:
        for length in lengths:
            chain(x, length).backward()

    def joint() -> None:
        torch.stack([chain(x, length) for length in lengths]).sum().backward()

    def thrown_away() -> None:
        for length in lengths:
            chain(x, length)

    assert retained_bytes(in_turn) == 4 * 4 * N
    assert retained_bytes(thrown_away) == 4 * 4 * N
    assert retained_bytes(joint) == 7 * 4 * N


def test_threads_count_together() -> None:
    """Two graphs alive at once in two threads are both retained."""
    x = torch.randn(N, requires_grad=True)
    both_forward = threading.Barrier(2)

    def work() -> None:
        loss = chain(x, 3)
        both_forward.wait()
        loss.backward()

    def act() -> None:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert retained_bytes(act) == 2 * 3 * 4 * N
    before = threading.Thread.run
    retained_bytes(act)
    assert threading.Thread.run is before


def test_the_instrument_changes_no_gradient_and_keeps_no_graph() -> None:
    """d/dx of tanh(exp(x)), whose both steps save their output; a graph ends with its last reference."""
    x = torch.randn(N, dtype=torch.float64, requires_grad=True)
    graphs: list[Tensor] = []
    gc.disable()
    try:
        retained_bytes(lambda: graphs.append(x.exp().tanh().sum()))
        loss = graphs.pop()
        ended = _Ending()
        loss.grad_fn.metadata["ending"] = ended
        loss.backward()
        gone = ended.flag
        del loss, ended
        assert gone.is_set()
    finally:
        gc.enable()
    expected = x.exp() / x.exp().cosh() ** 2
    torch.testing.assert_close(x.grad, expected)


class _Ending:
    """Sets its flag when it is destroyed."""

    def __init__(self) -> None:
        self.flag = threading.Event()

    def __del__(self) -> None:
        self.flag.set()
