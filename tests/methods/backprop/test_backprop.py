"""Backprop against a loop written out, and its settings against plain backprop."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import pytest
import torch
import torch.nn.functional as F
from bench.methods.backprop.backprop import Backprop
from torch import Tensor, nn

from bench import Batch, Progress, Seeds
from bench.audit.passes import passes
from bench.catalog.catalog import Catalog
from bench.testing import small_task

START = Progress(0, 1, 0)
LAYERED = ("mlp", "cnn")
NETS = (*LAYERED, "denoiser")
Make = Callable[..., Any]


def grads(module: nn.Module) -> list[Tensor]:
    return [p.grad for p in module.parameters() if p.grad is not None]


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    """Parameters and buffers, to the last bit."""
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("net", NETS)
def test_default_is_the_plain_loop(make_method: Make, batch: Batch, net: str, catalog: Catalog) -> None:
    """Loss, weights, statistics and draws, to the last bit: what was measured with it stays true."""
    backprop: Backprop = make_method("backprop", net=net)
    seeds = Seeds(0, method="backprop")
    plain = small_task(catalog.nets[net].load()).build_net(seeds.init)
    for layer in plain.modules():
        if hasattr(layer, "generator"):
            layer.generator = seeds.noise
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
    for _ in range(3):
        loss = F.cross_entropy(plain.train()(batch.x, seeds.noise), batch.y)
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        assert torch.equal(backprop.train_step(batch, START)["loss"], loss.detach())
    assert_equal(backprop.net, plain)
    assert torch.equal(backprop.noise.get_state(), seeds.noise.get_state())


@pytest.mark.parametrize("net", NETS)
def test_checkpointing_changes_no_bit(make_method: Make, batch: Batch, net: str) -> None:
    """Not even where blocks draw dropout masks and count batches, as the denoiser's do."""
    plain = make_method("backprop", net=net)
    seeds = Seeds(0, method="backprop")
    checkpointed = make_method("backprop-checkpointed", net=net, seeds=seeds)
    for _ in range(3):
        losses = [method.train_step(batch, START)["loss"] for method in (plain, checkpointed)]
        assert torch.equal(*losses)
        assert all(torch.equal(*pair) for pair in zip(grads(plain.net), grads(checkpointed.net), strict=True))
    assert_equal(plain.net, checkpointed.net)
    assert torch.equal(plain.noise.get_state(), checkpointed.noise.get_state())
    assert torch.equal(plain.predict(batch.x), checkpointed.predict(batch.x))


@pytest.mark.parametrize("net", LAYERED)
@pytest.mark.parametrize("parts", [2, 3, 16])
def test_micro_batches_add_up_to_the_batch(make_method: Make, batch: Batch, net: str, parts: int) -> None:
    """Also where parts differ in size: 16 = 6 + 6 + 4."""
    batch = Batch(batch.x.double(), batch.y)
    plain, parted = make_method("backprop", net=net), make_method("backprop-micro-batch", net=net, micro_batches=parts)
    for method in (plain, parted):
        method.net.double()
    losses = [method.train_step(batch, START)["loss"] for method in (plain, parted)]
    torch.testing.assert_close(*losses)
    for one, other in zip(grads(plain.net), grads(parted.net), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["backprop", "backprop-micro-batch", "backprop-checkpointed"])
def test_batches_that_are_cut_are_micro_batches(make_method: Make, batch: Batch, name: str) -> None:
    """Of what the settings ask for, each is cut again; to the last bit what the setting would give."""
    cut = make_method(name, net="cnn")
    asked = make_method(name, net="cnn", micro_batches=2 * cut.config.micro_batches)
    assert cut.use_micro_batches(2) is None
    losses = [method.train_step(batch, START)["loss"] for method in (cut, asked)]
    assert torch.equal(*losses)
    assert_equal(cut.net, asked.net)
    assert cut.claims() == asked.claims()
    assert passes(cut, lambda: cut.train_step(batch, START)) == cut.claims().forward_passes


@pytest.mark.parametrize(
    ("net", "why"),
    [
        ("denoiser", "batch norm of denoiser"),
        ("denoiser-ct", "denoiser-ct"),
        ("triangle", "triangle"),
        ("mlp", None),
        ("reversible", None),
        ("localmixer", None),
    ],
)
def test_batches_are_not_cut_where_parts_would_teach_something_else(
    make_method: Make, net: str, why: str | None
) -> None:
    method = make_method("backprop", net=net)
    reason = method.use_micro_batches(2)
    assert reason == why or why in reason
    assert method.parts == (2 if why is None else 1)


