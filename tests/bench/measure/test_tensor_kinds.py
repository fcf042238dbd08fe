"""The live peak by kind, against counts by hand. A float32 has 4 bytes; m x n is the weight, B the batch."""

import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from bench.measure.live_peak import LivePeak, alive, live_tensors
from bench.measure.tensor_kinds import parameters_of

m, n, B = 30, 20, 5
WEIGHT, BATCH = 4 * m * n, 4 * B * n
SCALAR = 4
NOTHING = {"parameters": 0, "gradients": 0, "optimizer": 0, "activations": 0, "other": 0}

OPTIMISERS: Mapping[str, tuple[Callable[[list[Tensor]], Optimizer], int]] = {
    "momentum": (lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, foreach=False), WEIGHT),
    # two moments, and the number of the step
    "adam": (lambda parameters: AdamW(parameters, lr=0.1, fused=True), 2 * WEIGHT + SCALAR),
}


class Linear(SimpleNamespace):
    """Scores x W^T, and their sum as the loss; what is alive before it does not count."""

    def __init__(self) -> None:
        self.outside = list(alive())
        self.net = nn.Linear(n, m, bias=False)
        self.x = torch.ones(B, n)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"inference": self.net}

    def peak(self, act: Callable[[], object]) -> dict[str, int]:
        with live_tensors(parameters_of(self), self.outside) as peak:  # type: ignore[arg-type]
            act()
        return dict(peak())


@pytest.fixture
def linear() -> Linear:
    return Linear()


def test_sparse_tensors_of_the_process_or_of_a_step_are_passed_by(linear: Linear) -> None:
    before = torch.eye(3).to_sparse()
    assert not any(tensor is before for tensor in alive())
    assert linear.peak(lambda: linear.x.to_sparse() if before.is_sparse else None)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_step_of_an_optimiser(linear: Linear, name: str, steps_before: int) -> None:
    """In the first step the peak is where the optimiser makes its state, with the loss still there; later where the
    gradient appears, with the loss and the 1 it starts from. The scores are gone by then."""
    make, state = OPTIMISERS[name]
    optimizer = make(list(linear.net.parameters()))

    def step() -> None:
        optimizer.zero_grad()
        loss = linear.net(linear.x).sum()
        loss.backward()
        optimizer.step()

    for _ in range(steps_before):
        step()
    assert linear.peak(step) == {
        "parameters": WEIGHT,
        "gradients": WEIGHT,
        "optimizer": state,
        "activations": SCALAR + (SCALAR if steps_before else 0),
        "other": BATCH,
    }


def test_the_state_of_an_optimiser_that_is_made_in_the_step(linear: Linear) -> None:
    """As rules do that train one part after another."""

    def step() -> None:
        optimizer = torch.optim.SGD(linear.net.parameters(), lr=0.1, momentum=0.9)
        linear.net(linear.x).sum().backward()
        optimizer.step()

    assert linear.peak(step)["optimizer"] == WEIGHT


def test_where_activations_are_most_there_is_no_gradient_yet(linear: Linear) -> None:
    """A batch so large that tanh's output and its derivative's outweigh the weight that comes after them."""
    linear.x = torch.ones(10 * n, n)
    scores = 4 * 10 * n * m
    assert linear.peak(lambda: linear.net(linear.x).tanh().sum().backward()) == {
        **NOTHING,
        "parameters": WEIGHT,
        "activations": scores + scores + SCALAR + SCALAR,
        "other": 4 * 10 * n * n,
    }


def by_assignment(of: Linear) -> list[Tensor]:
    of.net.weight.grad = torch.ones(m, n)
    return []


def asked_for(of: Linear) -> list[Tensor]:
    return list(torch.autograd.grad(of.net(of.x).sum(), list(of.net.parameters())))


def in_a_thread(of: Linear) -> list[Tensor]:
    thread = threading.Thread(target=by_assignment, args=(of,))
    thread.start()
    thread.join()
    return []


def gone_before_the_end(of: Linear) -> list[Tensor]:
    kept = by_assignment(of)
    torch.zeros(2 * m * n).sum()
    of.net.weight.grad = None
    return kept


@pytest.mark.parametrize(
    ("act", "activations"),
    [(by_assignment, 0), (asked_for, 2 * SCALAR), (in_a_thread, 0), (gone_before_the_end, 2 * WEIGHT + SCALAR)],
)
def test_gradients_however_they_come(linear: Linear, act: Callable[[Linear], list[Tensor]], activations: int) -> None:
    """Autograd's with the loss and its 1; the last one beside a vector twice its size, and that one's sum."""
    held: list[Tensor] = []
    assert linear.peak(lambda: held.extend(act(linear))) == {
        **NOTHING,
        "parameters": WEIGHT,
        "gradients": WEIGHT,
        "activations": activations,
        "other": BATCH,
    }


def test_a_gradient_that_was_there_before_is_one(linear: Linear) -> None:
    linear.net(linear.x).sum().backward()
    assert linear.peak(lambda: None) == {
        **NOTHING,
        "parameters": WEIGHT,
        "gradients": WEIGHT,
        "other": BATCH,
    }


def test_a_gradient_by_formula_cannot_be_told(linear: Linear) -> None:
    def act() -> None:
        with torch.no_grad():
            linear.net.weight -= 0.1 * torch.ones(m, n)  # the ones, and their tenth

    assert linear.peak(act) == {**NOTHING, "parameters": WEIGHT, "activations": 2 * WEIGHT, "other": BATCH}


def test_what_a_method_holds_beside_its_net() -> None:
    """Frozen feedback and buffers are no parameters, a tensor that requires a gradient is one."""

    class Holding(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.net.register_buffer("mean", torch.zeros(n))
            self.feedback = nn.ParameterList([nn.Parameter(torch.zeros(m, 7), requires_grad=False)])
            self.tables = {"own": [torch.zeros(11, requires_grad=True)]}
            self.plain = torch.zeros(13)

        def modules(self) -> Mapping[str, nn.Module]:
            return {"inference": self.net, "frozen": self.feedback}

    holding = Holding()
    assert holding.peak(lambda: None) == {
        **NOTHING,
        "parameters": WEIGHT + 4 * 11,
        "other": BATCH + 4 * (n + 7 * m + 13),
    }


def test_the_columns_add_up(linear: Linear) -> None:
    with LivePeak().watch(linear, linear.outside) as reading:  # type: ignore[arg-type]
        linear.net(linear.x).sum().backward()
    found = dict(reading())
    assert found.keys() == {column.name for column in LivePeak.columns}
    assert found["live_parameters_bytes"] == WEIGHT
    assert found.pop("live_peak_bytes") == sum(found.values()) == 2 * WEIGHT + BATCH + 2 * SCALAR  # type: ignore[arg-type]
