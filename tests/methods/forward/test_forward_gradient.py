"""Forward gradients against autograd's gradient, loops, and the stop-gradient formula written out."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from bench.methods._shared.directions import draw
from bench.methods.forward import forward_gradient, local_forward_gradient
from bench.methods.forward.local_forward_gradient import features, slopes
from bench.methods.forward.tangents import Weights, forward
from torch import Tensor, nn

from bench import Batch, Input, Output, Progress, Seeds
from bench.api.net import Net
from bench.audit.dependency import update_dependency
from bench.catalog.catalog import Catalog
from bench.nets.localmixer import Normed, TokenLinear
from bench.objectives.cross_entropy import CrossEntropy
from bench.testing.claims import check_passes, check_reverse_mode
from bench.testing.subject import CPU, Subject, small_task
from tests.without_reverse_mode import forbidden

PROGRESS = Progress(0, 10, 0)
MIXER = {"depth": 2, "patches": 2, "channels": 8, "groups": 2}
NETS = {
    "mlp": ("mlp", (1, 4, 4), {"width": 5}),
    "mlp-tanh": ("mlp", (1, 4, 4), {"width": 5, "activation": "tanh"}),
    "cnn": ("cnn", (2, 6, 6), {"width": 2, "depth": 2}),
    "localmixer": ("localmixer", (1, 4, 4), MIXER),
}
METHOD_NETS = [("mlp", {"width": 8}), ("cnn", {"width": 2}), ("localmixer", MIXER)]
OF_CLASSES = {"objective": CrossEntropy(Output.classes(3))}
weight_estimate = partial(forward_gradient.weight_estimate, **OF_CLASSES)
activity_estimate = partial(forward_gradient.activity_estimate, **OF_CLASSES)
ESTIMATES = {"weight": weight_estimate, "activity": activity_estimate}

any_net = pytest.mark.parametrize("net", NETS, indirect=True)
any_space = pytest.mark.parametrize("space", ESTIMATES)


@pytest.fixture
def net(request) -> Net:
    """A small net in float64, with weights away from their start, where a readout may be zero."""
    name, image_shape, settings = NETS[getattr(request, "param", "mlp")]
    made = (
        Catalog()
        .nets[name]
        .load()
        .build(Input.image(*image_shape), Output.classes(3), settings, torch.Generator().manual_seed(0))
        .double()
    )
    made.image_shape = image_shape
    generator = torch.Generator().manual_seed(1)
    for p in made.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return made


def batch_for(net: Net, n: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, *net.image_shape, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(3, (n,), generator=generator))


def backprop(loss: Tensor, module: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters())))


def by_parameter(module: nn.Module, gradient: dict[Tensor, Tensor]) -> list[Tensor]:
    return [gradient[p] for p in module.parameters()]


def gaussian(generator: torch.Generator):
    return lambda shape, like: draw(shape, like, "gaussian", generator)


class Basis:
    """Draws that are, in the order in which they are asked for, a basis of length sqrt(k) of all k coordinates."""

    def __init__(self, estimate) -> None:
        sizes = []

        def measure(shape: tuple[int, ...], like: Tensor) -> Tensor:
            sizes.append(self.coordinates(shape))
            return torch.zeros(shape, dtype=like.dtype)

        with torch.no_grad():
            estimate(1, measure)
        self.k, self.next = sum(sizes), 0

    @staticmethod
    def coordinates(shape: tuple[int, ...]) -> int:
        """Weights (k, d) are one vector; noise (k, B, ...) is one for each example."""
        return torch.Size(shape[1:] if len(shape) == 2 else shape[2:]).numel()

    def __call__(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        n = self.coordinates(shape)
        part = torch.zeros(self.k, n, dtype=like.dtype)
        part[self.next : self.next + n] = torch.eye(n, dtype=like.dtype) * torch.tensor(self.k).double().sqrt()
        self.next += n
        if len(shape) == 2:
            return part
        return part.view(self.k, 1, *shape[2:]).expand(shape).clone()


@any_net
@any_space
def test_sum_over_a_basis_is_backprops_gradient(net, space) -> None:
    batch, estimate = batch_for(net), ESTIMATES[space]
    basis = Basis(lambda k, draws: estimate(net, batch, k, draws))
    with torch.no_grad():
        loss, gradient = estimate(net, batch, basis.k, basis)
    expected = F.cross_entropy(net(batch.x), batch.y)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(by_parameter(net, gradient), backprop(expected, net), rtol=0, atol=1e-10)


@any_net
@any_space
def test_directions_together_equal_one_after_another(net, space) -> None:
    batch, estimate, k, drawn = batch_for(net), ESTIMATES[space], 3, []

    def record(shape: tuple[int, ...], like: Tensor) -> Tensor:
        drawn.append(torch.randn(shape, generator=generator, dtype=like.dtype))
        return drawn[-1].clone()

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        together = estimate(net, batch, k, record)[1]
        singly = []
        for i in range(k):
            replay = iter(drawn)
            singly.append(estimate(net, batch, 1, lambda shape, like, i=i, r=replay: next(r)[i : i + 1].clone())[1])
    mean = [torch.stack(gs).mean(0) for gs in zip(*(by_parameter(net, s) for s in singly), strict=True)]
    torch.testing.assert_close(by_parameter(net, together), mean, rtol=0, atol=1e-12)


@any_net
def test_each_example_answers_for_its_own_noise(net) -> None:
    """The estimate is the mean of those of single examples; a slope shared by the batch would not be."""
    batch, drawn = batch_for(net), []
    generator = torch.Generator().manual_seed(3)

    def record(shape: tuple[int, ...], like: Tensor) -> Tensor:
        drawn.append(torch.randn(shape, generator=generator, dtype=like.dtype))
        return drawn[-1].clone()

    with torch.no_grad():
        whole = activity_estimate(net, batch, 2, record)[1]
        singly = []
        for n in range(len(batch.y)):
            replay, own = iter(drawn), Batch(batch.x[n : n + 1], batch.y[n : n + 1])
            of_n = lambda shape, like, n=n, r=replay: next(r)[:, n : n + 1].clone()  # noqa: E731
            singly.append(by_parameter(net, activity_estimate(net, own, 2, of_n)[1]))
    mean = [torch.stack(gs).mean(0) for gs in zip(*singly, strict=True)]
    torch.testing.assert_close(by_parameter(net, whole), mean, rtol=0, atol=1e-12)


@any_space
@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_estimates_scatter_about_the_gradient_and_less_with_more_directions(net, space, distribution) -> None:
    """Mean within 4.5 standard errors in each of 133 weights; total variance a sixteenth at k = 16, within a fifth."""
    batch, generator = batch_for(net), torch.Generator().manual_seed(4)
    exact = torch.cat([g.flatten() for g in backprop(F.cross_entropy(net(batch.x), batch.y), net)])

    def estimates(k: int) -> Tensor:
        found = []
        with torch.no_grad():
            for _ in range(600):
                g = ESTIMATES[space](net, batch, k, lambda s, like: draw(s, like, distribution, generator))[1]
                found.append(torch.cat([g[p].flatten() for p in net.parameters()]))
        return torch.stack(found)

    one, many = estimates(1), estimates(16)
    for found in (one, many):
        stderr = found.std(0) / len(found) ** 0.5
        assert ((found.mean(0) - exact).abs() <= 4.5 * stderr + 1e-12).all()
    assert float(one.var(0).sum() / many.var(0).sum()) == pytest.approx(16, rel=0.2)


def test_a_unit_that_is_off_moves_nothing(net) -> None:
    hidden = net.blocks[0][1]
    hidden.bias.data[0] = -100
    with torch.no_grad():
        gradient = activity_estimate(net, batch_for(net), 3, gaussian(torch.Generator().manual_seed(5)))[1]
    assert not gradient[hidden.weight][0].any()
    assert gradient[hidden.weight][1:].any()


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_independent_with_unit_variance(distribution, dtype) -> None:
    like, generator = torch.zeros(1, dtype=dtype), torch.Generator().manual_seed(6)
    before = torch.get_rng_state()
    v = draw((4_000, 37), like, distribution, generator)  # a number of bits that fills no word
    assert torch.equal(torch.get_rng_state(), before)
    assert v.dtype == dtype
    if distribution == "rademacher":
        assert v.abs().eq(1).all()
    covariance = v.T @ v / len(v)
    torch.testing.assert_close(covariance, torch.eye(37, dtype=dtype), rtol=0, atol=5.5 * (2 / len(v)) ** 0.5)
    assert v.mean().abs() < 5 / v.numel() ** 0.5


def test_a_module_without_a_layer_to_perturb_is_named() -> None:
    with pytest.raises(TypeError, match="Sequential has no layer to perturb"):
        forward(nn.Sequential(nn.GELU()), torch.zeros(1, 2), Weights({}))


class Block(nn.Module):
    """A skip connection around a norm, without forms of its own, that uses one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(4), nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(F.gelu(self.layer(self.norm(x)))).flip(-1)


