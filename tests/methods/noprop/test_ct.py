"""NoProp-CT against Eq. 9 and the samplers written out slowly, and the guards that common mistakes would trip."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from bench.methods.noprop.ct import NoPropCT
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from bench import Batch, Method
from tests.methods.noprop.oracles import p_out

LEARNED = {"embedding": "learned", "dim": 12}
POSTERIOR = {**LEARNED, "class_probability": "posterior"}
PROTOTYPE = {"embedding": "prototype", "start": "random"}
Make = Callable[..., NoPropCT]


@pytest.fixture
def make(make_method: Callable[..., Method], toy) -> Make:
    """make(net_settings, eta=...): NoProp-CT on the toy net."""
    return lambda net={}, **settings: make_method("noprop-ct", task=toy.task("denoiser-ct", T=6, **net), **settings)


def equation_9(method: NoPropCT, batch: Batch) -> Tensor:
    """The loss of one step, an example at a time, on the draws that the step will make."""
    net, schedule, draws = method.net, method.schedule, method.noise.clone_state()
    W, B, d = net.labels.weight, len(batch.y), net.labels.dim
    t = torch.rand(B, generator=draws)
    eps_t, eps_1 = (torch.randn(B, d, generator=draws) for _ in range(2))

    def gamma(t: Tensor) -> Tensor:
        def m(t: Tensor) -> Tensor:
            v, w = F.softplus(schedule.inner.weight.flatten()), F.softplus(schedule.outer.weight.flatten())
            return (w * torch.sigmoid(v * t + schedule.inner.bias)).sum()

        zero, one = torch.tensor(0.0), torch.tensor(1.0)
        return schedule.g0 + (schedule.g1 - schedule.g0) * (1 - (m(t) - m(zero)) / (m(one) - m(zero)))

    losses = []
    for i in range(B):
        u = W[batch.y[i]]
        at = t[i].clone().requires_grad_()
        (snr_slope,) = torch.autograd.grad(torch.exp(-gamma(at)), at, create_graph=True)
        abar_0, abar_t, abar_1 = (torch.sigmoid(-gamma(s)) for s in (torch.tensor(0.0), at, torch.tensor(1.0)))
        z_t = abar_t.sqrt() * u + (1 - abar_t).sqrt() * eps_t[i]
        z_1 = abar_1.sqrt() * u + (1 - abar_1).sqrt() * eps_1[i]
        u_hat = net.logits(z_t[None], batch.x[i : i + 1], t[i : i + 1])[0].softmax(0) @ W
        q_0 = Normal(abar_0.sqrt() * u, (1 - abar_0).sqrt())
        losses.append(
            F.cross_entropy(p_out(net.labels, z_1), batch.y[i])
            + kl_divergence(q_0, Normal(torch.zeros(d), torch.ones(d))).sum()
            + method.config.eta / 2 * snr_slope * ((u_hat - u) ** 2).sum()
        )
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    "net", [{}, LEARNED, POSTERIOR, PROTOTYPE], ids=["one-hot", "learned", "posterior", "prototype"]
)
def test_loss_and_gradients_are_those_of_equation_9(net: dict, make: Make, toy, watch_gradients, doubles: None) -> None:
    method, batch = make(net, eta=0.3), toy.batch(12)
    loss, parameters = equation_9(method, batch), dict(method.modules()["inference"].named_parameters())
    expected = torch.autograd.grad(loss, parameters.values())
    seen = watch_gradients(method.optimizer)
    assert float(method.train_step(batch, None)["loss"]) == pytest.approx(loss.item(), rel=1e-9)
    for (name, p), gradient in zip(parameters.items(), expected, strict=True):
        torch.testing.assert_close(
            seen[id(p)], gradient, rtol=1e-7, atol=1e-10, msg=lambda text, name=name: name + text
        )
    reached = ["1.g0", "1.g1", "1.inner.weight", "1.outer.weight", *(["0.labels.weight"] if net else [])]
    assert all(seen[id(parameters[name])].abs().max() > 0 for name in reached)


def test_every_parameter_moves(make: Make, toy) -> None:
    for net in ({}, LEARNED):
        method = make(net)
        before = {k: p.detach().clone() for k, p in method.modules()["inference"].named_parameters()}
        toy.teach(method, 3)
        assert [k for k, p in method.modules()["inference"].named_parameters() if torch.equal(p, before[k])] == []


def test_a_fixed_embedding_and_a_linear_schedule_leave_their_parts_alone(make: Make, toy) -> None:
    method = make(schedule="linear")
    assert {k for k, _ in method.schedule.named_parameters()} == {"g0", "g1"}
    toy.teach(method, 2)
    assert torch.equal(method.net.labels.weight, torch.eye(10))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "euler"])
@pytest.mark.parametrize("net", [{}, LEARNED], ids=["one-hot", "learned"])
def test_a_prediction_runs_the_whole_net_at_each_time(sampler: str, net: dict, make: Make, toy) -> None:
    """The path by the mean of each sampler's step, with the net evaluated from the image on at every one."""
    method, x = make(net, sampler=sampler, lr=1e-2), toy.batch(5).x
    toy.teach(method, 5)
    net_, W = method.net.eval(), method.net.labels.weight
    abar, slope, _ = method.schedule(torch.arange(7) / 6)
    z = torch.zeros(5, net_.labels.dim)
    for k in range(6):
        u = net_.logits(z, x, torch.full((5,), k / 6)).softmax(1) @ W
        a_s, a_t = abar[k], abar[k + 1]
        if sampler == "ancestral":
            r = a_s / a_t
            z = a_t.sqrt() * (1 - r) / (1 - a_s) * u + r.sqrt() * (1 - a_t) / (1 - a_s) * z
        elif sampler == "ddim":
            z = a_t.sqrt() * u + ((1 - a_t) / (1 - a_s)).sqrt() * (z - a_s.sqrt() * u)
        else:
            z = z - slope[k] / 2 * (a_s.sqrt() * u - a_s * z) / 6
    torch.testing.assert_close(method.predict(x), net_.labels.readout(z).detach(), rtol=1e-4, atol=1e-4)


