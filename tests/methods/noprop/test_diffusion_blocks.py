"""DiffusionBlocks against its equations written out slowly, and the guards that common mistakes would trip."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from bench.methods.noprop.diffusion_blocks import DiffusionBlocks, DiffusionBlocksSettings
from bench.methods.noprop.towers import sinusoids
from scipy import stats
from torch import Tensor

from bench import Batch, Facts, Method, Progress
from bench.api.errors import ConfigError
from bench.measure.retained import retained_bytes

T = 4
LEARNED = {"embedding": "learned", "dim": 12}
NETS = pytest.mark.parametrize("net", [{}, LEARNED], ids=["fixed", "learned"])
Make = Callable[..., DiffusionBlocks]


@pytest.fixture
def make(make_method: Callable[..., Method], toy) -> Make:
    """make(net_settings, gamma=...): DiffusionBlocks with four net blocks on the toy task, one block at a time.

    What tells blocks the noise level starts at zero; here it has weights, so that tests see where it enters.
    """

    def make(net: dict[str, Any] | None = None, **settings: Any) -> DiffusionBlocks:
        task = toy.task("denoiser", **{"T": T, **(net or {})})
        method = make_method("diffusion-blocks", task=task, **{"execution": "loop", **settings})
        generator = torch.Generator().manual_seed(1)
        for unit in method.units:
            for p in unit.levels.parameters():
                p.data.copy_(0.1 * torch.randn(p.shape, generator=generator))
        return method

    return make


@pytest.fixture
def batch(toy) -> Batch:
    return toy.batch(32)


def at(step: int) -> Progress:
    return Progress(step=step, total_steps=100, epoch=0)


def edges(B: int) -> list[float]:
    """e_0 < ... < e_B by scipy."""
    low, high = ((math.log(sigma) + 1.2) / 1.2 for sigma in (0.002, 80.0))
    law = stats.truncnorm(low, high, loc=-1.2, scale=1.2)
    return [math.exp(law.ppf(k / B)) for k in range(B + 1)]


def intervals(B: int, gamma: float) -> list[tuple[float, float]]:
    """Of blocks from noise to label, widened."""
    e, widened = edges(B), []
    for low, high in reversed(list(pairwise(e))):
        grown = gamma * (math.log(high) - math.log(low))
        widened.append((max(math.exp(math.log(low) - grown), e[0]), min(math.exp(math.log(high) + grown), e[-1])))
    return widened


def embedding(method: DiffusionBlocks) -> Tensor:
    W = method.net.labels.weight
    return W / W.norm(dim=1, keepdim=True)


def scores(method: DiffusionBlocks, b: int, z: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """theta_out(c_skip z + c_out F_b), example by example where the level enters. Shape: sigma (B, 1)."""
    s, unit, W = 0.5, method.units[b], embedding(method)
    inside = z / (sigma**2 + s**2) ** 0.5
    logits = None
    for k, (block, level) in enumerate(zip(unit.blocks, unit.levels, strict=True)):
        if k > 0:
            g = torch.tanh(unit.gates[k - 1])
            inside = (1 - g) * inside + g * (logits.softmax(1) @ W)
        features = torch.cat([block.image(x), block.label(inside)], dim=1)
        told = [level(sinusoids(row.log() / 4))[0] for row in sigma]
        half = features.shape[1]
        features = torch.stack([f * (1 + t[:half]) + t[half:] for f, t in zip(features, told, strict=True)])
        logits = block.head(features)
    guess = s**2 / (sigma**2 + s**2) * z + sigma * s / (sigma**2 + s**2) ** 0.5 * (logits @ W)
    readout = method.net.labels.readout
    return guess @ readout.weight.T + readout.bias


def block_losses(method: DiffusionBlocks, batch: Batch) -> list[Tensor]:
    """L_1..L_B from the equations, on the draws that the step will make."""
    method.net.train()
    losses, B = [], len(method.units)
    for b, (low, high) in enumerate(intervals(B, method.config.gamma)):
        generator = method.noise[b].clone_state()
        p = torch.rand(len(batch.y), 1, generator=generator, dtype=torch.float64)
        below = [stats.norm.cdf((math.log(sigma) + 1.2) / 1.2) for sigma in (low, high)]
        sigma = torch.exp(-1.2 + 1.2 * torch.from_numpy(stats.norm.ppf(below[0] + p.numpy() * (below[1] - below[0]))))
        u = embedding(method)[batch.y]
        z = u + sigma * torch.randn(u.shape, generator=generator)
        log_p = scores(method, b, z, batch.x, sigma).log_softmax(1)
        weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
        losses.append(sum(-w * log_p[i, y] for i, (w, y) in enumerate(zip(weight[:, 0], batch.y, strict=True))) / 32)
    return losses


@NETS
@pytest.mark.parametrize("execution", ["loop", "parallel"])
@pytest.mark.parametrize("blocks", [None, 3])
def test_one_step_follows_the_gradient_of_the_mean_of_the_blocks_losses(
    blocks: int | None, net: dict, execution: str, make: Make, batch: Batch, watch_gradients, doubles: None
) -> None:
    """Loss and gradients: of each block, of what tells it the level, of gates within a group, and of what all share."""
    batch = batch._replace(x=batch.x.double())
    method, oracle = (make(net, execution=execution, blocks=blocks) for _ in range(2))
    loss = torch.stack(block_losses(oracle, batch)).mean()
    parameters = dict(method.modules()["inference"].named_parameters())
    expected = torch.autograd.grad(loss, oracle.modules()["inference"].parameters())
    seen = watch_gradients(*method.optimizers, method.shared_optimizer)
    assert float(method.train_step(batch, at(0))["loss"]) == pytest.approx(loss.item(), rel=1e-8)
    for (name, p), gradient in zip(parameters.items(), expected, strict=True):
        torch.testing.assert_close(seen[id(p)], gradient, rtol=1e-6, atol=1e-8, msg=lambda text, name=name: name + text)


def drawn(method: DiffusionBlocks, batch: Batch, step: int) -> int:
    """The one block that a step of order=random moves."""
    before = {k: v.clone() for k, v in method.units.state_dict().items()}
    method.train_step(batch, at(step))
    moved = {int(k.split(".")[0]) for k, v in method.units.state_dict().items() if not torch.equal(v, before[k])}
    assert len(moved) == 1
    return moved.pop()


def test_the_mean_over_drawn_blocks_is_the_joint_gradient(
    make: Make, batch: Batch, watch_gradients, doubles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drawn block steps on all of its own loss, so that the draw is an unbiased estimate of the joint step."""
    batch = batch._replace(x=batch.x.double())
    joint = make(LEARNED)
    wanted = watch_gradients(*joint.optimizers, joint.shared_optimizer)
    joint.train_step(batch, at(0))
    names = [name for name, _ in joint.modules()["inference"].named_parameters()]
    total = {name: torch.zeros(()) for name in names}
    for b in range(T):
        one = make(LEARNED, order="random")
        monkeypatch.setattr("bench.methods.noprop.diffusion_blocks.derive", lambda *of, b=b: b)
        seen = watch_gradients(*one.optimizers, one.shared_optimizer)
        one.train_step(batch, at(0))
        for name, p in one.modules()["inference"].named_parameters():
            total[name] = total[name] + seen.get(id(p), torch.zeros_like(p)) / T
    for name, p in joint.modules()["inference"].named_parameters():
        torch.testing.assert_close(total[name], wanted[id(p)], rtol=1e-9, atol=1e-12)


