"""Node perturbation against a slow loop over examples, and against the true gradient."""

import bench.methods.perturbation.node_perturbation
import pytest
import torch
import torch.nn.functional as F
from bench.methods._shared.directions import draw
from bench.methods.perturbation.node_perturbation import second_moment
from scipy.linalg import hadamard
from torch import Tensor, nn

from bench import Batch, Progress
from bench.audit.passes import passes
from bench.nets.cnn import CNN
from bench.nets.mlp import MLP
from bench.testing.subject import image_task

START = Progress(0, 1, 0)
DOTS = Batch(torch.tensor([[[[1.0, -1.0], [0.5, 2.0]]], [[[0.0, 1.0], [-2.0, 1.0]]]]).double(), torch.tensor([2, 0]))
TINY = {
    "mlp": image_task("dots", 3, (1, 2, 2), 100, MLP, {"width": 4, "depth": 1, "activation": "tanh"}),  # 4 + 3 units
    "cnn": image_task("dots", 3, (1, 2, 2), 100, CNN, {"width": 2, "depth": 2}),  # 2 x 4 + 4 x 1 + 3 units
}


def plain(make_method, net: str, **settings):
    method = make_method("node-perturbation", task=TINY[net], optimizer="sgd", lr=1.0, **settings)
    method.net.double()
    return method


def step(method, batch: Batch) -> list[Tensor]:
    """What one step of plain descent subtracts; the weights are put back."""
    start = [p.detach().clone() for p in method.net.parameters()]
    method.train_step(batch, START)
    found = [s - p.detach() for s, p in zip(start, method.net.parameters(), strict=True)]
    for s, p in zip(start, method.net.parameters(), strict=True):
        p.data.copy_(s)
    return found


def gradient(net, batch: Batch) -> list[Tensor]:
    return list(torch.autograd.grad(F.cross_entropy(net(batch.x), batch.y), list(net.parameters())))


def linear(method) -> None:
    """Take the non-linearities out of the net."""
    for block in method.net.blocks:
        for name, child in block.named_children():
            if isinstance(child, (nn.Tanh, nn.ReLU)):
                setattr(block, name, nn.Identity())


