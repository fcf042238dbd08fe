"""The shared interface: what the harness hands to a learning rule and what it asks of one.

The harness owns the loop, the clock, the data and the evaluation. A method is two verbs, `train_step` and
`predict`; every other member has a default that serves a method whose state sits in its attributes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from bench.api.artifact import Artifact
from bench.api.errors import MethodError
from bench.api.inference import inference
from bench.api.kinds import OutputKind
from bench.api.net import Net
from bench.api.settings import NoSettings
from bench.api.structure import Need, unmet
from bench.api.task import Batch, Facts, Progress, Task

Role = Literal["inference", "training_only", "frozen"]
Reach = Literal["none", "layer", "block", "network"]
WaitsFor = Literal["nothing", "earlier blocks", "earlier blocks, in sequence", "the output", "later blocks"]

ANY_NET = ("*",)


@dataclass(frozen=True)
class Claims:
    """What a method says of itself; the contract suite measures each and fails where they differ.

    reverse_mode: how far reverse-mode differentiation carries a gradient: `none` (never called), within a
        `layer`, within a `block`, or through the whole `network`.
    forward_passes: calls of each layer in one training step; a call may hold a whole population of weights. Where
        phases differ, those of the phase with most of them.
    weight_transport: whether errors travel through the transposed forward weights of a layer, be it within a block.
    stochastic_inference: whether two predictions on the same images may differ.
    inference_passes: evaluations of each layer for one image that is predicted.
    deterministic: whether the rule draws nothing, not even weights, so that a seed decides the order of images alone.
    updates_wait_for: the farthest thing that the update of some block depends on (see bench.audit.waiting); None: not
        claimed.
    """

    reverse_mode: Reach
    forward_passes: int = 1
    weight_transport: bool = False
    stochastic_inference: bool = False
    inference_passes: int = 1
    deterministic: bool = False
    updates_wait_for: WaitsFor | None = None


@dataclass(frozen=True)
class MethodInfo:
    """A method's identity card.

    nets: those that it is run on where none is asked for, the default first; ANY_NET means all. needs: what it needs of
    any other net, see bench.api.structure; None: it runs on `nets` alone. outputs: the kinds of output that it learns.

    role: `reference`, what every other row is held against: one of the suite's own; `control`, no rule of its own but
        what shows what one must beat, as a read-out of random features does; else `rule`.
    rung: its place on the detach ladder: the reference with `heads` on all blocks, or these with `cuts` between blocks.
    """

    name: str
    title: str
    family: str
    paper: str
    claims: Claims
    nets: tuple[str, ...] = ANY_NET
    outputs: tuple[OutputKind, ...] = ("classes",)
    needs: tuple[Need, ...] | None = None
    role: Literal["rule", "control", "reference"] = "rule"
    rung: Literal["heads", "cuts"] | None = None


class Way(NamedTuple):
    """One more way to predict with what was learnt: by which sampler or solver, in how many steps."""

    sampler: str
    steps: int
    predict: Callable[[Tensor, torch.Generator | None], Tensor]


class Method(ABC):
    """A learning rule.

    Subclasses set `info` and `Config` and implement `__init__`, `train_step`, and `predict` where predictions are not
    those of `net`, the shared net that they train. expected_failures: checks of the contract that the rule cannot pass,
    by name, each with the reason; they are shown, never hidden.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[BaseModel]] = NoSettings
    expected_failures: ClassVar[Mapping[str, str]] = {}
    net: Net | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "predict" in vars(cls):
            cls.predict = _in_inference(cls.predict)  # type: ignore[method-assign]

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        """None, or the reason why this method cannot learn this task; the run's row then says `skipped` with it.

        Asked of every run before the first begins; task.net_settings has the net's defaults too.
        Raises: ConfigError where the settings, each within its bounds, contradict each other or the facts.
        """
        nets, kind = cls.info.nets, task.output.kind
        if kind not in cls.info.outputs:
            return f"{cls.info.name} learns {', '.join(cls.info.outputs)}, not {kind}"
        if cls.info.needs is not None:
            fault = unmet(cls.info.needs, task.sketch(), task.input) if cls.info.needs else None
            return fault and f"{cls.info.name} needs another net: {fault}"
        if nets != ANY_NET and task.net.name not in nets:
            return f"{cls.info.name} runs on {', '.join(nets)}, not on {task.net.name}"
        return None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: B027
        """Subclasses take (task, config, *, device, seeds). This does nothing, and may be called or not."""

    @abstractmethod
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Learn from one mini-batch.

        Returns detached 0-d tensors by the same names in every step; a Python number would be a hidden synchronisation.
        `loss` is needed; every other NAME is kept as `rule_NAME` in the learning curve: its mean over an epoch's steps.
        """

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """The task's output, class scores for instance. Shape: x (B, *input.shape) to (B, *output.shape).

        Called in evaluation mode and without gradients, whoever calls it: modules are in their modes from before
        afterwards. noise feeds the draws of stochastic inference; without it every draw is at its mean. It is handed to
        those alone that claim stochastic inference. Default: what the net gives.
        """
        if self.net is None:
            raise MethodError(f"{self.info.name} has neither a net nor a predict of its own; set self.net")
        out: Tensor = self.net(x, noise)
        return out

    def evaluating(self) -> AbstractContextManager[None]:
        """Inside, all modules are in evaluation mode and no gradient is recorded, as in `predict`."""
        return inference(*self.modules().values(), *([] if self.net is None else [self.net]))

    def ways(self) -> Iterable[Way]:
        """Ways to predict in other numbers of steps, for accuracy against steps. Default: none."""
        return ()

    def artifacts(self, shown: Batch, noise: torch.Generator) -> Iterable[Artifact]:
        """Pictures for the report, after training. shown: a few held-out images. Default: none."""
        return ()

    def claims(self) -> Claims:
        """The claims of this instance, where they depend on its net or settings."""
        return self.info.claims

    def foreseen(self) -> Mapping[str, str]:
        """The expected failures of this instance, where they depend on its net or settings."""
        return self.expected_failures

    def inert(self) -> Mapping[str, str]:
        """Settings that change neither an update nor a prediction on this net, such as a number of threads: each with
        the reason. All others are held to have an effect.
        """
        return {}

    def phase(self, progress: Progress) -> Hashable:
        """A name for the phase that a step is in: all steps of a phase do the same work. Changes nothing.

        What a step costs and waits for is measured once in each phase and added up by steps. Default: a method that
        declares nothing is measured in a few places of training, and phases are searched for where these differ.
        """
        return None

    def modules(self) -> Mapping[Role, nn.Module]:
        """The parts by role. Default: every module held in an attribute serves inference."""
        held = {name: value for name, value in vars(self).items() if isinstance(value, nn.Module)}
        return {"inference": nn.ModuleDict(held)}

    def blocks(self) -> list[nn.Module]:
        """The parts between which locality is measured, in order. Default: the blocks of the net."""
        return [] if self.net is None else list(self.net.blocks)

    def prepare_for_eval(self) -> None:  # noqa: B027  (an optional hook, not a forgotten abstract)
        """Called before each evaluation; its time counts as training."""

    def state_dict(self) -> dict[str, Any]:
        """All state, so that a resumed run continues bit for bit. Default: every stateful attribute."""
        return {name: _state(value) for name, value in vars(self).items() if _is_stateful(value)}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        for name, value in state.items():
            _restore(getattr(self, name), value)
        return self


def _in_inference(predict: Any) -> Any:
    """predict, in evaluation mode and without gradients."""

    @wraps(predict)
    def wrapped(self: Method, *args: Any, **kwargs: Any) -> Tensor:  # a rule without draws may leave `noise` out
        with self.evaluating():
            out: Tensor = predict(self, *args, **kwargs)
        return out

    return wrapped


Method.predict = _in_inference(Method.predict)  # type: ignore[method-assign]


def _is_stateful(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_stateful(v) for v in value)
    return isinstance(value, (Tensor, torch.Generator)) or hasattr(value, "load_state_dict")


def _state(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_state(v) for v in value]
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.detach().clone() if isinstance(value, Tensor) else value.state_dict()


def _restore(target: Any, state: Any) -> None:
    if isinstance(target, (list, tuple)):
        for t, s in zip(target, state, strict=True):
            _restore(t, s)
    elif isinstance(target, torch.Generator):
        target.set_state(state)
    elif isinstance(target, Tensor):
        target.data.copy_(state)
    else:
        target.load_state_dict(state)
