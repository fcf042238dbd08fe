"""Angles between updates and gradients, for methods whose angle is known beforehand."""

from collections.abc import Callable

import pytest
from bench.methods.noprop.denoiser import Denoiser

from bench import Batch, Method, Progress, Task
from bench.audit import alignment
from bench.testing.subject import small_task

START = Progress(0, 10, 0)


def cosines(
    make_method: Callable[..., Method], task: Task, batch: Batch, name: str, **settings: object
) -> dict[str, float]:
    return alignment.cosines(make_method(name, task=task, **settings), task, batch, START)


def test_backprop_is_at_no_angle_to_itself(make_method, task, batch) -> None:  # type: ignore[no-untyped-def]
    found = cosines(make_method, task, batch, "backprop")
    assert len(found) == 3
    assert all(value == pytest.approx(1, abs=1e-6) for value in found.values())


def test_random_feedback_is_true_at_the_last_layer_only(make_method, task, batch) -> None:  # type: ignore[no-untyped-def]
    *hidden, last = cosines(make_method, task, batch, "feedback-alignment").values()
    assert last == pytest.approx(1, abs=1e-6)
    assert all(abs(value) < 0.5 for value in hidden)


def test_a_layer_at_rest_has_no_angle(make_method, task, batch) -> None:  # type: ignore[no-untyped-def]
    *hidden, last = cosines(make_method, task, batch, "backprop-last-layer").values()
    assert last == pytest.approx(1, abs=1e-6)
    assert all(value != value for value in hidden)


def test_movement_counts_where_there_is_no_optimiser(make_method, task, batch) -> None:  # type: ignore[no-untyped-def]
    """SPSA along v moves by -(v . g) v: its cosine over all weights is |v . g| / (|v| |g|), never negative."""
    found = cosines(make_method, task, batch, "spsa")
    assert all(abs(value) < 0.5 for value in found.values())
    assert any(value > 0 for value in found.values())


@pytest.mark.parametrize("execution", ["parallel", "stacked"])
def test_weights_that_are_views_of_what_is_optimised_are_seen(make_method, batch, execution: str) -> None:  # type: ignore[no-untyped-def]
    task = small_task(Denoiser, {**Denoiser.small, "dropout": 0.0})  # which the gradient would draw afresh
    expected = cosines(make_method, task, batch, "noprop-dt", execution="loop")
    found = cosines(make_method, task, batch, "noprop-dt", execution=execution)
    convolutions = [layer for layer in expected if "conv" in layer]  # what batch norm undoes is rounding alone
    assert len(convolutions) == 3 * task.net_settings["T"]
    assert [found[layer] for layer in convolutions] == pytest.approx([expected[k] for k in convolutions], abs=1e-3)


def test_a_net_that_is_not_the_shared_one_is_left_out(make_method, task, batch) -> None:  # type: ignore[no-untyped-def]
    other = make_method("backprop", net="mlp", net_settings={"width": 5})
    assert alignment.cosines(other, task, batch, START) == {}
