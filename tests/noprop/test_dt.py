"""NoProp-DT against the equations written out slowly, and the guards that common mistakes would trip."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import Batch, Seeds, Task
from bench.nets.layers import noise_like
from methods.noprop.dt import NoPropDT, NoPropDTSettings
from methods.noprop.objective import diffuse

TASK = Task("toy", 10, (1, 8, 8), 100, "denoiser", {"T": 4, "width": 4, "hidden": 16, "dropout": 0.0})


def make(seed: int = 0, task: Task = TASK, **settings: Any) -> NoPropDT:
    config = NoPropDTSettings(**{"execution": "loop", **settings})
    return NoPropDT(task, config, device=torch.device("cpu"), seeds=Seeds(seed))


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(32, 1, 8, 8, generator=generator), torch.arange(32) % 10)


def test_the_loss_is_equation_8(batch: Batch) -> None:
    """One step's loss equals Eq. 8 averaged over t, written from the equations, on the same noise."""
    method = make(eta=0.3)
    noises = [_replay(g) for g in (*method.noise, method.readout_noise)]
    net, u_y = method.net.train(), F.one_hot(batch.y, 10).float()
    eps = [torch.randn(32, 10, generator=g) for g in noises]
    T = 4
    f = [torch.cos(torch.tensor((((T - t) / T + 0.008) / 1.008) * torch.pi / 2)) ** 2 for t in range(T + 1)]
    abar = [float((x / f[T]).clamp(1e-3, 1 - 1e-3)) for x in f]
    snr = [a / (1 - a) for a in abar]
    total = 0.0
    with torch.no_grad():
        z_T = abar[T] ** 0.5 * u_y + (1 - abar[T]) ** 0.5 * eps[T]
        cross_entropy = F.cross_entropy(net.labels.readout(z_T), batch.y)
        for t in range(1, T + 1):
            z = abar[t - 1] ** 0.5 * u_y + (1 - abar[t - 1]) ** 0.5 * eps[t - 1]
            squared = (net.blocks[t - 1](z, batch.x).softmax(1) - u_y).square().sum(1).mean()
            L_t = cross_entropy + T / 2 * 0.3 * (snr[t] - snr[t - 1]) * squared
            total += float(L_t) / T
    fresh = make(eta=0.3)
    assert float(fresh.train_step(batch, None)["loss"]) == pytest.approx(total, rel=1e-4)


