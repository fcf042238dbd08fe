"""LoCo's loss and gradients against slow forms of them, what its stages send where, and what its views are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.local.loco import LoCo, LoCoSettings, ViewSettings, nt_xent, views
from torch import Tensor

from bench import Batch, Facts, Net
from bench.measure.retained import Retained
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import CHECKS, Subject, small_task
from tests.methods.gradients import watched
from tests.methods.local.oracles import START, assert_same

CLASSES: dict[str, type[Net]] = {"mlp": MLP, "cnn": CNN}
NETS = {"mlp": {"width": 12, "depth": 4}, "cnn": {"width": 3, "depth": 3}}
PLAIN = ViewSettings(crop=1.0, jitter=0.0, noise=0.0)
Make = Callable[..., Any]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(method: LoCo) -> torch.Generator:
    """A generator that gives what the method will draw next."""
    return generator().set_state(method.noise.get_state())


def contrast(z: Tensor, temperature: float) -> Tensor:
    """The loss pair by pair: rows n and n + N are views of image n."""
    N = len(z) // 2
    loss = z.new_zeros(())
    for n in range(2 * N):
        s = [(z[n] @ z[m]) / (z[n].norm() * z[m].norm()) / temperature for m in range(2 * N)]
        other = n + N if n < N else n - N
        loss = loss - (s[other] - torch.stack([s[m] for m in range(2 * N) if m != n]).exp().sum().log())
    return loss / (2 * N)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_loss_equals_a_double_loop(temperature: float) -> None:
    """Value and gradient. Fails where a row counts among its own negatives, or the positive is another image's."""
    z = torch.randn(10, 6, generator=generator(), dtype=torch.float64, requires_grad=True)
    found, slow = nt_xent(z, temperature), contrast(z, temperature)
    torch.testing.assert_close(found, slow, rtol=1e-12, atol=0)
    assert_same(*(torch.autograd.grad(loss, z) for loss in (found, slow)))


@pytest.mark.parametrize("net", NETS)
def test_gradients_are_the_sums_over_the_stages_that_hold_a_block(make_method: Make, batch: Batch, net: str) -> None:
    """Stage by stage on detached inputs, all at the weights from before the step.

    Fails where only one of its stages reaches a shared block, where the second one's gradient replaces the first's,
    where a stage reaches further down, or sees a block after its step; and where the read-out hears of other images.
    """
    method = make_method("loco", net=net, net_settings=NETS[net], lr=0.1, temperature=0.3)
    method.net.double()
    method.heads.double()
    x, y = batch.x[:6].double(), batch.y[:6]
    *hidden, readout = method.net.blocks
    h = views(x, method.config, draws(method))
    expected = {id(p): torch.zeros_like(p) for p in [*method.net.parameters(), *method.heads.parameters()]}

    def add(loss: Tensor, *of: torch.nn.Module) -> None:
        parameters = [p for part in of for p in part.parameters()]
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            expected[id(p)] += gradient

    for k, head in enumerate(method.heads):
        output = hidden[k + 1](hidden[k](h))
        add(contrast(head(output), 0.3), hidden[k], hidden[k + 1], head)
        h = hidden[k](h).detach()
    add(F.cross_entropy(readout(hidden[-1](h).detach()), torch.cat([y, y])), readout)

    seen = watched(method.optimizers)
    method.train_step(Batch(x, y), START)
    assert seen.keys() == expected.keys()
    assert_same([seen[key] for key in expected], expected.values())


@pytest.mark.parametrize("net", NETS)
def test_each_stage_leaves_the_blocks_before_it_alone(make_method: Make, batch: Batch, net: str) -> None:
    """When stage k steps, gradients are held by its two blocks and its head alone, and every weight steps once."""
    method = make_method("loco", net=net, net_settings=NETS[net])
    parts = [*method.net.blocks, *method.heads]
    H, turns = len(method.net.blocks) - 1, []

    def look(*_: object) -> None:
        turns.append({k for k, part in enumerate(parts) if any(p.grad is not None for p in part.parameters())})

    for optimizer in method.optimizers:
        optimizer.register_step_pre_hook(look)
    method.train_step(batch, START)
    assert turns == [*({k, k + 1, H + 1 + k} for k in range(H - 1)), {H}]
    assert all(p.grad is None for part in parts for p in part.parameters())
    taken = [float(of.state[p]["step"]) for of in method.optimizers for p in of.param_groups[0]["params"]]
    assert taken == [1.0] * len([p for part in parts for p in part.parameters()])


