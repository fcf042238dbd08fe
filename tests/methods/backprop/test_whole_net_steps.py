"""backprop and its controls over whole steps on 3-channel images: all weights beside numpy, AdamW included."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.methods.rederived import AdamW, Array, Block, cross_entropy, linear, linear_gradient
from tests.methods.whole_steps import (
    N_CLASSES,
    ON,
    assert_weights,
    batches,
    colour_task,
    in_double,
    number,
    numpy_blocks,
    train,
)

Make = Callable[..., Any]
# the rule, its settings, the weight of the heads' losses, the blocks from above that learn
RULES: list[tuple[str, dict[str, Any], float, int]] = [
    ("backprop", {}, 0.0, 99),
    ("backprop", {"lr": 0.02, "weight_decay": 0.1}, 0.0, 99),
    ("backprop-checkpointed", {}, 0.0, 99),
    ("backprop-micro-batch", {}, 0.0, 99),
    ("backprop-deep-supervision", {}, 1.0, 99),
    ("backprop-deep-supervision", {"supervision": 0.3}, 0.3, 99),
    ("backprop-last-layer", {}, 0.0, 1),
    ("random-features", {}, 0.0, 1),
]


def gradients(
    blocks: list[Block], heads: list[list[Array]], x: Array, y: Any, supervision: float
) -> tuple[list[Array], list[Array]]:
    """Of blocks and of heads, for the mean cross-entropy plus supervision times that of each hidden block's head."""
    hidden, h = list[Array](), x
    for block in blocks:
        h = block.forward(h)
        hidden.append(h)
    _, delta = cross_entropy(h, y)
    by_heads = list[Array]()
    for k in reversed(range(len(blocks))):
        if k < len(heads):
            W, b = heads[k]
            _, e = cross_entropy(linear(hidden[k], W, b), y)
            back, *of_head = linear_gradient(hidden[k], W, supervision * e)
            delta, by_heads = delta + back, [*of_head, *by_heads]
        delta = blocks[k].backward(delta)
    return [g for block in blocks for g in block.gradients], by_heads


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize(("rule", "settings", "supervision", "learn"), RULES)
def test_all_weights(
    make_method: Make, net: str, rule: str, settings: dict[str, Any], supervision: float, learn: int
) -> None:
    """adam for adamw; frozen layers that decay; micro-batches summed or averaged without their sizes (5 images in parts
    of 2, 2 and 1); heads that are detached, weigh nothing, or stand on the classifier; a net widened to another width.
    """
    method = in_double(make_method(rule, task=colour_task(net), **settings))
    blocks = numpy_blocks(method.net)
    if rule == "random-features":
        assert [len(block.W) for block in blocks] == [8 * {"mlp": 7, "cnn": 3}[net], N_CLASSES]
    heads = [[number(p) for p in head.parameters()] for head in method.heads]
    assert len(heads) == (len(blocks) - 1 if supervision else 0)
    assert not any(w.any() for head in heads for w in head)
    learning = [w for block in blocks for w in block.weights][-2 * learn :]
    optimizer = AdamW(
        learning + [w for head in heads for w in head], settings.get("lr", 1e-3), settings.get("weight_decay", 1e-3)
    )
    data = batches(4)
    for x, y in data:
        of_blocks, of_heads = gradients(blocks, heads, number(x), y.numpy(), supervision)
        optimizer.step(of_blocks[-2 * learn :] + of_heads)
    found = train(method, data)
    assert_weights(method.net, blocks)
    if heads:
        assert_weights(method.heads, [w for head in heads for w in head])
    assert np.isfinite(found[-1]["loss"])
