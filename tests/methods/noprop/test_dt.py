"""NoProp-DT against the equations written out slowly, and the guards that common mistakes would trip."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.noprop.dt import NoPropDT, NoPropDTSettings
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.optim import AdamW

from bench import Batch, Facts, Method, Progress
from bench.api.errors import ConfigError
from bench.measure.retained import retained_bytes
from bench.nets.layers import noise_like
from tests.methods.noprop.oracles import p_out

T = 4
LEARNED = {"embedding": "learned", "dim": 12}
POSTERIOR = {**LEARNED, "class_probability": "posterior"}
PROTOTYPE = {"embedding": "prototype", "start": "random"}
Make = Callable[..., NoPropDT]


@pytest.fixture
def make(make_method: Callable[..., Method], toy) -> Make:
    """make(net_settings, eta=...): NoProp-DT with four blocks on the toy net, one block at a time."""

    def make(net: dict[str, Any] | None = None, **settings: Any) -> NoPropDT:
        task = toy.task("denoiser", **{"T": T, **(net or {})})
        return make_method("noprop-dt", task=task, **{"execution": "loop", **settings})

    return make


@pytest.fixture
def batch(toy) -> Batch:
    return toy.batch(32)


def in_epoch(epoch: int) -> Progress:
    return Progress(step=0, total_steps=100, epoch=epoch)


def noise_levels() -> list[float]:
    """abar_0..abar_T of the cosine schedule with clip 1e-3."""
    f = [torch.cos(torch.tensor((((T - t) / T + 0.008) / 1.008) * torch.pi / 2).double()) ** 2 for t in range(T + 1)]
    return [float((x / f[T]).clamp(1e-3, 1 - 1e-3)) for x in f]


def equation_8(method: NoPropDT, batch: Batch) -> list[Tensor]:
    """L_1..L_T, written from the equation, on the draws that the step will make."""
    net, W, eta = method.net.train(), method.net.labels.weight, method.config.eta
    abar = noise_levels()
    snr = [a / (1 - a) for a in abar]
    u_y, B = W[batch.y], len(batch.y)
    eps = [torch.randn(B, W.shape[1], generator=g.clone_state()) for g in (*method.noise, method.readout_noise)]
    z_T = abar[T] ** 0.5 * u_y + (1 - abar[T]) ** 0.5 * eps[T]
    shared = F.cross_entropy(p_out(net.labels, z_T), batch.y)
    if W.requires_grad:
        q_0 = Normal(abar[0] ** 0.5 * u_y, (1 - abar[0]) ** 0.5)
        shared = shared + kl_divergence(q_0, Normal(torch.zeros_like(u_y), 1.0)).sum(1).mean()
    terms = []
    for t in range(1, T + 1):
        z = abar[t - 1] ** 0.5 * u_y + (1 - abar[t - 1]) ** 0.5 * eps[t - 1]
        squared = (net.blocks[t - 1](z, batch.x).softmax(1) @ W - u_y).square().sum(1).mean()
        terms.append(shared + T / 2 * eta * (snr[t] - snr[t - 1]) * squared)
    return terms


@pytest.mark.parametrize("net", [{}, LEARNED, POSTERIOR, PROTOTYPE], ids=["fixed", "learned", "posterior", "prototype"])
@pytest.mark.parametrize("execution", ["loop", "parallel"])
def test_one_step_follows_the_gradient_of_equation_8(
    net: dict, execution: str, make: Make, batch: Batch, watch_gradients, doubles: None
) -> None:
    """Loss and gradients of the mean of L_t over t: for each block, the readout, and W_embed across all terms."""
    batch = batch._replace(x=batch.x.double())
    method, oracle = make(net, eta=0.3, execution=execution), make(net, eta=0.3)
    loss = sum(equation_8(oracle, batch)) / T
    parameters = dict(method.modules()["inference"].named_parameters())
    expected = torch.autograd.grad(loss, oracle.modules()["inference"].parameters())
    seen = watch_gradients(*method.optimizers, method.shared_optimizer)
    assert float(method.train_step(batch, None)["loss"]) == pytest.approx(loss.item(), rel=1e-9)
    for (name, p), gradient in zip(parameters.items(), expected, strict=True):
        torch.testing.assert_close(
            seen[id(p)], gradient, rtol=1e-7, atol=1e-10, msg=lambda text, name=name: name + text
        )


@pytest.mark.parametrize("t", [1, 3])
@pytest.mark.parametrize("net", [{}, LEARNED], ids=["fixed", "learned"])
def test_a_sequential_step_is_that_of_one_block_s_whole_loss(
    t: int, net: dict, make: Make, batch: Batch, watch_gradients, doubles: None
) -> None:
    """Algorithm 1's step is on L_t itself, not on its share of a mean, for the block and for what all share."""
    batch = batch._replace(x=batch.x.double())
    method, oracle = make(net, order="sequential"), make(net, order="sequential")
    loss = equation_8(oracle, batch)[t - 1]
    of = [[*m.net.blocks[t - 1].parameters(), *m.net.labels.parameters()] for m in (method, oracle)]
    expected = torch.autograd.grad(loss, of[1])
    seen = watch_gradients(*method.optimizers, method.shared_optimizer)
    assert float(method.train_step(batch, in_epoch(t - 1))["loss"]) == pytest.approx(loss.item(), rel=1e-9)
    torch.testing.assert_close([seen[id(p)] for p in of[0]], list(expected), rtol=1e-7, atol=1e-10)


