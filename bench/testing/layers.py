"""Whether the forms that a kind of layer has registered are what autograd says of it, in float64."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.api.forms.general import along
from bench.api.layer import Tangent, along_input, along_weights, can, members, push, routed, weight_gradient
from bench.testing.finding import ContractViolation, require

K = 3  # directions, or members


def check_forms(layer: nn.Module, x: Tensor) -> None:
    """Hold every registered form of a layer against reverse mode, or a loop over members. Shape: x (B, ...).

    The layer itself stays as it is. Raises: ContractViolation, with the ability and the kind of layer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for ability, check in CHECKS:
            if can(ability, type(layer)) and (check in BARE or next(layer.parameters(), None) is not None):
                own = copy.deepcopy(layer).double()
                try:
                    check(own, x.double() if x.is_floating_point() else x)
                except AssertionError as error:
                    said = str(error).partition("\n")[0]
                    raise ContractViolation(f"{ability.__name__} of {type(layer).__name__}: {said}") from error


def check_layers_of(net: nn.Module, x: Tensor) -> None:
    """The same for one layer of each kind in a net, at what it sees where the net sees x."""
    seen = dict[type, tuple[nn.Module, Tensor]]()

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and any(can(ability, type(layer)) for ability, _ in CHECKS):
            seen.setdefault(type(layer), (layer, args[0].clone()))

    hooks = [layer.register_forward_pre_hook(note) for layer in net.modules()]
    try:
        with torch.no_grad():
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, given in seen.values():
        check_forms(layer, given)


def _pushed(layer: nn.Module, x: Tensor) -> None:
    t = torch.randn(K, *x.shape, dtype=torch.float64) if x.is_floating_point() else None
    v = _directions(layer)
    y, moved = push(layer, x.clone(), t, _Reference(v))
    _same(y, layer(x.clone()), "its output")
    if moved is not None:
        _transposed(layer, x, moved, t, v)


def _along_x(layer: nn.Module, x: Tensor) -> None:
    t = torch.randn(K, *x.shape, dtype=torch.float64)
    _transposed(layer, x, along_input(layer, t), t, {})


def _along_w(layer: nn.Module, x: Tensor) -> None:
    v = _directions(layer)
    _transposed(layer, x, along_weights(layer, x, *v.values()), None, v)


def _weights(layer: nn.Module, x: Tensor) -> None:
    delta = torch.randn_like(y := layer(x.clone()))
    with torch.no_grad():
        found = weight_gradient(layer, x, delta)
    parameters = dict(layer.named_parameters())
    exact = torch.autograd.grad(y, list(parameters.values()), delta)
    for (name, p), expected in zip(parameters.items(), exact, strict=True):
        require(p in found, f"no gradient of {name}")
        _same(found[p], expected, f"the gradient of {name}")


def _population(layer: nn.Module, x: Tensor) -> None:
    layer.eval()
    weights = {n: d for (n, _), d in zip(layer.named_parameters(), _directions(layer).values(), strict=True)}
    for rows in (x, torch.cat([x] * K)):
        found = members(layer, weights, len(x), rows).unflatten(0, (K, len(x)))
        for i in range(K):
            exact = functional_call(layer, {n: w[i] for n, w in weights.items()}, x)
            _same(found[i], exact, "the output of a member")


def _feedback(layer: Any, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    B, y = torch.randn_like(layer.weight), layer(x)
    own = list(layer.parameters())
    found = routed(layer, B, x)
    _same(found, y, "its output")
    delta = torch.randn_like(y)
    message, *gradients = torch.autograd.grad(found, [x, *own], delta)
    (exact,) = torch.autograd.grad(functional_call(layer, {"weight": B}, x), x, delta)
    _same(message, exact, "its message through B")
    for g, e in zip(gradients, torch.autograd.grad(y, own, delta), strict=True):
        _same(g, e, "a gradient of its weights")


Check = Callable[[nn.Module, Tensor], None]
CHECKS: tuple[tuple[Any, Check], ...] = (
    (push, torch.no_grad()(_pushed)),
    (along_input, _along_x),
    (along_weights, _along_w),
    (weight_gradient, _weights),
    (members, torch.no_grad()(_population)),
    (routed, _feedback),
)


BARE = (CHECKS[0][1], _along_x)  # checks that a layer without parameters is held to, too


class _Reference:
    """Directions of all weights, treated by torch's forward mode: what a form may ask of the space of a rule."""

    def __init__(self, directions: dict[Tensor, Tensor]) -> None:
        self.directions = directions

    def through(self, layer: nn.Module, x: Tensor, t: Tangent) -> Tangent:
        return self.whole(layer, x, t)[1]

    def behind(self, layer: nn.Module, x: Tensor, y: Tensor, t: Tangent, *more: object) -> Tangent:
        return t

    def rectified(self, y: Tensor) -> None:
        """There is no noise."""

    def whole(self, module: nn.Module, x: Tensor, t: Tangent) -> tuple[Tensor, Tangent]:
        return along(module, x, t, K, self.directions)


def _directions(layer: nn.Module) -> dict[Tensor, Tensor]:
    return {p: torch.randn(K, *p.shape, dtype=torch.float64) for p in layer.parameters()}


def _transposed(layer: nn.Module, x: Tensor, moved: Tensor, t: Tangent, v: dict[Tensor, Tensor]) -> None:
    """<delta, J v> = <J^T delta, v>."""
    x = x.clone().requires_grad_(t is not None)
    ends = [*([] if t is None else [x]), *v]
    with torch.enable_grad():
        y = layer(x.clone())
        delta = torch.randn_like(y)
        back = torch.autograd.grad(y, ends, delta)
    for i, found in enumerate((delta * moved).flatten(1).sum(1)):
        exact = sum((g * d[i]).sum() for g, d in zip(back, [*([] if t is None else [t]), *v.values()], strict=True))
        _same(found, torch.as_tensor(exact), "a tangent")


def _same(found: Tensor, exact: Tensor, what: str) -> None:
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-10, msg=lambda _: f"{what} is not autograd's")