def test_a_prediction_draws_its_start_and_each_step_s_noise(make: Make, toy) -> None:
    method, x = make(), toy.batch(5).x
    noise = torch.Generator().manual_seed(0)
    draws = noise.clone_state()
    net, abar = method.net.eval(), method.schedule(torch.arange(7) / 6).abar
    z = torch.randn(5, 10, generator=draws)
    for k in range(6):
        u, a_s, a_t = net.logits(z, x, torch.full((5,), k / 6)).softmax(1), abar[k], abar[k + 1]
        r = a_s / a_t
        z = a_t.sqrt() * (1 - r) / (1 - a_s) * u + r.sqrt() * (1 - a_t) / (1 - a_s) * z
        z = z + ((1 - a_t) * (1 - r) / (1 - a_s)).sqrt() * torch.randn(5, 10, generator=draws)
    torch.testing.assert_close(method.predict(x, noise), net.labels.readout(z).detach(), rtol=1e-4, atol=1e-4)


def test_true_embeddings_give_the_marginals_of_the_noising_process(make: Make, monkeypatch) -> None:
    """With uhat = u_y and z_0 ~ q(z_0 | y), z_1 has q(z_1 | y)'s mean and variance, in the method as it predicts."""
    method, n, u = make(), 100_000, F.one_hot(torch.tensor(3), 10).float()
    abar_0, abar_1 = method.schedule(torch.tensor([0.0, 1.0])).abar.detach()
    certain = torch.where(u > 0, 50.0, -50.0)
    monkeypatch.setattr(method.net, "along", lambda x, steps: lambda z, k: certain.expand(n, 10))
    monkeypatch.setattr(
        "bench.methods.noprop.ct.noise_like", lambda *of: abar_0.sqrt() * u + (1 - abar_0).sqrt() * torch.randn(n, 10)
    )
    method.net.labels.readout = torch.nn.Identity()
    z_1 = method.predict(torch.empty(n, 1, 8, 8), torch.Generator().manual_seed(0))
    assert (z_1.mean(0) - abar_1.sqrt() * u).abs().max() < 5 * ((1 - abar_1) / n).sqrt()
    assert (z_1.var(0) / (1 - abar_1) - 1).abs().max() < 5 * (2 / n) ** 0.5


def test_ways_are_every_sampler_in_growing_numbers_of_steps(make: Make, toy) -> None:
    method, x = make(sampler="heun"), toy.batch(5).x
    ways = {(way.sampler, way.steps): way for way in method.ways()}
    assert sorted(ways) == [(s, k) for s in ("ancestral", "ddim", "euler", "heun") for k in (1, 2, 5, 6)]
    noise = torch.Generator().manual_seed(0)
    own = method.predict(x, noise.clone_state())
    assert torch.equal(ways["heun", 6].predict(x, noise.clone_state()), own)
    assert not torch.equal(ways["heun", 5].predict(x, noise.clone_state()), own)


@pytest.mark.parametrize(("sampler", "per_step"), [("ancestral", 1), ("ddim", 1), ("euler", 1), ("heun", 2)])
def test_the_claimed_evaluations_are_those_made(sampler: str, per_step: int, make: Make, toy) -> None:
    method, calls = make(sampler=sampler), []
    method.net.denoiser.register_forward_hook(lambda *of: calls.append(1))
    method.predict(toy.batch(5).x)
    assert len(calls) == method.claims().inference_passes == 6 * per_step


def test_random_images_are_classified_at_chance(make: Make, toy) -> None:
    """A label that reaches the prediction by another way than the image would show here."""
    method = make({"hidden": 32}, lr=1e-2)
    toy.teach(method, 500)
    assert toy.accuracy(method, toy.batch()) > 0.9
    images = toy.batch()
    for way in method.ways():
        if way.steps == 6:  # each draw of p(y | x) is right as often as the net is sure
            assert (way.predict(images.x, toy.generator).argmax(1) == images.y).float().mean() > 0.6, way.sampler
    assert abs(toy.accuracy(method, toy.imageless_batch()) - 0.1) < 4 * (0.1 * 0.9 / 2000) ** 0.5


def test_artifacts_are_the_path_and_the_schedule_of_the_loss(make: Make, toy) -> None:
    method = make(eta=0.5)
    path, schedule = method.artifacts(toy.batch(4), toy.generator)
    assert path.y.shape == (4, 10, 101)
    assert path.x[[0, 50, 100]].tolist() == [0.0, 0.5, 1.0]
    time, (abar, weight) = schedule.x.double(), schedule.y.double().squeeze(1)
    snr = abar / (1 - abar)
    slopes = (snr[2:] - snr[:-2]) / (time[2:] - time[:-2])
    torch.testing.assert_close(weight[1:-1], 0.25 * slopes, rtol=1e-2, atol=1e-3)
