"""SoftHebb's rule as slow loops over images and positions."""

import math

import torch
from torch import Tensor, nn


def patches(layer: nn.Linear | nn.Conv2d, x: Tensor) -> list[Tensor]:
    """What the layer sees at each position of each image, flat."""
    if isinstance(layer, nn.Linear):
        return list(x)
    (kh, kw), edge = layer.kernel_size, layer.padding[0]
    assert isinstance(edge, int)
    assert layer.stride == layer.dilation == (1, 1)
    B, C, H, W = x.shape
    wide = torch.zeros(B, C, H + 2 * edge, W + 2 * edge, dtype=x.dtype)
    wide[:, :, edge : edge + H, edge : edge + W] = x
    return [
        wide[n, :, i : i + kh, j : j + kw].flatten()
        for n in range(B)
        for i in range(wide.shape[2] - kh + 1)
        for j in range(wide.shape[3] - kw + 1)
    ]


def slow_step(layer: nn.Linear | nn.Conv2d, x: Tensor, beta: float, eta: float, power: float) -> Tensor:
    """The weight after one step of the rule as the paper has it, neuron by neuron."""
    W = layer.weight.detach().flatten(1)
    dW = torch.zeros_like(W)
    for p in patches(layer, x):
        u = [float(w @ p) for w in W]
        shares = [math.exp(beta * (v - max(u))) for v in u]
        winner = u.index(max(u))
        for k, w in enumerate(W):
            y = shares[k] / sum(shares) * (1 if k == winner else -1)
            dW[k] += y * (p - u[k] * w)
    largest = float(dW.abs().max())
    rows = [w + eta * abs(float(w.norm()) - 1) ** power * dw / largest for w, dw in zip(W, dW, strict=True)]
    return torch.stack(rows).view_as(layer.weight)
