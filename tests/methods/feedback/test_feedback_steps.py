"""The feedback family over whole steps on 3-channel images: all weights and all feedback beside numpy, AdamW included.

Feedback at the start is drawn here from the same seed, after the net, by the law that each rule's header names. Each
test's words name the mistakes that it catches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from bench import Seeds
from tests.methods.rederived import (
    AdamW,
    Array,
    Block,
    conv_gradient,
    cross_entropy,
    linear_gradient,
    one_hot,
)
from tests.methods.whole_steps import (
    N_CLASSES,
    ON,
    assert_weights,
    batches,
    colour_task,
    in_double,
    number,
    numbers,
    numpy_blocks,
    progress,
    train,
    weights_of,
)

Make = Callable[..., Any]
LAYERED = ["feedback-alignment", "kolen-pollack", "weight-mirror"]
DIRECT = ["direct-feedback-alignment", "drtp", "direct-kolen-pollack"]
any_net = pytest.mark.parametrize("net", ON)
TANH = pytest.param("mlp", {"activation": "tanh"}, id="mlp-tanh")
with_tanh = pytest.mark.parametrize(("net", "of_net"), [*((net, {}) for net in ON), TANH])


def forward(blocks: Sequence[Block], x: Array) -> Array:
    for block in blocks:
        x = block.forward(x)
    return x


def fan_in(W: Array) -> int:
    """Inputs of a unit: a convolution's channels times its kernel."""
    return int(np.prod(W.shape[1:]))


def assert_losses(found: list[dict[str, float]], expected: list[float]) -> None:
    np.testing.assert_allclose([step["loss"] for step in found], expected, rtol=1e-9)


def drawn(blocks: Sequence[Block], init: torch.Generator) -> list[Array]:
    """B ~ U(-1, 1) / sqrt(fan_in), shaped as W, for all layers but the first."""
    found = []
    for block in blocks[1:]:
        b = 1 / np.sqrt(fan_in(block.W))
        # in single precision, as the suite draws
        found.append(number(torch.empty(block.W.shape).uniform_(-b, b, generator=init)))
    return found


def after_the_net(net: str, seed: int = 0, **settings: Any) -> torch.Generator:
    """The generator of weights, where it stands when the net has drawn its own."""
    init = Seeds(seed).init
    colour_task(net, **settings).build_net(init)
    return init


def backward(blocks: Sequence[Block], B: Sequence[Array], e: Array) -> list[Array]:
    """delta_l = (B_{l+1}^T delta_{l+1}) * sigma'(a_l), grad W_l = delta_l h_{l-1}^T; those of W and b from below."""
    delta = e
    for k in reversed(range(len(blocks))):
        at = blocks[k].before_activation(delta)
        blocks[k].through(at)
        if k > 0:
            send = conv_gradient if B[k - 1].ndim == 4 else linear_gradient
            delta, *_ = send(blocks[k].x, B[k - 1], at)
    return [g for block in blocks for g in block.gradients]


@with_tanh
@pytest.mark.parametrize("mode", ["fa", "usf", "brsf", "frsf"])
@pytest.mark.parametrize("step", [{}, {"lr": 0.03, "weight_decay": 0.2}], ids=["default", "longer"])
def test_feedback_alignment(make_method: Make, net: str, of_net: dict[str, Any], mode: str, step: Any) -> None:
    """adam for adamw; weights in place of B somewhere; B in place of weights forward; signs of the step before; a
    magnitude drawn once for in each step, or of another bound than 1 / sqrt(fan_in), the kernel included; usf's
    magnitude without sqrt(3); slopes of the wrong activation; a first layer that is left out.
    """
    method = in_double(make_method("feedback-alignment", task=colour_task(net, **of_net), mode=mode, **step))
    blocks = numpy_blocks(method.net)
    noise = torch.Generator().set_state(method.noise.get_state())
    B = drawn(blocks, after_the_net(net, **of_net))
    if mode == "usf":
        B = [np.full_like(b, np.float32(1 / np.sqrt(3 * fan_in(b)))) for b in B]  # in single precision, as the suite
    optimizer = AdamW(weights_of(blocks), step.get("lr", 1e-3), step.get("weight_decay", 1e-3))
    data, seen = batches(4), list[float]()
    for x, y in data:
        if mode == "brsf":
            B = [number(torch.empty(b.shape).double().uniform_(0, 1 / np.sqrt(fan_in(b)), generator=noise)) for b in B]
        if mode != "fa":
            B = [abs(b) * np.where(block.W < 0, -1, 1) for b, block in zip(B, blocks[1:], strict=True)]
        loss, e = cross_entropy(forward(blocks, number(x)), y.numpy())
        seen.append(loss)
        optimizer.step(backward(blocks, B, e))
    assert_losses(train(method, data), seen)
    # where usf's column has one sign alone, its message is that times sum e = 0: rounding, of which AdamW makes steps
    assert_weights(method.net, blocks, atol=1e-9)
    assert_weights(method.feedback, B)


