"""Guided forward gradients against projections by autograd's gradient."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from bench.methods.forward import guided_forward_gradient
from torch import Tensor, nn

from bench import Batch, Input, Output, Progress
from bench.api.net import Net
from bench.catalog.catalog import Catalog
from bench.objectives.cross_entropy import CrossEntropy
from bench.testing.claims import check_passes, check_reverse_mode, check_waiting
from bench.testing.subject import Subject, small_task

estimate = partial(guided_forward_gradient.estimate, objective=CrossEntropy(Output.classes(3)))
PROGRESS = Progress(0, 10, 0)
MIXER = {"depth": 3, "patches": 2, "channels": 8, "groups": 2}
NETS = {
    "mlp": ("mlp", (1, 4, 4), {"width": 5, "depth": 3}),
    "mlp-tanh": ("mlp", (1, 4, 4), {"width": 5, "depth": 3, "activation": "tanh"}),
    "cnn": ("cnn", (2, 6, 6), {"width": 2, "depth": 3}),
    "localmixer": ("localmixer", (1, 4, 4), MIXER),
}
any_net = pytest.mark.parametrize("net", NETS, indirect=True)
any_space = pytest.mark.parametrize("space", ["activity", "weight"])


@pytest.fixture
def net(request: pytest.FixtureRequest) -> Net:
    """A small net in float64, with weights away from their start, where a read-out may be zero."""
    name, image_shape, settings = NETS[getattr(request, "param", "mlp")]
    made = (
        Catalog()
        .nets[name]
        .load()
        .build(Input.image(*image_shape), Output.classes(3), settings, torch.Generator().manual_seed(0))
        .double()
    )
    made.image_shape = image_shape
    generator = torch.Generator().manual_seed(1)
    for p in made.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return made


def batch_for(net: Net, n: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, *net.image_shape, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(3, (n,), generator=generator))


def some_heads(net: Net, seed: int = 3) -> nn.ModuleList:
    """Linear heads away from zero."""
    heads, z, generator = (
        nn.ModuleList(),
        torch.zeros(1, *net.image_shape).double(),
        torch.Generator().manual_seed(seed),
    )
    for block in net.blocks[:-1]:
        z = block(z)
        head = nn.Sequential(nn.Flatten(), nn.Linear(z[0].numel(), 3)).double()
        for p in head.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        heads.append(head)
    return heads


def outputs(net: Net, x: Tensor) -> list[Tensor]:
    """What each hidden block gives, and the scores, in one graph."""
    found = []
    for block in net.blocks:
        x = block(x)
        found.append(x)
    return found


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


@any_net
@any_space
def test_a_guess_that_is_the_gradient_gives_backprops(net: Net, space: str) -> None:
    """Each head is a copy of all that follows its block."""
    x, y = batch_for(net)
    heads = nn.ModuleList(copy.deepcopy(nn.Sequential(*net.blocks[b + 1 :])) for b in range(len(net.blocks) - 1))
    found_loss, gradient = estimate(net, heads, Batch(x, y), space)
    loss = F.cross_entropy(net(x), y)
    torch.testing.assert_close(found_loss, loss.detach())
    parameters = list(net.parameters())
    expected = torch.autograd.grad(loss, parameters)
    torch.testing.assert_close([gradient[p] for p in parameters], list(expected), rtol=1e-9, atol=1e-12)


@any_net
def test_over_weights_it_is_the_projection_on_the_guess(net: Net) -> None:
    """Block by block (G.v / v.v) v, never against G; the last layer's is G itself."""
    (x, y), heads = batch_for(net), some_heads(net)
    gradient = estimate(net, heads, Batch(x, y), "weight")[1]
    zs = outputs(net, x)
    for block, head, z in zip(net.blocks[:-1], heads, zs[:-1], strict=True):
        parameters = list(block.parameters())
        G = flat(torch.autograd.grad(F.cross_entropy(zs[-1], y), parameters, retain_graph=True))
        v = flat(torch.autograd.grad(F.cross_entropy(head(z), y), parameters, retain_graph=True))
        g = flat([gradient[p] for p in parameters])
        torch.testing.assert_close(g, (G @ v) / (v @ v) * v, rtol=1e-9, atol=1e-14)
        assert 0 <= F.cosine_similarity(g, G, dim=0) < 0.999, "the guess was the gradient: nothing is shown"
    last = list(net.blocks[-1].parameters())
    expected = torch.autograd.grad(F.cross_entropy(zs[-1], y), last)
    torch.testing.assert_close([gradient[p] for p in last], list(expected))


