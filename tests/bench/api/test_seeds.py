"""Seed streams: what is shared, what is not, and what leaves no trace."""

import torch

from bench.api.seeds import Seeds, derive


def test_a_stream_is_a_hash_of_seed_and_axis() -> None:
    """Pinned, so that records of different versions of the suite stay comparable."""
    assert derive(0, "init") == 1519069808562059438
    assert len({derive(s, a) for s in range(50) for a in ("init", "order", "noise", "augment")}) == 200


def test_weights_and_order_do_not_depend_on_the_method() -> None:
    a, b = Seeds(3, method="a"), Seeds(3, method="b")
    for stream in ("init", "order", "augment"):
        assert torch.equal(_draw(getattr(a, stream)), _draw(getattr(b, stream)))
    assert not torch.equal(_draw(a.noise), _draw(b.noise))


def test_the_order_of_an_epoch_depends_on_nothing_before_it() -> None:
    a, b = Seeds(0), Seeds(0)
    _draw(a.order)
    for seeds in (a, b):
        seeds.for_epoch(5)
    assert torch.equal(_draw(a.order), _draw(b.order))
    a.for_epoch(6)
    b.for_epoch(5)
    assert not torch.equal(_draw(a.order), _draw(b.order))


def test_evaluating_leaves_training_noise_alone() -> None:
    a, b = Seeds(0), Seeds(0)
    a.for_inference("val", 1)
    _draw(a.inference)
    assert torch.equal(_draw(a.noise), _draw(b.noise))


def test_state_round_trip() -> None:
    seeds = Seeds(0)
    _draw(seeds.noise)
    state = seeds.state_dict()
    expected = _draw(seeds.noise)
    other = Seeds(1)
    other.load_state_dict(state)
    assert torch.equal(_draw(other.noise), expected)


def test_spawned_generators_differ() -> None:
    first, second = Seeds(0).spawn(2)
    assert not torch.equal(_draw(first), _draw(second))


def _draw(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(8, generator=generator)