@pytest.mark.parametrize("net", NETS)
def test_labels_reach_the_readout_alone(make_method: Make, batch: Batch, net: str) -> None:
    """Hidden blocks and heads are bit-equal whatever the labels are, over several steps."""
    found = []
    for y in (batch.y, (batch.y + 3) % 10):
        method = make_method("loco", net=net, net_settings=NETS[net], lr=0.01)
        for _ in range(3):
            method.train_step(Batch(batch.x, y), START)
        found.append(method)
    one, other = found
    assert all(map(torch.equal, one.net.blocks[:-1].parameters(), other.net.blocks[:-1].parameters()))
    assert all(map(torch.equal, one.heads.parameters(), other.heads.parameters()))
    assert not any(map(torch.equal, one.readout.parameters(), other.readout.parameters()))


def test_rows_of_a_view_are_those_of_its_image() -> None:
    """An image of one value has only itself for a view: fails where the second views are shifted against the first."""
    values = torch.arange(8.0).view(8, 1, 1, 1)
    x = values.expand(8, 3, 5, 7).clone()
    assert torch.equal(views(x, ViewSettings(flip=True), generator()), torch.cat([x, x]))


@pytest.mark.parametrize("shape", [(8, 1, 8, 8), (8, 3, 6, 9)])
def test_views_stay_within_the_range_of_their_image(shape: tuple[int, ...]) -> None:
    """Bounds of each channel's own would hold the dim channels back."""
    bright = torch.arange(1.0, shape[1] + 1).view(1, -1, 1, 1)
    x = torch.randn(shape, generator=generator()) * torch.arange(1.0, 9.0).view(8, 1, 1, 1) * bright + 5
    view = views(x, ViewSettings(crop=0.3, flip=True, jitter=1.0, noise=100.0), generator(1))
    channels, images = view.flatten(2), torch.cat([x, x]).flatten(1)
    # so much noise reaches the bounds in every channel, and does not pass them
    assert bool((channels.amin(2) == images.amin(1, keepdim=True)).all())
    assert bool((channels.amax(2) == images.amax(1, keepdim=True)).all())


def test_views_come_from_the_generator_alone() -> None:
    """No two are alike; another state of the global generator changes none, and none changes it."""
    x, config = torch.randn(4, 1, 8, 8, generator=generator()), ViewSettings(flip=True)
    torch.manual_seed(0)
    one = views(x, config, generator(1))
    before = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(one, views(x, config, generator(1)))
    torch.manual_seed(0)
    assert torch.equal(before, torch.get_rng_state())
    every = torch.cat([one, views(x, config, generator(2)), torch.cat([x, x])]).flatten(1)
    apart = torch.cdist(every[:16], every) + 9 * torch.eye(16, 24)
    assert float(apart.min()) > 0.1