@pytest.mark.parametrize("form", ["noise", "iterative"])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("is_linear", [True, False])
def test_an_orthogonal_basis_of_noise_gives_the_gradient(make_method, monkeypatch, form, net, is_linear) -> None:
    """Each of 16 steps draws a row of a Hadamard matrix, a column per unit: their mean has no sampling error."""
    method = plain(make_method, net, form=form, sigma=1e-6)
    if is_linear:
        linear(method)
    row, taken = torch.empty(0), 0

    def next_columns(shape, like, *_) -> Tensor:
        nonlocal taken
        units = torch.Size(shape[1:]).numel()
        taken += units
        return row[taken - units : taken].view(shape[1:]).expand(shape).clone()

    monkeypatch.setattr(bench.methods.perturbation.node_perturbation, "draw", next_columns)
    total = [torch.zeros_like(p) for p in method.net.parameters()]
    for signs in hadamard(16):
        row, taken = torch.tensor(signs).double(), 0
        for t, s in zip(total, step(method, DOTS), strict=True):
            t += s / 16
    for t, g in zip(total, gradient(method.net, DOTS), strict=True):
        torch.testing.assert_close(t, g, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("form", ["noise", "iterative"])
def test_the_mean_step_is_the_gradient_of_a_linear_net(make_method, form) -> None:
    method = plain(make_method, "mlp", form=form, sigma=1e-3)
    linear(method)
    found = torch.stack([torch.cat([s.flatten() for s in step(method, DOTS)]) for _ in range(1500)])
    expected = torch.cat([g.flatten() for g in gradient(method.net, DOTS)])
    stderr = found.std(0) / 1500**0.5
    assert ((found.mean(0) - expected).abs() < 4.5 * stderr).all()
    assert stderr.max() < expected.abs().max() / 4


@pytest.mark.parametrize("form", ["noise", "iterative", "activity"])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_a_step_equals_a_loop_over_examples_and_layers(make_method, net, form) -> None:
    """The equations written out for one example at a time, convolutions as products with patches."""
    sigma = 0.1
    method = plain(make_method, net, form=form, sigma=sigma)
    twin = torch.Generator().set_state(method.noise.get_state())
    blocks, layers = method.net.blocks, method.layers

    def run(x: Tensor, noise: dict[int, Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        inputs, outputs = [], []
        for k, block in enumerate(blocks):
            for module in block if isinstance(block, nn.Sequential) else [block]:
                if module is layers[k]:
                    inputs.append(x)
                    x = module(x) + noise.get(k, 0)
                    outputs.append(x)
                else:
                    x = module(x)
        return x, inputs, outputs

    with torch.no_grad():
        xi = [draw(a.shape, a, "gaussian", twin) * sigma for a in run(DOTS.x, {})[2]]
        units = sum(a[0].numel() for a in xi)
        expected = {p: torch.zeros_like(p) for p in method.net.parameters()}
        for n in range(2):
            x, y = DOTS.x[n : n + 1], DOTS.y[n : n + 1]
            own = {k: a[n : n + 1] for k, a in enumerate(xi)}
            scores, inputs, before = run(x, {})
            clean = F.cross_entropy(scores, y)
            noisy, _, after = run(x, own)
            squares = sum((b - a).square().sum() for a, b in zip(before, after, strict=True))
            for k, layer in enumerate(layers):
                if form == "iterative":
                    error = (F.cross_entropy(run(x, {k: own[k]})[0], y) - clean) / sigma**2 * own[k]
                elif form == "noise":
                    error = (F.cross_entropy(noisy, y) - clean) / sigma**2 * own[k]
                else:
                    error = units * (F.cross_entropy(noisy, y) - clean) / squares * (after[k] - before[k])
                patches = F.unfold(inputs[k], 3, padding=1)[0] if isinstance(layer, nn.Conv2d) else inputs[k].T
                error = error[0].flatten(1) if isinstance(layer, nn.Conv2d) else error.T
                expected[layer.weight] += (error @ patches.T).view_as(layer.weight) / 2
                expected[layer.bias] += error.sum(1) / 2
    for (name, p), found in zip(method.net.named_parameters(), step(method, DOTS), strict=True):
        assert torch.allclose(found, expected[p], rtol=1e-9, atol=1e-10), name


def test_one_layer_with_noise_in_sight_makes_both_forms_equal(make_method, batch) -> None:
    """There da = xi, and with Rademacher noise |da|^2 / M is sigma^2 exactly."""
    noise, activity = (
        make_method(
            "node-perturbation",
            net_settings={"depth": 0},
            form=form,
            directions="rademacher",
            sigma=0.01,
            optimizer="sgd",
            lr=1.0,
        )
        for form in ("noise", "activity")
    )
    doubled = Batch(batch.x.double(), batch.y)
    for a, b in zip(*(step(_double(method), doubled) for method in (noise, activity)), strict=True):
        assert a.abs().max() > 0.01
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def _double(method):
    method.net.double()
    return method


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_a_decorrelated_step_follows_the_equations(make_method, batch, net) -> None:
    """From R = I the first step on W is the plain one, R moves against correlations, the net holds W R."""
    settings = {"net": net, "optimizer": "sgd", "lr": 0.1}
    plain_one = make_method("node-perturbation", **settings)
    method = make_method("node-perturbation", decorrelation=0.01, **settings)
    plain_one.train_step(batch, START)
    method.train_step(batch, START)
    first, x = method.layers[0], batch.x
    x = F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1) if net == "cnn" else x.flatten(1)
    moment = sum(torch.outer(row, row) for row in x) / len(x)
    off = moment - torch.diag(torch.diag(moment))
    R = method.decorrelated[0].R.detach()
    torch.testing.assert_close(R, torch.eye(len(off)) - 0.01 * off, rtol=1e-4, atol=1e-6)
    for d, layer, other in zip(method.decorrelated, method.layers, plain_one.layers, strict=True):
        torch.testing.assert_close(d.W.detach(), other.weight.detach().flatten(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.weight.detach().flatten(1), (d.W @ d.R).detach())
    assert not torch.equal(first.weight, plain_one.layers[0].weight)
    # on the second step W learns on R x: dW = (sum d x^T) R^T
    before = method.decorrelated[0].W.detach().clone()
    rotation = R.clone()
    with torch.no_grad():
        _, inputs, errors = method._errors(batch)
        method._learn(inputs, errors)
    d, h = errors[0], inputs[0]
    if net == "cnn":
        h, d = F.unfold(h, 3, padding=1).transpose(1, 2).flatten(0, 1), d.flatten(2).transpose(1, 2).flatten(0, 1)
    expected = before - 0.1 * d.T @ (h @ rotation.T)
    torch.testing.assert_close(method.decorrelated[0].W.detach(), expected, rtol=1e-3, atol=1e-3 * d.abs().max().item())


def test_decorrelation_drives_the_correlations_down(make_method) -> None:
    """Inputs mixed by a fixed matrix: off-diagonal moments of R x vanish while W stays where it is."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.eye(64) + 0.3 * torch.randn(64, 64, generator=generator) / 8
    x = (torch.randn(512, 64, generator=generator) @ mix.T).view(-1, 1, 8, 8)
    method = make_method("node-perturbation", lr=1e-30, decorrelation=0.05)
    batch = Batch(x, torch.zeros(512, dtype=torch.int64))

    def off_diagonal() -> Tensor:
        R, moment = method.decorrelated[0].R, second_moment(method.layers[0], x.flatten(1))
        found = R @ moment @ R.T
        return (found - found.diag().diag()).square().mean().sqrt() / found.diag().mean()

    before = off_diagonal()
    for _ in range(300):
        method.train_step(batch, START)
    assert off_diagonal() < before / 10


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("form", ["noise", "activity", "iterative"])
def test_claims_follow_the_form(make_method, batch, form, net) -> None:
    method = make_method("node-perturbation", net=net, form=form)
    expected = {"mlp": 4, "cnn": 5}[net] if form == "iterative" else 2
    assert method.claims().forward_passes == expected
    assert passes(method, lambda: method.train_step(batch, START)) == expected
