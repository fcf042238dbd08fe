"""How often each layer is evaluated, counted by forward hooks: the price of a step and of a prediction."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from bench.api.column import Column, Value
from bench.api.instrument import Probe, Reading
from bench.api.method import Method
from bench.audit.parts import layers
from bench.catalog.register import register
from bench.measure.flops import by_phase, mean


@register
class Passes(Probe):
    """Forward passes per training step and per prediction."""

    name = "passes"
    by_shapes = True
    rank: ClassVar[int] = 60
    columns = (
        Column(
            "forward_passes", "passes per step",
            "calls of the busiest layer in a training step; 0 where weights are used without calling their layers; "
            "where phases of training differ, the mean over its steps",
            shown="page",
        ),
        Column(
            "passes_by_phase", "passes by phase",
            "passes per step in each phase of training; blank where they are the same in all", text=True,
        ),
        Column(
            "inference_passes", "passes per prediction",
            "evaluations of the busiest layer for each image that is predicted; 0 as above", shown="page",
        ),
    )  # fmt: skip

    @contextmanager
    def watch(self, method: Method, outside: Sequence[Tensor]) -> Iterator[Reading]:
        with counted(method) as most:
            yield lambda: {"forward_passes": most(), "passes_by_phase": ""}

    @contextmanager
    def watch_prediction(self, method: Method, x: Tensor) -> Iterator[Reading]:
        with counted(method, images=len(x)) as most:
            yield lambda: {"inference_passes": most()}

    def over_phases(self, readings: Sequence[tuple[int, Mapping[str, Value]]]) -> Mapping[str, Value]:
        found = [(steps, int(of["forward_passes"] or 0)) for steps, of in readings]
        if len({n for _, n in found}) == 1:
            return {"forward_passes": found[0][1], "passes_by_phase": ""}
        in_words = by_phase([(steps, str(n)) for steps, n in found])
        return {"forward_passes": mean([(steps, n) for steps, n in found]), "passes_by_phase": in_words}


def passes(method: Method, run: Callable[[], object], images: int | None = None) -> int:
    """Evaluations of the busiest layer while `run` runs; see `counted`."""
    with counted(method, images) as most:
        run()
    return most()


@contextmanager
def counted(method: Method, images: int | None = None) -> Iterator[Callable[[], int]]:
    """Gives the evaluations of the busiest layer inside, in any thread; 0 where no layer was called.

    A layer is a module with parameters of its own. One batched call is one pass, whatever the batch holds; where it is
    known for how many images the layers are called, a call on k times as many rows is k passes.
    The use of a layer's weights without calling the layer is not seen.
    """
    own = {id(layer) for layer in layers(method)}
    calls: list[tuple[int, int]] = []  # appending is atomic, counting is not

    def note(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        if id(module) in own:
            rows = len(output) if images and isinstance(output, Tensor) else 1
            calls.append((id(module), max(1, round(rows / (images or 1)))))

    def most() -> int:
        evaluations = Counter[int]()
        for layer, times in calls:
            evaluations[layer] += times
        return max(evaluations.values(), default=0)

    hook = register_module_forward_hook(note)
    try:
        yield most
    finally:
        hook.remove()
