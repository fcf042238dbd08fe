"""Local losses against backprop, against autograd of each module by itself, and similarity by its definition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.local.local_loss import LocalLoss, LocalLossSettings, Similarity
from torch import Tensor, nn

from bench import Batch, Facts
from bench.api.errors import ConfigError
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import small_task
from tests.methods.gradients import watched
from tests.methods.local.oracles import START, assert_same, randomise, similarity

NETS = {"mlp": {"width": 24, "depth": 3}, "cnn": {"width": 3, "depth": 3}}
FACTS = Facts("cpu", 1, 32)
Make = Callable[..., Any]


@pytest.mark.parametrize("net", NETS)
def test_one_module_is_backprop(make_method: Make, batch: Batch, net: str) -> None:
    """Losses and weights over five steps, with the settings that both have by default."""
    whole = make_method("backprop", net=net)
    local = make_method("local-loss", net=net, modules=1)
    for _ in range(5):
        losses = [method.train_step(batch, START)["loss"] for method in (whole, local)]
        torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    for one, other in zip(whole.net.parameters(), local.net.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(whole.predict(batch.x), local.predict(batch.x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("loss", ["pred", "sim", "predsim"])
def test_a_block_has_the_gradient_of_its_own_loss(make_method: Make, batch: Batch, loss: str, net: str) -> None:
    """As many modules as blocks: autograd through one block, with the loss written out, on inputs that are numbers."""
    method = make_method("local-loss", net=net, net_settings=NETS[net], loss=loss, beta=0.7)
    randomise(method.targets)
    method.net.double()
    method.targets.double()
    x, y = batch.x.double(), batch.y
    expected: list[Tensor] = []
    h = x
    *hidden, last = method.net.blocks
    for block, target in zip(hidden, method.targets, strict=True):
        out = block(h.detach())
        weights = [*block.parameters(), *target.parameters()]
        total = torch.zeros(())
        if loss != "sim":
            head = [p for name, p in target.named_parameters() if "head" in name]
            scores = F.linear(out.flatten(1), *head)
            pred = -scores.log_softmax(1)[torch.arange(len(y)), y].sum() / len(y)
            total = total + (pred if loss == "pred" else 0.3 * pred)
        if loss != "pred":
            (W,) = (p for name, p in target.named_parameters() if "project" in name)
            z = F.linear(out, W) if net == "mlp" else F.conv2d(out, W, padding=1).flatten(2)
            if net == "cnn":
                centred = z - z.sum(2, keepdim=True) / z.shape[2]
                z = (centred.square().sum(2) / (z.shape[2] - 1)).sqrt()
            z = z - z.sum(1, keepdim=True) / z.shape[1]
            z = z / z.square().sum(1, keepdim=True).sqrt()
            S = torch.stack([torch.stack([(a * b).sum() for b in z]) for a in z])
            sim = (S - similarity(F.one_hot(y, 10).double())).square().sum() / len(y) ** 2
            total = total + (sim if loss == "sim" else 0.7 * sim)
        expected += torch.autograd.grad(total, weights)
        h = out
    out = last(h.detach())
    expected += torch.autograd.grad(F.cross_entropy(out, y), list(last.parameters()))
    seen = watched(method.optimizers)
    found = method.train_step(Batch(x, y), START)
    assert_same([seen[id(p)] for m in method.isolated for p in m.weights.parameters()], expected)
    torch.testing.assert_close(found["loss"], F.cross_entropy(out, y).detach())


@pytest.mark.parametrize("shape", [(7,), (5, 4, 4), (6, 1, 1), (3, 1, 3)])
def test_similarity_is_the_double_loop(shape: tuple[int, ...]) -> None:
    """Features centred over an example, not over the batch; each channel's spread over space, not its mean."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(6, *shape, generator=generator).double()
    y = torch.tensor([0, 1, 2, 0, 3, 1])
    target = Similarity(shape, 4).double()
    W = target.project.weight.detach()
    if len(shape) == 1:
        z = torch.stack([W @ row for row in h])
    else:
        z = F.conv2d(h, W, padding=1)
        z = z.flatten(1) if shape[1:] == (1, 1) else torch.stack([torch.stack([c.std() for c in maps]) for maps in z])
    loss = torch.zeros(()).double()
    ours, wanted = similarity(z), similarity(F.one_hot(y, 4).double())
    for i in range(6):
        for j in range(6):
            loss += (ours[i, j] - wanted[i, j]) ** 2 / 36
    torch.testing.assert_close(target(h, y).detach(), loss)


