"""FLOPs against counts by hand. A product of (m, k) and (k, n) takes 2 m k n."""

import itertools
import threading
from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import Batch, Method, Progress
from bench.catalog.catalog import Catalog
from bench.measure.flops import Flops, counted
from bench.testing.subject import nets_of

B, D, W, M = 16, 64, 32, 10  # of the batch fixture: examples, pixels; units of the small mlp; classes
SECOND = Progress(1, 2, 0)


def mlp(depth: int = 2) -> tuple[int, int]:
    """Multiply-adds for an example: of the small mlp, and of its first layer."""
    sizes = [D, *[W] * depth, M]
    layers = [a * b for a, b in itertools.pairwise(sizes)]
    return sum(layers), layers[0]


def cnn(width: int = 8) -> tuple[int, int]:
    """Of the small cnn on 8 x 8 images: convolutions 3 x 3, halved after the first and the third."""
    layers = [64 * 9 * width, 16 * 9 * width * 2 * width, 16 * 9 * 2 * width * 4 * width, 4 * 4 * width * M]
    return sum(layers), layers[0]


def denoiser_step(T: int, side: int, w: int, hidden: int) -> int:
    """Of a NoProp-DT step: each block there and back, and the readout of one-hot embeddings."""
    h, half, pooled = hidden, (side // 2) ** 2, (side // 2 // 2) ** 2
    first = side**2 * 9 * w + M * h  # of the image, of the label: nothing beneath wants a gradient
    rest = half * 9 * w * 2 * w + half * 9 * 2 * w * 4 * w + 4 * w * pooled * h  # the tower of the image
    rest += 2 * h * h + 2 * h * h + h * h // 2 + h // 2 * M  # the path of the label, the head
    guess = M * M  # the mean embedding, whose embeddings do not learn
    return T * (2 * first + 3 * rest + 2 * guess) + 2 * M * M


def step(method: Method, batch: Batch) -> dict[str, Any]:
    """What the probe reads of a step that is not the first."""
    method.train_step(batch, Progress(0, 2, 0))
    with Flops().watch(method, ()) as reading:
        method.train_step(batch, SECOND)
    return dict(reading())


@pytest.mark.parametrize(("net", "layers"), [("mlp", mlp), ("cnn", cnn)])
def test_backprop(
    make_method: Callable[..., Method], batch: Batch, net: str, layers: Callable[[], tuple[int, int]]
) -> None:
    """Forward, weight gradients, input gradients; nobody asks for the gradient of the images."""
    every, first = layers()
    found = step(make_method("backprop", net=net), batch)
    assert found == {"flops_per_step": 2 * B * (3 * every - first), "uncounted_ops": "", "flops_by_phase": ""}


def test_forward_gradient(make_method: Callable[..., Method], batch: Batch) -> None:
    """Forward, tangents (the images have none), weight gradients from noise, the slope of each example."""
    every, first = mlp()
    assert step(make_method("forward-gradient"), batch)["flops_per_step"] == 2 * B * (3 * every - first + M)


def test_forward_gradient_over_weights(make_method: Callable[..., Method], batch: Batch) -> None:
    """Forward, tangents by weights and by inputs, the slope, and the slope times the direction."""
    every, first = mlp()
    method = make_method("forward-gradient", space="weight")
    assert method.net is not None
    n_weights = sum(p.numel() for p in method.net.parameters())
    assert step(method, batch)["flops_per_step"] == 2 * B * (3 * every - first + M) + 2 * n_weights


@pytest.mark.parametrize(("settings", "passes"), [({}, 2), ({"sides": "one", "n": 3}, 4)])
def test_spsa(make_method: Callable[..., Method], batch: Batch, settings: dict[str, Any], passes: int) -> None:
    assert step(make_method("spsa", **settings), batch)["flops_per_step"] == passes * 2 * B * mlp()[0]


@pytest.mark.parametrize("execution", ["loop", "parallel", "stacked"])
def test_noprop(make_method: Callable[..., Method], batch: Batch, execution: str) -> None:
    """Whether blocks run in turn, in threads of their own, or stacked under vmap as grouped convolutions."""
    found = step(make_method("noprop-dt", execution=execution), batch)
    counted_by_hand = 2 * B * denoiser_step(T=3, side=8, w=4, hidden=32)
    assert found == {"flops_per_step": counted_by_hand, "uncounted_ops": "", "flops_by_phase": ""}


def test_the_count_by_hand_gives_the_known_figure_of_the_paper_s_net() -> None:
    assert 2 * 128 * denoiser_step(T=10, side=28, w=32, hidden=256) == pytest.approx(154.5e9, rel=1e-3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_prediction_counts_by_image(make_method: Callable[..., Method], batch: Batch, mode: Any) -> None:
    method = make_method("backprop")
    with Flops().watch_prediction(method, batch.x) as reading, mode():
        method.predict(batch.x)
    assert reading() == {"flops_per_inference": 2 * mlp()[0]}


@pytest.mark.parametrize("name", sorted(Catalog().methods))
def test_of_our_own_methods_everything_is_counted(
    make_method: Callable[..., Method], catalog: Catalog, batch: Batch, name: str
) -> None:
    for net in nets_of(catalog.methods[name].load()):
        found = step(make_method(name, net=net), batch)
        assert found["uncounted_ops"] == ""
        assert found["flops_per_step"] > 0


def flops(act: Callable[[], object]) -> int:
    with counted() as work:
        act()
    assert not work.uncounted
    return work.flops


@pytest.mark.parametrize("transposed", [False, True])
def test_a_grouped_convolution_is_so_many_small_ones(transposed: bool) -> None:
    """There and back; torch's own formula has the weights' gradient too high by the number of groups."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d

    def there_and_back(channels: int, groups: int) -> int:
        net = kind(channels, 2 * channels, 3, stride=2, groups=groups)
        x = torch.randn(4, channels, 9, 9, requires_grad=True)
        return flops(lambda: net(x).sum().backward())

    small = there_and_back(2, 1)
    sites = 9 * 9 if transposed else 4 * 4
    assert small == 3 * 2 * 4 * sites * 9 * 2 * 4
    assert there_and_back(6, 3) == 3 * small


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # of torch, on the first jvp
def test_mapped_and_forward_mode_count() -> None:
    a, b = torch.randn(5, 4, 3), torch.randn(5, 3, 2)
    assert flops(lambda: torch.vmap(torch.mm)(a, b)) == 2 * prod((5, 4, 3, 2))
    x, w = torch.randn(4, 3), torch.randn(3, 2)
    # the product, and its tangent of two: x' w + x w'
    assert flops(lambda: torch.func.jvp(torch.mm, (x, w), (x, w))) == 3 * 2 * prod((4, 3, 2))


@pytest.mark.parametrize(
    ("act", "expected"),
    [(lambda a, x: a @ x, 24), (lambda a, x: x @ x, 6), (lambda a, x: torch.addmv(torch.zeros(4), a, x), 24)],
    ids=["mv", "dot", "addmv"],
)
def test_products_with_vectors_count(act: Callable[[Tensor, Tensor], Tensor], expected: int) -> None:
    assert flops(lambda: act(torch.randn(4, 3), torch.randn(3))) == expected


def test_attention_counts() -> None:
    """Scores and their mean, there; back the same twice, and the scores once more, as the kernel keeps none."""
    q, k, v = torch.randn(3, 2, 4, 8, 16, requires_grad=True)
    product = 2 * prod((2, 4, 8, 8, 16))
    attended: list[Tensor] = []
    attend = nn.functional.scaled_dot_product_attention
    assert flops(lambda: attended.append(attend(q, k, v))) == 2 * product
    assert flops(lambda: attended[0].sum().backward()) == 5 * product


def test_what_new_threads_do_counts() -> None:
    def act() -> None:
        thread = threading.Thread(target=lambda: torch.randn(4, 3) @ torch.randn(3, 2))
        thread.start()
        thread.join()

    assert flops(act) == 48


def test_torch_counts_the_same_where_nothing_is_grouped(make_method: Callable[..., Method], batch: Batch) -> None:
    for net in ("mlp", "cnn"):
        method = make_method("backprop", net=net)
        with FlopCounterMode(display=False) as theirs:
            method.train_step(batch, SECOND)
        assert step(method, batch)["flops_per_step"] == theirs.get_total_flops()


@torch.library.custom_op("bench_test::square_product", mutates_args=())
def square_product(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy() @ x.numpy())


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (square_product, {"bench_test.square_product"}),
        (torch.linalg.inv, {"aten.linalg_inv_ex"}),
        (lambda x: torch.fft.fft(x).abs(), {"aten._fft_r2c"}),
        (lambda x: torch.cdist(x, x), {"aten._euclidean_dist", "aten._cdist_forward"}),
        (lambda x: x.relu().softmax(1).cumsum(0).t()[1:].sort().values.norm(), set()),
        (lambda x: torch._foreach_add([x], 1.0), set()),
        (lambda x: nn.functional.softplus(x.clone().requires_grad_()).sum().backward(), set()),
    ],
    ids=["custom", "inverse", "fourier", "distances", "cheap", "foreach", "derivative"],
)
def test_what_cannot_be_counted_is_named(act: Callable[[Tensor], object], named: set[str]) -> None:
    with counted() as work:
        act(torch.eye(6))
    assert work.uncounted <= named
    assert bool(work.uncounted) == bool(named)


def test_a_formula_of_one_s_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.measure import flops as module

    packet = torch.ops.bench_test.square_product
    monkeypatch.setitem(module.flop_registry, packet, lambda x, out_val: 2 * len(x) ** 3)
    assert flops(lambda: square_product(torch.eye(6))) == 2 * 6**3
