"""What tests of a run in process share: small runs, a session to meddle with, a method that learns nothing."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds
from bench.api.task import Task
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Parts
from bench.metrics.accuracy import Accuracy
from bench.objectives.cross_entropy import CrossEntropy
from bench.record.folder import RunFolder
from bench.runner.events import Event
from bench.runner.session import Session
from bench.runner.state import Place, Training

CATALOG = Catalog()
CPU = Place(torch.device("cpu"))
INSTRUMENTS = [entry.load() for entry in CATALOG.instruments.values()]
NETS: dict[str, dict[str, Any]] = {
    "denoiser": {"T": 2, "width": 2, "hidden": 8, "dropout": 0.2},
    "denoiser-ct": {"T": 3, "width": 2, "hidden": 8},
    "mlp": {"width": 16, "depth": 1, "activation": "relu"},
}


class Watched(Session):
    """A session that keeps hold of its run and lets a test meddle before the first step."""

    run: Training
    meddle: Callable[["Watched"], None] = staticmethod(lambda session: None)

    def train(self, run: Training) -> dict[str, Any]:
        self.run = run
        self.meddle(self)
        return super().train(self.run)


def spec(method: str = "backprop", net: str = "mlp", **changes: Any) -> RunSpec:
    settings = CATALOG.methods[method].load().Config().model_dump() if method in CATALOG.methods else {}
    base = dict(
        method=method, method_settings=settings, method_source="s", net=net, net_settings=NETS[net], net_source="n",
        dataset="digits", data_id="", seed=0, epochs=2, batch_size=128, val_fraction=0.1, eval_draws=3, device="cpu",
    )  # fmt: skip
    wanted = RunSpec(**{**base, **changes})
    return wanted.model_copy(update={"data_id": fingerprint(wanted.dataset, wanted.val_fraction)})


@cache
def fingerprint(dataset: str, val_fraction: float) -> str:
    return load(CATALOG.dataset(dataset), val_fraction=val_fraction).fingerprint


def start(
    tmp_path: Path, wanted: RunSpec, method: type[Method] | None = None, meddle: Callable[[Watched], None] | None = None
) -> tuple[Watched, list[Event]]:
    told: list[Event] = []
    asked = [cls for cls in INSTRUMENTS if not hasattr(cls, "fields") or cls.name in wanted.instruments]
    parts = Parts(
        method or CATALOG.methods[wanted.method].load(),
        CATALOG.nets[wanted.net].load(),
        CATALOG.dataset(wanted.dataset),
        tuple(asked),
        CrossEntropy,
        (Accuracy,),
        tuple(CATALOG.transforms[name].load() for name in wanted.transforms),
    )
    session = Watched(wanted, parts, CPU, RunFolder(tmp_path, "exp", wanted.run_id), told.append)
    if meddle is not None:
        session.meddle = meddle  # type: ignore[method-assign]
    return session, told


class Toy(Method):
    """Draws nothing and learns nothing."""

    info = MethodInfo("toy", "Toy", "toy", "", Claims(reverse_mode="none"))

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__()
        self.count = torch.zeros(())

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.count += 1
        return {"loss": torch.ones(())}

    def predict(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.zeros(len(x), 10)


class Hungry(Toy):
    """Takes 200 MiB in a prediction, and 40 MiB in a step: from 32 MiB on the allocator gives back what is freed."""

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        self.net = task.build_net(seeds.init)
        self.cycle = [self.predict]  # so that letting go of it is not enough

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {"loss": torch.ones(40 * 2**18).mean()}

    def predict(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(x) + torch.ones(200 * 2**18).mean()  # type: ignore[no-any-return]


def least_peak(folder: Path, go: Callable[[Path], dict[str, Any]]) -> int:
    """The least of three: pages of libraries that the system had taken back may return at any time, and count."""
    summaries = [go(folder / str(k)) for k in range(3)]
    assert {summary["status"] for summary in summaries} == {"ok"}
    return min(summary["cpu_peak_rss_bytes"] for summary in summaries)


def stop_at_step(session: Watched, steps: int) -> None:
    original, count = session.run.method.train_step, [0]

    def step(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        count[0] += 1
        session.stop_requested = count[0] == steps
        return original(batch, progress)

    session.run.method.train_step = step  # type: ignore[method-assign]


def tensors(method: Method) -> list[Tensor]:
    assert method.net is not None
    return list(method.net.state_dict().values())
