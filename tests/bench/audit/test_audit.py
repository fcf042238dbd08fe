"""Each instrument against nets whose locality is known by construction."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Reach
from bench.audit import live_memory, reverse_mode
from bench.audit.passes import passes
from tests.without_reverse_mode import ReverseModeError, forbidden

# torch 2.15 warns of itself when torch.func.jvp is first used
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


class Chain(SimpleNamespace):
    """Three blocks of two linear layers, a shared readout: enough of a method to be audited."""

    def __init__(self, bias: bool = True) -> None:
        torch.manual_seed(0)
        self.chain = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4, bias), nn.Tanh(), nn.Linear(4, 4, bias)) for _ in range(3)
        )
        self.readout = nn.Linear(4, 2, bias)
        self.x = torch.randn(5, 4)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"inference": self.chain}

    def blocks(self) -> list[nn.Module]:
        return list(self.chain)

    def inputs(self) -> list[Tensor]:
        """The input of each block, as a forward pass without gradients finds it."""
        found = [self.x]
        with torch.no_grad():
            for block in self.chain:
                found.append(block(found[-1]))
        return found


def whole_network(m: Chain) -> None:
    h = m.x
    for block in m.chain:
        h = block(h)
    m.readout(h).square().sum().backward()


def neighbours(m: Chain) -> None:
    """Block 1's loss leaks into block 0: a detach forgotten once."""
    m.chain[1](m.chain[0](m.x)).square().sum().backward()


def block_by_block(m: Chain) -> None:
    for block, h in zip(m.chain, m.inputs(), strict=False):
        block(h).square().sum().backward()


def blocks_in_one_call(m: Chain) -> None:
    """One backward over the sum of local losses carries nothing between their disjoint graphs."""
    losses = [block(h).square().mean() for block, h in zip(m.chain, m.inputs(), strict=False)]
    (torch.stack(losses[:2]).sum() + 0.5 * losses[2]).backward()


def residual_leak(m: Chain) -> None:
    """The block's input is not detached, but reaches the block behind it past a skip only: z + f(z)."""
    z = m.chain[0](m.x)
    (z + m.chain[1](z)).sum().backward()


def local_with_shared_readout(m: Chain) -> None:
    for block, h in zip(m.chain, m.inputs(), strict=False):
        m.readout(block(h)).square().sum().backward()


def layer_by_layer(m: Chain) -> None:
    for block, h in zip(m.chain, m.inputs(), strict=False):
        first, tanh, second = block
        first(h).square().sum().backward()
        second(tanh(first(h)).detach()).square().sum().backward()


def regularised_layers(m: Chain) -> None:
    """Weight decay as a loss adds to a sum, and sums join nothing."""
    layers = [layer for block in m.chain for layer in block if isinstance(layer, nn.Linear)]
    sum(layer(m.x).square().sum() + layer.weight.square().sum() for layer in layers).backward()


def last_layer_asked_for(m: Chain) -> None:
    """The whole net is in the graph, but only its last weight is asked for."""
    h = m.x
    for block in m.chain:
        h = block(h)
    torch.autograd.grad(m.readout(h).square().sum(), m.readout.weight)


def activation_asked_for(m: Chain) -> None:
    """No weight's gradient is taken, yet it runs through two blocks down to an activity."""
    h = m.chain[0](m.x)
    torch.autograd.grad(m.chain[2](m.chain[1](h)).square().sum(), h)


def activation_within_block(m: Chain) -> None:
    h = m.chain[0](m.x)
    torch.autograd.grad(m.chain[1](h).square().sum(), h)


def activation_within_layer(m: Chain) -> None:
    h = m.chain[0](m.x)
    torch.autograd.grad(m.chain[1][0](h).square().sum(), h)


def functional(m: Chain) -> None:
    """torch.func wraps the weights; they are still the same ones."""
    net = nn.Sequential(*m.chain)
    weights = {name: p.detach() for name, p in net.named_parameters()}
    torch.func.grad(lambda w: torch.func.functional_call(net, w, m.x).square().sum())(weights)


def per_example(m: Chain) -> None:
    block = m.chain[0]
    weights = {name: p.detach() for name, p in block.named_parameters()}

    def loss(w: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(block, w, x).square().sum()

    torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, m.x)


def in_threads(m: Chain) -> None:
    pairs = list(zip(m.chain, m.inputs(), strict=False))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda pair: pair[0](pair[1]).square().sum().backward(), pairs * 5))