class Made(Net):
    name = "made"

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Flatten(), Block(), nn.ReLU()), Block(), nn.Linear(4, 3)])
        self.image_shape = (1, 2, 2)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@any_space
def test_on_a_net_without_forms_the_sum_over_a_basis_is_the_gradient(space: str) -> None:
    """Mistakes: of a layer that is used twice one use alone counts; noise inside a block does not reach the skip; a
    ReLU behind a whole block gates the noise of a layer inside it.
    """
    torch.manual_seed(0)
    net = Made().double()
    batch = batch_for(net)
    estimate = partial(ESTIMATES[space], net, batch)
    basis = Basis(estimate)
    loss, gradient = estimate(basis.k, basis)
    expected = F.cross_entropy(net(batch.x), batch.y)
    torch.testing.assert_close(loss, expected)
    for found, exact in zip(by_parameter(net, gradient), backprop(expected, net), strict=True):
        torch.testing.assert_close(found, exact)


# local losses


@any_net
@any_space
def test_local_sum_over_a_basis_is_the_gradient_of_the_blocks_own_loss(net, space) -> None:
    """The P G stop-gradient losses of a block add up to the gradient of one loss without stops."""
    estimate = partial(getattr(local_forward_gradient, f"{space}_estimate"), **OF_CLASSES)
    z, y = batch_for(net)
    for block in net.blocks[:-1]:
        head = some_head(block, z)
        loss = F.cross_entropy(head(features(block(z))), y)
        basis = Basis(lambda k, draws, block=block, head=head, z=z: estimate(block, head, Batch(z, y), k, draws))
        with torch.no_grad():
            z_next, found, gradient = estimate(block, head, Batch(z, y), basis.k, basis)
            torch.testing.assert_close(z_next, block(z))
        torch.testing.assert_close(found, loss.detach())
        both = nn.ModuleList([block, head])
        torch.testing.assert_close(by_parameter(both, gradient), backprop(loss, both), rtol=0, atol=1e-10)
        z = z_next


