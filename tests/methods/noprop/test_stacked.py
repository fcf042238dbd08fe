"""All blocks as one computation against the blocks one after another."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from bench.methods.noprop.denoiser import Denoiser
from bench.methods.noprop.dt import NoPropDT

from bench import Method
from bench.runner import compute
from bench.testing.subject import image_task

EMBEDDINGS = ["one-hot", "learned", "prototype"]
Make = Callable[..., NoPropDT]


@pytest.fixture
def make(make_method: Callable[..., Method], toy) -> Make:
    """make("stacked", "learned"): NoProp-DT with three blocks and dropout."""

    def make(execution: str, embedding: str, **settings: Any) -> NoPropDT:
        start = "random" if embedding == "prototype" else "auto"
        task = toy.task("denoiser", T=3, dropout=0.2, embedding=embedding, start=start)
        return make_method("noprop-dt", task=task, execution=execution, **settings)

    return make


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_stacked_blocks_learn_what_they_would_one_by_one(embedding: str, make: Make, toy, doubles: None) -> None:
    """Losses, parameters and running statistics after three steps, in float64.

    A bias before batch norm has nothing but rounding for a gradient, which AdamW divides by 1e-8: in float32 it would
    go its own way, and here it decides the tolerance, 1e-4 of a step.
    """
    loop, stacked = make("loop", embedding, lr=1e-2), make("stacked", embedding, lr=1e-2)
    for _ in range(3):
        batch = toy.batch(24)
        one, other = (method.train_step(batch, None) for method in (loop, stacked))
        torch.testing.assert_close(other, one, rtol=1e-10, atol=0)
    expected, got = loop.net.state_dict(), stacked.net.state_dict()
    assert {k.split(".")[-1] for k in got} >= {"running_mean", "running_var", "num_batches_tracked"}
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-7, atol=1e-6, msg=lambda text, n=name: n + text)
    x = toy.batch(8).x
    torch.testing.assert_close(stacked.predict(x), loop.predict(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_leaves_the_blocks_views_of_the_stack(channels: int, make_method: Callable[..., Method]) -> None:
    """Else the net that predicts would keep the weights it started with."""
    settings = {"T": 2, "width": 4, "hidden": 16}
    task = image_task("toy", 10, (channels, 8, 8), 100, Denoiser, settings)
    method = make_method("noprop-dt", task=task, execution="stacked")
    compute.to_channels_last(method)
    for t, block in enumerate(method.net.blocks):
        for name, p in block.named_parameters():
            assert p.data_ptr() == method.stack.stacks[name][t].data_ptr(), name


@pytest.mark.slow  # compiling takes half a minute
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks there itself
def test_a_compiled_stack_learns_the_same(make: Make, toy) -> None:
    plain, compiled, batch = make("stacked", "one-hot"), make("stacked", "one-hot"), toy.batch(24)
    compiled.compile()
    torch.testing.assert_close(compiled.train_step(batch, None), plain.train_step(batch, None), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_first_loss_and_step_agree_in_float32(embedding: str, make: Make, toy) -> None:
    loop, stacked = make("loop", embedding), make("stacked", embedding)
    batch = toy.batch(24)
    torch.testing.assert_close(stacked.train_step(batch, None), loop.train_step(batch, None), rtol=1e-4, atol=1e-5)
    for name, buffer in loop.net.named_buffers():
        torch.testing.assert_close(stacked.net.get_buffer(name), buffer, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_restored_stack_continues_bit_for_bit(embedding: str, make: Make, toy) -> None:
    unbroken, resumed = make("stacked", embedding), make("stacked", embedding)
    batches = [toy.batch(24) for _ in range(4)]
    for batch in batches[:2]:
        unbroken.train_step(batch, None)
    resumed.load_state_dict(deepcopy(unbroken.state_dict()))
    for batch in batches[2:]:
        one, other = (method.train_step(batch, None) for method in (unbroken, resumed))
        assert torch.equal(one["loss"], other["loss"])
    for (name, p), q in zip(unbroken.net.state_dict().items(), resumed.net.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


def test_the_blocks_are_views_of_the_stack(make: Make, toy) -> None:
    """What is trained is what predicts, held once."""
    method = make("stacked", "one-hot")
    stacks = {p.untyped_storage().data_ptr() for group in method.optimizers[0].param_groups for p in group["params"]}
    assert {p.untyped_storage().data_ptr() for p in method.net.blocks.parameters()} == stacks
    before = [p.detach().clone() for p in method.net.blocks.parameters()]
    method.train_step(toy.batch(24), None)
    assert [p.shape for p, b in zip(method.net.blocks.parameters(), before, strict=True) if torch.equal(p, b)] == []
