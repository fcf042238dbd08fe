"""Whether what a learning rule declares and draws has an effect: each setting, and each draw's seed."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.api.errors import ConfigError
from bench.api.task import Facts
from bench.testing.finding import ContractViolation, few, require
from bench.testing.repeating import equal, tensors
from bench.testing.subject import BATCH_SIZE, Subject, training_batch, validation_batch

STEPS, PER_PASS = 20, 2
EPOCHS = 2520  # a multiple of every number of blocks up to ten
SHOWN = 32  # images predicted
ENOUGH = 16  # entries of a draw that two seeds do not give alike by chance
DRAWN_STEPS = 3

Trace = Mapping[str, Tensor] | None  # None where the settings cannot be run


def check_effect(subject: Subject) -> None:
    """Every setting changes weights or predictions within a short training, unless the method names it inert.

    A setting may do so only beside another value of a choice, so those are tried as well. One of which no other value
    can be run here is passed over.
    """
    fields, inert = subject.cls.Config.model_fields, subject.start().method.inert()
    unknown = sorted(set(inert) - set(fields))
    require(not unknown, f"inert() names no such setting: {few(unknown)}")
    idle, varied = set(fields) - set(inert) - set(subject.settings), set[str]()
    for beside in _contexts(subject):
        usual = _trace(subject, beside)
        if usual is None:
            continue
        for name in sorted(idle - beside.keys()):
            for value in _others(fields[name], beside.get(name)):
                other = _trace(subject, {**beside, name: value})
                if other is None:
                    continue
                varied.add(name)
                if not equal(other, usual):
                    idle.discard(name)
                    break
        if not idle:
            return
    without = sorted(idle & varied)
    require(not without, f"{few(without)} changes neither an update nor a prediction; say why in inert()")


def _contexts(subject: Subject) -> Iterator[dict[str, Any]]:
    """Settings beside which others are varied: the usual ones, and each other value of a choice or a switch."""
    yield {}
    for name, field in subject.cls.Config.model_fields.items():
        if name not in subject.settings and (isinstance(field.default, bool | str) or _choices(field)):
            yield from ({name: value} for value in _others(field))


def _choices(field: FieldInfo) -> tuple[Any, ...]:
    """Those of a Literal, be it beside None."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return tuple(value for kind in kinds for value in get_args(kind) if isinstance(value, str | int | float))


def _others(field: FieldInfo, present: Any = None) -> Iterator[Any]:
    """Values that a setting may have beside its default, those first that differ much."""
    default = field.get_default(call_default_factory=True) if present is None else present
    if isinstance(default, bool):
        yield not default
        return
    if choices := _choices(field):
        yield from (choice for choice in choices if choice != default)
        return
    if isinstance(default, tuple):
        yield tuple(2 * value if isinstance(value, int | float) else value for value in default)
        yield tuple(value / 2 if isinstance(value, float) else value for value in default)
        return
    whole = int in (field.annotation, *get_args(field.annotation))
    edges = [getattr(of, kind) for of in field.metadata for cls, kind in _BOUNDS if isinstance(of, cls)]
    start = default if isinstance(default, int | float) else 1
    candidates = [2 * start, start / 2, start + 1, start - 1, *edges, 1, 2, 3, 0.5, 0.1, 0.9]
    for value in dict.fromkeys(candidates):
        if value != default and (not whole or value == int(value)):
            yield int(value) if whole else float(value)


_BOUNDS: tuple[tuple[Any, str], ...] = ((Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt"))


def _trace(subject: Subject, settings: Mapping[str, Any]) -> Trace:
    """Where a short training with these settings leads, which has an edge of each schedule in it."""
    chosen = {**subject.settings, **settings}
    try:
        config: BaseModel = subject.cls.Config(**chosen)
        if subject.cls.refuse(subject.task, config, Facts("cpu", EPOCHS, BATCH_SIZE)) is not None:
            return None
    except (ValidationError, ConfigError):
        return None
    try:
        trainee = Subject(subject.cls, subject.task, chosen).start(steps=STEPS, steps_per_pass=PER_PASS)
        losses = [torch.as_tensor(trainee.step(training_batch(k % PER_PASS))["loss"]) for k in range(STEPS)]
        scores = trainee.predict(validation_batch().x[:SHOWN])
    except Exception as error:  # a stranger's method may raise anything
        named = ", ".join(f"{name}={value}" for name, value in settings.items()) or "its defaults"
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 120)
        raise ContractViolation(f"with {named}: {said}; refuse() such settings") from error
    return {**tensors(trainee.method), "losses": torch.stack(losses), "scores": scores}


def check_draws(subject: Subject) -> None:
    """Every draw of a size, at the start and in steps, depends on the seed."""
    one, other = (_draws(subject, seed) for seed in (0, 1))
    alike = [
        f"{name} of shape {tuple(a.shape)}"
        for (name, a), (_, b) in zip(one, other, strict=False)
        if a.shape == b.shape and a.numel() >= ENOUGH and torch.equal(a, b) and a.min() != a.max()
    ]
    require(not alike, f"draws the same for every seed: {few(list(dict.fromkeys(alike)))}; draw from `seeds`")


def _draws(subject: Subject, seed: int) -> list[tuple[str, Tensor]]:
    draws = _Draws()
    with draws:
        trainee = subject.start(seed)
        for _ in range(DRAWN_STEPS):
            trainee.step(training_batch(0))
    return draws.seen


class _Draws(TorchDispatchMode):
    """Notes what operators give that draw from a generator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = list[tuple[str, Tensor]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags and isinstance(given, Tensor) and not given.is_meta:
            self.seen.append((func.overloadpacket.__name__, given.detach().clone()))
        return given
