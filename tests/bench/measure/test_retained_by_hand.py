"""Bytes retained for backward by whole methods, tensor by tensor. A float32 has 4 bytes, an index 8, a mask 2.

No rule of the forward gradient knows the denoiser and NoProp runs on nothing else, so two nets are counted: the mlp
for backprop, forward gradient and SPSA, the denoiser for backprop, NoProp-DT and SPSA.
"""

from collections.abc import Callable

import pytest
import torch

from bench import Batch, Method, Progress
from bench.measure.retained import Retained

B, M = 16, 10  # images, classes
PIXELS = 64  # of an image of 8 x 8
Make = Callable[..., Method]


def retained(method: Method) -> object:
    """In a second step, as the harness reads it."""
    batch = Batch(torch.randn(B, 1, 8, 8), torch.arange(B) % M)
    method.train_step(batch, Progress(0, 2, 0))
    with Retained().watch(method, ()) as reading:
        method.train_step(batch, Progress(1, 2, 0))
    return reading()["retained_bytes"]


def cross_entropy() -> int:
    log_probabilities = 4 * B * M  # log-softmax's output, which the loss takes
    labels = 8 * B
    weight_of_all = 4  # what the mean divides by
    return log_probabilities + labels + weight_of_all


def mlp(width: int, depth: int) -> int:
    images = 4 * B * PIXELS  # input of the first layer
    hidden = depth * 4 * B * width  # ReLU's output, in which its derivative is written; input of the next layer
    return images + hidden + cross_entropy()


@pytest.mark.parametrize(("width", "depth"), [(32, 2), (8, 5)])
def test_on_an_mlp(make_method: Make, width: int, depth: int) -> None:
    """Backprop keeps each layer's input; forward gradients and finite differences build no graph."""
    of = {
        name: retained(make_method(name, net="mlp", net_settings={"width": width, "depth": depth}))
        for name in ("backprop", "forward-gradient", "spsa")
    }
    assert of == {"backprop": mlp(width, depth), "forward-gradient": 0, "spsa": 0}


def batch_norm(units: int) -> int:
    """Without its input and output, which belong to its neighbours."""
    running = 2 * 4 * units  # mean and variance, buffers
    of_batch = 2 * 4 * units  # mean and inverse deviation
    return running + of_batch


def dropped_out(units: int) -> int:
    """ReLU and dropout of `units` an image: its input is overwritten by ReLU's output."""
    rectified = 4 * B * units
    mask = 2 * B * units
    return rectified + mask


def image_tower(w: int, hidden: int) -> int:
    """The images themselves, which all blocks share, are counted elsewhere."""
    first = 4 * B * 64 * w + 8 * B * 16 * w  # convolution's output, in which pooling finds the places it took
    first += dropped_out(16 * w) + 4 * B * 16 * w  # and the dropped-out, input of the next convolution
    second = dropped_out(16 * 2 * w) + 4 * B * 16 * 2 * w
    third = 4 * B * 16 * 4 * w + 8 * B * 4 * 4 * w
    third += dropped_out(4 * 4 * w)
    flat = 4 * B * 4 * 4 * w  # a copy: the channels come last in memory
    features = 4 * B * hidden  # input of the norm
    return first + second + third + flat + features + batch_norm(hidden)


def label_path(hidden: int) -> int:
    z = 4 * B * M
    normed = 3 * (4 * B * hidden + batch_norm(hidden))  # inputs of the three norms
    rectified = 2 * 4 * B * hidden  # in place; inputs of the next layers
    return z + normed + rectified


def head(hidden: int) -> int:
    joined = 4 * B * 2 * hidden
    normed = 4 * B * hidden + batch_norm(hidden) + 4 * B * hidden // 2 + batch_norm(hidden // 2)
    rectified = 4 * B * hidden + 4 * B * hidden // 2
    return joined + normed + rectified


def block(w: int, hidden: int) -> int:
    probabilities = 4 * B * M
    return image_tower(w, hidden) + label_path(hidden) + head(hidden) + probabilities


IMAGES = 4 * B * PIXELS
EMBEDDING = 4 * M * M  # one-hot: a buffer, through which the guess is computed


@pytest.mark.parametrize(("T", "w", "hidden"), [(2, 4, 32), (3, 2, 6)])
def test_on_the_denoiser(make_method: Make, T: int, w: int, hidden: int) -> None:
    """Backprop keeps all blocks, NoProp one at a time beside the error that its loss squares; SPSA none."""
    net = {"T": T, "width": w, "hidden": hidden}
    gates = 4 * T + T * 4 * B * M  # tanh's output, and what each gate multiplies
    readout = 4 * B * M  # z_T
    error = 4 * B * M
    of = {
        name: retained(make_method(name, net="denoiser", net_settings=net, **settings))
        for name, settings in {"backprop": {}, "noprop-dt": {"execution": "loop"}, "spsa": {}}.items()
    }
    assert of == {
        "backprop": IMAGES + EMBEDDING + T * block(w, hidden) + gates + readout + cross_entropy(),
        "noprop-dt": IMAGES + EMBEDDING + block(w, hidden) + error,
        "spsa": 0,
    }
