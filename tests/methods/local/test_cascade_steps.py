"""cascade over whole steps on 3-channel images: all weights beside numpy, every stage's edge included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.methods.rederived import AdamW, cross_entropy
from tests.methods.whole_steps import ON, assert_weights, batches, colour_task, in_double, number, numpy_blocks, train

Make = Callable[..., Any]


@pytest.mark.parametrize("net", ON)
@pytest.mark.parametrize("stages", [None, 3])
def test_all_weights(make_method: Make, net: str, stages: int | None) -> None:
    """adam for adamw; a stage that starts a step early or late, without new weights, or with moments that it inherits;
    frozen layers that decay; weights drawn that are the first ones again. 12 steps: 3 or 4 a stage.
    """
    task = colour_task(net)
    method = in_double(make_method("cascade", task=task, stages=stages))
    init = torch.Generator().set_state(method.init.get_state())
    blocks = numpy_blocks(method.net)
    learning = {4: [4, 3, 2, 1], 3: [4, 3, 2]}[stages or 4]  # blocks from below; 4 over 3 stages: 2, 1, 1
    part, data = 12 // len(learning), batches(12)
    optimizer = AdamW([w for block in blocks for w in block.weights], 1e-3, 1e-3)
    for step, (x, y) in enumerate(data):
        n = learning[step // part]
        if step % part == 0 and step > 0:
            blocks[:n] = numpy_blocks(task.build_net(init))[:n]
            optimizer = AdamW([w for block in blocks[:n] for w in block.weights], 1e-3, 1e-3)
        h = number(x)
        for block in blocks:
            h = block.forward(h)
        _, delta = cross_entropy(h, y.numpy())
        for block in reversed(blocks):
            delta = block.backward(delta)
        optimizer.step([g for block in blocks[:n] for g in block.gradients])
    train(method, data)
    assert_weights(method.net, blocks)