@any_net
def test_over_activities_each_examples_error_is_projected(net: Net) -> None:
    """(G_n.v_n / v_n.v_n) v_n at the block's output, sent back through the block alone."""
    (x, y), heads = batch_for(net), some_heads(net)
    gradient = estimate(net, heads, Batch(x, y), "activity")[1]
    zs = outputs(net, x)
    for block, head, z in zip(net.blocks[:-1], heads, zs[:-1], strict=True):
        (G,) = torch.autograd.grad(F.cross_entropy(zs[-1], y, reduction="sum"), z, retain_graph=True)
        (v,) = torch.autograd.grad(F.cross_entropy(head(z), y, reduction="sum"), z, retain_graph=True)
        deltas = []
        for G_n, v_n in zip(G.flatten(1), v.flatten(1), strict=True):
            deltas.append((G_n @ v_n) / (v_n @ v_n) * v_n)
            assert deltas[-1] @ G_n >= 0
        delta = torch.stack(deltas).view_as(z) / len(y)
        parameters = list(block.parameters())
        expected = torch.autograd.grad(z, parameters, delta, retain_graph=True)
        torch.testing.assert_close([gradient[p] for p in parameters], list(expected), rtol=1e-9, atol=1e-14)


@any_net
def test_each_example_is_projected_by_itself(net: Net) -> None:
    """The estimate over activities is the mean of those of single examples."""
    (x, y), heads = batch_for(net), some_heads(net)
    whole = estimate(net, heads, Batch(x, y), "activity")[1]
    singly = [estimate(net, heads, Batch(x[n : n + 1], y[n : n + 1]), "activity")[1] for n in range(len(y))]
    for p in net.parameters():
        torch.testing.assert_close(whole[p], torch.stack([g[p] for g in singly]).mean(0), rtol=1e-9, atol=1e-14)


@any_net
@any_space
def test_a_head_learns_from_its_own_loss_and_moves_no_other_block(net: Net, space: str) -> None:
    (x, y), heads = batch_for(net), some_heads(net)
    gradient = estimate(net, heads, Batch(x, y), space)[1]
    for head, z in zip(heads, outputs(net, x)[:-1], strict=True):
        own = torch.autograd.grad(F.cross_entropy(head(z.detach()), y), list(head.parameters()))
        torch.testing.assert_close([gradient[p] for p in head.parameters()], list(own))
    changed = some_heads(net, seed=4)[1]
    other_heads = nn.ModuleList([heads[0], changed, *heads[2:]])
    other = estimate(net, other_heads, Batch(x, y), space)[1]
    for k, block in enumerate(net.blocks):
        for p in block.parameters():
            assert (k == 1) != torch.equal(gradient[p], other[p]) or (k == 1 and not gradient[p].any())


@any_net
@any_space
def test_without_a_guess_there_is_no_step(net: Net, space: str) -> None:
    """Heads at zero send nothing back; nothing is divided by it."""
    (x, y), heads = batch_for(net), some_heads(net)
    for p in heads.parameters():
        p.data.zero_()
    gradient = estimate(net, heads, Batch(x, y), space)[1]
    assert all(gradient[p].count_nonzero() == 0 for block in net.blocks[:-1] for p in block.parameters())
    assert all(gradient[p].count_nonzero() > 0 for p in net.blocks[-1].parameters())


@any_space
def test_a_faint_guess_counts_as_much_as_a_loud_one(net: Net, space: str) -> None:
    """The length of the guess is taken out again, be it 1e-12 of what it was, in single precision."""
    (x, y), heads = batch_for(net), some_heads(net)
    net, batch = net.float(), Batch(x.float(), y)
    found = []
    for size in (1e-3, 1e-12):
        faint = copy.deepcopy(heads).float()
        for head in faint:
            head[1].bias.data.zero_()
            head[1].weight.data.mul_(size)
        found.append(estimate(net, faint, batch, space)[1])
    for block in net.blocks[:-1]:
        for p in block.parameters():
            torch.testing.assert_close(found[0][p], found[1][p], rtol=0.05, atol=1e-4)


@any_space
@pytest.mark.parametrize(
    ("net_name", "settings"),
    [("mlp", {"width": 32, "depth": 0}), ("mlp", {"width": 32, "depth": 1}), ("mlp", {"width": 32, "depth": 3}),
     ("cnn", {"width": 4}), ("localmixer", MIXER)],
)  # fmt: skip
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_claims_hold_on_every_net(space: str, net_name: str, settings: dict[str, int], head: str) -> None:
    catalog = Catalog()
    task = small_task(catalog.nets[net_name].load(), settings)
    subject = Subject(catalog.methods["guided-forward-gradient"].load(), task, {"space": space, "head": head})
    check_reverse_mode(subject)
    check_passes(subject)
    if settings.get("depth", 3) > 1:
        check_waiting(subject)


@any_space
def test_a_step_is_adamw_on_the_estimate(make_method, batch: Batch, space: str, monkeypatch) -> None:
    """With the estimate replaced by autograd's gradient the step is backprop's, to the last bit."""
    method, twin = make_method("guided-forward-gradient", space=space), make_method("backprop", net="mlp")

    def exact(
        net: Net, heads: object, batch: Batch, space: str, objective: object
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        with torch.enable_grad():
            loss = F.cross_entropy(net(batch.x), batch.y)
            return loss.detach(), dict(
                zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True)
            )

    monkeypatch.setattr(guided_forward_gradient, "estimate", exact)
    for _ in range(3):
        method.train_step(batch, PROGRESS)
        twin.train_step(batch, PROGRESS)
    for p, q in zip(method.net.parameters(), twin.net.parameters(), strict=True):
        assert torch.equal(p, q)
