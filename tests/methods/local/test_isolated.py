"""Gradient-isolated modules: what reaches them, in what order they step, what they keep, and when."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bench.methods.local.isolated import groups
from torch import Tensor, nn

from bench import Batch, Progress, Seeds
from bench.audit.dependency import update_dependency
from bench.measure.retained import Retained
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import CHECKS, Subject, small_task
from tests.methods.local.oracles import START, randomise

CLASSES = {"mlp": MLP, "cnn": CNN}
NETS = {"mlp": {"width": 12, "depth": 3}, "cnn": {"width": 3, "depth": 3}}
RULES = [
    ("local-loss", {"loss": "pred"}),
    ("local-loss", {"loss": "predsim"}),
    ("local-loss", {"loss": "sim", "modules": 2}),
    ("mono-forward", {}),
]
ESTIMATES = [("local-loss", {"gradient": "jvp"}), ("local-loss", {"gradient": "spsa"})]
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
Make = Callable[..., Any]


def at(step: int, total: int) -> Progress:
    return Progress(step, total, 0)


@pytest.mark.parametrize(("n", "K"), [(n, K) for n in range(1, 8) for K in range(1, n + 1)])
def test_groups_are_even_and_in_order(n: int, K: int) -> None:
    blocks = [nn.Identity() for _ in range(n)]
    found = groups(blocks, K)
    assert [block for group in found for block in group] == blocks
    sizes = [len(group) for group in found]
    assert len(sizes) == K
    assert max(sizes) - min(sizes) <= 1


@FORWARD_MODE
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("rule", "settings"), RULES + ESTIMATES)
def test_when_a_module_steps_no_other_has_gradients(
    make_method: Make, batch: Batch, rule: str, settings: dict[str, Any], net: str
) -> None:
    """Block k's loss leaves block k - 1's gradients None: a forgotten detach would not, nor would one summed loss."""
    method = make_method(rule, net=net, net_settings=NETS[net], **settings)
    randomise(method.targets)
    turns = []

    def look(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        turns.append([[p.grad is not None for p in module.weights.parameters()] for module in method.isolated])

    for optimizer in method.optimizers:
        optimizer.register_step_pre_hook(look)
    method.train_step(batch, START)
    assert len(turns) == len(method.isolated) > 1
    for k, has in enumerate(turns):
        assert [set(of) for of in has] == [{j == k} for j in range(len(turns))]
    assert all(p.grad is None for p in [*method.net.parameters(), *method.targets.parameters()])


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("rule", "settings"), RULES)
def test_a_module_is_given_the_output_from_before_the_step(
    make_method: Make, batch: Batch, rule: str, settings: dict[str, Any], net: str
) -> None:
    """Every layer is evaluated once, on what the weights at the beginning of the step make of the images."""
    method = make_method(rule, net=net, net_settings=NETS[net], lr=0.1, **settings)
    expected, h = [], batch.x
    with torch.no_grad():
        for block in method.net.blocks:
            expected.append(h)
            h = block(h)
    given: list[Tensor] = []
    for block in method.net.blocks:
        block.register_forward_pre_hook(lambda _, args: given.append(args[0].detach().clone()))
    method.train_step(batch, START)
    assert len(given) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))


def retained(method: Any, batch: Batch) -> int:
    """In a second step, as the harness reads it."""
    method.train_step(batch, START)
    with Retained().watch(method, ()) as reading:
        method.train_step(batch, START)
    return reading()["retained_bytes"]


def each_alone(method: Any, batch: Batch) -> list[int]:
    """What each module retains by itself."""
    alone, h = [], batch.x
    for module in method.isolated:
        with Retained().watch(method, ()) as reading:
            _, output = module(h, batch.y)
        alone.append(reading()["retained_bytes"])
        h = output.detach()
    return alone


def test_retained_bytes_by_hand(make_method: Make, batch: Batch) -> None:
    """Of 16 images of 64 pixels: one module's input and output, and its loss; backprop keeps every layer's."""
    B, pixels, width, depth = 16, 64, 32, 3
    cross_entropy = 4 * B * 10 + 8 * B + 4
    net = {"width": width, "depth": depth}
    local = make_method("local-loss", net="mlp", net_settings=net, loss="pred")
    whole = make_method("backprop", net="mlp", net_settings=net)
    assert retained(local, batch) == 4 * B * (pixels + width) + cross_entropy
    assert retained(whole, batch) == 4 * B * (pixels + depth * width) + cross_entropy


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("rule", "settings"), RULES)
def test_retained_bytes_are_those_of_the_largest_module(
    make_method: Make, batch: Batch, rule: str, settings: dict[str, Any], net: str
) -> None:
    method = make_method(rule, net=net, net_settings=NETS[net], **settings)
    alone = each_alone(method, batch)
    assert len(alone) > 1
    assert retained(method, batch) == max(alone) < sum(alone)


@FORWARD_MODE
@pytest.mark.parametrize(("rule", "settings"), ESTIMATES)
def test_estimates_retain_nothing(make_method: Make, batch: Batch, rule: str, settings: dict[str, Any]) -> None:
    assert retained(make_method(rule, net="cnn", net_settings=NETS["cnn"], **settings), batch) == 0


@pytest.mark.parametrize("rule", ["local-loss", "mono-forward"])
@pytest.mark.parametrize("net", NETS)
def test_in_sequence_one_module_learns_at_a_time(make_method: Make, batch: Batch, rule: str, net: str) -> None:
    """Over equal parts of all steps; those before it rest, those behind it are not even evaluated."""
    method = make_method(rule, net=net, net_settings=NETS[net], schedule="sequential", lr=0.01)
    K, each, alone = len(method.isolated), 2, each_alone(method, batch)
    called: list[int] = []
    for k, module in enumerate(method.isolated):
        module.body.register_forward_hook(lambda *_, k=k: called.append(k))
    for step in range(K * each):
        before = [[p.detach().clone() for p in m.weights.parameters()] for m in method.isolated]
        called.clear()
        with Retained().watch(method, ()) as reading:
            method.train_step(batch, at(step, K * each))
        moved = [
            any(not torch.equal(p, old) for p, old in zip(m.weights.parameters(), olds, strict=True))
            for m, olds in zip(method.isolated, before, strict=True)
        ]
        assert moved == [k == step // each for k in range(K)]
        assert called == list(range(step // each + 1))
        assert reading()["retained_bytes"] == alone[step // each]  # none of those before it
        assert all(p.grad is None for p in method.net.parameters())


@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
def test_the_step_size_falls_at_its_milestones(make_method: Make, batch: Batch, schedule: str) -> None:
    """Of training, or of a module's own part of it."""
    method = make_method("local-loss", net_settings=NETS["mlp"], schedule=schedule, decay=0.5, lr=0.016)
    parts = len(method.isolated) if schedule == "sequential" else 1
    for k in range(parts):
        for step, expected in (
            (0, 0.016),
            (49, 0.016),
            (50, 0.008),
            (75, 0.004),
            (88, 0.004),
            (89, 0.002),
            (94, 0.001),
        ):
            method.train_step(batch, at(100 * k + step, 100 * parts))
            assert method.optimizers[k].param_groups[0]["lr"] == pytest.approx(expected)


