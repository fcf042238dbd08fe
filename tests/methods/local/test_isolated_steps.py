"""local-loss, mono-forward and cafo over whole steps: all weights beside numpy, optimisers and schedules included.

Each test's words name the mistakes that it catches.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.methods.local.derived import Classifier, Pred, PredSim, Sim
from tests.methods.rederived import AdamW, Array, Block, cross_entropy, falls
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
    train,
)  # fmt: skip

Make = Callable[..., Any]
Target = Pred | Sim | PredSim | Classifier
MILESTONES = (0.5, 0.75, 0.89, 0.94)


class Stage:
    """Blocks that learn together by one loss, in the order of the paper: forward, loss, backward, a step of AdamW."""

    def __init__(self, blocks: Sequence[Block], target: Target, lr: float = 1e-3, weight_decay: float = 1e-3) -> None:
        self.blocks, self.target = blocks, target
        self.optimizer = AdamW([w for part in (*blocks, target) for w in part.weights], lr, weight_decay)

    def forward(self, h: Array) -> Array:
        for block in self.blocks:
            h = block.forward(h)
        return h

    def learn(self, h: Array, y: Any, lr: float | None = None) -> Array:
        """One step. Returns the output from before it."""
        output = self.forward(h)
        _, delta = self.target(output, y)
        for block in reversed(self.blocks):
            delta = block.backward(delta)
        self.optimizer.step([g for part in (*self.blocks, self.target) for g in part.gradients], lr)
        return output


def stages_of(method: Any, groups: Sequence[int], target: Callable[[Any, Any], Target], **step: float) -> list[Stage]:
    """groups: blocks in each stage. The last stage ends in the net's classifier."""
    blocks, bounds = numpy_blocks(method.net), np.cumsum([0, *groups])
    parts = [blocks[start:end] for start, end in pairwise(bounds)]
    shapes, h = [], np.zeros((1, 3, 6, 6))
    for block in blocks:
        h = block.forward(h)
        shapes.append(h.shape[1:])
    ends = [shapes[end - 1] for end in bounds[1:]]
    found = [target(numbers(of), shape) for of, shape in zip(method.targets, ends, strict=False)]
    return [Stage(part, of, **step) for part, of in zip(parts, [*found, Classifier()], strict=True)]


def assert_stages(method: Any, stages: Sequence[Stage]) -> None:
    assert_weights(method.net, [block for stage in stages for block in stage.blocks])
    assert_weights(method.targets, [w for stage in stages for w in stage.target.weights])


