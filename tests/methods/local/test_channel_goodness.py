"""Channel goodness against its equations, written out group by group; each test says what mistake it would show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.local.channel_goodness import ChannelGoodness, ChannelGoodnessSettings, Groups
from torch import Tensor, nn

from bench import Batch, Facts
from bench.measure.retained import retained_bytes
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import CHECKS, Subject, small_task
from tests.methods.gradients import watched
from tests.methods.local.oracles import START, assert_same

Make = Callable[..., Any]
CLASSES = {"mlp": MLP, "cnn": CNN}
NETS = {"mlp": {"width": 23, "depth": 3}, "cnn": {"width": 6, "depth": 3}}
FORMS = ["cwcomp", "deeper-forward"]
WAYS = ["last", "sum", "classifier"]


def made(make_method: Make, net: str, **settings: Any) -> ChannelGoodness:
    """In double precision; batch norms, where there are any, of no special kind."""
    method: ChannelGoodness = make_method("channel-goodness", net=net, net_settings=NETS[net], **settings)
    for module in (method.net, method.norms, *method.groups):
        module.double()
    for groups in method.groups:
        groups.mean.copy_(groups.mean.bool().double() / groups.member.bincount())  # to all digits
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for norm in method.norms:
            norm.weight.copy_(torch.rand(norm.weight.shape, generator=generator) + 0.5)
            norm.bias.copy_(torch.rand(norm.bias.shape, generator=generator) - 0.5)
            norm.running_mean.copy_(torch.rand(norm.bias.shape, generator=generator))
            norm.running_var.copy_(torch.rand(norm.bias.shape, generator=generator) + 0.5)
    return method


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def groups_of(n: int, C: int = 10) -> list[list[int]]:
    """Channels of each group: of C of them, or where there are fewer channels, of as many as give each k classes."""
    k = next(k for k in range(1, C + 1) if k * n >= C)
    count = next(count for count in range(1, C + 1) if count * k >= C)
    return [[u for u in range(n) if u * count // n == g] for g in range(count)]


def goodness(form: str, h: Tensor) -> Tensor:
    """Group by group. Shape: (B, channels, ...) to (B, groups)."""
    columns = []
    for of in groups_of(h.shape[1]):
        values = torch.cat([h[:, u].reshape(len(h), -1) for u in of], dim=1)
        columns.append((values**2 if form == "cwcomp" else values).sum(1) / values.shape[1])
    return torch.stack(columns, dim=1)


def standardised(values: Tensor) -> Tensor:
    centred = values - values.sum() / values.numel()
    return centred / ((centred**2).sum() / values.numel() + 1e-5).sqrt()


def batch_normalised(norm: Any, h: Tensor, training: bool) -> Tensor:
    out = []
    for u in range(h.shape[1]):
        values = h[:, u]
        mean = values.mean() if training else norm.running_mean[u]
        var = ((values - mean) ** 2).mean() if training else norm.running_var[u]
        out.append((values - mean) / (var + 1e-4).sqrt() * norm.weight[u] + norm.bias[u])
    return torch.stack(out, dim=1)


def outputs(method: ChannelGoodness, x: Tensor, training: bool) -> tuple[list[Tensor], Tensor]:
    """What the goodness of each hidden layer is taken of, each from a constant; and what the classifier would see."""
    deeper = method.config.form == "deeper-forward"
    h, found = x, list[Tensor]()
    if deeper:
        h = torch.stack([standardised(image) for image in h])
    for k, block in enumerate(method.net.blocks[:-1]):
        a = block(h.detach())
        if not deeper:
            a = batch_normalised(method.norms[k], a, training)
        found.append(a)
        h = a.detach().clone()
        for i in range(len(h) if deeper else 0):
            for of in groups_of(h.shape[1]):
                h[i, of] = standardised(a.detach()[i, of])
    return found, h


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_a_step_follows_the_equations(make_method: Make, batch64: Batch, net: str, form: str, by: str) -> None:
    """Fails with the goodness upside down, squares for means, units of another class, a gradient into the layer below,
    or a norm over the whole layer for one over groups.
    """
    method = made(make_method, net, form=form, predict_by=by)
    x, y = batch64
    found, seen_by_classifier = outputs(method, x, training=True)
    expected, losses = list[Tensor](), []
    for k, (h, block) in enumerate(zip(found, method.net.blocks, strict=False)):
        G = goodness(form, h)
        share = -(-10 // h.shape[1])
        p = G.exp() / G.exp().sum(1, keepdim=True)
        loss = -sum(p[i, int(c) // share].log() for i, c in enumerate(y)) / len(y)
        assert isinstance(loss, Tensor)
        losses.append(loss.detach())
        weights = [*block.parameters(), *(method.norms[k].parameters() if form == "cwcomp" else ())]
        expected += torch.autograd.grad(loss, weights)
    last = losses[-1]
    if by == "classifier":
        scores = method.classifier(seen_by_classifier)
        last = F.cross_entropy(scores, y)
        expected += torch.autograd.grad(last, list(method.classifier.parameters()))
    seen = watched(method.optimizers)
    step = method.train_step(batch64, START)
    assert_same([seen[id(p)] for block in method.blocks() for p in block.parameters()], expected)
    torch.testing.assert_close(step["loss"], last.detach())
    torch.testing.assert_close(step["local_loss"], torch.stack(losses).mean())


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_predicts_by_what_it_is_told(make_method: Make, batch64: Batch, net: str, form: str, by: str) -> None:
    """Batch norm by its running statistics, not those of the images that are predicted; channels shared by classes."""
    method = made(make_method, net, form=form, predict_by=by)
    with torch.no_grad():
        found, seen = outputs(method, batch64.x, training=False)
        per_layer = []
        for h in found:
            G, share = goodness(form, h), -(-10 // h.shape[1])
            per_layer.append(torch.stack([G[:, c // share] for c in range(10)], dim=1))
        expected = {"last": per_layer[-1], "sum": sum(per_layer), "classifier": method.classifier(seen)}[by]
    for size in (16, 1):
        torch.testing.assert_close(method.predict(batch64.x[:size]), expected[:size], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "C"), [(256, 10), (10, 10), (23, 10), (100, 10), (8, 10), (3, 10), (32, 100), (1, 10)])
def test_groups_share_out_channels_and_classes(n: int, C: int) -> None:
    """Each channel is in one group, groups are consecutive and differ by one channel at most, no group is empty."""
    groups = Groups(n, C)
    sizes = groups.member.bincount()
    assert groups.member.tolist() == sorted(groups.member.tolist())
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == min(C, -(-C // groups.share))
    assert groups.share == (1 if n >= C else -(-C // n))
    scores = groups.scores(torch.arange(len(sizes))[None])
    assert scores.tolist() == [[c // groups.share for c in range(C)]]
    for g, of in enumerate(groups_of(n, C)):
        assert groups.member[of].tolist() == [g] * len(of)


@pytest.mark.parametrize("shape", [(4, 20), (4, 20, 3, 5)])
def test_even_groups_are_normalised_as_group_norm_does(shape: tuple[int, ...]) -> None:
    h = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Groups(20, 10).normalised(h), F.group_norm(h, 10), rtol=1e-5, atol=1e-5)


def test_no_goodness_can_be_read_from_what_is_handed_on(make_method: Make, batch64: Batch) -> None:
    """Means of groups, which deeper-forward's goodness is made of, are all zero there."""
    method = made(make_method, "cnn", form="deeper-forward")
    given = list[Tensor]()
    for block in method.net.blocks[1:3]:
        block.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    method.predict(batch64.x)
    for h in given:
        assert goodness("deeper-forward", h).abs().max() < 1e-12


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_when_a_layer_steps_no_other_has_gradients(
    make_method: Make, batch: Batch, net: str, form: str, by: str
) -> None:
    """A forgotten detach would leave some below; and without predict_by=classifier that one never has any."""
    method = make_method("channel-goodness", net=net, net_settings=NETS[net], form=form, predict_by=by)
    every: list[nn.Module] = [*method.layers, method.classifier]
    turns = []

    def look(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        turns.append([{p.grad is not None for p in block.parameters()} for block in every])

    for optimizer in method.optimizers:
        optimizer.register_step_pre_hook(look)
    before = [p.detach().clone() for p in method.classifier.parameters()]
    method.train_step(batch, START)
    assert turns == [[{j == k} for j in range(4)] for k in range(4 if by == "classifier" else 3)]
    moved = not all(torch.equal(a, b) for a, b in zip(before, method.classifier.parameters(), strict=True))
    assert moved == (by == "classifier")


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_what_it_trains_for_is_what_it_predicts_by(make_method: Make, batch: Batch, form: str, by: str) -> None:
    """Sixteen images are learnt by heart; the opposite sign in training or in prediction would unlearn them."""
    method = make_method("channel-goodness", net_settings={"width": 40, "depth": 2}, form=form, predict_by=by, lr=0.01)
    for _ in range(60):
        method.train_step(batch, START)
    assert (method.predict(batch.x).argmax(1) == batch.y).double().mean() > 0.6


@pytest.mark.parametrize("form", FORMS)
def test_retained_bytes_do_not_grow_with_depth(make_method: Make, batch: Batch, form: str) -> None:
    sizes = set()
    for depth in (2, 3, 6):
        net = {"width": 96, "depth": depth}
        method = make_method("channel-goodness", net="mlp", net_settings=net, form=form)
        parameters = [p for block in method.blocks() for p in block.parameters()]
        sizes.add(retained_bytes(lambda method=method: method.train_step(batch, START), parameters))  # type: ignore[misc]
    assert len(sizes) == 1


def test_refuses_too_few_channels_and_no_hidden_layer() -> None:
    """Only where goodness of the last layer is to tell all classes apart."""
    facts = Facts("cpu", 1, 32)
    for net, settings, words in (
        (MLP, {"depth": 0}, "no hidden|has none"),
        (MLP, {"width": 9, "depth": 2}, "9 channels"),
        (CNN, {"width": 4, "depth": 2}, "8 channels"),
    ):
        reason = ChannelGoodness.refuse(small_task(net, settings), ChannelGoodnessSettings(), facts) or ""
        assert any(word in reason for word in words.split("|"))
    by_classifier = ChannelGoodnessSettings(predict_by="classifier")
    assert ChannelGoodness.refuse(small_task(MLP, {"width": 9, "depth": 2}), by_classifier, facts) is None
    assert ChannelGoodness.refuse(small_task(CNN, {"width": 4, "depth": 3}), ChannelGoodnessSettings(), facts) is None


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_claims_follow_the_settings(net: str, form: str, by: str) -> None:
    """One pass in training and one in prediction, however many classes; batch norm joins weights of one block."""
    subject = Subject(ChannelGoodness, small_task(CLASSES[net], NETS[net]), {"form": form, "predict_by": by})
    for check in ("reverse-mode", "passes", "weight-transport", "waiting", "resume", "predict"):
        CHECKS[check](subject)