@pytest.mark.parametrize(("rule", "settings"), RULES)
def test_a_module_waits_for_no_later_one(make_method: Make, batch: Batch, rule: str, settings: dict[str, Any]) -> None:
    seeds = Seeds(0, method=rule)
    method = make_method(rule, net="mlp", net_settings={"width": 12, "depth": 4}, seeds=seeds, **settings)
    for _ in range(3):
        method.train_step(batch, START)
    matrix = update_dependency(method, seeds, Batch(batch.x[:8], batch.y[:8]), START) > 0
    assert not matrix.triu(1).any()
    assert torch.equal(matrix.tril(-1), torch.ones_like(matrix).tril(-1))


@FORWARD_MODE
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        *((rule, {"gradient": gradient}) for rule in ("local-loss", "mono-forward") for gradient in ("jvp", "spsa")),
        ("local-loss", {"modules": 1}),
        ("local-loss", {"modules": 1, "gradient": "jvp"}),
        ("local-loss", {"modules": 2}),
        ("local-loss", {"schedule": "sequential"}),
        ("local-loss", {"schedule": "sequential", "gradient": "spsa"}),
        ("mono-forward", {"predict_by": "sum"}),
        ("cafo", {"fit": "lstsq"}),
    ],
)  # fmt: skip
def test_claims_follow_the_settings(make_method: Make, rule: str, settings: dict[str, Any], net: str) -> None:
    cls = type(make_method(rule, net=net, net_settings=NETS[net]))
    subject = Subject(cls, small_task(CLASSES[net], NETS[net]), settings)
    for check in ("reverse-mode", "passes", "weight-transport", "waiting", "resume"):
        CHECKS[check](subject)
