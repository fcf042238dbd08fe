"""Forward-forward against its equations: losses and their derivatives by hand, labels pixel by pixel.

In each test's words stands the mistake that it would show.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench.methods.local import forward_forward
from bench.methods.local.forward_forward import ForwardForward, ForwardForwardSettings
from bench.methods.local.goodness import RECIPES, wrong_labels
from torch import Tensor, nn

from bench import Batch, Facts, Progress
from bench.measure.retained import retained_bytes
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing import CHECKS, Subject, small_task
from bench.testing.subject import image_task
from tests.methods.gradients import watched
from tests.methods.local.oracles import START, assert_same, randomise

Make = Callable[..., Any]
CLASSES = {"mlp": MLP, "cnn": CNN}
NETS = {"mlp": {"width": 12, "depth": 3}, "cnn": {"width": 3, "depth": 3}}
RULES = [
    {"recipe": recipe, "loss": loss, "negatives": negatives, "predict_by": by}
    for recipe, loss, negatives, by in (
        ("hinton", "ff", "wrong", "head"),
        ("hinton", "ff", "all", "goodness"),
        ("hinton", "symba", "hard", "head"),
        ("mean-goodness", "ff", "wrong", "goodness"),
        ("mean-goodness", "ff", "hard", "goodness"),
        ("mean-goodness", "symba", "all", "head"),
    )
]


def made(make_method: Make, net: str = "mlp", depth: int = 3, **settings: Any) -> ForwardForward:
    """In double precision, with a head that says something, and small outputs, so that no sigmoid is at its end."""
    method: ForwardForward = make_method(
        "forward-forward", net=net, net_settings=NETS[net] | {"depth": depth}, **settings
    )
    for module in (method.net, method.heads):
        module.double()
    randomise(method.heads)
    method.peer_means = [mean.double() for mean in method.peer_means]
    return method


@pytest.fixture
def batch64(batch: Batch) -> Batch:
    return Batch(batch.x.double(), batch.y)


def with_label(image: Tensor, label: list[float], amplitude: float = 1.0) -> Tensor:
    """Pixel by pixel. Shape: (channels, H, W)."""
    image, width = image.clone(), image.shape[2]
    brightest = max(abs(float(pixel)) for pixel in image[0].flatten())
    for c, value in enumerate(label):
        image[0, c // width, c % width] = amplitude * brightest * value
    return image


def one_hot(c: int, C: int = 10) -> list[float]:
    return [float(k == c) for k in range(C)]


def through(method: ForwardForward, block: nn.Module, h: Tensor) -> Tensor:
    """A block on rows of the recipe's length, its relu by hand."""
    n = h[0].numel()
    rows = []
    for row in h:
        length = math.sqrt(sum(float(v) ** 2 for v in row.flatten())) + 1e-8
        rows.append(row * (math.sqrt(n) if method.config.recipe == "hinton" else 1) / length)
    h = torch.stack(rows)
    for part in block.children():
        if isinstance(part, nn.ReLU):
            passed = h + (h.clamp(min=0) - h).detach()
            h = passed if method.config.recipe == "hinton" else h * (h > 0)
        else:
            h = part(h)
    return h