def test_without_strength_a_view_is_the_image() -> None:
    x = torch.randn(4, 3, 6, 9, generator=generator())
    torch.testing.assert_close(views(x, PLAIN, generator()), torch.cat([x, x]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_crops_lie_within_the_image(flip: bool) -> None:
    """Ramps u from -1 to 1 tell side and place: a crop is centre + side u, within the image if |centre| + side <= 1."""
    H, W, N = 16, 20, 500
    ramps = [(2 * torch.arange(n) + 1 - n).double() / n for n in (H, W)]
    x = torch.stack([ramps[0].view(H, 1).expand(H, W), ramps[1].expand(H, W)]).expand(N, 2, H, W)
    view = views(x, ViewSettings(crop=0.4, flip=flip, jitter=0.0, noise=0.0), generator())
    found = []
    for axis, (ramp, lines) in enumerate(zip(ramps, (view[:, 0, :, 0], view[:, 1, 0, :]), strict=True)):
        middle = slice(3, -3)  # at the border a view has the edge's value
        side = (lines[:, -4] - lines[:, 3]) / (ramp[-4] - ramp[3])
        centre = lines[:, middle].mean(1)
        torch.testing.assert_close(lines[:, middle], centre[:, None] + side[:, None] * ramp[middle])
        assert float(side.abs().min()) == pytest.approx(0.4, abs=0.01)
        assert float(side.abs().max()) == pytest.approx(1.0, abs=0.01)
        assert float((centre.abs() + side.abs()).max()) == pytest.approx(1.0, abs=1e-2)
        place = centre / (1 - side.abs())
        assert float((place.sort().values - torch.linspace(-1, 1, 2 * N)).abs().max()) < 0.1
        found += [side.abs(), place]
        mirrored = float((side < 0).double().mean())
        assert mirrored == pytest.approx(0.5 if flip and axis == 1 else 0.0, abs=0.06)
    assert float((torch.stack(found).corrcoef() - torch.eye(4)).abs().max()) < 0.15  # none goes with another
    torch.testing.assert_close(view[:, 0, :, :1].expand(-1, -1, W), view[:, 0])  # rows and columns do not mix
    assert not torch.equal(view[:N], view[N:])


def test_contrast_and_brightness_change_channel_by_channel() -> None:
    """a and b by regression on pixels that stay far from the bounds, which two pixels set at -10 and 10; in the second
    channel they are at -5 and 5, but the range is the image's.
    """
    x = torch.randn(300, 2, 6, 6, generator=generator(), dtype=torch.float64)
    x[:, :, 0, 0] = torch.tensor([-10.0, -5.0])
    x[:, :, 0, 1] = torch.tensor([10.0, 5.0])
    view = views(x, ViewSettings(crop=1.0, jitter=0.2, noise=0.0), generator())
    inner, changed = torch.cat([x, x])[:, :, 1:], view[:, :, 1:]
    a = (changed[..., 1, 1] - changed[..., 0, 0]) / (inner[..., 1, 1] - inner[..., 0, 0])
    mean = torch.cat([x, x]).mean((2, 3))
    b = changed[..., 0, 0] - mean - a * (inner[..., 0, 0] - mean)
    again = a[..., None, None] * (inner - mean[..., None, None]) + (mean + b)[..., None, None]
    torch.testing.assert_close(changed, again)
    for found, low, high in ((a, 0.8, 1.2), (b, -2.0, 2.0)):
        for channel in found.T:
            assert low <= float(channel.min()) < low + 0.03 * (high - low)
            assert high - 0.03 * (high - low) < float(channel.max()) <= high
        assert abs(float(torch.corrcoef(found.T)[0, 1])) < 0.2


def test_noise_has_its_standard_deviation() -> None:
    x = torch.zeros(50, 1, 12, 12)
    x[:, :, 0, 0], x[:, :, 0, 1] = -10, 10
    found = views(x, ViewSettings(crop=1.0, jitter=0.0, noise=0.3), generator())[:, :, 1:]
    assert float(found.std()) == pytest.approx(0.3, rel=0.03)
    assert abs(float(found.mean())) < 0.01


def test_a_graph_holds_two_blocks_at_most(make_method: Make, batch: Batch) -> None:
    """What is retained does not grow with depth: a graph kept for the next stage would show."""
    found = []
    for depth in (2, 3, 6):
        method = make_method("loco", net="mlp", net_settings={"width": 40, "depth": depth}, projection=4)
        with Retained().watch(method, ()) as reading:
            method.train_step(batch, START)
        found.append(reading()["retained_bytes"])
    assert found[0]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("net", "settings"),
    [("mlp", {"width": 32, "depth": depth}) for depth in (1, 2, 3, 4)] + [("cnn", {"width": 4, "depth": 1})],
)
def test_claims_follow_the_number_of_stages(net: str, settings: dict[str, int]) -> None:
    subject = Subject(LoCo, small_task(CLASSES[net], settings))
    for check in ("reverse-mode", "passes", "weight-transport", "waiting", "resume", "generator"):
        CHECKS[check](subject)


def test_needs_a_hidden_block() -> None:
    facts = Facts("cpu", 1, 32)
    reason = LoCo.refuse(small_task(MLP, {"depth": 0}), LoCoSettings(), facts)
    assert reason is not None
    assert "hidden" in reason
    assert LoCo.refuse(small_task(MLP, {"depth": 1}), LoCoSettings(), facts) is None


def test_scores_are_the_plain_nets(make_method: Make, batch: Batch) -> None:
    method = make_method("loco")
    method.train_step(batch, START)
    assert torch.equal(method.predict(batch.x), method.net(batch.x).detach())
