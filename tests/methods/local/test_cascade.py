"""The cascade against a plain loop over stages; what learns when, what rests, and where drawings come from."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.local.cascade import Cascade
from torch import Tensor

from bench import Batch, Facts, Net, Progress, Seeds
from bench.api.errors import ConfigError
from bench.audit.reverse_mode import reach
from bench.audit.waiting import updates_wait_for
from bench.audit.weight_transport import weight_transport
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import small_task
from tests.methods.local.oracles import assert_same

CLASSES: dict[str, type[Net]] = {"mlp": MLP, "cnn": CNN}
NETS = {"mlp": {"width": 12, "depth": 3}, "cnn": {"width": 3, "depth": 3}}
EACH = 3  # steps of a stage
# stages, and the blocks that learn in each
PLANS = [(None, [{0, 1, 2, 3}, {0, 1, 2}, {0, 1}, {0}]), (2, [{0, 1, 2, 3}, {0, 1}]), (1, [{0, 1, 2, 3}])]
Make = Callable[..., Any]


def steps(total: int) -> Iterator[Progress]:
    return (Progress(step, total, 0) for step in range(total))


def weights(method: Cascade) -> list[list[Tensor]]:
    return [[p.detach().clone() for p in block.parameters()] for block in method.net.blocks]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("stages", "plan"), PLANS)
def test_lower_blocks_learn_and_upper_ones_stay_bit_equal(
    make_method: Make, batch: Batch, net: str, stages: int | None, plan: list[set[int]]
) -> None:
    """Fails where the wrong end is frozen, or where weights at rest decay or move by the momentum that they had."""
    method = make_method("cascade", net=net, net_settings=NETS[net], stages=stages, lr=0.01, weight_decay=5.0)
    for progress in steps(EACH * len(plan)):
        before = weights(method)
        method.train_step(batch, progress)
        moved = {k for k, of in enumerate(zip(before, weights(method), strict=True)) if not all(map(torch.equal, *of))}
        assert moved == plan[progress.step // EACH]
        assert all(p.grad is None for p in method.net.parameters())


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("stages", "plan"), PLANS)
def test_equals_a_plain_loop_over_stages(
    make_method: Make, batch: Batch, net: str, stages: int | None, plan: list[set[int]]
) -> None:
    """A net, a loss and a torch.optim.AdamW for each stage. Fails where drawing comes a step early or late or is left
    out, where moments outlive it, and where the error is not that of the whole net.
    """
    x, y = batch.x.double(), batch.y
    method = make_method("cascade", net=net, net_settings=NETS[net], stages=stages, lr=0.01, weight_decay=0.5)
    method.net.double()
    task, init = small_task(CLASSES[net], NETS[net]), Seeds(0, method="cascade").init
    twin, positions = task.build_net(init).double(), steps(EACH * len(plan))
    for stage, learning in enumerate(plan):
        if stage > 0:
            drawn = task.build_net(init).double()
            for k in learning:
                twin.blocks[k] = drawn.blocks[k]
        chosen = [p for k in learning for p in twin.blocks[k].parameters()]
        optimizer = torch.optim.AdamW(chosen, lr=0.01, weight_decay=0.5)
        for _ in range(EACH):
            loss = F.cross_entropy(twin(x), y)
            for p, gradient in zip(chosen, torch.autograd.grad(loss, chosen), strict=True):
                p.grad = gradient
            optimizer.step()
            found = method.train_step(Batch(x, y), next(positions))["loss"]
            assert float(found) == pytest.approx(loss.item(), rel=1e-9)
            assert_same(method.net.parameters(), twin.parameters())


def test_the_first_stage_is_backprop(make_method: Make, batch: Batch) -> None:
    """From the same weights, bit for bit."""
    cascade, backprop = (make_method(name, net_settings=NETS["mlp"]) for name in ("cascade", "backprop"))
    for progress in list(steps(40))[:10]:
        cascade.train_step(batch, progress)
        backprop.train_step(batch, progress)
    assert all(map(torch.equal, cascade.net.parameters(), backprop.net.parameters()))


def test_only_layers_that_learn_have_moments(make_method: Make, batch: Batch) -> None:
    """They begin anew with each stage, and those of frozen layers are gone."""
    method = make_method("cascade", net_settings=NETS["mlp"])
    for progress in steps(EACH * 4):
        method.train_step(batch, progress)
        stage, since = divmod(progress.step, EACH)
        for k, block in enumerate(method.net.blocks):
            counts = {
                float(method.optimizer.state[p]["step"]) for p in block.parameters() if p in method.optimizer.state
            }
            assert counts == ({since + 1.0} if k < 4 - stage else set())


def test_drawings_come_from_the_seed_alone(make_method: Make, batch: Batch) -> None:
    """Whatever the global generator holds, and without touching it. No two of them are alike, nor are two seeds'."""
    found = []
    for seed, elsewhere in ((0, 5), (0, 6), (1, 5)):
        method, drawn = make_method("cascade", net_settings=NETS["mlp"], seed=seed, lr=1e-9), []
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        for progress in steps(4):
            method.train_step(batch, progress)
            drawn.append(method.net.blocks[0][1].weight.detach().clone())
        assert torch.equal(before, torch.get_rng_state())
        found.append(drawn)
    assert all(map(torch.equal, found[0], found[1]))
    different = torch.stack([*found[0], *found[2]]).flatten(1)
    apart = torch.cdist(different, different) + torch.eye(len(different))
    assert float(apart.min()) > 0.5


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 7])
def test_resumes_within_and_between_stages(make_method: Make, batch: Batch, stop: int) -> None:
    """Bit for bit: the stage, the place of the drawings and the moments of a part of the net are all kept."""

    def made() -> tuple[Cascade, Seeds]:
        seeds = Seeds(0, method="cascade")
        return make_method("cascade", net_settings=NETS["mlp"], lr=0.01, seeds=seeds), seeds

    (unbroken, seeds), positions = made(), list(steps(8))
    for progress in positions[:stop]:
        unbroken.train_step(batch, progress)
    kept = copy.deepcopy((unbroken.state_dict(), seeds.state_dict()))
    resumed, other_seeds = made()
    resumed.load_state_dict(kept[0])
    other_seeds.load_state_dict(kept[1])
    for progress in positions[stop:]:
        unbroken.train_step(batch, progress)
        resumed.train_step(batch, progress)
        assert all(map(torch.equal, unbroken.net.parameters(), resumed.net.parameters()))


@pytest.mark.parametrize("net", NETS)
def test_the_error_passes_frozen_layers_in_every_stage(make_method: Make, batch: Batch, net: str) -> None:
    seeds = Seeds(0, method="cascade")
    method = make_method("cascade", net=net, net_settings=NETS[net], seeds=seeds)
    few = Batch(batch.x[:4], batch.y[:4])
    for progress in steps(EACH * 4):
        claims = method.claims()
        measured = reach(method, lambda progress=progress: method.train_step(few, progress))  # type: ignore[misc]
        assert measured == claims.reverse_mode
        if progress.step % EACH == EACH - 1:
            assert updates_wait_for(method, seeds, few, progress) == claims.updates_wait_for
            assert weight_transport(method, seeds, few, progress) == claims.weight_transport


def test_more_stages_than_blocks_are_refused() -> None:
    task, facts = small_task(MLP, NETS["mlp"]), Facts("cpu", 1, 32)
    assert Cascade.refuse(task, Cascade.Config(stages=4), facts) is None
    with pytest.raises(ConfigError, match="4 blocks"):
        Cascade.refuse(task, Cascade.Config(stages=5), facts)
