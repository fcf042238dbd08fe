"""Feedback that learns: closed forms of what it tends to. Its steps stand beside numpy in test_feedback_steps.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.feedback.weight_mirror import WeightMirror
from torch import Tensor

from bench import Batch, Progress
from bench.runner import compute
from tests.methods.feedback.oracles import NETS, doubled

START = Progress(0, 1, 0)
Make = Callable[..., Any]
any_net = pytest.mark.parametrize("net", NETS)


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def differences(method: Any) -> list[Tensor]:
    return [layer.weight.detach() - B for layer, B in zip(method.layers, method.feedback, strict=True)]


# --- Kolen-Pollack


@any_net
@pytest.mark.parametrize(("lr", "decay", "steps"), [(0.01, 5.0, 40), (0.01, 0.0, 10), (0.1, 1.0, 150)])
def test_feedback_meets_the_weights_at_the_rate_of_the_decay(
    make_method: Make, batch64: Batch, net: str, lr: float, decay: float, steps: int
) -> None:
    """W_t - B_t = (1 - lr wd)^t (W_0 - B_0), whatever was learnt meanwhile; without decay they never come closer."""
    kp = doubled(make_method("kolen-pollack", net=net, net_settings=NETS[net], lr=lr, weight_decay=decay))
    start, weights = differences(kp), [layer.weight.detach().clone() for layer in kp.layers]
    for _ in range(steps):
        kp.train_step(batch64, START)
    for layer, W, first, now in zip(kp.layers, weights, start, differences(kp), strict=True):
        torch.testing.assert_close(now, (1 - lr * decay) ** steps * first, rtol=1e-8, atol=1e-13)
        assert not torch.allclose(layer.weight, W, atol=1e-3), "nothing was learnt meanwhile"


@any_net
def test_kolen_pollack_that_starts_at_the_weights_stays_backprop(make_method: Make, batch64: Batch, net: str) -> None:
    kp = doubled(make_method("kolen-pollack", net=net, net_settings=NETS[net], lr=0.01))
    backprop = make_method("backprop", net=net, net_settings=NETS[net], lr=0.01, weight_decay=1.0)
    backprop.net.double()
    with torch.no_grad():
        for layer, B in zip(kp.layers, kp.feedback, strict=True):
            B.copy_(layer.weight)
    for _ in range(10):
        losses = [method.train_step(batch64, START)["loss"] for method in (kp, backprop)]
        torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
    for p, q in zip(kp.net.parameters(), backprop.net.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


# --- direct Kolen-Pollack


def test_the_last_hidden_layers_direct_feedback_meets_the_output_weights(make_method: Make, batch64: Batch) -> None:
    """There the rule is Kolen-Pollack's, and so is the law of the difference."""
    dkp = doubled(make_method("direct-kolen-pollack", net="mlp", net_settings=NETS["mlp"], lr=0.01, weight_decay=5.0))
    W, B = dkp.net.blocks[-1].weight, dkp.feedback[-1]
    start = (W - B).detach().clone()
    for _ in range(40):
        dkp.train_step(batch64, START)
    torch.testing.assert_close((W - B).detach(), 0.95**40 * start, rtol=1e-8, atol=1e-13)


@any_net
def test_direct_feedback_at_rest_is_direct_feedback_alignment(make_method: Make, batch: Batch, net: str) -> None:
    dkp = make_method("direct-kolen-pollack", net=net, net_settings=NETS[net], feedback_rate=0)
    dfa = make_method("direct-feedback-alignment", net=net, net_settings=NETS[net])
    for _ in range(3):
        dkp.train_step(batch, START)
        dfa.train_step(batch, START)
    pairs = zip([*dkp.net.parameters(), *dkp.feedback], [*dfa.net.parameters(), *dfa.feedback], strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


# --- all three


@pytest.mark.parametrize("name", ["kolen-pollack", "direct-kolen-pollack", "weight-mirror"])
def test_feedback_learns_the_same_in_any_format_and_precision(make_method: Make, batch: Batch, name: str) -> None:
    """Steps of B are in its own format and dtype: a fused optimiser reads memory as it lies."""
    cpu, found = torch.device("cpu"), []
    for last, precision in ((False, "float32"), (True, "float32"), (False, "bfloat16")):
        method = make_method(name, net="cnn", net_settings={"width": 4, "depth": 3})
        if last:
            compute.to_channels_last(method)
        with compute.precision(precision, cpu):
            for _ in range(4):
                method.train_step(batch, START)
        found.append([B.detach().clone() for B in method.feedback])
    for B, same, near in zip(*found, strict=True):
        torch.testing.assert_close(same, B, rtol=1e-4, atol=1e-6)
        assert float(F.cosine_similarity(near.flatten(), B.flatten(), dim=0)) > 0.99


# --- weight mirror


@any_net
def test_mirror_steps_scatter_about_the_weights(make_method: Make, net: str) -> None:
    """The mean of 600 steps from B = 0: each entry within 5 standard errors of W, together as near as they say."""
    wm: WeightMirror = doubled(make_method("weight-mirror", net=net, net_settings=NETS[net], mirror_lr=1.0))
    steps = []
    for _ in range(600):
        wm.mirror()  # with eta = decay = 1 nothing is left of what B was
        steps.append([B.detach().clone() for B in wm.feedback])
    for layer, found in zip(wm.layers, map(torch.stack, zip(*steps, strict=True)), strict=True):
        W = layer.weight.detach()
        error = found.mean(0) - W
        stderr = found.std(0) / len(steps) ** 0.5
        assert (error.abs() <= 5 * stderr).all()
        assert 0.5 < float((error / stderr).square().mean()) < 1.5
        assert float(error.norm() / W.norm()) < 0.2


def test_what_the_mirror_keeps_of_its_noise_is_as_stated(make_method: Make) -> None:
    """|B - W|^2 / |W|^2 = eta / (2 - eta) (n + 1) / M in the mean over a stationary run."""
    wm: WeightMirror = doubled(
        make_method("weight-mirror", net="mlp", net_settings={"width": 64, "depth": 2}, mirror_lr=0.1, mirror_samples=8)
    )
    layer, B = wm.layers[0], wm.feedback[0]
    found = []
    for k in range(600):
        wm.mirror()
        if k >= 100:
            found.append((B - layer.weight).detach().square().sum() / layer.weight.detach().square().sum())
    expected = 0.1 / 1.9 * 65 / 8
    assert float(torch.stack(found).mean()) == pytest.approx(expected, rel=0.1)