@with_tanh
@pytest.mark.parametrize("step", [{}, {"lr": 0.03, "weight_decay": 5.0}], ids=["default", "longer"])
def test_kolen_pollack(make_method: Make, net: str, of_net: dict[str, Any], step: Any) -> None:
    """adam for adamw; B that starts at W, or is the same for every seed, or stands still; a gradient of B that is the
    message's; backprop's decay for the rule's own; decay of W alone, or of weights without biases.
    """
    method = in_double(make_method("kolen-pollack", task=colour_task(net, **of_net), **step))
    blocks = numpy_blocks(method.net)
    B = drawn(blocks, after_the_net(net, **of_net))
    optimizer = AdamW([*weights_of(blocks), *B], step.get("lr", 1e-3), step.get("weight_decay", 1.0))
    data, seen = batches(4), list[float]()
    for x, y in data:
        loss, e = cross_entropy(forward(blocks, number(x)), y.numpy())
        seen.append(loss)
        gradients = backward(blocks, B, e)
        optimizer.step([*gradients, *gradients[2::2]])
    assert_losses(train(method, data), seen)
    assert_weights(method.net, blocks)
    assert_weights(method.feedback, B)


MIRRORS: list[dict[str, Any]] = [
    {},
    {"mirror_every": 2, "mirror_lr": 0.3, "mirror_decay": 0.7, "mirror_samples": 5, "lr": 0.03, "weight_decay": 0.2},
]


@with_tanh
@pytest.mark.parametrize("settings", MIRRORS, ids=["default", "others"])
def test_weight_mirror(make_method: Make, net: str, of_net: dict[str, Any], settings: dict[str, Any]) -> None:
    """adam for adamw; B that starts at W; a mirror step before the step of W, or in every step; noise shared between
    layers; a sum over draws for the mean; decay that forgets eta; a mirror that sees the bias.
    """
    method = in_double(make_method("weight-mirror", task=colour_task(net, **of_net), **settings))
    blocks = numpy_blocks(method.net)
    noise = torch.Generator().set_state(method.noise.get_state())
    B = drawn(blocks, after_the_net(net, **of_net))
    optimizer = AdamW(weights_of(blocks), settings.get("lr", 1e-3), settings.get("weight_decay", 1e-3))
    eta, decay = settings.get("mirror_lr", 0.02), settings.get("mirror_decay", 1.0)
    M = settings.get("mirror_samples", 16)
    data, seen = batches(4), list[float]()
    for step, (x, y) in enumerate(data):
        loss, e = cross_entropy(forward(blocks, number(x)), y.numpy())
        seen.append(loss)
        optimizer.step(backward(blocks, B, e))
        for k, block in enumerate(blocks[1:] if step % settings.get("mirror_every", 1) == 0 else []):
            W = block.W.reshape(len(block.W), -1)
            draws = number(torch.randn(M, W.shape[1], generator=noise, dtype=torch.float64))
            mirrored = sum(np.outer(W @ x_n, x_n) for x_n in draws) / M
            B[k] = B[k] + eta * (mirrored.reshape(B[k].shape) - decay * B[k])
    assert_losses(train(method, data), seen)
    assert_weights(method.net, blocks)
    assert_weights(method.feedback, B)


DIRECTLY: list[tuple[str, dict[str, Any]]] = [
    ("direct-feedback-alignment", {}),
    ("direct-feedback-alignment", {"mode": "sdfa"}),
    ("direct-feedback-alignment", {"lr": 0.03, "weight_decay": 0.2}),
    ("drtp", {}),
    ("drtp", {"lr": 0.03, "weight_decay": 0.2}),
    ("direct-kolen-pollack", {}),
    ("direct-kolen-pollack", {"lr": 0.03, "weight_decay": 0.2, "feedback_rate": 0.3}),
]


