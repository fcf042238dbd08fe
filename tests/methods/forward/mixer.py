"""LocalMixer in numpy, from Figure 1 of arXiv 2210.03310, with the way back. Shape: tokens (B, P, C)."""

from collections.abc import Sequence

import numpy as np

from tests.methods.rederived import Array


def patches(x: Array, side: int) -> Array:
    """Square patches, row by row, each flat."""
    h, w = x.shape[2] // side, x.shape[3] // side
    cut = [x[:, :, i * h : (i + 1) * h, j * w : (j + 1) * w] for i in range(side) for j in range(side)]
    return np.stack([one.reshape(len(x), -1) for one in cut], axis=1)


class Norm:
    """LayerNorm over the channels of each group, without affine part."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def cut(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.groups, -1)

    def forward(self, x: Array) -> Array:
        c = self.cut(x)
        self.scale = 1 / np.sqrt(c.var(-1, keepdims=True) + 1e-5)
        self.y = (c - c.mean(-1, keepdims=True)) * self.scale
        return self.y.reshape(x.shape)

    def backward(self, delta: Array) -> Array:
        d = self.cut(delta)
        inner = d - d.mean(-1, keepdims=True) - self.y * (d * self.y).mean(-1, keepdims=True)
        return np.asarray((self.scale * inner).reshape(delta.shape))


class Layer:
    """f(x) = N(W N(x) + b). kind: channel, token (W mixes patches) or group (W cut by channel groups).

    backward leaves the gradients of W and b, and in `site` what it was given: the gradient behind the second N.
    """

    def __init__(self, kind: str, W: Array, b: Array, groups: int) -> None:
        self.kind, self.weights, self.groups = kind, [W, b], groups
        of = groups if kind == "group" else 1
        self.before, self.after = Norm(of), Norm(of)

    def forward(self, x: Array) -> Array:
        W, b = self.weights
        self.h = self.before.forward(x)
        if self.kind == "token":
            a = np.einsum("pq,bqc->bpc", W, self.h) + b[:, None]
        elif self.kind == "channel":
            a = self.h @ W.T + b
        else:
            parts = np.split(self.h, self.groups, axis=-1)
            a = np.concatenate([part @ w.T for part, w in zip(parts, W, strict=True)], axis=-1) + b
        self.y = self.after.forward(a)
        return self.y

    def backward(self, delta: Array) -> Array:
        W, _ = self.weights
        self.site = delta
        d = self.after.backward(delta)
        if self.kind == "token":
            back = np.einsum("pq,bpc->bqc", W, d)
            self.gradients = [np.einsum("bpc,bqc->pq", d, self.h), d.sum((0, 2))]
        elif self.kind == "channel":
            back = d @ W
            self.gradients = [np.einsum("bpo,bpi->oi", d, self.h), d.sum((0, 1))]
        else:
            ds, hs = (np.split(of, self.groups, axis=-1) for of in (d, self.h))
            back = np.concatenate([part @ w for part, w in zip(ds, W, strict=True)], axis=-1)
            by_W = [np.einsum("bpo,bpi->oi", part, h) for part, h in zip(ds, hs, strict=True)]
            self.gradients = [np.stack(by_W), d.sum((0, 1))]
        return self.before.backward(back)


class MixerBlock:
    """Layers with a ReLU behind each; all but the first block add their input before the last ReLU."""

    def __init__(self, weights: Sequence[Array], groups: int) -> None:
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        kinds = ["token", "channel", "group"] if len(pairs) == 3 else ["channel", "group"]
        self.residual = len(pairs) == 3
        self.layers = [Layer(kind, W, b, groups) for kind, (W, b) in zip(kinds, pairs, strict=True)]

    @property
    def weights(self) -> list[Array]:
        return [w for layer in self.layers for w in layer.weights]

    @property
    def gradients(self) -> list[Array]:
        return [g for layer in self.layers for g in layer.gradients]

    def forward(self, z: Array) -> Array:
        """`on`: where each layer's ReLU lets through."""
        h, self.on = z, list[Array]()
        for layer in self.layers:
            h = layer.forward(h)
            h = z + h if self.residual and layer is self.layers[-1] else h
            self.on.append(h > 0)
            h = h * self.on[-1]
        return h

    def backward(self, delta: Array) -> Array:
        delta = delta * self.on[-1]
        skipped = delta if self.residual else 0.0
        delta = self.layers[-1].backward(delta)
        for layer, on in zip(reversed(self.layers[:-1]), reversed(self.on[:-1]), strict=True):
            delta = layer.backward(delta * on)
        return np.asarray(delta + skipped)
