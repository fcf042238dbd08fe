"""The fast path against the obvious formula."""

import copy

import pytest
import torch

from bench.api.dataset import Split
from bench.data import Batches, load
from bench.data.digits import Digits
from bench.data.placing import on_host

N, BATCH_SIZE = 53, 8
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def example(channels: int = 3) -> tuple[Split, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (N, channels, 5, 4), dtype=torch.uint8, generator=generator)
    y = torch.randint(7, (N,), generator=generator)
    mean = torch.rand(channels, generator=generator)
    std = torch.rand(channels, generator=generator) * 0.3 + 0.05
    return Split(x, y), mean, std


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_the_obvious_formula(channels: int, device: str) -> None:
    split, mean, std = example(channels)
    index = torch.tensor([4, 0, 52, 4])
    batch = Batches(split, mean, std, device, BATCH_SIZE).batch(index.to(device))

    expected = (split.x[index].double() / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    assert batch.x.dtype == torch.float32
    torch.testing.assert_close(batch.x.cpu().double(), expected, rtol=1e-6, atol=2e-6)
    assert torch.equal(batch.y.cpu(), split.y[index])
    assert batch.x.device.type == batch.y.device.type == device


def test_batches_from_the_host_are_the_same_to_the_last_bit(device: str) -> None:
    split, mean, std = example()
    held, streamed = (Batches(split, mean, std, device, BATCH_SIZE, on_host=on) for on in (False, True))
    order = streamed.order(torch.Generator().manual_seed(0))
    assert order.device.type == "cpu"
    kept = [streamed.batch(index) for index in order.split(BATCH_SIZE)]  # pinned memory must not be written to again
    for index, batch in zip(order.split(BATCH_SIZE), kept, strict=True):
        expected = held.batch(index.to(device))
        assert torch.equal(batch.x, expected.x)
        assert torch.equal(batch.y, expected.y)
        assert batch.x.device.type == batch.y.device.type == device
    for one, other in zip(streamed, held, strict=True):
        assert torch.equal(one.x, other.x)


def test_an_index_on_the_device_finds_examples_on_the_host(device: str) -> None:
    split, mean, std = example()
    index = torch.tensor([3, 1], device=device)
    streamed = Batches(split, mean, std, device, BATCH_SIZE, on_host=True)
    assert torch.equal(streamed.batch(index).y.cpu(), split.y[[3, 1]])


@pytest.mark.parametrize(
    ("kind", "free", "asked", "expected"),
    [
        ("cpu", 0, "host", False),
        ("cuda", 10**9, "host", True),
        ("cuda", 10, "device", False),
        ("cuda", 10**9, "auto", False),
        ("cuda", 200_000, "auto", True),
    ],
)
def test_data_are_streamed_where_asked_or_where_a_gpu_has_no_room(
    kind: str, free: int, asked: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digits take some 130 KB."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    assert on_host(load(Digits()), torch.device(kind), asked) is expected


def test_all_256_levels_come_out_right() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    mean, std = torch.tensor([0.1307]), torch.tensor([0.3081])
    batch = Batches(Split(x, torch.zeros(256).long()), mean, std, "cpu", 256).batch(torch.arange(256))
    torch.testing.assert_close(batch.x.flatten(), (torch.arange(256) / 255 - mean) / std, rtol=1e-6, atol=1e-6)


def test_a_method_may_keep_and_change_its_batch() -> None:
    split, mean, std = example()
    batches = Batches(split, mean, std, "cpu", BATCH_SIZE)
    index = torch.arange(6)
    first = batches.batch(index)
    kept = copy.deepcopy(first)
    second = batches.batch(index + 6)
    assert torch.equal(first.x, kept.x)
    second.x.zero_()
    second.y.zero_()
    first.x.zero_()
    first.y.zero_()
    again = batches.batch(index)
    assert torch.equal(again.x, kept.x)
    assert torch.equal(again.y, kept.y)


def test_iterating_gives_every_image_once_in_order_and_the_partial_batch_last(device: str) -> None:
    split, mean, std = example()
    batches = Batches(split, mean, std, device, BATCH_SIZE)
    got = list(batches)
    assert [len(batch.y) for batch in got] == [8] * 6 + [5]
    assert len(batches) == len(got)
    assert torch.equal(torch.cat([batch.y for batch in got]).cpu(), split.y)
    whole = batches.batch(torch.arange(N, device=device))
    assert torch.equal(torch.cat([batch.x for batch in got]), whole.x)


def test_an_empty_split_gives_no_batch() -> None:
    split, mean, std = example()
    empty = Batches(split.take(torch.arange(0)), mean, std, "cpu", BATCH_SIZE)
    assert len(empty) == empty.n_examples == 0
    assert list(empty) == []


def test_the_order_is_a_permutation_that_its_generator_fixes(device: str) -> None:
    split, mean, std = example()
    batches = Batches(split, mean, std, device, BATCH_SIZE)
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    first = batches.order(one)
    assert first.device.type == device
    assert torch.equal(first, batches.order(two))
    assert torch.equal(first.sort().values.cpu(), torch.arange(N))
    assert not torch.equal(first, batches.order(one)), "the next pass has an order of its own"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("from_host", [False, True])
def test_a_batch_does_not_synchronise(from_host: bool) -> None:
    split, mean, std = example()
    batches = Batches(split, mean, std, "cuda", BATCH_SIZE, on_host=from_host)
    index = batches.order(torch.Generator().manual_seed(0))[:BATCH_SIZE]
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches.batch(index)
    finally:
        torch.cuda.set_sync_debug_mode("default")
