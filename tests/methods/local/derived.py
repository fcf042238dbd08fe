"""Pieces of local rules in numpy, from the papers, with gradients: similarity matching, heads, layer norm, contrast."""

from collections.abc import Sequence

import numpy as np

from tests.methods.rederived import (
    Array,
    Labels,
    conv,
    conv_gradient,
    cross_entropy,
    linear,
    linear_gradient,
    one_hot,
    relu,
)


def spread(z: Array) -> tuple[Array, Array]:
    """Standard deviation of each channel over space, and its derivative by z. Shape: (B, C, H, W) to (B, C)."""
    n = z.shape[2] * z.shape[3]
    centred = z - z.mean((2, 3), keepdims=True)
    std = np.sqrt((centred**2).sum((2, 3)) / (n - 1))
    return std, centred / ((n - 1) * std[:, :, None, None])


def length(rows: Array) -> Array:
    """Of each row; rows of dead units have none, and no gradient passes them."""
    return np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def unit(rows: Array) -> Array:
    return np.asarray(rows / length(rows))


def unit_gradient(rows: Array, delta: Array) -> Array:
    """Through rows / |rows|."""
    u = unit(rows)
    return (delta - u * (u * delta).sum(1, keepdims=True)) / length(rows)


def matching(z: Array, y: Labels, n_classes: int) -> tuple[float, Array]:
    """1/N^2 |S(z) - S(onehot y)|^2 and its gradient; S: cosines of rows, each less its mean. Shape: z (N, n)."""
    N = len(z)
    c = z - z.mean(1, keepdims=True)
    target = one_hot(y, n_classes)
    t = unit(target - target.mean(1, keepdims=True))
    D = unit(c) @ unit(c).T - t @ t.T
    back = unit_gradient(c, 4 / N**2 * D @ unit(c))
    return float((D**2).sum() / N**2), back - back.mean(1, keepdims=True)


