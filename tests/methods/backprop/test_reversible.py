"""Reversible backprop against autograd through the same net, and what it keeps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench import Batch, Facts, Progress
from bench.api.errors import ConfigError
from bench.audit.passes import passes
from bench.measure.live_peak import LivePeak
from bench.measure.retained import retained_bytes
from bench.nets.reversible import Reversible
from bench.testing import small_task

START = Progress(0, 1, 0)
NETS = [
    {"layers": "linear", "width": 16, "depth": 5},
    {"layers": "linear", "width": 16, "depth": 5, "activation": "tanh"},
    {"layers": "conv", "width": 6, "depth": 3},
]
Make = Callable[..., Any]
any_net = pytest.mark.parametrize("settings", NETS)


@any_net
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 1e-6, 1e-12), (torch.float32, 1e-3, 1e-6)])
def test_gradients_are_autograds(
    make_method: Make, batch: Batch, settings: dict[str, Any], dtype: torch.dtype, rtol: float, atol: float
) -> None:
    method = make_method("backprop-reversible", net_settings=settings)
    task = small_task(Reversible, settings)
    plain = task.build_net(torch.Generator())
    plain.load_state_dict(method.net.state_dict())
    for net in (method.net, plain):
        net.to(dtype)
    x = batch.x.to(dtype)
    expected = F.cross_entropy(plain(x), batch.y)
    expected.backward()
    loss = method.train_step(Batch(x, batch.y), START)["loss"]
    torch.testing.assert_close(loss, expected.detach())
    for p, q in zip(method.net.parameters(), plain.parameters(), strict=True):
        assert q.grad.count_nonzero() > 0
        torch.testing.assert_close(p.grad, q.grad, rtol=rtol, atol=atol)


@any_net
@pytest.mark.parametrize("parts", [1, 3])
def test_training_goes_the_way_of_plain_backprop(
    make_method: Make, batch: Batch, settings: dict[str, Any], parts: int
) -> None:
    batch = Batch(batch.x.double(), batch.y)
    methods = [
        make_method(name, net="reversible", net_settings=settings, micro_batches=parts, lr=0.01)
        for name in ("backprop-reversible", "backprop")
    ]
    for method in methods:
        method.net.double()
    for _ in range(5):
        losses = [method.train_step(batch, START)["loss"] for method in methods]
        torch.testing.assert_close(*losses, rtol=1e-8, atol=0)
    torch.testing.assert_close(*(method.predict(batch.x) for method in methods), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("layers", ["linear", "conv"])
def test_what_it_retains_does_not_grow_with_depth(make_method: Make, batch: Batch, layers: str) -> None:
    def kept(name: str, depth: int) -> int:
        settings = {"layers": layers, "width": 8, "depth": depth}
        method = make_method(name, net="reversible", net_settings=settings)
        return retained_bytes(lambda: method.train_step(batch, START), method.net.parameters())

    assert kept("backprop-reversible", 2) == kept("backprop-reversible", 3) == kept("backprop-reversible", 12)
    streams = 16 * 8 * 4 * (64 if layers == "conv" else 1)  # bytes of what one coupling gives
    assert kept("backprop", 12) - kept("backprop", 2) >= 10 * streams
    assert kept("backprop-reversible", 2) < kept("backprop", 2)


def test_activations_alive_do_not_grow_with_depth(make_method: Make, batch: Batch) -> None:
    """Nor in the step as a whole, where graphs are not all there is; weights and their gradients do.

    In a large batch, so that the peak is where activations are, and not in the optimiser's step.
    """
    large = Batch(batch.x.repeat(8, 1, 1, 1), batch.y.repeat(8))

    def alive(name: str, depth: int) -> int:
        method = make_method(name, net="reversible", net_settings={"layers": "conv", "width": 8, "depth": depth})
        method.train_step(large, START)
        with LivePeak().watch(method, [*large]) as peak:
            method.train_step(large, START)
        return int(peak()["live_activations_bytes"])

    assert alive("backprop-reversible", 3) == alive("backprop-reversible", 12)
    assert alive("backprop", 12) > 2 * alive("backprop-reversible", 12)


def test_of_the_couplings_the_output_alone_is_kept(make_method: Make, batch: Batch) -> None:
    """Bytes by hand: images, the couplings' output, its rectified copy for the read-out, and what the loss keeps."""
    method = make_method("backprop-reversible", net_settings={"width": 8, "depth": 4})
    images, streams, log_probabilities = 64, 8, 10
    expected = len(batch.x) * 4 * (images + 2 * streams + log_probabilities) + batch.y.nbytes
    most = retained_bytes(lambda: method.train_step(batch, START), method.net.parameters())
    one_graph = len(batch.x) * 4 * 2 * streams  # of the residual function that is evaluated again
    assert expected <= most + one_graph
    assert most <= expected + one_graph


@pytest.mark.parametrize("parts", [1, 2])
def test_couplings_are_evaluated_twice(make_method: Make, batch: Batch, parts: int) -> None:
    method = make_method("backprop-reversible", micro_batches=parts)
    assert passes(method, lambda: method.train_step(batch, START)) == method.claims().forward_passes == 2 * parts


@pytest.mark.parametrize("setting", [{"checkpoint": True}, {"supervision": 0.5}, {"learns": "last"}])
def test_what_needs_kept_activations_is_refused(catalog: Any, setting: dict[str, Any]) -> None:
    cls = catalog.methods["backprop-reversible"].load()
    with pytest.raises(ConfigError, match=next(iter(setting))):
        cls.refuse(small_task(Reversible), cls.Config(**setting), Facts("cpu", 1, 16))