@with_tanh
@pytest.mark.parametrize(("name", "settings"), DIRECTLY, ids=str)
def test_direct_rules(make_method: Make, net: str, of_net: dict[str, Any], name: str, settings: dict[str, Any]) -> None:
    """adam for adamw; a signal behind pooling, or without the activation's slope; the sign of the error (sdfa) or the
    label (drtp) summed over the batch, not averaged; an output layer that gets a random signal, too; hidden layers
    whose signal is e of weights that have moved; B with the law of another layer's size, or the same for every seed;
    feedback that stands still, decays by itself, or steps by lr where it has a rate of its own.
    """
    method = in_double(make_method(name, task=colour_task(net, **of_net), **settings))
    blocks = numpy_blocks(method.net)
    init = after_the_net(net, **of_net)
    forward(blocks, np.zeros((1, 3, 6, 6)))
    B = []  # (classes, units of the layer before pooling)
    for block in blocks[:-1]:
        bound = 1 / np.sqrt(block.h[0].size)
        B.append(number(torch.empty(N_CLASSES, *block.h.shape[1:]).uniform_(-bound, bound, generator=init)))
    lr, decay = settings.get("lr", 1e-3), settings.get("weight_decay", 1e-3)
    of_weights = AdamW(weights_of(blocks), lr, decay)
    of_feedback = AdamW(B, settings.get("feedback_rate", 1.0) * lr, decay)
    data, seen = batches(4), list[float]()
    for x, labels in data:
        y = labels.numpy()
        h, by_block = number(x), []
        for k, block in enumerate(blocks[:-1]):
            h = block.forward(h)
            if name == "drtp":
                block.through(np.tensordot(one_hot(y, N_CLASSES) / len(y), B[k], 1) * block.slope())
        loss, e = cross_entropy(blocks[-1].forward(h), y)
        seen.append(loss)
        sent = np.sign(e) / len(y) if settings.get("mode") == "sdfa" else e
        blocks[-1].through(e)
        for k, block in enumerate(blocks[:-1]):
            if name != "drtp":
                block.through(np.tensordot(sent, B[k], 1) * block.slope())
            by_block.append(np.tensordot(e.T, block.h, 1))
        of_weights.step([g for block in blocks for g in block.gradients])
        if name == "direct-kolen-pollack":
            of_feedback.step(by_block)
    assert_losses(train(method, data), seen)
    assert_weights(method.net, blocks)
    assert_weights(method.feedback, B)


@any_net
@pytest.mark.parametrize("name", [*LAYERED, *DIRECT])
def test_feedback_depends_on_the_seed_and_not_on_the_weights(make_method: Make, net: str, name: str) -> None:
    """Feedback that is the same for every seed, that starts at the weights, or is the same in layers of one shape."""
    one, other, again = (make_method(name, task=colour_task(net, depth=4), seed=seed) for seed in (0, 1, 0))
    for a, b, c in zip(one.feedback, other.feedback, again.feedback, strict=True):
        assert not torch.equal(a, b)
        assert torch.equal(a, c)
    if name in LAYERED:
        for layer, B in zip(one.layers, one.feedback, strict=True):
            cosine = torch.cosine_similarity(layer.weight.detach().flatten(), B.flatten(), dim=0)
            assert B.shape == layer.weight.shape
            assert abs(float(cosine)) < 6 / B.numel() ** 0.5
    for k, B in enumerate(one.feedback):
        assert not any(B.shape == C.shape and torch.equal(B, C) for C in one.feedback[:k])


@any_net
def test_the_mirror_has_no_memory_of_the_training_step_count(make_method: Make, net: str) -> None:
    """A mirror that counts its own calls: a run that goes on at step 3 would mirror out of time."""
    method = in_double(make_method("weight-mirror", task=colour_task(net), mirror_every=3))
    (batch,) = batches(1)
    moved = []
    for step in (3, 4, 6, 8):
        before = numbers(method.feedback)
        method.train_step(batch, progress(step, 9))
        moved.append(any((a != b).any() for a, b in zip(before, numbers(method.feedback), strict=True)))
    assert moved == [True, False, True, False]