def test_blocks_are_drawn_alike_often_and_anew_each_step(make: Make, toy) -> None:
    """A draw that depended on anything but seed and step would not survive an interruption."""
    method, again, batch = make(order="random"), make(order="random"), toy.batch(8)
    turns = [drawn(method, batch, step) for step in range(120)]
    assert turns[60:] == [drawn(again, batch, step) for step in range(60, 120)]
    assert stats.chisquare([turns.count(b) for b in range(T)]).pvalue > 1e-3
    pairs = [T * a + b for a, b in zip(turns[::2], turns[1::2], strict=True)]
    assert len(set(pairs)) > 12  # of 16: no fixed round


@pytest.mark.parametrize("gamma", [0.0, 0.05])
@pytest.mark.parametrize("blocks", [None, 2])
def test_each_block_sees_noise_of_its_own_interval_alone(blocks: int | None, gamma: float, make: Make, toy) -> None:
    """What is told and what is added are one level, within the widened share of that block."""
    method = make(blocks=blocks, gamma=gamma)
    B, told = len(method.units), {}
    for b, unit in enumerate(method.units):
        unit.register_forward_pre_hook(lambda _, args, b=b: told.setdefault(b, []).append(args))
    batch = toy.batch(256)
    for step in range(20):
        method.train_step(batch, at(step))
    assert sorted(told) == list(range(B))
    u = embedding(method)[batch.y]
    for b, (low, high) in enumerate(intervals(B, gamma)):
        sigma = torch.cat([(4 * c_noise).exp() for _, _, c_noise, _ in told[b]])
        assert float(sigma.min()) >= low * (1 - 1e-5)
        assert float(sigma.max()) <= high * (1 + 1e-5)
        noise = torch.cat([z * ((4 * c).exp() ** 2 + 0.25) ** 0.5 - u for z, _, c, _ in told[b]]) / sigma
        assert float(noise.std()) == pytest.approx(1, abs=0.02)
        assert float(noise.mean()) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("order", ["joint", "random"])