def by_hand(method: ForwardForward, k: int, h: Tensor, B: int) -> tuple[float, Tensor]:
    """L_k and its derivative by h, row by row: B rows with their own label, then the same images with wrong ones."""
    hinton, config = method.config.recipe == "hinton", method.config
    rows, n = len(h), h[0].numel()
    G = [float((row**2).sum()) / (1 if hinton else n) for row in h]
    theta = 1.0 * n if hinton else 2.0
    slope, loss = [0.0] * rows, 0.0
    for i in range(rows):
        if config.loss == "symba":
            if i >= B:
                gap = config.alpha * (G[i % B] - G[i])
                loss += math.log1p(math.exp(-gap)) / (rows - B)
                pull = config.alpha / (1 + math.exp(gap)) / (rows - B)
                slope[i % B] -= pull
                slope[i] += pull
        else:
            sign, share = (-1, 0.5 / B) if i < B else (1, 0.5 / (rows - B))
            loss += share * math.log1p(math.exp(sign * (G[i] - theta)))
            slope[i] += share * sign / (1 + math.exp(-sign * (G[i] - theta)))
    delta = torch.stack([s * 2 * row / (1 if hinton else n) for s, row in zip(slope, h, strict=True)])
    if hinton:
        units, places = h.shape[1], h[0, 0].numel()
        old = method.peer_means[k]
        r = [0.9 * float(old[u]) + 0.1 * float(h[:B, u].sum()) / (B * places) for u in range(units)]
        centre = sum(r) / units
        loss += 0.03 * sum((centre - value) ** 2 for value in r) / units
        for u in range(units):
            delta[:B, u] += 0.03 * 2 / units * (r[u] - centre) * 0.1 / (B * places)
    return loss, delta


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("settings", RULES, ids=lambda s: "-".join(s.values()))
def test_a_step_follows_the_equations(make_method: Make, batch64: Batch, net: str, settings: dict[str, str]) -> None:
    """Fails with the goodness upside down, a sum for a mean, a missing sqrt(n), peers taken from negatives too, relu's
    own gradient for the one that passes, or with a gradient into the layer below.
    """
    method = made(make_method, net, **settings)
    x, y = batch64
    noise = torch.Generator()
    noise.set_state(method.noise.get_state())
    wrong = wrong_labels(method.config.negatives, y, 10, noise, method.predict(x))
    m = len(wrong) // len(y)
    h = torch.stack(
        [with_label(x[i], one_hot(int(c))) for i, c in enumerate(y)]
        + [with_label(x[i % len(y)], one_hot(int(c))) for i, c in enumerate(wrong)]
    )
    expected, losses = list[Tensor](), []
    for k, block in enumerate(method.net.blocks[:-1]):
        h = through(method, block, h.detach())
        loss, delta = by_hand(method, k, h.detach(), len(y))
        losses.append(loss)
        expected += torch.autograd.grad(h, list(block.parameters()), delta)
    seen = watched(method.optimizers)
    found = method.train_step(batch64, START)
    assert m == (9 if settings["negatives"] == "all" else 1)
    assert_same([seen[id(p)] for layer in method.layers for p in layer.parameters()], expected)
    assert found["local_loss"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    assert any(bool(g.any()) for g in expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_head_learns_from_neutral_images(make_method: Make, batch64: Batch, recipe: str) -> None:
    """Fails with a head that is given the label, or outputs of which the goodness can be read."""
    method = made(make_method, recipe=recipe, predict_by="head", amplitude=0.7)
    x, y = batch64
    h, features = torch.stack([with_label(image, [0.1] * 10, 0.7) for image in x]), list[Tensor]()
    for k, block in enumerate(method.net.blocks[:-1]):
        h = through(method, block, h).detach()
        scale = math.sqrt(h.shape[1]) if recipe == "hinton" else 1.0
        if k > 0 or recipe == "mean-goodness":
            features.append(torch.stack([scale * row / (row.norm() + 1e-8) for row in h]))
    read = torch.cat(features, dim=1)
    (head,) = method.heads
    scores = read @ head.weight.T + head.bias
    torch.testing.assert_close(method.predict(x), scores.detach())
    e = (scores.softmax(1) - F.one_hot(y, 10)) / len(y)
    seen = watched(method.head_optimizers)
    loss = method.train_step(batch64, START)["loss"]
    assert_same([seen[id(head.weight)], seen[id(head.bias)]], [(e.T @ read).detach(), e.sum(0).detach()])
    torch.testing.assert_close(loss, F.cross_entropy(scores, y).detach())


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_scores_are_the_goodness_under_each_label(make_method: Make, batch64: Batch, net: str, recipe: str) -> None:
    """Fails where one batch of all labels is not what a loop over labels gives, or lists classes in another order."""
    method = made(make_method, net, recipe=recipe, predict_by="goodness")
    x = batch64.x
    expected = torch.zeros(len(x), 10, dtype=x.dtype)
    for c in range(10):
        h = torch.stack([with_label(image, one_hot(c)) for image in x])
        for k, block in enumerate(method.net.blocks[:-1]):
            h = through(method, block, h).detach()
            if recipe == "hinton" and k > 0:
                expected[:, c] += (h**2).flatten(1).sum(1)
            if recipe == "mean-goodness":
                expected[:, c] += (h**2).flatten(1).mean(1)
    torch.testing.assert_close(method.predict(x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("net", NETS)
def test_first_weights_are_those_of_the_net_or_of_the_recipe(make_method: Make, net: str) -> None:
    """N(0, 1 / n_out) and no bias, or what backprop starts from; mean-goodness has torch's own."""
    same = {"net": net, "net_settings": NETS[net], "seed": 3}
    backprop = make_method("backprop", **same)
    for settings in ({"start": "net"}, {"start": "recipe", "recipe": "mean-goodness"}):
        method = make_method("forward-forward", **same, **settings)
        for mine, theirs in zip(method.layers.parameters(), backprop.net.blocks[:-1].parameters(), strict=True):
            assert torch.equal(mine, theirs)
    method = make_method("forward-forward", net=net, net_settings={"width": 200, "depth": 2}, start="recipe")
    for layer in (m for m in method.layers.modules() if isinstance(m, nn.Linear | nn.Conv2d)):
        n_out = layer.weight.numel() / layer.weight.shape[1]
        weight = layer.weight.detach()
        assert float(weight.std()) == pytest.approx(n_out**-0.5, rel=0.1)
        assert float(weight.mean()) == pytest.approx(0, abs=5 * n_out**-0.5 / weight.numel() ** 0.5)
        assert layer.bias.abs().max() == 0


def test_scores_are_the_same_by_one_batch_and_by_several(
    make_method: Make, batch64: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels by threes, the last one alone; fails with classes in another order, or one left out."""
    method = made(make_method, "cnn", predict_by="goodness")
    whole = method.predict(batch64.x)
    monkeypatch.setattr(forward_forward, "MOST_UNITS", 3 * len(batch64.x) * method.widest)
    torch.testing.assert_close(method.predict(batch64.x), whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("by", ["head", "goodness"])
def test_no_label_is_read_from_an_image(make_method: Make, batch64: Batch, by: str) -> None:
    """What stands where labels are written makes no difference: a label from training, or the image."""
    method = made(make_method, predict_by=by)
    x, y = batch64
    before = x.clone()
    method.train_step(batch64, START)
    assert torch.equal(x, before)
    labelled = torch.stack([with_label(image, one_hot(int(c)), 0.5) for image, c in zip(x, y, strict=True)])
    blank = torch.stack([with_label(image, [0.0] * 10) for image in x])
    brightest_elsewhere = [i for i in range(len(x)) if blank[i].abs().max() == x[i].abs().max()]
    assert len(brightest_elsewhere) > 5
    for images in (labelled, blank):
        assert torch.equal(method.predict(images[brightest_elsewhere]), method.predict(x[brightest_elsewhere]))


def test_an_image_is_predicted_by_itself(make_method: Make, batch64: Batch) -> None:
    """The brightness of a label is that of its own image, not of the batch."""
    method = made(make_method, predict_by="goodness")
    one, all_ = method.predict(batch64.x[:1]), method.predict(batch64.x)
    torch.testing.assert_close(one, all_[:1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("settings", RULES, ids=lambda s: "-".join(s.values()))
def test_what_it_trains_for_is_what_it_predicts_by(make_method: Make, batch: Batch, settings: dict[str, str]) -> None:
    """Sixteen images are learnt by heart; the opposite sign in training or in prediction would unlearn them."""
    lr = {"hinton": 0.01, "mean-goodness": 0.03}[settings["recipe"]]
    alpha = 0.05 if settings["recipe"] == "hinton" else 4.0
    method = make_method("forward-forward", net_settings={"width": 64, "depth": 2}, lr=lr, alpha=alpha, **settings)
    for _ in range(150):
        method.train_step(batch, START)
    assert (method.predict(batch.x).argmax(1) == batch.y).double().mean() > 0.6


@pytest.mark.parametrize("recipe", RECIPES)
def test_peers_wake_a_dead_unit(make_method: Make, batch64: Batch, recipe: str) -> None:
    """It is pulled up with the hinton recipe alone: its relu lets the gradient of peer normalisation pass."""
    method = made(make_method, recipe=recipe)
    layer = method.net.blocks[0][1]
    with torch.no_grad():
        layer.bias[3] = -100.0
    seen = watched(method.optimizers)
    method.train_step(batch64, START)
    pull = seen[id(layer.bias)][3]
    assert pull < 0 if recipe == "hinton" else pull == 0


def test_running_means_start_at_a_half_and_see_positives_alone(make_method: Make, batch64: Batch) -> None:
    method = made(make_method, lr=1e-9)
    assert all(bool((mean == 0.5).all()) for mean in method.peer_means)
    x, y = batch64
    h = torch.stack([with_label(image, one_hot(int(c))) for image, c in zip(x, y, strict=True)])
    activity = through(method, method.net.blocks[0], h).detach().mean(0)
    for _ in range(2):
        method.train_step(batch64, START)
    expected = 0.9 * (0.9 * 0.5 + 0.1 * activity) + 0.1 * activity
    torch.testing.assert_close(method.peer_means[0], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("settings", RULES, ids=lambda s: "-".join(s.values()))
def test_when_a_layer_steps_no_other_has_gradients(
    make_method: Make, batch: Batch, net: str, settings: dict[str, str]
) -> None:
    """A forgotten detach would leave some in the layer below; one backward pass for all losses, everywhere."""
    method = make_method("forward-forward", net=net, net_settings=NETS[net], **settings)
    turns = []

    def look(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        turns.append([{p.grad is not None for p in block.parameters()} for block in method.blocks()])

    for optimizer in (*method.optimizers, *method.head_optimizers):
        optimizer.register_step_pre_hook(look)
    method.train_step(batch, START)
    order = [3, 0, 1, 2] if settings["predict_by"] == "head" else [0, 1, 2]
    assert turns == [[{j == k} for j in range(len(order))] for k in order]
    assert all(p.grad is None for p in method.net.parameters())


@pytest.mark.parametrize("settings", RULES, ids=lambda s: "-".join(s.values()))
def test_retained_bytes_do_not_grow_with_depth(make_method: Make, batch: Batch, settings: dict[str, str]) -> None:
    """As long as the head's input, which does, is less than what a layer takes for both kinds of images."""
    sizes = set()
    for depth in (2, 3, 4):
        method = make_method("forward-forward", net="mlp", net_settings={"width": 96, "depth": depth}, **settings)
        parameters = [p for block in method.blocks() for p in block.parameters()]
        sizes.add(retained_bytes(lambda method=method: method.train_step(batch, START), parameters))  # type: ignore[misc]
    assert len(sizes) == 1


def test_layers_in_turn(make_method: Make, batch: Batch) -> None:
    """Over equal parts of all steps, and those behind are not even evaluated."""
    method = make_method("forward-forward", net_settings=NETS["mlp"], schedule="sequential", predict_by="goodness")
    called: list[int] = []
    for k, layer in enumerate(method.layers):
        layer.register_forward_hook(lambda *_, k=k: called.append(k))
    for step in range(6):
        before = [[p.detach().clone() for p in layer.parameters()] for layer in method.layers]
        called.clear()
        method.train_step(batch, Progress(step, 6, 0))
        moved = [
            any(not torch.equal(p, old) for p, old in zip(layer.parameters(), olds, strict=True))
            for layer, olds in zip(method.layers, before, strict=True)
        ]
        assert moved == [k == step // 2 for k in range(3)]
        assert called == list(range(step // 2 + 1))


def test_step_sizes_fall_in_the_second_half(make_method: Make, batch: Batch) -> None:
    for recipe, lr, after in (("hinton", 1e-3, [1, 1, 1, 0.5]), ("mean-goodness", 0.03, [1, 1, 1, 1])):
        method = make_method("forward-forward", recipe=recipe, predict_by="head")
        for step, part in zip((0, 49, 50, 75), after, strict=True):
            method.train_step(batch, Progress(step, 100, 0))
            assert method.optimizers[0].param_groups[0]["lr"] == pytest.approx(part * lr)
            assert method.head_optimizers[0].param_groups[0]["lr"] == pytest.approx(part * 1e-2)


def test_a_recipe_fills_in_what_is_not_set() -> None:
    hinton, mean = ForwardForwardSettings(), ForwardForwardSettings(recipe="mean-goodness")
    assert (hinton.lr, hinton.theta, hinton.predict_by) == (1e-3, 1.0, "head")
    assert (mean.lr, mean.theta, mean.predict_by) == (0.03, 2.0, "goodness")
    assert ForwardForwardSettings(recipe="mean-goodness", lr=0.1, predict_by="head").model_dump() == {
        **mean.model_dump(), "lr": 0.1, "predict_by": "head",
    }  # fmt: skip


def test_refuses_what_has_no_hidden_layer_or_no_place_for_the_label() -> None:
    facts, config = Facts("cpu", 1, 32), ForwardForwardSettings()
    assert "hidden" in (ForwardForward.refuse(small_task(MLP, {"depth": 0}), config, facts) or "")
    narrow = image_task("narrow", 10, (3, 3, 3), 100, MLP, {"width": 8, "depth": 2})
    assert "10 pixels" in (ForwardForward.refuse(narrow, config, facts) or "")
    assert ForwardForward.refuse(small_task(MLP, {"depth": 1}), config, facts) is None


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "settings",
    [
        *RULES,
        {"schedule": "sequential", "recipe": "mean-goodness"},
    ],
    ids=lambda s: "-".join(s.values()),
)
def test_claims_follow_the_settings(net: str, settings: dict[str, str]) -> None:
    """By goodness a prediction takes ten passes; a head, and hard labels, take a second one in training."""
    subject = Subject(ForwardForward, small_task(CLASSES[net], NETS[net]), settings)
    for check in ("reverse-mode", "passes", "weight-transport", "waiting", "resume"):
        CHECKS[check](subject)
