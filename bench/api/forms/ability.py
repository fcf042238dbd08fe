"""The abilities of layers: one open function for each, see `bench.api.layer`."""

from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, get_type_hints, overload

from torch import Tensor, nn

Gradient = dict[Tensor, Tensor]  # by weight
Tangent = Tensor | None  # None: no direction has reached this place

P = ParamSpec("P")
R = TypeVar("R")
Form = TypeVar("Form", bound=Callable[..., Any])


class Ability(Generic[P, R]):
    """A function with a form for each kind of layer, chosen by the exact type of its first argument.

    Unlike `functools.singledispatch` a subclass does not inherit the form: it may compute something else.
    """

    def __init__(self, otherwise: Callable[P, R]) -> None:
        self.otherwise = otherwise
        self.registry: dict[type, Callable[..., Any]] = {}
        update_wrapper(self, otherwise)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        found: R = self.dispatch(type(args[0]))(*args, **kwargs)
        return found

    def dispatch(self, kind: type) -> Callable[..., R]:
        """The form of a kind of layer, or what is done without one."""
        return self.registry.get(kind, self.otherwise)

    @overload
    def register(self, form: type) -> Callable[[Form], Form]: ...

    @overload
    def register(self, form: Form) -> Form: ...

    def register(self, form: Any) -> Any:
        """Decorator: `@ability.register`, of the kind that the first argument is annotated with, or
        `@ability.register(kind)`.
        """
        if isinstance(form, type):
            return lambda of: self._add(form, of)
        return self._add(next(iter(get_type_hints(form).values())), form)

    def _add(self, kind: type, form: Form) -> Form:
        self.registry[kind] = form
        return form


@Ability
def along_input(layer: nn.Module, t: Tensor) -> Tensor:
    """df/dx t of a layer that is linear in x. Shape: (k, B, ...) to (k, B, ...)."""
    raise _unable("forward-mode rule", layer)


@Ability
def along_weights(layer: nn.Module, x: Tensor, v: Tensor, v_bias: Tensor | None = None) -> Tensor:
    """df/dw v of a layer that is linear in w. Shape: x (B, ...), v (k, *weight), v_bias (k, *bias) to (k, B, ...)."""
    raise _unable("forward-mode rule", layer)


@Ability
def weight_gradient(layer: nn.Module, x: Tensor, delta: Tensor) -> Gradient:
    """Gradient of the layer's own parameters for a gradient `delta` by its output, summed over examples and positions.

    Forms are closed ones: outer products, for instance; none differentiates in reverse mode.
    """
    raise _unable("weight gradient", layer)


@Ability
def seen(layer: nn.Module, x: Tensor) -> Tensor:
    """What one unit of the layer sees, for all examples and positions. Shape: x (B, ...) to (rows, inputs)."""
    raise _unable("view of what a unit sees", layer)


@Ability
def push(module: nn.Module, x: Tensor, t: Tangent, space: Any) -> tuple[Tensor, Tangent]:
    """A module's output and its tangents, perturbed as `space` says; t is None where no direction has come so far.

    A module without a form of its own is differentiated in forward mode, one direction after another (`space.whole`).
    Shape: x (B, ...), t (k, B, ...) to the same.
    """
    found: tuple[Tensor, Tangent] = space.whole(module, x, t)
    return found


@Ability
def members(layer: nn.Module, weights: Mapping[str, Tensor], batch_size: int, x: Tensor) -> Tensor:
    """The layer's output for k members, each with parameters of its own, as rows of one batch.

    Shape: weights (k, *parameter) by name, x (B or k B, ...) to (k B, ...).
    """
    raise _unable("form for a population of weights", layer)


@Ability
def routed(layer: nn.Module, B: Tensor, x: Tensor) -> Tensor:
    """The layer's output, whose message back goes through B in place of its weights. Shape: B as the weight."""
    raise _unable("message back by other weights", layer)


@Ability
def mirrored(layer: nn.Module, shape: Sequence[int], *, bias: bool) -> nn.Module:
    """A layer the other way round, from outputs to inputs (B, *shape), drawn by torch's law."""
    raise _unable("layer the other way round", layer)


def _unable(ability: str, layer: nn.Module) -> TypeError:
    return TypeError(f"no {ability} for {type(layer).__name__}")