def test_the_loss_of_a_block_gives_no_gradient_to_another(order: str, make: Make, batch: Batch) -> None:
    """When a block takes its step, each parameter of the others has None for a gradient: not even a zero."""
    method, took = make(LEARNED, order=order), []
    for b, optimizer in enumerate(method.optimizers):

        def look(optimizer: object, args: object, kwargs: object, b: int = b) -> None:
            held = {i for i, unit in enumerate(method.units) for p in unit.parameters() if p.grad is not None}
            assert held == {b}
            assert all(p.grad is None for p in (*method.net.labels.parameters(), method.net.gates))
            took.append(b)

        optimizer.register_step_pre_hook(look)
    for step in range(3):
        method.train_step(batch, at(step))
    assert took == [0, 1, 2, 3] * 3 if order == "joint" else len(took) == 3


@NETS
@pytest.mark.parametrize("blocks", [None, 2])
def test_every_parameter_is_in_one_optimiser_and_moves(blocks: int | None, net: dict, make: Make, batch: Batch) -> None:
    method = make(net, blocks=blocks)
    trained = [p for o in (*method.optimizers, method.shared_optimizer) for g in o.param_groups for p in g["params"]]
    claimed = list(method.modules()["inference"].parameters())
    assert sorted(map(id, trained)) == sorted(map(id, claimed))
    before = [p.detach().clone() for p in claimed]
    for step in range(3):
        method.train_step(batch, at(step))
    assert [p.shape for b, p in zip(before, claimed, strict=True) if torch.equal(b, p)] == []


def test_the_net_is_cut_into_groups_as_even_as_can_be_in_its_order(make: Make) -> None:
    method = make({"T": 5}, blocks=2)
    groups = [[list(method.net.blocks).index(block) for block in unit.blocks] for unit in method.units]
    assert groups == [[0, 1, 2], [3, 4]]


def test_the_level_s_part_starts_at_nothing(make_method: Callable[..., Method], toy, batch: Batch) -> None:
    """So that blocks start as noprop-dt's do, whose logits they then give, and no draw is taken from the net's."""
    task = toy.task("denoiser", T=T)
    method, other = (make_method(name, task=task) for name in ("diffusion-blocks", "noprop-dt"))
    z, c_noise = torch.randn(32, 10), torch.randn(32, 1)
    for unit, block in zip(method.units, other.net.blocks, strict=True):
        assert torch.equal(unit(z, batch.x, c_noise, torch.eye(10)), block(z, batch.x))