def test_a_pass_over_the_data_trains_one_block_and_what_all_share(make: Make, batch: Batch) -> None:
    """Algorithm 1: t in the outer loop. A block that had its turn keeps still, whatever its optimiser's momentum."""
    method = make(order="sequential")
    for epoch in (*range(T), T + 1):
        for _ in range(2):
            before = {k: v.clone() for k, v in method.net.state_dict().items()}
            method.train_step(batch, in_epoch(epoch))
            moved = {k for k, v in method.net.state_dict().items() if not torch.equal(v, before[k])}
            assert {k.split(".")[1] for k in moved if k.startswith("blocks.")} == {str(epoch % T)}
            assert {k for k in moved if not k.startswith("blocks.")} == {"labels.readout.weight", "labels.readout.bias"}


@pytest.mark.parametrize("order", ["joint", "sequential"])
def test_the_loss_of_a_block_gives_no_gradient_to_another(order: str, make: Make, batch: Batch) -> None:
    """When a block takes its step, each parameter of the others has None for a gradient: not even a zero."""
    method, took = make(LEARNED, order=order), []
    for t, optimizer in enumerate(method.optimizers, start=1):

        def look(optimizer: object, args: object, kwargs: object, t: int = t) -> None:
            held = {i for i, block in enumerate(method.net.blocks, 1) for p in block.parameters() if p.grad is not None}
            assert held == {t}
            assert all(p.grad is None for p in (*method.net.labels.parameters(), method.net.gates))
            took.append(t)

        optimizer.register_step_pre_hook(look)
    for epoch in range(T):
        method.train_step(batch, in_epoch(epoch))
    assert took == [1, 2, 3, 4] * (T if order == "joint" else 1)


