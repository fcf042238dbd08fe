"""The shared interface: what the harness hands to a learning rule and what it asks of one.

The harness owns the loop, the clock, the data and the evaluation. A method is two verbs, `train_step` and
`predict`; every other member has a default that serves a method whose state sits in its attributes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from bench.errors import ConfigError
from bench.nets import build_net
from bench.nets.base import Net, Prototypes
from bench.seeding import Seeds

if TYPE_CHECKING:
    from bench.plan import RunSpec

Role = Literal["inference", "training_only", "frozen"]
Reach = Literal["none", "layer", "block", "network"]

ANY_NET = ("*",)


class Batch(NamedTuple):
    """One mini-batch on the device. Shape: x (B, C, H, W) float32, y (B,) int64."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Progress:
    """Where training stands, so that schedules see the whole budget. All counts start at 0."""

    step: int
    total_steps: int
    epoch: int
    total_epochs: int
    data_pass: int


@dataclass(frozen=True)
class Claims:
    """What a method says of itself; the contract suite measures each and fails where they differ.

    reverse_mode: how far reverse-mode differentiation carries a gradient: `none` (never called), within a
        `layer`, within a `block`, or through the whole `network`.
    forward_passes: calls of each layer in one training step; a call may hold a whole population of weights.
    weight_transport: whether errors travel through the transposed forward weights of a layer, be it within a block.
    stochastic_inference: whether two predictions on the same images may differ.
    inference_passes: calls of each layer in one prediction.
    """

    reverse_mode: Reach
    forward_passes: int = 1
    weight_transport: bool = False
    stochastic_inference: bool = False
    inference_passes: int = 1


@dataclass(frozen=True)
class MethodInfo:
    """A method's identity card. `nets` are the nets it runs on, the default first; ANY_NET means all."""

    name: str
    title: str
    family: str
    paper: str
    claims: Claims
    nets: tuple[str, ...] = ANY_NET


@dataclass(frozen=True)
class Task:
    """What is to be learnt: a classification problem and the net that shares it among methods.

    image_shape is (C, H, W). prototypes gives one training image of each class, for nets that start from them.
    """

    name: str
    n_classes: int
    image_shape: tuple[int, int, int]
    n_train: int
    net: str
    net_settings: Mapping[str, Any] = field(default_factory=dict)
    prototypes: Prototypes | None = None

    @property
    def n_features(self) -> int:
        channels, height, width = self.image_shape
        return channels * height * width

    def build_net(self, init: torch.Generator, name: str | None = None, **settings: Any) -> Net:
        """The run's net (or the named one) with weights drawn from `init`, on the CPU.

        Raises: ConfigError where it starts from training images and the task has none.
        """
        same = name is None or name == self.net
        chosen = {**(self.net_settings if same else {}), **settings}
        net = build_net(name or self.net, self.image_shape, self.n_classes, chosen, init)
        net.start_from(self._prototypes)
        return net

    def _prototypes(self) -> Tensor:
        if self.prototypes is None:
            raise ConfigError(f"the net starts from training images, and the task '{self.name}' brings none")
        return self.prototypes()


class Way(NamedTuple):
    """One more way to predict with what was learnt: by which sampler or solver, in how many steps."""

    sampler: str
    steps: int
    predict: Callable[[Tensor], Tensor]


class NoSettings(BaseModel):
    """The settings of a method that has none."""


class Method(ABC):
    """A learning rule.

    Subclasses set `info` and `Config` and implement `__init__`, `train_step` and `predict`.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[BaseModel]] = NoSettings

    @classmethod
    def supports(cls, task: Task, device: torch.device) -> str | None:
        """None, or the reason why this method cannot run, known before anything runs."""
        nets = cls.info.nets
        if nets != ANY_NET and task.net not in nets:
            return f"{cls.info.name} runs on {', '.join(nets)}, not on {task.net}"
        return None

    @classmethod
    def check_run(cls, config: Any, net_settings: Mapping[str, Any], run: "RunSpec") -> None:
        """Asked of every run of an experiment before the first begins; net_settings has the net's defaults too.

        Raises: ConfigError where these settings, each within its bounds, cannot be trained together.
        """
        return

    @abstractmethod
    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None: ...

    @abstractmethod
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Learn from one mini-batch.

        Returns detached 0-d tensors (at least `loss`); a Python number would be a hidden synchronisation.
        """

    @abstractmethod
    def predict(self, x: Tensor) -> Tensor:
        """Class scores. Shape: x (B, C, H, W) to (B, n_classes). Noise is drawn from `seeds.inference`."""

    def predict_noise_free(self, x: Tensor) -> Tensor:
        """Class scores with every random draw of inference at its mean; `predict` where there is none."""
        return self.predict(x)

    def ways(self) -> Iterable[Way]:
        """Ways to predict in other numbers of steps, for accuracy against steps. Default: none."""
        return ()

    def exhibits(self, x: Tensor) -> Mapping[str, Tensor]:
        """Arrays for the report's pictures, after training: any of the following. Default: none.

        label_path: class probabilities of the images x along inference, (steps + 1, B, n_classes), and
            label_path_time, (steps + 1,);
        prototypes: class embeddings that are images, at the start and now, (2, n_classes, C, H, W);
        schedule: time, abar and loss weight of each step of a noise schedule, (K, 3).
        """
        return {}

    def claims(self) -> Claims:
        """The claims of this instance, where they depend on its net or settings."""
        return self.info.claims

    def modules(self) -> Mapping[Role, nn.Module]:
        """The parts by role. Default: every module held in an attribute serves inference."""
        held = {name: value for name, value in vars(self).items() if isinstance(value, nn.Module)}
        return {"inference": nn.ModuleDict(held)}

    def blocks(self) -> list[nn.Module]:
        """The parts between which locality is measured, in order. Default: the blocks of the nets held."""
        nets = [value for value in vars(self).values() if isinstance(value, Net)]
        return [block for net in nets for block in net.blocks]

    def compile(self) -> None:
        """Let torch.compile have what a step spends its time in. Default: blocks, and parts of them called alone."""
        for block in self.blocks():
            parts: list[nn.Module] = [block, *block.children()]
            for part in parts:
                part.compile(dynamic=False)

    def start(self) -> None:  # noqa: B027
        """Called once before training, when the method is as it will train: placed, formatted, compiled, resumed.

        Its time counts as set-up, its memory as the method's.
        """

    def prepare_for_eval(self) -> None:  # noqa: B027  (an optional hook, not a forgotten abstract)
        """Called before each evaluation; its time counts as training."""

    def state_dict(self) -> dict[str, Any]:
        """All state, so that a resumed run continues bit for bit. Default: every stateful attribute."""
        return {name: _state(value) for name, value in vars(self).items() if _is_stateful(value)}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        for name, value in state.items():
            _restore(getattr(self, name), value)
        return self


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
