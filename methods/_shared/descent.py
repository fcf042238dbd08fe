"""One step down the gradient of a loss, after which nothing of its graph is left."""

import torch
from torch import Tensor
from torch.optim import Optimizer


def descend(loss: Tensor, optimizer: Optimizer) -> Tensor:
    """Step the optimiser's parameters along the gradient of the loss; the loss, detached.

    Graph and gradients are freed before this returns: rules that take one such step per block retain for backward no
    more than the largest block does.
    """
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()
