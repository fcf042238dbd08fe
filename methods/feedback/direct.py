"""What rules with direct feedback share: a forward pass cut between blocks, and each layer's own gradient."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bench.api.net import Net

from .._shared.direct_feedback import Stage


def forward(net: Net, stages: list[Stage], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What hidden blocks give where the signal enters, and the scores: graphs that end at each block's input."""
    h, hidden = x, list[Tensor]()
    for stage in stages:
        hidden.append(stage.learn(h))
        h = stage.pool(hidden[-1].detach())
    return hidden, net.blocks[-1](h)


def backward(
    hidden: list[Tensor], logits: Tensor, sent: Tensor, feedback: Sequence[Tensor], e: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each layer's own gradient: hidden ones for the signal B_l `sent`, the output for its error e.

    One layer after another, the last first, so that no more than one signal is there at a time, and what a layer kept
    is free before the next one's turn. Empties `hidden`; gives B_l with what the layer has given, h_l.
    """
    torch.autograd.backward(logits, e)
    for B in reversed(feedback):
        h = hidden.pop()
        torch.autograd.backward(h, (sent @ B.flatten(1)).view_as(h))
        yield B, h.detach()
