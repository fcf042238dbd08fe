"""Floating-point operations of a step and of a prediction: those of matrix products, convolutions and attention.

Counted by the formulas of torch's own counter, from the shapes of what every operator is given, below autograd and
torch.func: the way back and tangents are seen like the way there. A multiply-add is two operations.

Not counted, and not named: what does at most a few operations for each number that it reads or writes (elementwise
functions, reductions, normalisation, pooling, losses, optimisers, random draws), and what moves or compares numbers.
Every other operator without a formula is named. Not seen: what a kernel does without an operator, and compiled code.
Source: torch.utils.flop_counter, whose `register_flop_formula` makes an operator of one's own count.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.api.column import Column, Value
from bench.api.instrument import Probe, Reading
from bench.api.method import Method
from bench.catalog.register import register
from bench.measure.threads import in_new_threads

aten = torch.ops.aten
Formula = Callable[..., int]


@register
class Flops(Probe):
    """FLOPs of one training step and of the prediction of one image."""

    name = "flops"
    hooks = True
    by_shapes = True
    rank: ClassVar[int] = 55
    columns = (
        Column(
            "flops_per_step", "GFLOP per step",
            "floating-point operations of matrix products, convolutions and attention in a training step, counted; "
            "where phases of training differ, the mean over its steps",
            scale=1e-9, better="lower", shown="page",
        ),
        Column(
            "flops_per_inference", "MFLOP per example",
            "the same in the noise-free prediction of one example, all its inference steps included",
            scale=1e-6, better="lower",
        ),
        Column(
            "flops_by_phase", "GFLOP by phase", "GFLOP per step in each phase of training; blank where all are alike",
            text=True,
        ),
        Column("uncounted_ops", "uncounted", "operators of that step that compute and cannot be counted", text=True),
    )  # fmt: skip

    @contextmanager
    def watch(self, method: Method, outside: Sequence[Tensor]) -> Iterator[Reading]:
        with counted() as work:
            yield lambda: {
                "flops_per_step": work.flops,
                "flops_by_phase": "",
                "uncounted_ops": ", ".join(sorted(work.uncounted)),
            }

    @contextmanager
    def watch_prediction(self, method: Method, x: Tensor) -> Iterator[Reading]:
        with counted() as work:
            yield lambda: {"flops_per_inference": work.flops / len(x)}

    def over_phases(self, readings: Sequence[tuple[int, Mapping[str, Value]]]) -> Mapping[str, Value]:
        of_steps = [(steps, float(of["flops_per_step"] or 0)) for steps, of in readings]
        uncounted = {name for _, of in readings for name in str(of["uncounted_ops"]).split(", ") if name}
        alike = len({flops for _, flops in of_steps}) == 1
        return {
            "flops_per_step": readings[0][1]["flops_per_step"] if alike else mean(of_steps),
            "flops_by_phase": "" if alike else by_phase([(steps, f"{1e-9 * flops:.3g}") for steps, flops in of_steps]),
            "uncounted_ops": ", ".join(sorted(uncounted)),
        }


def mean(of_phases: Sequence[tuple[int, float]]) -> float:
    """The mean over steps of a number that each phase has, from the steps and the number of each."""
    return sum(steps * value for steps, value in of_phases) / sum(steps for steps, _ in of_phases)


def by_phase(of_phases: Sequence[tuple[int, str]]) -> str:
    """What each phase has, in words; phases with the same are taken together."""
    total, steps_with = sum(steps for steps, _ in of_phases), Counter[str]()
    for steps, value in of_phases:
        steps_with[value] += steps
    return ", ".join(f"{value} in {100 * steps / total:.3g}% of steps" for value, steps in steps_with.items())


@dataclass
class Work:
    """Operations by call, and the names of what could not be counted. Several threads may add."""

    by_call: list[int] = field(default_factory=list)
    uncounted: set[str] = field(default_factory=set)

    @property
    def flops(self) -> int:
        return sum(self.by_call)


@contextmanager
def counted() -> Iterator[Work]:
    """Gives the work done inside, in this thread and those that begin there."""
    work = Work()
    with _Count(work), in_new_threads(lambda: _Count(work)):
        yield work


class _Count(TorchDispatchMode):
    """torch's FlopCounterMode counts by module as well, which holds in one thread alone."""

    def __init__(self, work: Work) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._work = work
        self._whole: set[OpOverload] = {torch.ops.prim.device.default}  # operators that are not made of others

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "overloadpacket", func)
        formula = _OWN.get(packet) or flop_registry.get(packet)
        if formula is None and isinstance(func, OpOverload) and func not in self._whole:
            with self:  # in inference mode an operator arrives before it is taken apart
                outputs = func.decompose(*args, **kwargs)
            if outputs is not NotImplemented:
                return outputs
            self._whole.add(func)
        outputs = func(*args, **kwargs)
        if formula is not None:
            self._work.by_call.append(formula(*args, **kwargs, out_val=outputs))
        elif not _is_cheap(func):
            self._work.uncounted.add(str(packet))
        return outputs


def _vector_product(a: Tensor, b: Tensor, **_: Any) -> int:
    return 2 * a.numel()


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, _bias: Any, _stride: Any, _padding: Any, _dilation: Any, transposed: bool,
    _output_padding: Any, _groups: int, wanted: Sequence[bool], **_: Any,
) -> int:  # fmt: skip
    """Either gradient takes what the forward pass takes; torch's formula forgets the groups in the weights' one."""
    return sum(wanted[:2]) * 2 * len(x) * weight.numel() * prod((x if transposed else grad).shape[2:])


# what torch's counter leaves out or counts otherwise
_OWN: Mapping[OpOverloadPacket, Formula] = {
    aten.mv: _vector_product,
    aten.dot: _vector_product,
    aten.vdot: _vector_product,
    aten.addmm_: flop_registry[aten.addmm],
    aten.baddbmm_: flop_registry[aten.baddbmm],
    aten.addmv: lambda _, a, b, **__: _vector_product(a, b),
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}

# words in the names of torch's operators that do little for each number, or do no arithmetic
_CHEAP = frozenset(
    "sum mean var std prod min max amin amax aminmax argmin argmax any all norm cumsum cumprod softmax logsumexp pool "
    "dropout nll mse huber entropy adam adamw adagrad sgd upsample sampler sigmoid divide "
    "rand randn randint randperm random normal uniform bernoulli exponential cauchy multinomial "
    "empty zeros zero zerotensor ones full fill arange eye linspace scalar copy clone cat stack repeat "
    "index gather scatter embedding pad flip roll tril triu sort argsort topk searchsorted unique nonzero "
    "bincount histc equal view resize record set lift detach size stride device numel check assert".split()
)
_FORM = re.compile(r"^_(?:foreach_)?|_(?:backward|forward)(?:_data)?$|_$")  # what stands around an operator's name


@cache
def _is_cheap(func: Any) -> bool:
    """Whether it is one of torch's operators, or a form or derivative of one, that is as cheap as said above."""
    if not isinstance(func, OpOverload) or func.namespace not in ("aten", "prim", "prims", "profiler"):
        return False
    name = _FORM.sub("", func.overloadpacket.__name__)
    if _CHEAP & set(re.split(r"[_\d]+", name)):
        return True
    base = getattr(aten, name, None)
    kin = [func, *(getattr(base, overload) for overload in base.overloads())] if base is not None else [func]
    return any(of.is_view or torch.Tag.pointwise in of.tags for of in kin)