def test_the_weights_of_all_blocks_sum_to_the_whole_gain_of_signal(
    make: Make, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error of 1 in every block, the mean of L_t is CE + eta/2 (SNR(T) - SNR(0)), as in continuous time."""
    method = make(eta=0.3)
    monkeypatch.setattr("bench.methods.noprop.execution.squared_error", lambda guess, target: 1 + 0 * guess.sum(1))
    metrics = method.train_step(batch, None)
    abar = noise_levels()
    expected = 0.15 * (abar[T] / (1 - abar[T]) - abar[0] / (1 - abar[0]))
    assert float(metrics["loss"] - metrics["ce"]) == pytest.approx(expected, rel=1e-5)


def test_every_parameter_is_in_one_optimiser_and_moves(make: Make, batch: Batch) -> None:
    for net in ({}, LEARNED):
        method = make(net)
        optimizers = (*method.optimizers, method.shared_optimizer)
        trained = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        claimed = list(method.modules()["inference"].parameters())
        assert sorted(map(id, trained)) == sorted(map(id, claimed))
        before = [p.detach().clone() for p in claimed]
        for _ in range(3):
            method.train_step(batch, None)
        assert [p.shape for b, p in zip(before, claimed, strict=True) if torch.equal(b, p)] == []


@contextmanager
def intra_op_threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_seen(method: NoPropDT) -> set[int]:
    """Fills with the intra-op threads that blocks have at their disposal when they are called."""
    seen: set[int] = set()
    for block in method.net.blocks:
        block.register_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
    return seen


def test_a_block_that_trains_alone_has_all_threads(make: Make, batch: Batch) -> None:
    method = make(order="sequential")
    seen = threads_seen(method)
    with intra_op_threads(2):
        method.train_step(batch, in_epoch(0))
    assert seen == {2}


@pytest.mark.parametrize("net", [{}, LEARNED], ids=["fixed", "learned"])
def test_threads_change_nothing(net: dict, make: Make, toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block-parallel execution ends with the loop's parameters, bit for bit, on one intra-op thread each."""
    monkeypatch.setattr(
        "bench.methods.noprop.execution.ThreadPoolExecutor", lambda n, **of: ThreadPoolExecutor(3, **of)
    )
    loop, parallel = (make({**net, "dropout": 0.2}, execution=execution) for execution in ("loop", "parallel"))
    seen = threads_seen(parallel)
    run = parallel._run

    def run_on_two(tasks: list) -> list:  # the blocks alone: the readout's products would round otherwise
        with intra_op_threads(2):
            return run(tasks)

    monkeypatch.setattr(parallel, "_run", run_on_two)
    for _ in range(3):
        batch = toy.batch(32)
        one, other = (method.train_step(batch, None) for method in (loop, parallel))
        assert seen == {1}
        assert torch.equal(one["loss"], other["loss"])
    for (name, p), q in zip(loop.net.state_dict().items(), parallel.net.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


def test_one_optimiser_for_all_blocks_is_one_each(make: Make, toy) -> None:
    """Where gradients of the others are None, AdamW passes over them, moments and all: bit for bit the same."""
    each, one = make(), make()
    everything = AdamW(one.net.blocks.parameters(), lr=one.config.lr, weight_decay=one.config.weight_decay, fused=True)
    one.optimizers = [everything] * T
    for _ in range(4):
        batch = toy.batch(32)
        for method in (each, one):
            method.train_step(batch, None)
    for (name, p), q in zip(each.net.state_dict().items(), one.net.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


def test_true_embeddings_give_the_marginals_of_the_noising_process(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With uhat = u_y and z_0 ~ q(z_0 | y), z_t after every inference step has q(z_t | y)'s mean and variance."""
    method, n = make(), 200_000
    u = torch.zeros(10)
    u[3] = 1.0
    abar, generator = torch.tensor(noise_levels()), torch.Generator().manual_seed(0)
    z = abar[0].sqrt() * u + (1 - abar[0]).sqrt() * torch.randn(n, 10, generator=generator)
    seen: list[Tensor] = []
    method.net.u_hat = lambda t, z, x: (seen.append(z), u.expand(n, 10))[1]  # type: ignore[method-assign]
    method.net.labels.readout = torch.nn.Identity()  # type: ignore[assignment]
    first = [z]
    monkeypatch.setattr("bench.methods.noprop.dt.noise_like", lambda *of: first.pop() if first else noise_like(*of))
    seen.append(method.predict(torch.empty(n, 1, 8, 8), torch.Generator().manual_seed(1)))
    assert len(seen) == T + 1
    for t, z_t in enumerate(seen):
        error = 5 / n**0.5
        assert (z_t.mean(0) - abar[t].sqrt() * u).abs().max() < error * (1 - abar[t]).sqrt()
        assert (z_t.var(0) / (1 - abar[t]) - 1).abs().max() < 2**0.5 * error


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("net", [{}, LEARNED], ids=["fixed", "learned"])
def test_inference_is_equation_3(noisy: bool, net: dict, make: Make, batch: Batch) -> None:
    """z_t = a_t uhat_t(z_{t-1}, x) + b_t z_{t-1} + sqrt(c_t) eps with the a, b, c of Eq. 3; or all at their mean."""
    method = make(net)
    method.train_step(batch, None)
    noise = torch.Generator().manual_seed(0)
    net_, draws, abar = method.net.eval(), noise.clone_state(), noise_levels()
    shape = (32, net_.labels.dim)
    z = torch.randn(shape, generator=draws) if noisy else torch.zeros(shape)
    for t in range(1, T + 1):
        alpha = abar[t - 1] / abar[t]
        a = abar[t] ** 0.5 * (1 - alpha) / (1 - abar[t - 1])
        b = alpha**0.5 * (1 - abar[t]) / (1 - abar[t - 1])
        c = (1 - abar[t]) * (1 - alpha) / (1 - abar[t - 1])
        z = a * net_.blocks[t - 1](z, batch.x).softmax(1) @ net_.labels.weight + b * z
        z = z + c**0.5 * torch.randn(shape, generator=draws) if noisy else z
    scores = method.predict(batch.x, noise if noisy else None)
    torch.testing.assert_close(scores, net_.labels.readout(z).detach(), rtol=1e-4, atol=1e-5)


def test_without_inference_noise_a_prediction_is_the_mean_path_and_says_so(make: Make, batch: Batch) -> None:
    silent, noisy = make(inference_noise=False), make()
    noise = torch.Generator().manual_seed(0)
    assert torch.equal(silent.predict(batch.x, noise), silent.predict(batch.x))
    assert not torch.equal(noisy.predict(batch.x, noise), noisy.predict(batch.x))
    assert (silent.claims().stochastic_inference, noisy.claims().stochastic_inference) == (False, True)


def test_each_block_is_fed_the_noise_level_before_it(make: Make, batch: Batch) -> None:
    """Off by one here (block t on z_t) costs 16 points at inference and shows in no training curve."""
    method, fed = make(), {}
    draws = [torch.randn(32, 10, generator=g.clone_state()) for g in method.noise]
    for t, block in enumerate(method.net.blocks, start=1):
        block.register_forward_pre_hook(lambda block, inputs, t=t: fed.update({t: inputs[0]}))
    method.train_step(batch, None)
    u, abar = F.one_hot(batch.y, 10).float(), noise_levels()
    assert sorted(fed) == [1, 2, 3, 4]
    for t, z in fed.items():
        torch.testing.assert_close(z, abar[t - 1] ** 0.5 * u + (1 - abar[t - 1]) ** 0.5 * draws[t - 1])


def test_random_images_are_classified_at_chance(make: Make, toy) -> None:
    """A label that reaches the prediction by another way than the image would show here."""
    method = make(lr=1e-2)
    toy.teach(method, 80)
    assert toy.accuracy(method, toy.batch()) > 0.9
    assert abs(toy.accuracy(method, toy.imageless_batch()) - 0.1) < 4 * (0.1 * 0.9 / 2000) ** 0.5


def test_the_early_blocks_carry_the_answer(make: Make, toy) -> None:
    """Replacing blocks 1..T-1 by noise breaks the prediction: it is not the last block's alone."""
    method, toy.noise = make(lr=1e-2), 1.5
    toy.teach(method, 120)
    images = toy.batch()
    whole = toy.accuracy(method, images)
    for block in method.net.blocks[:-1]:
        block.forward = lambda z, x: 5 * torch.randn(len(x), 10, generator=toy.generator)
    assert toy.accuracy(method, images) < whole - 0.1


def test_stacked_blocks_cannot_be_trained_one_a_pass(make: Make) -> None:
    with pytest.raises(ValueError, match="execution=stacked computes all blocks at once; with order=sequential use"):
        make(order="sequential", execution="stacked")


@pytest.mark.parametrize("epochs", [3, 14])
def test_passes_that_leave_blocks_behind_are_refused(epochs: int, toy) -> None:
    """Else some blocks would predict untrained, or trained less, and the run would look like a bad method."""
    config, task = NoPropDTSettings(order="sequential"), toy.task("denoiser", T=4)
    with pytest.raises(ConfigError, match=f"epochs must be a multiple of T = 4, not {epochs}"):
        NoPropDT.refuse(task, config, Facts("cpu", epochs, 8))
    assert NoPropDT.refuse(task, config, Facts("cpu", 8, 8)) is None
    assert NoPropDT.refuse(task, NoPropDTSettings(order="joint"), Facts("cpu", epochs, 8)) is None


@pytest.mark.parametrize("noisy", [True, False])
def test_artifacts_are_the_path_of_a_prediction_and_the_schedule_of_the_loss(noisy: bool, make: Make, toy) -> None:
    """The weights drawn are those of Eq. 8, comparable to NoProp-CT's."""
    method, shown = make(eta=0.3, inference_noise=noisy), toy.batch(4)
    noise = torch.Generator().manual_seed(0)
    with method.evaluating():
        path, schedule = method.artifacts(shown, noise.clone_state())
    torch.testing.assert_close(path.y[:, :, -1], method.predict(shown.x, noise).softmax(1))
    assert torch.equal(path.emphasis, shown.y)
    assert torch.equal(path.pictures, shown.x)
    abar = torch.tensor(noise_levels())
    snr = abar / (1 - abar)
    time, (levels, weights) = schedule.x, schedule.y.squeeze(1)
    torch.testing.assert_close(time, torch.arange(T + 1) / T)
    torch.testing.assert_close(levels, abar)
    torch.testing.assert_close(weights[1:], T / 2 * 0.3 * snr.diff(), rtol=1e-4, atol=0)


def test_the_loop_retains_one_block_s_share_of_what_backprop_does(make_method: Callable[..., Method], toy) -> None:
    """Bytes kept for the backward pass: constant in T, where backprop's grow with it."""

    def retained(name: str, T: int, **settings: Any) -> int:
        method = make_method(name, task=toy.task("denoiser", T=T, width=8, dropout=0.2), **settings)
        held = [p for part in method.modules().values() for p in part.parameters()]
        step = partial(method.train_step, toy.batch(64), Progress(0, 1, 0))
        step()
        return retained_bytes(step, held)

    loop = {T: retained("noprop-dt", T, execution="loop") for T in (2, 8)}
    assert loop[2] == loop[8]
    for T, kept in loop.items():
        assert kept * T == pytest.approx(retained("backprop", T), rel=0.02)
