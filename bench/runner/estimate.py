"""What a training step would take, from tensors that have shapes but no values: nothing is allocated.

The probes of every run watch a step of torch's fake tensors, so what is estimated is what a run would record, on any
device: shapes decide it, and shapes are exact. Where a method asks for a value (`.item()`), a fake tensor has none: it
is told 1, which serves a check or a seed, and misleads a method whose number of operations hangs on values. Blocks that
a method runs in threads are taken one after another: with N of them at a time it retains up to N times as much.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from bench.api.column import Column
from bench.api.errors import ConfigError
from bench.api.instrument import Probe
from bench.catalog.catalog import Catalog
from bench.data.outline import Outlined
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Parts
from bench.measure.live_peak import alive
from bench.runner import setup
from bench.runner.cost import Row
from bench.runner.probing import planned, warm_up
from bench.runner.state import seeds_of

CPU = torch.device("cpu")


def estimate(spec: RunSpec, parts: Parts, shape: Outlined) -> Row:
    """The columns of the probes that go by shapes, for a step of the run's batch size.

    Raises: ConfigError where the method cannot be followed without values.
    """
    task = parts.task(spec, shape, lambda: shape.input.zeros(shape.output.size))
    probes = [cls() for cls in parts.instruments if issubclass(cls, Probe) and cls.by_shapes]
    outside = list(alive())
    try:
        with fake_tensors():
            cost = warm_up(
                lambda: setup.instance(spec, parts, task, CPU, seeds_of(spec, CPU)), spec, task, CPU, probes, outside
            )
            return cost.row(planned(spec, task.n_train))
    except (RuntimeError, NotImplementedError) as error:  # what torch's fake tensors raise on an operator they lack
        why = str(error).partition("\n")[0]
        raise ConfigError(f"{spec.method} on {spec.net} cannot be estimated without values: {why}") from error


def columns_by_shapes(catalog: Catalog) -> list[Column]:
    """What an estimate gives of what runs record, in the order of tables."""
    by_shapes = [cls for e in catalog.instruments.values() if issubclass(cls := e.load(), Probe) and cls.by_shapes]
    names = {column.name for cls in by_shapes for column in cls.columns}
    return [column for column in catalog.columns() if column.name in names]


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Inside, tensors are fake. They know of one thread alone, so what a pool of threads is given is done at once."""
    pools = patch.object(ThreadPoolExecutor, "submit", _done_at_once)
    with patch.object(nn.Module, "_apply", _overwrite), pools, _Shapes(allow_non_fake_inputs=True):
        yield


def _done_at_once(pool: ThreadPoolExecutor, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(task(*args, **kwargs))
    return done


def _overwrite(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """As `Module._apply` does where it overwrites: fake parameters cannot be swapped, which is its way with them."""
    for child in module.children() if recurse else ():
        _overwrite(child, change)
    for name, p in module.named_parameters(recurse=False):
        with torch.no_grad():
            changed = change(p)
        if changed is not p:
            setattr(module, name, nn.Parameter(changed, p.requires_grad))
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, change(buffer))
    return module


class _Shapes(FakeTensorMode):
    """Fake tensors that have 1 for whoever asks for their value."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        except DataDependentOutputException:
            return torch.ones((), dtype=args[0].dtype).item()