def some_head(block: nn.Module, z: Tensor) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Linear(features(block(z)).shape[1], 3).double()


def local_losses(head: nn.Linear, z: Tensor, y: Tensor, p: int, channels: slice) -> Tensor:
    """L_n,p,g: z is live in one patch and group and constant elsewhere. Shape: (B,)."""
    seen = z.detach().clone()
    seen[:, p, channels] = z[:, p, channels]
    return F.cross_entropy(head(seen.mean(1)), y, reduction="none")


@pytest.mark.parametrize("net", ["localmixer"], indirect=True)
def test_slopes_are_those_of_the_stop_gradient_losses(net) -> None:
    block, batch = net.blocks[0], batch_for(net)
    head = some_head(block, batch.x)
    z = block(batch.x).detach().requires_grad_()
    t = torch.randn(2, *z.shape, generator=torch.Generator().manual_seed(8), dtype=z.dtype)
    error = (head(z.mean(1)).softmax(1) - F.one_hot(batch.y, 3)).detach()
    s = slopes(t, error, head, groups=2)
    for p in range(4):
        for g, channels in enumerate((slice(0, 4), slice(4, 8))):
            (dz,) = torch.autograd.grad(local_losses(head, z, batch.y, p, channels).sum(), z)
            torch.testing.assert_close(s[:, :, p, g], (t * dz).sum((2, 3)))