@pytest.mark.parametrize("net", LAYERED)
def test_deep_supervision_is_the_gradient_of_the_sum(
    make_method: Make, batch: Batch, net: str, catalog: Catalog
) -> None:
    method: Backprop = make_method("backprop-deep-supervision", net=net, supervision=0.5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in method.heads.parameters():
            p.normal_(0, 0.1, generator=generator)
    plain = small_task(catalog.nets[net].load()).build_net(Seeds(0).init)
    heads = [(head.weight.detach().clone().requires_grad_(), head.bias.detach().clone()) for head in method.heads]
    h, total = batch.x, torch.zeros(())
    for k, block in enumerate(plain.blocks):
        h = block(h)
        if k < len(plain.blocks) - 1:
            total = total + 0.5 * F.cross_entropy(F.linear(h.flatten(1), *heads[k]), batch.y)
    total = total + F.cross_entropy(h, batch.y)
    total.backward()
    torch.testing.assert_close(method.train_step(batch, START)["loss"], total.detach())
    for one, other in zip(grads(method.net), grads(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    for head, (W, _) in zip(method.heads, heads, strict=True):
        torch.testing.assert_close(head.weight.grad, W.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("net", NETS)
def test_supervising_heads_start_silent_and_stay_out_of_inference(make_method: Make, batch: Batch, net: str) -> None:
    plain, method = make_method("backprop", net=net), make_method("backprop-deep-supervision", net=net)
    assert_equal(plain.net, method.net)
    assert len(method.modules()["training_only"]) == len(method.net.blocks) - 1
    before = method.predict(batch.x)
    method.train_step(batch, START)
    assert all(head.weight.count_nonzero() > 0 for head in method.heads)
    after = method.predict(batch.x)
    with torch.no_grad():
        for p in method.heads.parameters():
            p.fill_(torch.nan)
    assert torch.equal(method.predict(batch.x), after)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("net", LAYERED)
@pytest.mark.parametrize("name", ["backprop-last-layer", "random-features"])
def test_only_the_last_layer_learns(make_method: Make, batch: Batch, name: str, net: str) -> None:
    """Its gradient is e h^T with h what the frozen blocks make of the images."""
    method: Backprop = make_method(name, net=net)
    before = {k: p.detach().clone() for k, p in method.net.named_parameters()}
    with torch.no_grad():
        h = batch.x
        for block in method.net.blocks[:-1]:
            h = block(h)
        e = (method.net(batch.x).softmax(1) - F.one_hot(batch.y, 10)) / len(batch.y)
    method.train_step(batch, START)
    moved = {k for k, p in method.net.named_parameters() if not torch.equal(p, before[k])}
    last = len(method.net.blocks) - 1
    assert moved == {k for k in before if k.startswith(f"blocks.{last}.")}
    weight = next(p for p in method.net.blocks[-1].parameters() if p.dim() == 2)
    torch.testing.assert_close(weight.grad, e.T @ h.flatten(1), rtol=1e-4, atol=1e-7)
    frozen = {id(p) for p in method.modules()["frozen"].parameters()}
    assert frozen == {id(p) for p in method.net.parameters() if not p.requires_grad}


@pytest.mark.parametrize("net", LAYERED)
def test_random_features_are_one_block_of_many_units(make_method: Make, net: str) -> None:
    method: Backprop = make_method("random-features", net=net, net_settings={"width": 5, "depth": 3}, widen=4)
    first, _ = method.net.blocks
    assert next(first.parameters()).shape[0] == 20


@pytest.mark.parametrize("settings", [
    {}, {"checkpoint": True}, {"micro_batches": 3}, {"micro_batches": 2, "checkpoint": True},
    {"learns": "last", "checkpoint": True}, {"supervision": 1.0, "checkpoint": True},
])  # fmt: skip
@pytest.mark.parametrize("net", NETS)
def test_claimed_passes_are_those_counted(make_method: Make, batch: Batch, net: str, settings: dict[str, Any]) -> None:
    method: Backprop = make_method("backprop", net=net, **settings)
    assert passes(method, lambda: method.train_step(batch, START)) == method.claims().forward_passes


@pytest.mark.parametrize(("less", "more", "net"), [
    ("backprop-checkpointed", "backprop", "cnn"),
    ("backprop-checkpointed", "backprop", "denoiser"),
    ("backprop-micro-batch", "backprop", "mlp"),
    ("backprop-micro-batch", "backprop", "cnn"),
    ("backprop-last-layer", "backprop", "mlp"),
    ("backprop-last-layer", "backprop", "cnn"),
    ("direct-feedback-alignment", "backprop", "cnn"),
    ("drtp", "direct-feedback-alignment", "mlp"),
    ("drtp", "direct-feedback-alignment", "cnn"),
])  # fmt: skip
def test_keeps_less_for_backward(make_method: Make, batch: Batch, net: str, less: str, more: str) -> None:
    peaks = {name: max(kept_in_a_step(make_method(name, net=net), batch)) for name in (less, more)}
    assert 0 < peaks[less] < peaks[more]


def test_checkpointed_convolutions_keep_their_blocks_inputs_alone(make_method: Make, batch: Batch) -> None:
    """Bytes by hand: three inputs of blocks, then what the last block and the loss keep in any case."""
    method = make_method("backprop-checkpointed", net="cnn", net_settings={"width": 8, "depth": 3})
    of_blocks, of_the_last, log_probabilities = 1 * 64 + 8 * 16 + 16 * 16, 32 * 4, 10
    expected = len(batch.x) * 4 * (of_blocks + of_the_last + log_probabilities) + batch.y.nbytes
    assert expected in kept_in_a_step(method, batch)


def test_checkpointing_an_mlp_gains_nothing(make_method: Make, batch: Batch) -> None:
    """A linear layer with ReLU keeps its input and its output, and that is the next block's input."""
    plain, checkpointed = make_method("backprop"), make_method("backprop-checkpointed")
    assert max(kept_in_a_step(plain, batch)) == max(kept_in_a_step(checkpointed, batch))


class Held:
    """A tensor kept for backward; it goes when the graph lets it go."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_in_a_step(method: Any, batch: Batch) -> list[int]:
    """Bytes that graphs hold, after each tensor they take; storages count once, parameters not at all.

    What a checkpointed block computes again on the way back is not seen.
    """
    own = {p.untyped_storage().data_ptr() for p in method.net.parameters()}
    held: WeakSet[Held] = WeakSet()
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Held:
        holder = Held(tensor)
        held.add(holder)
        storages = {s.data_ptr(): s.nbytes() for s in (h.tensor.untyped_storage() for h in held)}
        sizes.append(sum(size for address, size in storages.items() if address not in own))
        return holder

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
        method.train_step(batch, START)
    return sizes
