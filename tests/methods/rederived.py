"""Building blocks in numpy from which tests derive a rule anew: layers, losses, optimisers and step-size schedules.

Nothing here calls torch or the suite, so a test that is written in these terms from the paper's equations is
independent of the rule under test. `test_rederived.py` checks each block once against torch.

Shapes: vectors (B, n), maps (B, channels, H, W), linear weights (out, in), kernels (out, in, k, k) with odd k.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


# ---- layers -------------------------------------------------------------------------------------------------------


def linear(x: Array, W: Array, b: Array | float = 0.0) -> Array:
    """W x + b for each row; maps are flattened."""
    return np.asarray(x.reshape(len(x), -1) @ W.T + b)


def linear_gradient(x: Array, W: Array, delta: Array) -> tuple[Array, Array, Array]:
    """Gradients by x, W, b for a gradient delta by the output."""
    rows = x.reshape(len(x), -1)
    return (delta @ W).reshape(x.shape), delta.T @ rows, delta.sum(0)


def conv(x: Array, W: Array, b: Array | float = 0.0) -> Array:
    """Cross-correlation with zero padding k // 2 and stride 1: the map keeps its size."""
    r, (H, width) = W.shape[2] // 2, x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (r, r), (r, r)))
    y = np.zeros((len(x), len(W), H, width))
    for i in range(W.shape[2]):
        for j in range(W.shape[3]):
            y += np.einsum("bchw,oc->bohw", padded[:, :, i : i + H, j : j + width], W[:, :, i, j])
    return y + np.reshape(b, (1, -1, 1, 1))


def conv_gradient(x: Array, W: Array, delta: Array) -> tuple[Array, Array, Array]:
    """Gradients by x, W, b for a gradient delta by the output of `conv`."""
    r, (H, width) = W.shape[2] // 2, x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (r, r), (r, r)))
    back, dW = np.zeros_like(padded), np.zeros_like(W)
    for i in range(W.shape[2]):
        for j in range(W.shape[3]):
            seen = padded[:, :, i : i + H, j : j + width]
            dW[:, :, i, j] = np.einsum("bohw,bchw->oc", delta, seen)
            back[:, :, i : i + H, j : j + width] += np.einsum("bohw,oc->bchw", delta, W[:, :, i, j])
    return back[:, :, r : r + H, r : r + width], dW, delta.sum((0, 2, 3))


def relu(a: Array) -> Array:
    return a * (a > 0)


def max_pool(x: Array) -> Array:
    """The largest of each 2x2 window; odd last rows and columns are dropped."""
    windows = _windows(x)
    return np.asarray(windows.max(-1))