def test_a_block_learns_from_its_own_term_alone(batch: Batch) -> None:
    """Training one block leaves every other parameter without a gradient and unmoved."""
    method = make()
    before = {k: v.clone() for k, v in method.net.state_dict().items()}
    method._train_block(2, batch, share=1.0)
    moved = {k for k, v in method.net.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert {k.split(".")[1] for k in moved} == {"1"}
    assert all(k.startswith("blocks.") for k in moved)


def test_every_parameter_is_in_one_optimiser_and_moves(batch: Batch) -> None:
    method = make()
    trained = [p for o in (*method.optimizers, method.shared_optimizer) for g in o.param_groups for p in g["params"]]
    claimed = list(method.modules()["inference"].parameters())
    assert sorted(map(id, trained)) == sorted(map(id, claimed))
    before = [p.detach().clone() for p in claimed]
    for _ in range(3):
        method.train_step(batch, None)
    still = [p.shape for b, p in zip(before, claimed, strict=True) if torch.equal(b, p)]
    assert still == []


def test_threads_change_nothing(batch: Batch) -> None:
    """Block-parallel execution ends with the loop's parameters, bit for bit, on one intra-op thread each."""
    loop, parallel = make(execution="loop"), make(execution="parallel")
    torch.set_num_threads(1)
    for _ in range(3):
        a, b = loop.train_step(batch, None), parallel.train_step(batch, None)
    assert torch.equal(a["loss"], b["loss"])
    for (name, p), q in zip(loop.net.state_dict().items(), parallel.net.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


def test_true_embeddings_give_the_marginals_of_the_noising_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With uhat = u_y and z_0 ~ q(z_0 | y), z_t after every inference step has q(z_t | y)'s mean and variance."""
    method, n = make(), 200_000
    u = torch.zeros(10)
    u[3] = 1.0
    abar, generator = method.steps.abar, torch.Generator().manual_seed(0)
    z = abar[0].sqrt().float() * u + (1 - abar[0]).sqrt().float() * torch.randn(n, 10, generator=generator)
    seen: list[Tensor] = []
    method.net.u_hat = lambda t, z, x: (seen.append(z), u.expand(n, 10))[1]  # type: ignore[method-assign]
    method.net.labels.readout = torch.nn.Identity()  # type: ignore[assignment]
    method.inference.manual_seed(1)
    first = [z]
    monkeypatch.setattr("methods.noprop.dt.noise_like", lambda *of: first.pop() if first else noise_like(*of))
    seen.append(method.predict(torch.empty(n, 1, 8, 8)))
    for t, z_t in enumerate(seen):
        error = 5 / n**0.5
        assert (z_t.mean(0) - abar[t].sqrt() * u).abs().max() < error
        assert (z_t.var(0) - (1 - abar[t])).abs().max() < 2 * error


def test_noise_free_inference_is_the_mean_path() -> None:
    method = make()
    x = torch.randn(5, 1, 8, 8)
    net = method.net.eval()
    z = torch.zeros(5, 10)
    with torch.no_grad():
        for t in range(1, 5):
            z = method.steps.a[t].float() * net.u_hat(t, z, x) + method.steps.b[t].float() * z
        torch.testing.assert_close(method.predict_noise_free(x), net.labels.readout(z))


def test_each_block_is_fed_the_noise_level_before_it(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by one here (block t on z_t) costs 16 points at inference and shows in no training curve."""
    method, levels = make(), []
    monkeypatch.setattr("methods.noprop.dt.diffuse", lambda u, abar, g: (levels.append(abar), diffuse(u, abar, g))[1])
    method.train_step(batch, None)
    assert levels == [float(method.steps.abar[t]) for t in (0, 1, 2, 3, 4)]


def test_random_images_are_classified_at_chance() -> None:
    """A label that reaches the prediction by another way than the image would show here."""
    method, x, y, generator = _trained(steps=150)
    noise, labels = torch.randn(2000, 1, 8, 8, generator=generator), torch.arange(2000) % 10
    assert _accuracy(method, x, y) > 0.9
    assert abs(_accuracy(method, noise, labels) - 0.1) < 4 * (0.1 * 0.9 / 2000) ** 0.5


def test_the_early_blocks_carry_the_answer() -> None:
    """Replacing blocks 1..T-1 by noise breaks the prediction: it is not the last block's alone."""
    method, x, y, generator = _trained(steps=150)
    whole = _accuracy(method, x, y)
    for block in method.net.blocks[:-1]:
        block.forward = lambda z, x: 5 * torch.randn(len(x), 10, generator=generator)
    assert _accuracy(method, x, y) < whole - 0.1


def _trained(steps: int) -> tuple[NoPropDT, Tensor, Tensor, torch.Generator]:
    """NoProp-DT after some steps on ten noisy prototypes, with fresh images of them."""
    method, generator = make(lr=1e-2), torch.Generator().manual_seed(0)
    prototypes, y = torch.randn(10, 1, 8, 8, generator=generator), torch.arange(320) % 10

    def images() -> Tensor:
        return prototypes[y] + 1.5 * torch.randn(320, 1, 8, 8, generator=generator)

    for _ in range(steps):
        method.train_step(Batch(images(), y), None)
    return method, images(), y, generator


def _accuracy(method: NoPropDT, x: Tensor, y: Tensor) -> float:
    return float((method.predict_noise_free(x).argmax(1) == y).float().mean())


def _replay(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(generator.get_state())
