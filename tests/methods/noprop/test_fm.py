"""NoProp-FM against Eq. 11 and 13 and the exact flow, and the guards that common mistakes would trip."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from bench.methods.noprop.fm import NoPropFM
from bench.methods.noprop.samplers import last
from torch import Tensor

from bench import Batch, Method
from tests.methods.noprop.oracles import p_out

LEARNED = {"embedding": "learned", "dim": 12}
POSTERIOR = {**LEARNED, "class_probability": "posterior"}
PROTOTYPE = {"embedding": "prototype", "start": "random"}
Make = Callable[..., NoPropFM]


@pytest.fixture
def make(make_method: Callable[..., Method], toy) -> Make:
    """make(net_settings, sigma=...): NoProp-FM on the toy net."""
    return lambda net={}, **settings: make_method("noprop-fm", task=toy.task("denoiser-ct", T=6, **net), **settings)


def equations_11_and_13(method: NoPropFM, batch: Batch) -> Tensor:
    """The loss of one step, an example at a time, on the draws that the step will make."""
    net, sigma, draws = method.net, method.config.sigma, method.noise.clone_state()
    W, B = net.labels.weight, len(batch.y)
    t = torch.rand(B, generator=draws)
    z_0 = torch.randn(B, net.labels.dim, generator=draws)
    eps = torch.randn(B, net.labels.dim, generator=draws) if sigma else torch.zeros(B, net.labels.dim)
    losses = []
    for i in range(B):
        z_1 = W[batch.y[i]]
        z_t = t[i] * z_1 + (1 - t[i]) * z_0[i] + sigma * eps[i]
        v = net.logits(z_t[None], batch.x[i : i + 1], t[i : i + 1])[0] @ W
        loss = ((v - (z_1 - z_0[i])) ** 2).sum()
        if W.requires_grad:
            loss = loss + F.cross_entropy(p_out(net.labels, z_t + (1 - t[i]) * v), batch.y[i])
        losses.append(loss)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("net", [{}, LEARNED, POSTERIOR, PROTOTYPE], ids=["fixed", "learned", "posterior", "prototype"])
@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_loss_and_gradients_are_those_of_equations_11_and_13(
    net: dict, sigma: float, make: Make, toy, watch_gradients, doubles: None
) -> None:
    method, batch = make(net, sigma=sigma), toy.batch(12)
    loss, parameters = equations_11_and_13(method, batch), dict(method.modules()["inference"].named_parameters())
    expected = torch.autograd.grad(loss, parameters.values())
    seen = watch_gradients(method.optimizer)
    assert float(method.train_step(batch, None)["loss"]) == pytest.approx(loss.item(), rel=1e-9)
    for (name, p), gradient in zip(parameters.items(), expected, strict=True):
        torch.testing.assert_close(
            seen[id(p)], gradient, rtol=1e-7, atol=1e-10, msg=lambda text, name=name: name + text
        )


def exact_velocity(method: NoPropFM, y: Tensor) -> Callable[..., Callable[[Tensor, int], Tensor]]:
    """In place of the net: logits of v = (u_y - z) / (1 - t), which all straight lines to u_y obey."""

    def along(x: Tensor, steps: int) -> Callable[[Tensor, int], Tensor]:
        W = method.net.labels.weight
        return lambda z, k: (W[y] - z) / (1 - k / steps) @ torch.linalg.pinv(W)

    return along


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("net", [{}, LEARNED], ids=["fixed", "learned"])
def test_the_exact_velocity_lands_on_the_label(steps: int, net: dict, make: Make, monkeypatch) -> None:
    """Euler's steps follow straight lines without error, however few (within the span of W_embed, where v lives)."""
    method, y = make(net), torch.arange(40) % 10
    monkeypatch.setattr(method.net, "along", exact_velocity(method, y))
    x, W = torch.empty(40, 1, 8, 8), method.net.labels.weight
    noise = torch.Generator().manual_seed(0)
    z_1 = last(method._path(x, "euler", steps, noise))
    torch.testing.assert_close((z_1 - W[y]) @ torch.linalg.pinv(W), torch.zeros(40, 10), rtol=0, atol=1e-4)
    assert torch.equal(method._predict(x, noise, "euler", steps).argmax(1), y)