@pytest.mark.parametrize("net", ["localmixer"], indirect=True)
@pytest.mark.parametrize("index", [0, 1])
def test_one_draw_of_noise_gives_the_stop_gradient_formulas_update(net, index) -> None:
    """delta = sum over the losses that an entry reaches of slope times noise; autograd takes it to the weights."""
    z, y = batch_for(net)
    for before in net.blocks[:index]:
        z = before(z).detach()
    block, drawn = net.blocks[index], []
    head, generator = some_head(block, z), torch.Generator().manual_seed(9)

    def record(shape: tuple[int, ...], like: Tensor) -> Tensor:
        drawn.append(torch.randn(shape, generator=generator, dtype=like.dtype))
        return drawn[-1].clone()

    with torch.no_grad():
        gradient = local_forward_gradient.activity_estimate(block, head, Batch(z, y), 1, record, **OF_CLASSES)[2]

    # a zero beside each perturbed activity, whose gradient is that activity's, and each layer's output alone
    zeros, alone, rectified, sites = [], [], [], [m for m in block.modules() if isinstance(m, Normed)]

    def insert(module: Normed, args: tuple[Tensor], output: Tensor) -> Tensor:
        alone.append(module.norm(module.layer(module.norm(args[0].detach()))))
        zeros.append(torch.zeros_like(output, requires_grad=True))
        rectified.append(output)
        return output + zeros[-1]

    hooks = [site.register_forward_hook(insert) for site in sites]
    out = block(z)
    for hook in hooks:
        hook.remove()
    if index:
        rectified[-1] = rectified[-1] + z  # the residual enters before the last ReLU
    deltas = [torch.zeros_like(u[0]) for u in drawn]
    for p in range(4):
        for channels in (slice(0, 4), slice(4, 8)):
            losses = local_losses(head, out, y, p, channels)
            reached = torch.autograd.grad(losses.sum(), zeros, retain_graph=True)
            slope = sum((d * u[0]).sum((1, 2)) for d, u in zip(reached, drawn, strict=True))
            for site, delta, u in zip(sites, deltas, drawn, strict=True):
                mine = slice(None) if isinstance(site.layer, TokenLinear) else channels
                delta[:, p, mine] += slope[:, None] * u[0][:, p, mine] / len(y)
    for site, delta, h, a in zip(sites, deltas, rectified, alone, strict=True):
        expected = torch.autograd.grad(a, list(site.layer.parameters()), delta * (h > 0))
        torch.testing.assert_close(by_parameter(site.layer, gradient), list(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("net", ["localmixer"], indirect=True)
def test_one_direction_over_the_weights_is_scaled_group_by_group(net) -> None:
    """The grouped layer's part by the slope of its own group's losses, all else by the slope of their sum."""
    block, (x, y), drawn = net.blocks[0], batch_for(net), []
    head, generator = some_head(block, x), torch.Generator().manual_seed(10)

    def record(shape: tuple[int, ...], like: Tensor) -> Tensor:
        drawn.append(torch.randn(shape, generator=generator, dtype=like.dtype))
        return drawn[-1].clone()

    with torch.no_grad():
        gradient = local_forward_gradient.weight_estimate(block, head, Batch(x, y), 1, record, **OF_CLASSES)[2]
    v = drawn[0][0].split([p.numel() for p in block.parameters()])
    per_group = torch.zeros(2, dtype=torch.float64)
    for p in range(4):
        for g, channels in enumerate((slice(0, 4), slice(4, 8))):
            of_loss = backprop(local_losses(head, block(x), y, p, channels).mean(), block)
            per_group[g] += sum((d.flatten() * part).sum() for d, part in zip(of_loss, v, strict=True))
    scale = [per_group.sum()] * 2 + [per_group.repeat_interleave(16), per_group.repeat_interleave(4)]
    expected = [(c * part).view_as(p) for c, part, p in zip(scale, v, block.parameters(), strict=True)]
    torch.testing.assert_close(by_parameter(block, gradient), expected, rtol=0, atol=1e-10)


@any_space
@pytest.mark.parametrize(("net_name", "settings"), METHOD_NETS)
def test_a_blocks_loss_moves_no_other_block(make_method, batch, space, net_name, settings) -> None:
    seeds = Seeds(0, CPU)
    method = make_method("local-forward-gradient", net=net_name, net_settings=settings, seeds=seeds, space=space)
    for _ in range(3):  # with heads at zero nothing would pass them anyway
        method.train_step(batch, PROGRESS)
    depends = update_dependency(method, seeds, batch, PROGRESS) > 0
    assert depends.diag().all()
    assert torch.equal(depends, depends.tril())
    assert depends[-1, 0]  # what comes later still learns on what comes first


def test_heads_start_at_zero_and_hold_their_block_still(make_method, batch) -> None:
    method = make_method("local-forward-gradient", net_settings=MIXER, weight_decay=0)
    before = [p.detach().clone() for p in method.net.blocks[0].parameters()]
    assert not any(p.any() for p in method.heads.parameters())
    method.train_step(batch, PROGRESS)
    assert all(torch.equal(b, p) for b, p in zip(before, method.net.blocks[0].parameters(), strict=True))
    assert all(p.any() for p in method.heads.parameters())


# claims, for every net and space; the contract suite sees the default ones


@any_space
@pytest.mark.parametrize("name", ["forward-gradient", "local-forward-gradient"])
@pytest.mark.parametrize(("net_name", "settings"), METHOD_NETS)
def test_no_reverse_mode_and_nothing_kept_for_it(make_method, batch, name, space, net_name, settings) -> None:
    method = make_method(name, net=net_name, net_settings=settings, space=space, k=2)
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with forbidden(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = method.train_step(batch, PROGRESS)["loss"]
        assert not kept
        F.cross_entropy(method.net(batch.x), batch.y)
    assert kept  # the hooks do see what backprop would keep
    assert loss.isfinite()


@any_space
@pytest.mark.parametrize("name", ["forward-gradient", "local-forward-gradient"])
@pytest.mark.parametrize(("net_name", "settings"), METHOD_NETS)
def test_claims_hold_on_every_net(name, space, net_name, settings) -> None:
    catalog = Catalog()
    task = small_task(catalog.nets[net_name].load(), settings)
    subject = Subject(catalog.methods[name].load(), task, {"space": space, "k": 2})
    check_reverse_mode(subject)
    check_passes(subject)


@any_space
def test_a_step_is_adamw_on_the_estimate(make_method, batch, space, monkeypatch) -> None:
    """With the estimate replaced by autograd's gradient the step is backprop's, to the last bit."""
    method, twin = make_method("forward-gradient", space=space), make_method("backprop", net="mlp")

    def exact(net: Net, batch: Batch, k: int, draws: object, objective: object) -> tuple[Tensor, dict[Tensor, Tensor]]:
        with torch.enable_grad():
            loss = F.cross_entropy(net(batch.x), batch.y)
            return loss.detach(), dict(zip(net.parameters(), backprop(loss, net), strict=True))

    monkeypatch.setattr(forward_gradient, f"{space}_estimate", exact)
    for _ in range(3):
        method.train_step(batch, PROGRESS)
        twin.train_step(batch, PROGRESS)
    for p, q in zip(method.net.parameters(), twin.net.parameters(), strict=True):
        assert torch.equal(p, q)