def contrast(z: Array, temperature: float) -> tuple[float, Array]:
    """NT-Xent and its gradient. Shape: z (2N, n), row n + N the other view of row n."""
    n = len(z)
    u, other = unit(z), (np.arange(n) + n // 2) % n
    e = np.exp(u @ u.T / temperature) * (1 - np.eye(n))
    P = e / e.sum(1, keepdims=True)
    ds = (P - np.eye(n)[other]) / n
    return float(-np.log(P[np.arange(n), other]).mean()), unit_gradient(z, (ds + ds.T) @ u / temperature)


def mean_pool(h: Array, k: int) -> Array:
    """Means of k x k windows, the smaller ones at the edge included."""
    H, W = h.shape[2:]
    rows = [[h[:, :, i : i + k, j : j + k].mean((2, 3)) for j in range(0, W, k)] for i in range(0, H, k)]
    return np.stack([np.stack(row, axis=2) for row in rows], axis=2)


def mean_pool_gradient(h: Array, k: int, delta: Array) -> Array:
    back = np.zeros_like(h)
    for i in range(delta.shape[2]):
        for j in range(delta.shape[3]):
            window = back[:, :, i * k : (i + 1) * k, j * k : (j + 1) * k]
            window += delta[:, :, i, j][:, :, None, None] / (window.shape[2] * window.shape[3])
    return back


def normalised(x: Array, eps: float = 1e-5) -> tuple[Array, Array]:
    """Each row to mean 0 and variance 1, and 1 / its deviation. Shape: (B, ...) to the same, (B, 1)."""
    rows = x.reshape(len(x), -1)
    centred = rows - rows.mean(1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    return (centred * scale).reshape(x.shape), scale


def normalised_gradient(x: Array, delta: Array, eps: float = 1e-5) -> Array:
    n, scale = normalised(x, eps)
    n, d = n.reshape(len(x), -1), delta.reshape(len(x), -1)
    back = scale * (d - d.mean(1, keepdims=True) - n * (n * d).mean(1, keepdims=True))
    return np.asarray(back.reshape(x.shape))


class Pred:
    """CE(head(h), y): weights in the order of the suite's head, and their gradients after a call."""

    def __init__(self, weights: Sequence[Array], kind: str = "linear", k: int = 1) -> None:
        self.weights, self.kind, self.k = list(weights), kind, k
        self.gradients: list[Array] = []

    def __call__(self, h: Array, y: Labels) -> tuple[float, Array]:
        *below, W, b = self.weights if len(self.weights) % 2 == 0 else [*self.weights, np.zeros(1)]
        read, a = h, h
        if self.kind == "conv":
            assert below[0].shape == (h.shape[1], h.shape[1], 3, 3)
            a = conv(h, *below)
            read = relu(a)
        pooled = mean_pool(read, self.k) if self.k > 1 else read
        rows = pooled.reshape(len(h), -1)
        if self.kind == "mlp":
            a = linear(rows, *below)
            inner = relu(a)
        else:
            inner = rows
        loss, delta = cross_entropy(linear(inner, W, b), y)
        back, *gradients = linear_gradient(inner, W, delta)
        if self.kind == "mlp":
            back, *first = linear_gradient(rows, below[0], back * (a > 0))
            gradients = [*first, *gradients]
        back = back.reshape(pooled.shape)
        back = mean_pool_gradient(read, self.k, back) if self.k > 1 else back
        if self.kind == "conv":
            back, *first = conv_gradient(h, below[0], back * (a > 0))
            gradients = [*first, *gradients]
        self.gradients = gradients[: len(self.weights)]
        return loss, back


class Sim:
    """1/N^2 |S(g(h)) - S(onehot(y))|^2; g linear, or a 3x3 convolution whose channels' spread over space counts."""

    def __init__(self, weights: Sequence[Array], n_classes: int) -> None:
        (self.W,), self.n_classes = weights, n_classes
        self.weights, self.gradients = [self.W], list[Array]()

    def __call__(self, h: Array, y: Labels) -> tuple[float, Array]:
        assert self.W.shape == (h.shape[1], h.shape[1], 3, 3)[: h.ndim]
        if h.ndim == 4 and h[0, 0].size == 1:  # a single place, whose spread would be 0: its value itself
            z = conv(h, self.W)[:, :, 0, 0]
            loss, delta = matching(z, y, self.n_classes)
            back, dW, _ = conv_gradient(h, self.W, delta[:, :, None, None])
        elif h.ndim == 2:
            loss, delta = matching(linear(h, self.W), y, self.n_classes)
            back, dW, _ = linear_gradient(h, self.W, delta)
        else:
            std, slope = spread(conv(h, self.W))
            loss, delta = matching(std, y, self.n_classes)
            back, dW, _ = conv_gradient(h, self.W, delta[:, :, None, None] * slope)
        self.gradients = [dW]
        return loss, back


class PredSim:
    """(1 - beta) pred + beta sim."""

    def __init__(self, pred: Pred, sim: Sim, beta: float) -> None:
        self.pred, self.sim, self.beta = pred, sim, beta
        self.weights, self.gradients = [*pred.weights, *sim.weights], list[Array]()

    def __call__(self, h: Array, y: Labels) -> tuple[float, Array]:
        (p, dp), (s, ds) = self.pred(h, y), self.sim(h, y)
        self.gradients = [(1 - self.beta) * g for g in self.pred.gradients] + [self.beta * self.sim.gradients[0]]
        return (1 - self.beta) * p + self.beta * s, (1 - self.beta) * dp + self.beta * ds


class Classifier:
    """CE of the module's own output, which is scores."""

    def __init__(self) -> None:
        self.weights, self.gradients = list[Array](), list[Array]()

    def __call__(self, scores: Array, y: Labels) -> tuple[float, Array]:
        return cross_entropy(scores, y)
