"""The contracts of metrics and objectives, which `bench check` holds them against."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import get_args

import torch
from torch import Tensor

from bench.api.column import Column
from bench.api.kinds import Output, OutputKind
from bench.api.metric import Metric
from bench.api.objective import Objective
from bench.testing.finding import Result, complaint, require

KEY = re.compile("[a-z][a-z0-9_]{0,59}")
N, CUTS = 60, (1, 4, 33)  # examples, and where they are cut into unequal batches
CLOSE = 1e-4  # relative, for what sums in float32
OUTPUTS = {
    "classes": Output.classes(7),
    "class probabilities": Output("class probabilities", 7),
    "values": Output("values", 3, scale=(10.0, 1.0, 0.1)),
    "next token": Output("next token", 7, positions=4),
}


def run_metric_checks(metric: type[Metric], known: Sequence[Column]) -> Iterator[Result]:
    """Hold a metric against its contract. known: the columns of it and of all others, which it must leave alone."""
    yield from _run(
        {
            "declaration": partial(check_declaration, metric, known),
            "batches": partial(check_batches, metric),
            "bounds": partial(check_bounds, metric),
        }
    )


def run_objective_checks(objective: type[Objective]) -> Iterator[Result]:
    """Hold an objective against its contract."""
    checks = {"losses": check_losses, "gradient": check_gradient, "targets": check_targets, "constant": check_constant}
    yield from _run({name: partial(check, objective) for name, check in checks.items()})


def check_declaration(metric: type[Metric], known: Sequence[Column]) -> None:
    """It says what it is, under a key that no other metric has."""
    require(bool(KEY.fullmatch(metric.key)), f"key '{metric.key:.40}' has other characters than a-z, 0-9 and _")
    require(bool(metric.title and metric.what), "lacks a title or what it is")
    _check_kinds(metric.outputs)
    require(metric.better in ("higher", "lower"), f"better is '{metric.better}'; write higher or lower")
    require(math.isfinite(metric.scale) and metric.scale > 0, f"scale is {metric.scale}; it must be above 0")
    names = [column.name for column in known]
    for column in metric.columns():
        require(names.count(column.name) <= 1, f"column '{column.name}' is another one's, too; choose another key")


def check_batches(metric: type[Metric]) -> None:
    """Examples cut into batches in another way give the same value."""
    for output in _outputs(metric.outputs):
        out, y = examples(output)
        whole = _value(metric, output, [(out, y)])
        parts = list(zip(out.tensor_split(CUTS), y.tensor_split(CUTS), strict=True))
        found = _value(metric, output, parts)
        same = math.isclose(whole, found, rel_tol=CLOSE, abs_tol=1e-9)
        require(same, f"{output.kind}: {whole:.6g} over one batch and {found:.6g} over {len(parts)} unequal ones")


def check_bounds(metric: type[Metric]) -> None:
    """Values, of good outputs and of bad ones, are finite and within the declared bounds."""
    low, high = metric.bounds
    for output in _outputs(metric.outputs):
        out, y = examples(output)
        for shown in (out, out.flip(0), 30 * out):
            value = _value(metric, output, [(shown, y)])
            require(math.isfinite(value), f"{output.kind}: the value is {value}")
            inside = (low is None or value >= low - 1e-9) and (high is None or value <= high + 1e-9)
            require(inside, f"{output.kind}: {value:.6g} is outside of the bounds {low} to {high}")


def check_losses(objective: type[Objective]) -> None:
    """A finite loss of each example, also with axes before the batch; `loss` is their mean."""
    for judge, out, y in _tasks(objective):
        losses = judge.losses(out, y)
        require(losses.shape == (N,), f"losses have shape {tuple(losses.shape)} for {N} examples")
        require(bool(losses.isfinite().all()), "losses are not finite")
        several = judge.losses(torch.stack([out, out.flip(0)]), y)
        right = several.shape == (2, N) and torch.allclose(several[1], judge.losses(out.flip(0), y), rtol=CLOSE)
        require(right, "losses of several outputs for the same labels are not those of each")
        require(torch.allclose(judge.loss(out, y), losses.mean(), rtol=CLOSE), "loss is not the mean of losses")


def check_gradient(objective: type[Objective]) -> None:
    """`output_gradient` is what autograd finds of each example's loss."""
    for judge, out, y in _tasks(objective):
        expected = Objective.output_gradient(judge, out, y)
        found = judge.output_gradient(out, y)
        right = found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-5)
        require(right, f"{judge.output.kind}: output_gradient is not the gradient of losses")


def check_targets(objective: type[Objective]) -> None:
    """`embed` gives dense targets, and `project` is their product with a weight."""
    for judge, out, y in _tasks(objective):
        dense = judge.embed(y)
        require(dense.shape == out.shape, f"embed gives shape {tuple(dense.shape)} for outputs {tuple(out.shape)}")
        require(dense.dtype == torch.float32, f"embed gives {dense.dtype}, not float32")
        weight = torch.randn(judge.output.size, 5, generator=torch.Generator().manual_seed(1))
        right = torch.allclose(judge.project(y, weight), dense @ weight, rtol=1e-3, atol=1e-5)
        require(right, f"{judge.output.kind}: project(y, weight) is not embed(y) @ weight")


def check_constant(objective: type[Objective]) -> None:
    """`constant` has the shape of an output, and none near it has a lower loss."""
    for judge, _, y in _tasks(objective):
        constant = judge.constant(y)
        shape = judge.output.shape
        require(constant.shape == shape, f"constant has shape {tuple(constant.shape)}, not {shape}")
        least = judge.loss(constant.expand(N, *shape), y)
        g = torch.Generator().manual_seed(2)
        for _ in range(20):
            other = constant + 0.1 * torch.randn(shape[-1:], generator=g)
            lower = judge.loss(other.expand(N, *shape), y) < least - 1e-6
            require(not lower, f"{judge.output.kind}: an output near constant(y) has a lower loss on y")


def examples(output: Output) -> tuple[Tensor, Tensor]:
    """Outputs and labels that have to do with each other, each label among them."""
    g = torch.Generator().manual_seed(0)
    y = output.draw(N)
    if output.kind == "values":
        y = torch.randn(y.shape, generator=g)
    elif output.kind == "class probabilities":
        y = torch.randn(y.shape, generator=g).softmax(dim=1)
    dense = y if y.is_floating_point() else torch.nn.functional.one_hot(y, output.size).float()
    return dense + torch.randn(dense.shape, generator=g), y


def _tasks(objective: type[Objective]) -> Iterator[tuple[Objective, Tensor, Tensor]]:
    _check_kinds(objective.outputs)
    for output in _outputs(objective.outputs):
        yield objective(output), *examples(output)


def _outputs(kinds: Sequence[OutputKind]) -> list[Output]:
    return [OUTPUTS[kind] for kind in kinds]


def _check_kinds(kinds: Sequence[str]) -> None:
    known = get_args(OutputKind)
    right = isinstance(kinds, tuple) and bool(kinds) and set(kinds) <= set(known)
    require(right, f"outputs are {kinds!r:.60}; write a tuple of {', '.join(known)}")


def _value(metric: type[Metric], output: Output, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    of = metric(output)
    for out, y in batches:
        of.add(out, y)
    return of.value()


def _run(checks: Mapping[str, Callable[[], None]]) -> Iterator[Result]:
    for name, check in checks.items():
        began = perf_counter()
        message = complaint(check)
        yield Result(name, message is None, message or "", perf_counter() - began)
