"""The adjoint method's gradients against backprop through the steps, and what it keeps in memory for them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from bench.methods.noprop.adjoint import Adjoint, AdjointSettings
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from bench import Batch, Facts, Method

LEARNED = {"embedding": "learned", "dim": 12}
Make = Callable[..., Adjoint]


@pytest.fixture
def make(make_method: Callable[..., Method], toy) -> Make:
    """make(net_settings, solver=...): the adjoint method on the toy net."""
    return lambda net, **settings: make_method("adjoint", task=toy.task("denoiser-ct", **net), **settings)


def loss_through_the_steps(method: Adjoint, batch: Batch) -> Tensor:
    """CE(p_out(y | z_1)) at the end of T steps of fourth order (Kutta's 3/8 rule), all of them kept."""
    net, T = method.net, method.net.T
    W, h = net.labels.weight, 1 / T

    def v(z: Tensor, t: float) -> Tensor:
        return net.logits(z, batch.x, torch.full((len(z),), t)) @ W

    z = torch.randn(len(batch.y), net.labels.dim, generator=method.noise.clone_state())
    for k in range(T):
        k_1 = v(z, k * h)
        k_2 = v(z + h / 3 * k_1, (k + 1 / 3) * h)
        k_3 = v(z + h * (k_2 - k_1 / 3), (k + 2 / 3) * h)
        k_4 = v(z + h * (k_1 - k_2 + k_3), (k + 1) * h)
        z = z + h / 8 * (k_1 + 3 * k_2 + 3 * k_3 + k_4)
    return F.cross_entropy(net.labels.readout(z), batch.y)


@pytest.mark.parametrize("net", [{}, LEARNED], ids=["one-hot", "learned"])
def test_the_gradient_is_that_of_backprop_through_the_solver(
    net: dict, make: Make, toy, watch_gradients, doubles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every parameter, the image tower's and a learned W_embed's among them.

    Both discretise the same gradient, so they agree where the steps resolve the velocity's change in time: the clock
    is slowed down to what fifty steps follow.
    """
    monkeypatch.setattr("bench.methods.noprop.towers.TIME_SCALE", 10.0)
    method, batch = make({"T": 50, **net}, solver="rk4"), toy.batch(6)
    parameters = dict(method.net.named_parameters())
    loss = loss_through_the_steps(method, batch)
    expected = torch.autograd.grad(loss, parameters.values())
    seen = watch_gradients(method.optimizer)
    assert float(method.train_step(batch, None)["loss"]) == pytest.approx(loss.item(), rel=1e-9)
    for (name, p), gradient in zip(parameters.items(), expected, strict=True):
        assert gradient.norm() > 0, name
        assert (seen[id(p)] - gradient).norm() < 1e-5 * gradient.norm(), name


def test_the_gradient_of_euler_s_steps_nears_that_of_backprop_as_they_shrink(
    make: Make, toy, watch_gradients, doubles: None
) -> None:
    """The adjoint's own discretisation: an error that halves with the step."""
    batch, errors = toy.batch(6), []
    for T in (20, 40, 80):
        method = make({"T": T})
        parameters = list(method.net.parameters())
        net, W = method.net, method.net.labels.weight
        z = torch.randn(6, 10, generator=method.noise.clone_state())
        for k in range(T):
            z = z + net.logits(z, batch.x, torch.full((6,), k / T)) @ W / T
        expected = torch.autograd.grad(F.cross_entropy(net.labels.readout(z), batch.y), parameters)
        seen = watch_gradients(method.optimizer)
        method.train_step(batch, None)
        errors.append(sum((seen[id(p)] - g).square().sum() for p, g in zip(parameters, expected, strict=True)).sqrt())
    orders = torch.stack(errors).log2().diff().neg().tolist()
    assert orders == pytest.approx([1.0, 1.0], abs=0.25)


def bytes_kept(method: Adjoint, x: Tensor) -> int:
    """What the graph of z_1 holds beside the parameters themselves."""
    held: dict[int, int] = {}
    own = {p.data_ptr() for p in method.net.parameters()}

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        z_1 = method._arrive(x)
    assert z_1.requires_grad
    return sum(held.values())


def test_what_is_kept_for_the_gradient_does_not_grow_with_the_steps(make: Make, toy) -> None:
    x = toy.batch(16).x
    few, many = (bytes_kept(make({"T": T}), x) for T in (2, 40))
    assert many == few


@pytest.mark.parametrize(("solver", "per_step"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
@pytest.mark.parametrize("T", [4, 61])
def test_the_claimed_evaluations_are_those_made(solver: str, per_step: int, T: int, make: Make, toy) -> None:
    """T steps forward and T backward, also where T times the rounded 1/T is not 1; T steps in a prediction."""
    method, calls = make({"T": T}, solver=solver), []
    method.net.denoiser.head.register_forward_hook(lambda *of: calls.append(1))
    method.train_step(toy.batch(4), None)
    assert len(calls) == method.claims().forward_passes == 2 * T * per_step
    calls.clear()
    method.predict(toy.batch(4).x)
    assert len(calls) == method.claims().inference_passes == T


def test_every_parameter_moves(make: Make, toy) -> None:
    for net in ({"T": 3}, {"T": 3, **LEARNED}):
        method = make(net)
        before = {k: p.detach().clone() for k, p in method.modules()["inference"].named_parameters()}
        toy.teach(method, 3)
        assert [k for k, p in method.modules()["inference"].named_parameters() if torch.equal(p, before[k])] == []


def test_prototypes_are_refused_with_the_reason(toy) -> None:
    task = toy.task("denoiser-ct", embedding="prototype")
    refused = Adjoint.refuse(task, AdjointSettings(), Facts("cpu", 1, 8))
    assert refused == "adjoint needs a velocity that does not change between calls; prototypes pass through dropout"


def test_random_images_are_classified_at_chance(make: Make, toy) -> None:
    """A label that reaches the prediction by another way than the image would show here."""
    method = make({"T": 4, "hidden": 32}, lr=1e-2)
    toy.teach(method, 100)
    assert toy.accuracy(method, toy.batch()) > 0.9
    assert abs(toy.accuracy(method, toy.imageless_batch()) - 0.1) < 4 * (0.1 * 0.9 / 2000) ** 0.5
