"""Built-in tasks on vectors, sequences and tokens: what they hold, and what can be reached on them."""

import math
from pathlib import Path

import pytest
import torch

from bench.api.kinds import Input, Output
from bench.catalog.catalog import Catalog
from bench.data import Batches, load
from bench.data.copying import BEST_LOSS, KINDS, MARK, STEPS, SYMBOLS, VOCABULARY, Copying
from bench.data.digits import Digits
from bench.data.digits_rows import DigitsRows
from bench.nets.embedded import Embedded
from bench.objectives.next_token import NextToken
from bench.testing import run_dataset_checks

# a new value here means that no earlier result can be compared with a later one
PRINTS = {
    "breast-cancer": "f30945f3bc8d7a9b",
    "copying": "c6dc82177cccca80",
    "diabetes": "71a26a261411ab49",
    "digits-rows": "ccd27d7a502125d0",
    "mnist1d": "43808d2bbbb9a20e",
    "mnist1d-image": "4be0bdcaa48693ed",
    "sparse-parity:n20-k5": "4c804ff29aa19b79",
    "wine": "dc8e1d544b065b67",
}


@pytest.mark.parametrize("name", PRINTS)
def test_built_in_tasks_are_what_their_cards_say_and_never_change(name: str, tmp_path: Path) -> None:
    dataset = Catalog().dataset(name)
    assert [r.message for r in run_dataset_checks(dataset, tmp_path) if not r.ok] == []
    assert load(dataset).fingerprint[:16] == PRINTS[name]


def test_rows_of_digits_are_their_images_in_the_same_splits() -> None:
    rows, images = load(DigitsRows()), load(Digits())
    assert torch.equal(rows.test.y, images.test.y)
    assert torch.equal(rows.val.x, images.val.x.squeeze(1).float() / 255)


def test_the_best_loss_on_copying_is_that_of_one_who_remembers() -> None:
    """Certain of all that can be known, and even-handed where symbols are drawn; nothing in the data says more."""
    data = load(Copying())
    x, y = data.test
    known = torch.zeros(len(x), STEPS, VOCABULARY)
    known[:, : SYMBOLS - 1, MARK] = -math.inf
    known[:, SYMBOLS - 1 :] = -100.0
    known[:, SYMBOLS - 1, MARK] = 0
    known[:, SYMBOLS:].scatter_(2, x[:, :SYMBOLS, None], 0.0)
    assert float(NextToken(data.output).loss(known, y)) == pytest.approx(BEST_LOSS, abs=1e-5)
    drawn = data.train.y[:, : SYMBOLS - 1]
    shares = torch.bincount(drawn.flatten(), minlength=KINDS) / drawn.numel()
    assert shares.numel() == KINDS
    assert (shares - 1 / KINDS).abs().max() < 0.005, "the symbols themselves are even"


def test_embedded_reaches_the_best_loss_on_copying() -> None:
    data = load(Copying())
    train = Batches(data.train, data.mean, data.std, "cpu", 64)
    objective, generator = NextToken(data.output), torch.Generator().manual_seed(0)
    net = Embedded.build(data.input, data.output, {"width": 64}, generator)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(3):
        for index in train.order(generator).split(64):
            x, y = train.batch(index)
            optimiser.zero_grad()
            objective.loss(net(x), y).backward()
            optimiser.step()
    with torch.no_grad():
        reached = float(objective.loss(net(data.test.x), data.test.y))
    assert BEST_LOSS < reached < BEST_LOSS + 0.1


def test_no_position_of_embedded_sees_a_later_token() -> None:
    given, output = Input.tokens(6, 9), Output("next token", 9, 6)
    net = Embedded.build(given, output, {}, torch.Generator().manual_seed(0))
    x = torch.randint(9, (4, 6), generator=torch.Generator().manual_seed(1))
    before = net(x)
    for t in range(6):
        other = x.clone()
        other[:, t] = (x[:, t] + 1) % 9
        moved = (net(other) != before).any(-1).any(0)
        assert moved.tolist() == [k >= t for k in range(6)]