def test_the_scores_are_of_the_nearest_embedding(make: Make, toy, monkeypatch) -> None:
    """-|z_1 - u_y|^2: the readout has no say."""
    method = make(LEARNED)
    method.net.labels.readout = None
    z_0, W = torch.randn(8, 12), method.net.labels.weight
    monkeypatch.setattr("bench.methods.noprop.fm.noise_like", lambda *of: z_0)
    monkeypatch.setattr(method.net, "along", lambda x, steps: lambda z, k: torch.zeros(8, 10))
    expected = torch.stack([torch.stack([-((z - u) ** 2).sum() for u in W]) for z in z_0])
    torch.testing.assert_close(method.predict(toy.batch(8).x), expected)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("noisy", [True, False])
def test_a_prediction_runs_the_whole_net_at_each_time(solver: str, noisy: bool, make: Make, toy) -> None:
    """Euler's or Heun's steps of dz/dt = logits @ W_embed, the net evaluated from the image on at every one."""
    method, x = make(LEARNED, solver=solver, lr=1e-2), toy.batch(5).x
    toy.teach(method, 5)
    net, W = method.net.eval(), method.net.labels.weight.detach()

    def v(z: Tensor, k: int) -> Tensor:
        return net.logits(z, x, torch.full((5,), k / 6)).detach() @ W

    noise = torch.Generator().manual_seed(0)
    z = torch.randn(5, 12, generator=noise.clone_state()) if noisy else torch.zeros(5, 12)
    for k in range(6):
        slope = v(z, k)
        z = z + (slope if solver == "euler" else (slope + v(z + slope / 6, k + 1)) / 2) / 6
    scores = method.predict(x, noise if noisy else None)
    torch.testing.assert_close(scores, -(torch.cdist(z, W) ** 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("embedding", ["one-hot", "learned"])
def test_the_readout_is_trained_only_where_the_embedding_is(embedding: str, make: Make, toy) -> None:
    """Beside a fixed embedding it is no part of the method."""
    method = make({"embedding": embedding})
    claimed = {id(p) for p in method.modules()["inference"].parameters()}
    trained = {id(p) for group in method.optimizer.param_groups for p in group["params"]}
    readout, before = method.net.labels.readout.weight, method.net.labels.readout.weight.detach().clone()
    toy.teach(method, 2)
    assert claimed == trained
    assert (id(readout) in claimed) == (embedding == "learned")
    assert torch.equal(readout, before) == (embedding == "one-hot")


def test_ways_are_both_solvers_in_growing_numbers_of_steps(make: Make) -> None:
    assert [(w.sampler, w.steps) for w in make().ways()] == [(s, k) for s in ("euler", "heun") for k in (1, 2, 5, 6)]


@pytest.mark.parametrize(("solver", "per_step"), [("euler", 1), ("heun", 2)])
def test_the_claimed_evaluations_are_those_made(solver: str, per_step: int, make: Make, toy) -> None:
    method, calls = make(solver=solver), []
    method.net.denoiser.register_forward_hook(lambda *of: calls.append(1))
    method.predict(toy.batch(5).x)
    assert len(calls) == method.claims().inference_passes == 6 * per_step


def test_random_images_are_classified_at_chance(make: Make, toy) -> None:
    """A label that reaches the prediction by another way than the image would show here."""
    method = make({"hidden": 32}, lr=1e-2)
    toy.teach(method, 200)
    assert toy.accuracy(method, toy.batch()) > 0.9
    assert abs(toy.accuracy(method, toy.imageless_batch()) - 0.1) < 4 * (0.1 * 0.9 / 2000) ** 0.5


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_pictures_show_the_posterior_of_the_path(sigma: float, make: Make) -> None:
    """p(y | z_t) by Bayes' rule from densities of z_t ~ N(t u_y, (1 - t)^2 + sigma^2), equally likely classes."""
    method, z = make(sigma=sigma), torch.randn(5, 10)
    for t in (0.0, 0.4, 0.85):
        spread = ((1 - t) ** 2 + sigma**2) ** 0.5
        densities = [
            torch.distributions.Normal(t * F.one_hot(torch.tensor(k), 10).float(), spread).log_prob(z).sum(1)
            for k in range(10)
        ]
        expected = torch.stack(densities, dim=1).softmax(1)
        torch.testing.assert_close(method._probabilities(z, torch.tensor(t)), expected, rtol=1e-4, atol=1e-6)
    assert method._probabilities(z, torch.tensor(1.0)).isfinite().all()  # where the path has no spread
