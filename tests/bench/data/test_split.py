"""The stratified split against its definition."""

import pytest
import torch

from bench.data.split import draw

UNEVEN = torch.cat([torch.full((n,), c) for c, n in enumerate((7, 50, 101, 3, 240))])


@pytest.mark.parametrize("n", [0, 1, 5, 40, 133, 400, 401])
def test_a_draw_parts_the_indices_in_two(n: int) -> None:
    kept, drawn = draw(UNEVEN, n)
    assert len(drawn) == n
    assert torch.equal(torch.cat([kept, drawn]).sort().values, torch.arange(len(UNEVEN)))
    assert kept.tolist() == sorted(kept.tolist())
    assert drawn.tolist() == sorted(drawn.tolist())


@pytest.mark.parametrize("n", [5, 40, 133])
def test_each_class_gives_its_share_to_within_one_image(n: int) -> None:
    shuffled = UNEVEN[torch.randperm(len(UNEVEN), generator=torch.Generator().manual_seed(1))]
    _, drawn = draw(shuffled, n)
    share = UNEVEN.bincount() * n / len(UNEVEN)
    assert ((shuffled[drawn].bincount(minlength=5) - share).abs() < 1).all()


def test_the_draw_is_random_within_a_class() -> None:
    """Were it every tenth image, a set sorted by writer would be split by writer."""
    _, drawn = draw(torch.zeros(1000, dtype=torch.int64), 100)
    assert len(set(drawn.diff().tolist())) > 10


def test_the_draw_is_the_same_on_every_machine_and_leaves_the_seeds_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    _, drawn = draw(UNEVEN, 12)
    assert torch.equal(before, torch.get_rng_state())
    assert drawn.tolist() == [22, 28, 63, 83, 147, 165, 200, 218, 307, 308, 358, 360]
