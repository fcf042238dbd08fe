"""How often each layer is evaluated, counted by forward hooks: the price of a step and of a prediction."""

from collections import Counter
from collections.abc import Callable

from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from bench.audit.parts import layers
from bench.method import Method


def passes(method: Method, run: Callable[[], object]) -> int:
    """Evaluations of the busiest layer while `run` runs, in any thread; 0 where no layer was called.

    A layer is a module with parameters of its own. One batched call is one pass, whatever the batch holds;
    the use of a layer's weights without calling the layer is not seen.
    """
    own = {id(layer) for layer in layers(method)}
    calls: list[int] = []  # appending is atomic, counting is not

    def note(module: nn.Module, args: object, output: object) -> None:
        if id(module) in own:
            calls.append(id(module))

    hook = register_module_forward_hook(note)
    try:
        run()
    finally:
        hook.remove()
    return max(Counter(calls).values(), default=0)