@pytest.mark.parametrize("net", NETS)
def test_heads_at_zero_learn_as_under_deep_supervision(make_method: Make, batch: Batch, net: str) -> None:
    """The rungs of one ladder: the same heads, and the cuts alone between them.

    In the first step zero heads send nothing back, so heads and classifier have equal gradients with and without cuts,
    and hidden blocks that of backprop with heads, nothing with cuts. Once heads weigh something, all differ.
    """
    whole = make_method("backprop", net=net, net_settings=NETS[net])
    heads = make_method("backprop-deep-supervision", net=net, net_settings=NETS[net])
    local = make_method("local-loss", net=net, net_settings=NETS[net], loss="pred", pool=10**6)
    by_whole, by_heads, by_local = (
        watched(m.optimizers if m is local else [m.optimizer]) for m in (whole, heads, local)
    )
    for method in (whole, heads, local):
        method.train_step(batch, START)
    assert_shapes(heads.heads, local.targets)
    pairs = zip(heads.heads.parameters(), local.targets.parameters(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(by_heads[id(a)], by_local[id(b)])
        assert by_local[id(b)].count_nonzero() > 0
    for k, blocks in enumerate(zip(whole.net.blocks, heads.net.blocks, local.net.blocks, strict=True)):
        for p, q, r in zip(*(block.parameters() for block in blocks), strict=True):
            torch.testing.assert_close(by_heads[id(q)], by_whole[id(p)])
            if k < len(local.net.blocks) - 1:
                assert by_local[id(r)].count_nonzero() == 0
            else:
                torch.testing.assert_close(by_local[id(r)], by_whole[id(p)])
    for method in (whole, heads, local):
        method.train_step(batch, START)
    for q, r in zip(heads.net.blocks[0].parameters(), local.net.blocks[0].parameters(), strict=True):
        assert by_local[id(r)].count_nonzero() > 0
        assert not torch.allclose(by_heads[id(q)], by_local[id(r)])


def assert_shapes(one: nn.Module, other: nn.Module) -> None:
    assert [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]


@pytest.mark.parametrize("loss", ["pred", "sim", "predsim"])
@pytest.mark.parametrize("net", NETS)
def test_the_net_starts_as_for_every_method(make_method: Make, net: str, loss: str) -> None:
    """Targets draw after it, and from the same seed: another one gives other targets."""
    whole, local, again, other = (
        make_method(name, net=net, seed=seed, **({} if name == "backprop" else {"loss": loss, "head": "mlp"}))
        for name, seed in (("backprop", 0), ("local-loss", 0), ("local-loss", 0), ("local-loss", 1))
    )
    for p, q in zip(whole.net.parameters(), local.net.parameters(), strict=True):
        assert torch.equal(p, q)
    for p, q in zip(local.targets.parameters(), again.targets.parameters(), strict=True):
        assert torch.equal(p, q)
    assert any(
        not torch.equal(p, q) for p, q in zip(local.targets.parameters(), other.targets.parameters(), strict=True)
    )


def test_targets_stay_out_of_inference(make_method: Make, batch: Batch) -> None:
    """Also the labels: what the net says is the net's alone."""
    method = make_method("local-loss", net="cnn")
    before = method.predict(batch.x)
    with torch.no_grad():
        for p in method.targets.parameters():
            p.fill_(torch.nan)
    assert torch.equal(method.predict(batch.x), before)


def test_what_cannot_be_is_refused() -> None:
    mlp, cnn = small_task(MLP, {"depth": 2}), small_task(CNN, {"depth": 2})
    reason = LocalLoss.refuse(mlp, LocalLossSettings(head="conv"), FACTS)
    assert reason is not None
    assert "space" in reason
    assert LocalLoss.refuse(cnn, LocalLossSettings(head="conv", modules=3), FACTS) is None
    for task in (mlp, cnn):
        with pytest.raises(ConfigError, match="3 blocks"):
            LocalLoss.refuse(task, LocalLossSettings(modules=4), FACTS)
