"""What a live tensor is to the method that holds it: parameter, gradient, optimiser state, activation or other.

parameters   in the method's modules (but for those that are frozen alone, as feedback matrices are), held as a tensor
             that requires a gradient, or given to an optimiser
gradients    what is or becomes `.grad` of a parameter, by autograd or by assignment, and what torch.autograd.grad
             returns for one
optimizer    what the state of any torch.optim.Optimizer holds when the step begins, or when it ends
activations  all else that the step makes: also tangents, noise, and what a formula or an optimiser needs in between
other        all else that was there before: buffers, feedback matrices, the batch

Cannot be told: a gradient that torch.func.grad returns, or one computed by formula and used without becoming `.grad`
(both are activations), nor a part of a gradient before it is added to `.grad` (likewise); a weight or a moment held as
a plain tensor outside of modules and optimisers (other).
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bench.api.method import Method
from bench.measure.threads import in_new_threads

Kind = Literal["parameters", "gradients", "optimizer", "activations", "other"]
KINDS: dict[Kind, str] = {
    "parameters": "parameters",
    "gradients": "gradients of parameters",
    "optimizer": "the state of optimisers",
    "activations": "made by the step and none of these: activations, tangents, noise",
    "other": "there before it and none of these: buffers, feedback matrices, the batch",
}

SET_GRAD = cast(Any, Tensor.grad).__set__  # what p.grad = g calls


def parameters_of(method: Method) -> list[Tensor]:
    """What the method learns, by its modules and its attributes."""
    learning = [part for role, part in method.modules().items() if role != "frozen"]
    held = [t for t in tree_leaves(list(vars(method).values())) if isinstance(t, Tensor)]
    return [*(p for part in learning for p in part.parameters()), *(t for t in held if t.is_leaf and t.requires_grad)]


@contextmanager
def optimizers() -> Iterator[list[Optimizer]]:
    """All optimisers of this process, and those that are made and step inside, as soon as they do."""
    found = [o for o in gc.get_objects() if issubclass(type(o), Optimizer)]

    def stepping(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in found:
            found.append(optimizer)

    hook = register_optimizer_step_pre_hook(stepping)
    try:
        yield found
    finally:
        hook.remove()


def optimised(found: Iterable[Optimizer]) -> list[Tensor]:
    """The parameters of these optimisers."""
    return [p for optimizer in found for group in optimizer.param_groups for p in group["params"]]


def state_of(found: Iterable[Optimizer]) -> list[Tensor]:
    """The tensors in the state of these optimisers."""
    return [t for optimizer in found for t in tree_leaves(dict(optimizer.state)) if isinstance(t, Tensor)]


@contextmanager
def becoming_gradients(parameters: Sequence[Tensor], tell: Callable[[Tensor], None]) -> Iterator[None]:
    """Tells of each tensor inside that becomes the gradient of a parameter, in this thread and those that begin there.

    Source: torch.Tensor.register_post_accumulate_grad_hook; torch.overrides.TorchFunctionMode.
    """

    def accumulated(p: Tensor) -> None:
        assert p.grad is not None
        tell(p.grad)

    def watch() -> _Handed:
        return _Handed(parameters, tell)

    with ExitStack() as stack:
        for p in parameters:
            if p.requires_grad:
                stack.callback(p.register_post_accumulate_grad_hook(accumulated).remove)
        stack.enter_context(watch())
        stack.enter_context(in_new_threads(watch))
        yield


class _Handed(TorchFunctionMode):
    """Sees what Python hands over as a gradient: by assignment, or as the result of torch.autograd.grad."""

    def __init__(self, parameters: Sequence[Tensor], tell: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._parameters = {id(p) for p in parameters}
        self._tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.autograd.grad:  # which passes on (outputs, inputs)
            self._note(args[1], result)
        elif func == SET_GRAD:
            self._note(args[:1], args[1:])
        return result

    def _note(self, of: Sequence[object], gradients: Sequence[Tensor | None]) -> None:
        for p, gradient in zip(of, gradients, strict=True):
            if gradient is not None and id(p) in self._parameters:
                self._tell(gradient)
