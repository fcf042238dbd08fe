"""The model of more workers, against times counted by hand."""

import pytest

from bench.scale import model
from bench.scale.model import Wire

WIRE = Wire(latency_s=1.0, bytes_per_s=10.0)
FREE = Wire(0.0, float("inf"))


def test_blocks_without_anything_shared_take_as_long_as_the_worker_with_most() -> None:
    of = {"block_s": [1.0, 1.0, 1.0], "shared_s": 0.5, "shared_bytes": 0}
    assert model.blocks(of, 1, WIRE) == (3.5, [0.0], 0.0)
    step_s, idle, n_bytes = model.blocks(of, 2, WIRE)  # two blocks; one block and what is shared
    assert (step_s, n_bytes) == (2.0, 0.0)
    assert idle == pytest.approx([0.0, 0.25])


def test_what_blocks_share_is_sent_to_all_and_stepped_by_all() -> None:
    of = {"block_s": [1.0, 1.0, 1.0], "shared_s": 0.5, "shared_bytes": 20}
    step_s, _, n_bytes = model.blocks(of, 2, WIRE)
    assert n_bytes == 60
    assert step_s == pytest.approx(2.5 + (1 + 40 / 10) + (1 + 20 / 10))


def test_data_parallel_pays_for_a_ring() -> None:
    of = {"step_s": {"12": 9.0, "4": 3.0}, "gradient_bytes": 30}
    assert model.data(of, 1, WIRE, 12).step_s == 9.0
    step_s, idle, n_bytes = model.data(of, 3, WIRE, 12)
    assert step_s == pytest.approx(3 + 4 * (1 + 10 / 10))
    assert idle == pytest.approx([8 / 11] * 3)
    assert n_bytes == 4 * 30


def whole(**changes: object) -> dict[str, object]:
    even = {"forward_s": [1.0] * 4, "backward_s": [2.0] * 4, "update_s": 0.0, "hidden_bytes": [0] * 5, "rest_bytes": 0}
    return {**even, "step_s": {"8": 24.0}, **changes}


@pytest.mark.parametrize(("workers", "n_micro"), [(2, 1), (2, 8), (4, 4), (4, 32)])
def test_even_stages_wait_for_the_share_that_gpipe_names(workers: int, n_micro: int) -> None:
    """Huang et al. 2019: the bubble is (n - 1) / (m + n - 1) of the time."""
    step_s, idle, _ = model.pipeline(whole(), workers, FREE, 8, n_micro)
    assert step_s == pytest.approx((n_micro + workers - 1) * 3 * 4 / workers)
    assert idle == pytest.approx([(workers - 1) / (n_micro + workers - 1)] * workers)


def test_a_pipeline_goes_at_the_pace_of_its_slowest_stage_and_of_its_messages() -> None:
    of = whole(forward_s=[1.0, 5.0], backward_s=[1.0, 5.0], hidden_bytes=[8, 5, 1], update_s=2.0)
    step_s, idle, n_bytes = model.pipeline(of, 2, WIRE, 8, 2)
    # a message is 4 images of 5 bytes: 3 s. Forward 1 + 3 + 5 + 5 = 14; back 14 + 5 + 5 + 3 + 1; update 1 each
    assert step_s == pytest.approx(14 + 14 + 1)
    assert idle == pytest.approx([1 - 5 / 29, 1 - 21 / 29])
    assert n_bytes == 2 * 5 * 8


def test_one_stage_is_a_plain_step() -> None:
    assert model.pipeline(whole(), 1, WIRE, 8, 4) == (24.0, [0.0], 0.0)