def least_window(shape: Sequence[int], limit: int) -> int:
    """The least k for which a map pooled over k x k windows has at most `limit` entries; the whole map if none is."""
    if len(shape) == 1:
        return 1
    fits = [k for k in range(1, shape[1]) if shape[0] * -(-shape[1] // k) * -(-shape[2] // k) <= limit]
    return fits[0] if fits else shape[1]


def local_target(
    loss: str = "predsim", beta: float = 0.99, head: str = "linear", pool: int = 2048
) -> Callable[..., Target]:
    def build(weights: list[Array], shape: Sequence[int]) -> Target:
        if loss == "sim":
            return Sim(weights, N_CLASSES)
        k = least_window(shape, pool)
        if loss == "pred":
            return Pred(weights, head, k)
        return PredSim(Pred(weights[:-1], head, k), Sim(weights[-1:], N_CLASSES), beta)

    return build


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize(
    "settings", [{}, {"loss": "pred"}, {"loss": "sim"}, {"beta": 0.3}, {"lr": 0.02, "weight_decay": 0.1}], ids=str
)
def test_local_loss(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adam for adamw; no decay; beta .9 for .99, or on the wrong loss; a mean for the spread over space; a biased
    spread; similarity over the batch's mean in place of the example's; 1x1 for 3x3; a sum for the mean over N^2.
    """
    method = in_double(make_method("local-loss", task=colour_task(net), **settings))
    step = {name: settings[name] for name in ("lr", "weight_decay") if name in settings}
    of = {name: settings[name] for name in ("loss", "beta") if name in settings}
    stages = stages_of(method, [1, 1, 1, 1], local_target(**of), **step)
    data = batches(4)
    for x, y in data:
        h = number(x)
        for stage in stages:
            h = stage.learn(h, y.numpy())
    train(method, data)
    assert_stages(method, stages)


HEADS = [("mlp", head, 2048) for head in ("linear", "mlp")]  # vectors have no space to convolve or to pool
HEADS += [("cnn", head, pool) for head in ("linear", "mlp", "conv") for pool in (2048, 20, 3)]


@pytest.mark.parametrize(("net", "head", "pool"), HEADS)
def test_heads(make_method: Make, net: str, head: str, pool: int) -> None:
    """A head without its ReLU; a 1x1 convolution for 3x3; max for mean pooling; windows at the edge divided by k^2;
    pooling before the convolution; a head that starts anywhere but at zero would be seen in test_heads.py.
    """
    method = in_double(
        make_method("local-loss", task=colour_task(net), loss="pred", head=head, pool=pool, head_units=5, lr=0.05)
    )
    stages = stages_of(method, [1, 1, 1, 1], local_target("pred", head=head, pool=pool), lr=0.05)
    data = batches(4)
    for x, y in data:
        h = number(x)
        for stage in stages:
            h = stage.learn(h, y.numpy())
    train(method, data)
    assert_stages(method, stages)


@pytest.mark.parametrize("net", ON)
def test_modules_of_several_blocks(make_method: Make, net: str) -> None:
    """Blocks shared out otherwise than evenly and in order (4 over 3: 2, 1, 1); a loss that stops at the last block."""
    method = in_double(make_method("local-loss", task=colour_task(net), modules=3))
    stages = stages_of(method, [2, 1, 1], local_target())
    data = batches(3)
    for x, y in data:
        h = number(x)
        for stage in stages:
            h = stage.learn(h, y.numpy())
    train(method, data)
    assert_stages(method, stages)


@pytest.mark.parametrize("rule", ["local-loss", "mono-forward"])
def test_decay_at_between_and_after_milestones(make_method: Make, rule: str) -> None:
    """decay**2 at the second milestone missed; a milestone one step late; the factor on the step before the edge;
    decay applied to weights; total_steps that counts from one. 16 steps: edges at 8, 12, 14.24 and 15.04.
    """
    method = in_double(make_method(rule, task=colour_task(), decay=0.25, lr=0.05))
    groups, target = ([1, 1, 1, 1], local_target()) if rule == "local-loss" else ([1, 1, 2], mono_target)
    stages = stages_of(method, groups, target, lr=0.05)
    data = batches(16)
    for step, (x, y) in enumerate(data):
        lr, h = falls(0.05, step / 16, MILESTONES, 0.25), number(x)
        for stage in stages:
            h = stage.learn(h, y.numpy(), lr)
        train(method, [data[step]], 16, step)
        assert_stages(method, stages)


@pytest.mark.parametrize("rule", ["local-loss", "mono-forward"])
@pytest.mark.parametrize("net", ON)
def test_in_sequence(make_method: Make, rule: str, net: str) -> None:
    """Modules before that step along; one that sees weights from before their training; milestones of the whole
    training in place of the module's part; a part of another length. 24 steps: 6 or 8 each, edges at 3, 5, 6.
    """
    method = in_double(make_method(rule, task=colour_task(net), schedule="sequential", decay=0.25, lr=0.05))
    groups, target = ([1, 1, 1, 1], local_target()) if rule == "local-loss" else ([1, 1, 2], mono_target)
    stages = stages_of(method, groups, target, lr=0.05)
    part = 24 // len(stages)
    data = batches(24)
    for step, (x, y) in enumerate(data):
        k, h = step // part, number(x)
        for stage in stages[:k]:
            h = stage.forward(h)
        stages[k].learn(h, y.numpy(), falls(0.05, step % part / part, MILESTONES, 0.25))
    train(method, data)
    assert_stages(method, stages)


def mono_target(weights: list[Array], shape: Sequence[int]) -> Pred:
    (M,) = weights  # no bias
    assert M.shape == (N_CLASSES, np.prod(shape))
    return Pred([M])


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", [{}, {"predict_by": "sum"}, {"lr": 0.02, "weight_decay": 0.1}], ids=str)
def test_mono_forward(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adam for adamw; projections that rest, or start at zero; a loss on the images; a gradient between layers."""
    method = in_double(make_method("mono-forward", task=colour_task(net), **settings))
    step = {name: settings[name] for name in ("lr", "weight_decay") if name in settings}
    stages = stages_of(method, [1, 1, 2], mono_target, **step)
    data = batches(4)
    for x, y in data:
        h = number(x)
        for stage in stages:
            h = stage.learn(h, y.numpy())
    train(method, data)
    assert_stages(method, stages)


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("settings", [{}, {"lr": 0.02, "weight_decay": 0.1}], ids=str)
def test_cafo(make_method: Make, net: str, settings: dict[str, Any]) -> None:
    """adam for adamw; blocks that learn or decay; classifiers without bias; a classifier on another block's output."""
    method = in_double(make_method("cafo", task=colour_task(net), **settings))
    blocks, heads = numpy_blocks(method.net), numbers(method.heads)
    assert all(not w.any() for w in heads)
    classifiers = [Block(W, b, "identity") for W, b in zip(heads[::2], heads[1::2], strict=True)]
    classifiers.append(blocks[-1])
    step = {"lr": 1e-3, "weight_decay": 1e-3} | settings
    optimizers = [AdamW(of.weights, **step) for of in classifiers]
    data = batches(4)
    for x, y in data:
        h = number(x)
        for block, classifier, optimizer in zip(blocks, classifiers, optimizers, strict=False):
            h = block.forward(h)
            _, delta = cross_entropy(classifier.forward(h), y.numpy())
            classifier.backward(delta)
            optimizer.step(classifier.gradients)
    train(method, data)
    assert_weights(method.net, blocks)
    assert_weights(method.heads, classifiers[:-1])