def max_pool_gradient(x: Array, delta: Array) -> Array:
    """delta to the largest of each window, to the first of them if several are alike."""
    windows, back = _windows(x), np.zeros_like(x)
    first = np.eye(4)[windows.argmax(-1)] * delta[..., None]
    h, w = delta.shape[2:]
    for place in range(4):
        back[:, :, place // 2 : 2 * h : 2, place % 2 : 2 * w : 2] = first[..., place]
    return back


def _windows(x: Array) -> Array:
    h, w = x.shape[2] // 2, x.shape[3] // 2
    return np.stack([x[:, :, i : 2 * h : 2, j : 2 * w : 2] for i in (0, 1) for j in (0, 1)], axis=-1)


# ---- losses -------------------------------------------------------------------------------------------------------


def softmax(scores: Array) -> Array:
    exp = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(exp / exp.sum(1, keepdims=True))


def one_hot(y: Labels, n_classes: int) -> Array:
    return np.eye(n_classes)[y]


def cross_entropy(scores: Array, y: Labels) -> tuple[float, Array]:
    """Mean over examples, and its gradient by the scores: (softmax - onehot) / B."""
    p = softmax(scores)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    return float(loss), (p - one_hot(y, scores.shape[1])) / len(y)


# ---- a block of the shared nets -----------------------------------------------------------------------------------


@dataclass
class Block:
    """pool(act(W x + b)): a block of the suite's mlp and cnn. `forward` keeps what `backward` needs.

    act: relu, tanh or identity. `backward` leaves `gradients` and returns the gradient by the input.
    """

    W: Array
    b: Array
    act: str = "relu"
    pool: bool = False
    x: Array = field(init=False)
    a: Array = field(init=False)  # before the activation
    h: Array = field(init=False)  # after it, before pooling
    gradients: list[Array] = field(init=False)  # by W and by b

    @property
    def weights(self) -> list[Array]:
        return [self.W, self.b]

    def forward(self, x: Array) -> Array:
        self.x, self.a = x, (conv if self.W.ndim == 4 else linear)(x, self.W, self.b)
        self.h = {"relu": relu, "tanh": np.tanh, "identity": np.asarray}[self.act](self.a)
        return max_pool(self.h) if self.pool else self.h

    def slope(self) -> Array:
        """Derivative of the activation."""
        if self.act == "identity":
            return np.ones_like(self.a)
        return np.asarray(1 - self.h**2 if self.act == "tanh" else (self.a > 0).astype(float))

    def before_activation(self, delta: Array) -> Array:
        """A gradient by the output, as one by the pre-activation."""
        delta = max_pool_gradient(self.h, delta) if self.pool else delta
        return np.asarray(delta.reshape(self.a.shape) * self.slope())

    def backward(self, delta: Array) -> Array:
        return self.through(self.before_activation(delta))

    def through(self, delta: Array) -> Array:
        """As `backward`, for a gradient by the pre-activation."""
        gradient = conv_gradient if self.W.ndim == 4 else linear_gradient
        back, *self.gradients = gradient(self.x, self.W, delta)
        return back


# ---- optimisers: each changes its parameters in place ---------------------------------------------------------------


@dataclass
class SGD:
    """v = momentum v + g + weight_decay w;  w -= lr v, or with Nesterov lr (g + weight_decay w + momentum v).

    The first v is g itself.
    """

    parameters: Sequence[Array]
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    v: list[Array] = field(default_factory=list)

    def step(self, gradients: Sequence[Array], lr: float | None = None) -> None:
        self.v = self.v or [np.zeros_like(w) for w in self.parameters]
        for w, g, v in zip(self.parameters, gradients, self.v, strict=True):
            g = g + self.weight_decay * w
            v[...] = self.momentum * v + g
            w -= (self.lr if lr is None else lr) * (g + self.momentum * v if self.nesterov else v)


@dataclass
class Adam:
    """Kingma, Ba 2015, with betas .9 and .999 and eps 1e-8. weight_decay: an L2 penalty, part of the gradient."""

    parameters: Sequence[Array]
    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    t: int = 0
    m: list[Array] = field(default_factory=list)
    v: list[Array] = field(default_factory=list)

    def step(self, gradients: Sequence[Array], lr: float | None = None) -> None:
        lr = self.lr if lr is None else lr
        self.m = self.m or [np.zeros_like(w) for w in self.parameters]
        self.v = self.v or [np.zeros_like(w) for w in self.parameters]
        self.t += 1
        (b1, b2), t = self.betas, self.t
        for w, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            g = self.penalised(g, w, lr)
            m[...] = b1 * m + (1 - b1) * g
            v[...] = b2 * v + (1 - b2) * g**2
            w -= lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)

    def penalised(self, g: Array, w: Array, lr: float) -> Array:
        return g + self.weight_decay * w


class AdamW(Adam):
    """Loshchilov, Hutter 2019: w -= lr weight_decay w, apart from the gradient."""

    def penalised(self, g: Array, w: Array, lr: float) -> Array:
        w -= lr * self.weight_decay * w
        return g


# ---- schedules ----------------------------------------------------------------------------------------------------


def falls(lr: float, done: float, at: Sequence[float], factor: float) -> float:
    """lr after each of the parts `at` of training multiplied it by factor; it falls with the step that begins there."""
    for part in at:
        if done >= part:
            lr = lr * factor
    return lr
