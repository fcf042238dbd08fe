"""Direct feedback: where a teaching signal enters a hidden block, and the matrices B_l.

The signal enters at the output of the block's activation, before pooling, as in the code of Frenkel et al. 2021:
pooling sits behind that point and takes no part in learning. A block of another make, one with a skip connection
say, takes the signal at its output. B_l is dense: every unit at every position has a row of its own,
B_l ~ U(-1, 1) / sqrt(n_l) for n_l units, the scale at which a linear readout of these units would start.
"""

from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import nn

from bench.api.inference import inference
from bench.api.kinds import Input
from bench.api.net import Net

POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Stage:
    """A hidden block cut where the signal enters: `block(h) == pool(learn(h))`."""

    learn: nn.Module
    pool: nn.Module


def cut(net: Net) -> list[Stage]:
    """The hidden blocks, all but the last, each cut in two."""
    return [_cut(block) for block in net.blocks[:-1]]


def _cut(block: nn.Module) -> Stage:
    layers = list(block) if isinstance(block, nn.Sequential) else [block]
    k = len(layers)
    while isinstance(layers[k - 1], POOLING):
        k -= 1
    return Stage(nn.Sequential(*layers[:k]), nn.Sequential(*layers[k:]))


def direct_feedback(stages: list[Stage], inputs: Input, n_outputs: int, init: torch.Generator) -> list[nn.Parameter]:
    """B_l^T for each stage, on the CPU as the net still is. Shape: (n_outputs, *units of stage l)."""
    h, feedback = inputs.zeros(1), list[nn.Parameter]()
    with inference(*(part for stage in stages for part in (stage.learn, stage.pool))):
        for stage in stages:
            h = stage.learn(h)
            units = h.shape[1:]
            b = 1 / sqrt(prod(units))
            B = torch.empty(n_outputs, *units).uniform_(-b, b, generator=init)
            feedback.append(nn.Parameter(B, requires_grad=False))
            h = stage.pool(h)
    return feedback
