"""Any module in forward mode, as it is: torch's dual numbers through its own forward pass, one direction after another.

Right for every module that torch differentiates in forward mode, also such as share weights over time, skip layers or
attend; slower than the forms, which treat all directions in one call. Statistics that a module keeps (batch norm's)
move in the first of the k passes alone, by the same amount as in one plain forward pass.
Attention takes torch's plain kernel here: the fused ones have no forward mode.

Shape: x (B, ...), tangents (k, B, ...), directions and noise (k, ...).
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.api.forms.ability import Tangent

Around = Callable[[int], AbstractContextManager[None]]  # of the number of a pass
Noise = Callable[[nn.Module, Tensor, Tensor], Tensor]  # of a layer, its input and output: k draws as the output


@cache
def load_forward_mode() -> None:
    """Load torch's forward mode: it scripts parts of itself at first use, and warns that scripting is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import_module("torch._decomp.decompositions_for_jvp")


def along(
    module: nn.Module,
    x: Tensor,
    t: Tangent,
    k: int,
    directions: Mapping[Tensor, Tensor] | None = None,
    *,
    at_rest: bool = False,
) -> tuple[Tensor, Tangent]:
    """A module's output and its k tangents, along t and along directions (k, *weight) of its weights.

    at_rest: its statistics stay, for another pass of the step has moved them.
    """
    moved = {} if directions is None else {n: directions[p] for n, p in module.named_parameters() if p in directions}
    if t is None and not moved:
        resting = {name: b.clone() for name, b in module.named_buffers()} if at_rest else {}
        return functional_call(module, resting, (x,)), None
    return _passes(module, x, t, k, moved, at_rest=at_rest)


def with_noise(
    module: nn.Module, x: Tensor, t: Tangent, k: int, layers: list[nn.Module], noise: Noise
) -> tuple[Tensor, Tangent]:
    """The same, with noise (k, *output) added to the tangent behind each call of each of the layers.

    noise is asked in the first pass, call by call, with plain tensors.
    """
    drawn: list[Tensor] = []

    def add(calls: Iterator[int], i: int, layer: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        value, moved = forward_ad.unpack_dual(y)
        if i == 0:
            drawn.append(noise(layer, forward_ad.unpack_dual(args[0]).primal, value))
        own = drawn[next(calls)][i]
        noisy: Tensor = forward_ad.make_dual(value, own if moved is None else moved + own)
        return noisy

    @contextmanager
    def hooked(i: int) -> Iterator[None]:
        calls = iter(range(2**62))
        hooks = [layer.register_forward_hook(partial(add, calls, i)) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    return _passes(module, x, t, k, {}, hooked)


@contextmanager
def _plain(i: int) -> Iterator[None]:
    yield


def _passes(
    module: nn.Module,
    x: Tensor,
    t: Tangent,
    k: int,
    moved: Mapping[str, Tensor],
    around: Around = _plain,
    *,
    at_rest: bool = False,
) -> tuple[Tensor, Tangent]:
    load_forward_mode()
    weights, rest = dict(module.named_parameters()), dict(module.named_buffers())
    at_first = {name: b.clone() for name, b in rest.items()} if (k > 1 or at_rest) and module.training else rest
    y: Tensor | None = None
    tangents: list[Tensor | None] = []
    for i in range(k):
        buffers = (
            rest if at_first is rest or (i == 0 and not at_rest) else {name: b.clone() for name, b in at_first.items()}
        )
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), around(i):
            duals = {n: forward_ad.make_dual(weights[n].detach(), v[i]) for n, v in moved.items()}
            own = x if k == 1 else x.clone()  # which a module may overwrite
            given = own if t is None else forward_ad.make_dual(own, t[i])
            out = forward_ad.unpack_dual(functional_call(module, {**buffers, **duals}, (given,)))
            y = out.primal if y is None else y
            tangents.append(out.tangent)
    assert y is not None
    if all(found is None for found in tangents):
        return y, None
    return y, torch.stack([torch.zeros_like(y) if found is None else found for found in tangents])