def forward_mode(m: Chain) -> None:
    net = nn.Sequential(*m.chain)
    with torch.no_grad():
        torch.func.jvp(net, (m.x,), (torch.ones_like(m.x),))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (whole_network, "network"),
        (neighbours, "network"),
        (residual_leak, "network"),
        (functional, "network"),
        (activation_asked_for, "network"),
        (block_by_block, "block"),
        (blocks_in_one_call, "block"),
        (in_threads, "block"),
        (per_example, "block"),
        (local_with_shared_readout, "block"),
        (activation_within_block, "block"),
        (layer_by_layer, "layer"),
        (regularised_layers, "layer"),
        (last_layer_asked_for, "layer"),
        (activation_within_layer, "layer"),
        pytest.param(forward_mode, "none", marks=FORWARD_MODE),
    ],
)
def test_reach(train: Callable[[Chain], None], expected: Reach, bias: bool) -> None:
    method: Any = Chain(bias)
    assert reverse_mode.reach(method, lambda: train(method)) == expected


def test_reach_without_blocks_is_layer_or_network() -> None:
    """Where no boundary is declared, whatever leaves a layer is backprop."""
    method: Any = Chain()
    method.blocks = list
    assert reverse_mode.reach(method, lambda: block_by_block(method)) == "network"
    assert reverse_mode.reach(method, lambda: layer_by_layer(method)) == "layer"


def test_reach_of_weights_that_are_bare_tensors() -> None:
    method: Any = Chain()
    w, v = (torch.randn(4, 4, requires_grad=True) for _ in range(2))
    method.weights, method.blocks = {"layers": [w, v]}, list
    assert reverse_mode.reach(method, lambda: (method.x @ w @ v).sum().backward()) == "network"


def every_way_back(x: Tensor) -> list[Callable[[], object]]:
    """The public roads into reverse mode."""
    return [
        lambda: x.square().sum().backward(),
        lambda: torch.autograd.backward(x.square().sum()),
        lambda: torch.autograd.grad(x.square().sum(), x),
        lambda: torch.autograd.functional.jacobian(torch.sum, x),
        lambda: torch.func.grad(torch.sum)(x),
        lambda: torch.func.vjp(torch.sum, x)[1](torch.tensor(1.0)),
        lambda: torch.func.jacrev(torch.sum)(x),
    ]


@pytest.mark.parametrize("road", range(7))
def test_canary_no_road_to_the_engine_is_missed(road: int) -> None:
    """torch may move its private entry: then this fails first, and claims of 'none' are void till then."""
    back = every_way_back(torch.ones(3, requires_grad=True))[road]
    with forbidden(), pytest.raises(ReverseModeError):
        back()
    back()


def test_threads_are_forbidden_too() -> None:
    x = torch.ones(3, requires_grad=True)
    with forbidden(), ThreadPoolExecutor(1) as pool:
        error = pool.submit(lambda: x.sum().backward()).exception()
    assert isinstance(error, ReverseModeError)


@FORWARD_MODE
def test_forward_mode_is_not_forbidden() -> None:
    with forbidden():
        torch.func.jvp(torch.sin, (torch.ones(2),), (torch.ones(2),))


def test_passes_are_those_of_the_busiest_layer() -> None:
    method: Any = Chain()
    first, second = method.chain[:2]
    other = nn.Linear(4, 4)
    assert passes(method, lambda: second(first(first(method.x)))) == 2
    assert passes(method, lambda: [other(method.x) for _ in range(5)]) == 0


def test_candidates_in_one_batch_are_a_pass_each_where_the_images_are_known() -> None:
    """A rule that scores ten labels of every image in one call hides its price from a count of calls."""
    method: Any = Chain()
    first, candidates = method.chain[0], method.x.repeat(10, 1)
    assert passes(method, lambda: first(candidates)) == 1
    assert passes(method, lambda: first(candidates), images=len(method.x)) == 10
    parts = method.x.split(2)
    assert passes(method, lambda: [first(part) for part in parts], images=len(method.x)) == len(parts)


def test_passes_are_counted_in_threads_and_functional_calls() -> None:
    method: Any = Chain()
    block = method.chain[0]

    def run() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: block(method.x), range(3)))
        torch.func.functional_call(block, dict(block.named_parameters()), method.x)

    assert passes(method, run) == 4


# what the allocator and other threads of a long test process move by chance: some kilobytes a call
CHANCE_BYTES = 16 * 1024


def test_growth_sees_a_kept_graph_and_nothing_else() -> None:
    net, x, kept = nn.Linear(64, 64), torch.randn(512, 64), list[Tensor]()
    assert live_memory.growth(lambda: net(x).tanh().sum()) < CHANCE_BYTES
    # tanh keeps its output for the way back: 512 x 64 numbers of 4 bytes that Python has no name for
    assert live_memory.growth(lambda: kept.append(net(x).tanh().sum())) > 512 * 64 * 4 - CHANCE_BYTES


def test_growth_forgives_a_cache_that_fills_up() -> None:
    cache: dict[int, Tensor] = {}
    calls = iter(range(10_000))
    growth = live_memory.growth(lambda: cache.setdefault(next(calls) % 10, F.relu(torch.ones(512, 64))))
    assert len(cache) == 10  # over the calls measured that is 52 kB each, were the filling not forgiven
    assert growth < CHANCE_BYTES
