"""The update-dependency matrix and its words, against rules whose matrix is known by construction."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import Batch, Method, Progress, Seeds
from bench.api.instrument import FIRST_STEPS
from bench.audit.dependency import SHIFT, update_dependency
from bench.audit.waiting import in_words, updates_wait_for
from bench.catalog.catalog import Catalog
from bench.testing import Subject, Trainee, small_task
from bench.testing.subject import few_images

CATALOG = Catalog()
AT_START = Progress(0, 10, 0)
K, NAN = 5, float("nan")
FULL = torch.ones(K, K, dtype=torch.bool)
LOWER = FULL.tril()
LOWER_AND_LAST = LOWER | (torch.arange(K) == K - 1)
DEEP = {"mlp": {"depth": K - 1}, "localmixer": {"depth": K - 1}, "denoiser": {"T": K}}


def trained(name: str, net: str) -> Trainee:
    cls = CATALOG.nets[net].load()
    trainee = Subject(CATALOG.methods[name].load(), small_task(cls, {**cls.small, **DEEP[net]})).start()
    trainee.train(FIRST_STEPS)
    return trainee


def measured(trainee: Trainee) -> Tensor:
    return update_dependency(trainee.method, trainee.seeds, few_images(), trainee.progress())


@pytest.mark.parametrize(
    ("name", "net", "expected", "waits"),
    [
        ("backprop", "mlp", FULL, "later blocks"),
        # its messages go along B, but through the derivatives of the blocks on their way
        ("feedback-alignment", "mlp", FULL, "later blocks"),
        ("kolen-pollack", "mlp", FULL, "later blocks"),
        ("weight-mirror", "mlp", FULL, "later blocks"),
        # estimates of the gradient, which depends on all weights between a block and the loss
        ("spsa", "mlp", FULL, "later blocks"),
        ("forward-gradient", "mlp", FULL, "later blocks"),
        ("guided-forward-gradient", "mlp", FULL, "later blocks"),
        ("direct-feedback-alignment", "mlp", LOWER_AND_LAST, "the output"),
        ("direct-kolen-pollack", "mlp", LOWER_AND_LAST, "the output"),
        ("drtp", "mlp", LOWER, "earlier blocks"),
        ("local-forward-gradient", "localmixer", LOWER, "earlier blocks"),
        ("local-loss", "mlp", LOWER, "earlier blocks"),
        ("noprop-dt", "denoiser", torch.eye(K, dtype=torch.bool), "nothing"),
    ],
)
def test_rules_have_the_matrix_that_their_equations_give(name: str, net: str, expected: Tensor, waits: str) -> None:
    trainee = trained(name, net)
    matrix = measured(trainee)
    assert torch.equal(matrix > 0, expected)
    assert in_words(matrix) == waits
    assert updates_wait_for(trainee.method, trainee.seeds, few_images(), trainee.progress()) == waits


def test_blocks_at_rest_have_no_update_to_compare() -> None:
    matrix = measured(trained("backprop-last-layer", "mlp"))
    assert matrix[:-1].isnan().all()
    assert (matrix[-1] > 0).all()
    assert in_words(matrix) == "earlier blocks"


def test_where_scores_cannot_be_held_nothing_is_said_of_later_blocks() -> None:
    """Of a net with fewer units than there are images, DFA cannot be told from backprop, DRTP can."""
    narrow = small_task(CATALOG.nets["mlp"].load(), {"depth": K - 1, "width": 4})
    found = {}
    for name in ("direct-feedback-alignment", "drtp"):
        trainee = Subject(CATALOG.methods[name].load(), narrow).start()
        trainee.train(FIRST_STEPS)
        found[name] = measured(trainee)
    assert found["direct-feedback-alignment"].isnan().nonzero().diff().gt(0).all()  # above the diagonal alone
    assert in_words(found["direct-feedback-alignment"]) is None
    assert in_words(found["drtp"]) == "earlier blocks"


def test_the_method_is_left_as_it_was() -> None:
    one, other = trained("noprop-dt", "denoiser"), trained("noprop-dt", "denoiser")
    measured(one)
    assert torch.equal(torch.stack(one.train(3)), torch.stack(other.train(3)))


class Scalars(SimpleNamespace):
    """Blocks of one weight each, w, and a rule for their steps: enough of a method to be audited."""

    def __init__(self, rule: Callable[[Tensor], list[Tensor]], *w: float) -> None:
        self.w, self.rule = nn.ParameterList(nn.Parameter(torch.tensor([of])) for of in w), rule
        self.state_dict, self.load_state_dict = self.w.state_dict, self.w.load_state_dict

    def blocks(self) -> list[Any]:
        return [nn.ParameterList([of]) for of in self.w]

    def modules(self) -> dict[str, nn.Module]:
        return {"inference": self.w}

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> None:
        for of, step in zip(self.w, self.rule(torch.cat(list(self.w))), strict=True):
            of += step

    def predict(self, x: Tensor) -> Tensor:
        return x


def matrix_of(rule: Callable[[Tensor], list[Tensor]], *w: float) -> Tensor:
    method: Any = Scalars(rule, *w)
    return update_dependency(method, Seeds(0), few_images(), AT_START)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_entries_are_relative_changes(scale: float) -> None:
    """A step that is linear in a weight changes by as much as the weight does, whatever the size of both."""
    found = matrix_of(lambda w: [w[2] / 8, w[0] * w[2] / 8, torch.tensor(scale)], scale, -scale, 2 * scale)
    expected = torch.tensor([[0, 0, SHIFT], [SHIFT, 0, SHIFT], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_steps_of_mere_rounding_depend_on_nothing() -> None:
    """What vanishes but for rounding, blown up to a step of length 1, as AdamW does it: there is no update."""

    def rule(w: Tensor) -> list[Tensor]:
        vanishing = (w[1] * 1.1 - w[1]) - w[1] * 0.1
        return [vanishing * 1e7, w[2] / 8, w[2] / 8]

    found = matrix_of(rule, 1.0, 0.7, 1.3)
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1:, 2], torch.full((2,), SHIFT, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "nothing"),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], "nothing"),
        ([[1, 0, 0], [1, 1, 0], [0, 0, 1]], "earlier blocks"),
        ([[1, 0, 1], [0, 1, 0], [0, 0, 1]], "the output"),
        ([[1, 0, 0], [1, 1, 1], [1, 1, 1]], "the output"),
        ([[1, 1, 0], [0, 1, 0], [0, 0, 1]], "later blocks"),
        ([[1, 0], [0, 1]], "nothing"),
        ([[1, 0], [1, 1]], "earlier blocks"),
        ([[1, 1], [1, 1]], None),
        ([[NAN] * 3] * 3, None),
        ([[NAN, NAN, NAN], [1, 1, 0], [1, 0, 1]], "earlier blocks"),  # the first at rest
        ([[1, NAN, 0], [0, NAN, 0], [0, NAN, 1]], "nothing"),  # the second not tried
        ([[1, NAN, 1], [1, 1, 1], [1, 1, 1]], None),  # the output at least, perhaps later blocks
        ([[1, NAN, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], "later blocks"),
    ],
)
def test_words(matrix: list[list[float]], expected: str | None) -> None:
    """Of two blocks one that waits for the last may wait for the output or for a later block."""
    assert in_words(torch.tensor(matrix)) == expected


def test_one_block_has_none_to_wait_for(make_method: Callable[..., Method]) -> None:
    seeds = Seeds(0, method="noprop-ct")
    assert updates_wait_for(make_method("noprop-ct", seeds=seeds), seeds, few_images(), AT_START) is None