@NETS
def test_threads_change_nothing(net: dict, make: Make, toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block-parallel execution ends with the loop's parameters, bit for bit."""
    monkeypatch.setattr(
        "bench.methods.noprop.execution.ThreadPoolExecutor", lambda n, **of: ThreadPoolExecutor(3, **of)
    )
    loop, parallel = (make({**net, "dropout": 0.2}, execution=execution) for execution in ("loop", "parallel"))
    for step in range(3):
        batch = toy.batch(32)
        one, other = (method.train_step(batch, at(step)) for method in (loop, parallel))
        assert torch.equal(one["loss"], other["loss"])
    for (name, p), q in zip(loop.units.state_dict().items(), parallel.units.state_dict().values(), strict=True):
        assert torch.equal(p, q), name
    assert torch.equal(loop.net.labels.readout.weight, parallel.net.labels.readout.weight)


@NETS
@pytest.mark.parametrize(("steps", "blocks"), [(None, None), (7, None), (1, None), (5, 2)])
@pytest.mark.parametrize("noisy", [True, False])
def test_inference_is_euler_s_method_down_through_the_blocks(
    noisy: bool, steps: int | None, blocks: int | None, net: dict, make: Make, batch: Batch
) -> None:
    method = make(net, steps=steps, blocks=blocks)
    method.train_step(batch, at(0))
    method.net.eval()
    B, K = len(method.units), steps or len(method.units)
    e, W, noise = edges(B), embedding(method), torch.Generator().manual_seed(0)
    grid = edges(K - 1)[::-1] if K > 1 else [80.0]
    z = 80.0 * torch.randn(32, W.shape[1], generator=noise.clone_state()) * noisy
    for k, sigma in enumerate(grid):
        inside = [b for b in range(B) if e[B - b - 1] * (1 - 1e-9) <= sigma]  # the noisiest whose lower edge is below
        log_p = scores(method, inside[0], z, batch.x, torch.full((32, 1), sigma)).log_softmax(1)
        after = grid[k + 1] if k + 1 < K else 0.0
        z = z + (after - sigma) * (z - log_p.exp() @ W) / sigma
    got = method.predict(batch.x, noise if noisy else None)
    torch.testing.assert_close(got.log_softmax(1), log_p.detach(), rtol=1e-3, atol=1e-4)


def test_an_exact_denoiser_predicts_classes_as_often_as_the_posterior_has_them(make: Make) -> None:
    """The probability flow ends in each class with the probability that the image gives it."""
    method, n = make({"T": 10}, steps=300), 10_000
    posterior = torch.tensor([0.5, 0.2, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01, 0.0]).clamp_min(1e-9)
    asked = []

    def exact(b: int, z: Tensor, x: Tensor, sigma: float, W: Tensor) -> Tensor:
        asked.append((b, sigma))
        return posterior.log() + (z @ W.T - 0.5) / sigma**2  # of rows of length 1

    method._scores = exact  # type: ignore[method-assign]
    predicted = method.predict(torch.empty(n, 1, 8, 8), torch.Generator().manual_seed(0)).argmax(1)
    frequency = predicted.bincount(minlength=10) / n
    assert (frequency - posterior).abs().max() < 0.015
    assert len(asked) == 300
    for b, sigma in asked:
        low, high = intervals(10, 0.0)[b]
        assert low * (1 - 1e-9) <= sigma <= high * (1 + 1e-9)


def test_of_two_classes_the_flow_keeps_the_order_of_the_first_draw(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a line a flow cannot cross itself: the class is y = 1 where the draw exceeds the quantile of P(y = 0)."""
    method, n = make({"embedding": "learned", "dim": 1}, steps=1000), 1001
    method.net.labels.weight.data.copy_(torch.linspace(-1, 1, 10)[:, None].sign())  # two points, -1 and 1
    prior = torch.tensor([0.14, 0.14, 0.14, 0.14, 0.14, 0.06, 0.06, 0.06, 0.06, 0.06])  # 0.7 and 0.3

    def exact(b: int, z: Tensor, x: Tensor, sigma: float, W: Tensor) -> Tensor:
        return prior.log() - (z - W.T).square() / (2 * sigma**2)

    method._scores = exact  # type: ignore[method-assign]
    p = (torch.arange(n) + 0.5) / n
    draw = torch.special.ndtri(p.double()).float()[:, None]
    monkeypatch.setattr("bench.methods.noprop.diffusion_blocks.noise_like", lambda *of: draw)
    upper = method.predict(torch.empty(n, 1, 8, 8), torch.Generator()).softmax(1)[:, 5:].sum(1) > 0.5
    assert upper.diff().sum() == 1
    assert float(p[upper].min()) == pytest.approx(0.7, abs=0.01)


def test_without_inference_noise_a_prediction_starts_at_the_mean_and_says_so(make: Make, batch: Batch) -> None:
    silent, noisy = make(inference_noise=False), make()
    noise = torch.Generator().manual_seed(0)
    assert torch.equal(silent.predict(batch.x, noise), silent.predict(batch.x))
    assert not torch.equal(noisy.predict(batch.x, noise), noisy.predict(batch.x))
    assert (silent.claims().stochastic_inference, noisy.claims().stochastic_inference) == (False, True)


def test_random_images_are_classified_at_chance(make: Make, toy) -> None:
    """A label that reaches the prediction by another way than the image would show here."""
    method = make(lr=1e-2)
    for step in range(80):
        method.train_step(toy.batch(), at(step))
    assert toy.accuracy(method, toy.batch()) > 0.9
    assert abs(toy.accuracy(method, toy.imageless_batch()) - 0.1) < 4 * (0.1 * 0.9 / 2000) ** 0.5


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        ({"embedding": "prototype"}, "embeddings have unit length"),
        ({"class_probability": "posterior"}, "use class_probability=softmax"),
        ({"embedding": "learned"}, None),
    ],
)
def test_nets_that_do_not_suit_are_skipped_with_the_reason(net: dict, reason: str | None, toy) -> None:
    said = DiffusionBlocks.refuse(toy.task("denoiser", **net), DiffusionBlocksSettings(), Facts("cpu", 1, 8))
    assert said == reason or reason in said


def test_more_blocks_than_the_net_has_are_refused(toy) -> None:
    with pytest.raises(ConfigError, match="blocks=5, but the net has T=4 blocks"):
        DiffusionBlocks.refuse(toy.task("denoiser", T=4), DiffusionBlocksSettings(blocks=5), Facts("cpu", 1, 8))


def test_ways_end_with_twice_as_many_steps_as_blocks_and_agree_with_predictions(make: Make, batch: Batch) -> None:
    method = make()
    ways = {way.steps: way.predict for way in method.ways()}
    assert sorted(ways) == [1, 2, 5, 8]
    noise = torch.Generator().manual_seed(0)
    with method.evaluating():
        found = ways[5](batch.x, noise.clone_state())
    assert torch.equal(found, make(steps=5).predict(batch.x, noise))


def test_artifacts_are_the_path_of_a_prediction_and_the_levels_that_it_asks(make: Make, toy) -> None:
    method, shown = make(), toy.batch(4)
    noise = torch.Generator().manual_seed(0)
    with method.evaluating():
        path, schedule = method.artifacts(shown, noise.clone_state())
    torch.testing.assert_close(path.y[:, :, -1], method.predict(shown.x, noise).softmax(1))
    sigma = torch.tensor(edges(T - 1)[::-1]).float()
    signal, weight = schedule.y.squeeze(1)
    torch.testing.assert_close(signal, 1 / (1 + sigma**2), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weight, (sigma**2 + 0.25) / (sigma * 0.5) ** 2, rtol=1e-4, atol=0)


def test_one_block_s_share_is_retained_whatever_the_depth(make_method: Callable[..., Method], toy) -> None:
    """Bytes kept for the backward pass: what noprop-dt keeps, the level's part excepted; a group of two keeps twice."""

    def retained(name: str, T: int, **settings: Any) -> int:
        method = make_method(name, task=toy.task("denoiser", T=T, width=8, dropout=0.2), **settings)
        held = [p for part in method.modules().values() for p in part.parameters()]
        step = partial(method.train_step, toy.batch(64), at(0))
        step()
        return retained_bytes(step, held)

    loop = {T: retained("diffusion-blocks", T, execution="loop") for T in (2, 8)}
    assert loop[2] == loop[8]
    assert loop[8] == pytest.approx(retained("noprop-dt", 8, execution="loop"), rel=0.1)
    assert retained("diffusion-blocks", 8, execution="loop", blocks=4) == pytest.approx(2 * loop[8], rel=0.05)
    assert retained("diffusion-blocks", 8, order="random") == loop[8]
