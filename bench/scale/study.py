"""A study of scaling: for each way of training and number of workers a point, measured where there are cores for it."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.api.errors import ConfigError
from bench.api.net import Net
from bench.api.parallel import IndependentBlocks, WholeGradient
from bench.experiment.plan import Run
from bench.measure.environment import environment
from bench.record import scaling
from bench.record.scaling import Point, WayName
from bench.scale import model, worker
from bench.scale.group import WorkerError, cores, run_group
from bench.scale.model import Predicted, Wire
from bench.scale.profile import profile
from bench.scale.ways import shares
from bench.scale.work import Work

PROFILE_STEPS = 6


@dataclass(frozen=True)
class Scaling:
    """What is asked. wire: a link as it is stated, for points that are simulated; None: as it is measured here.

    crowd: measure also where there are more workers than cores. fresh: measure again what there is.
    """

    rows: Sequence[tuple[WayName, Run]]
    workers: Sequence[int]
    steps: int
    warm_up: int
    n_micro: int
    folder: Path
    device: str = "cpu"
    data_dir: Path | None = None
    wire: Wire | None = None
    crowd: bool = False
    fresh: bool = False

    def work(self, way: WayName, run: Run, workers: int) -> Work:
        sizes = tuple(sorted({len(part) for n in (1, *self.workers) for part in shares(run.spec.batch_size, n)}))
        steps, warm_up, n_micro = self.steps, self.warm_up, self.n_micro
        return Work(run, way, workers, steps, warm_up, n_micro, self.device, self.data_dir, sizes)


def capacity(device: str) -> int:
    """Workers that can be measured without sharing a core, or a GPU."""
    return torch.cuda.device_count() if device == "cuda" else cores()


def check(asked: Scaling) -> None:
    """Raises: ConfigError for what cannot be spread over so many workers, before any process is begun."""
    most = max(asked.workers)
    if min(asked.workers) < 1:
        raise ConfigError(f"--workers {min(asked.workers)}: a training needs at least one worker")
    if asked.wire is None and most > 1 and capacity(asked.device) < 2:
        raise ConfigError("one core has no link to be measured; give --latency and --bandwidth")
    for way, run in asked.rows:
        method, *_ = worker.made(asked.work(way, run, 1), torch.device("cpu"))
        plan, name = worker.plan_of(method), run.spec.method
        if way == "blocks":
            if not isinstance(plan, IndependentBlocks):
                raise ConfigError(f"{name} has no blocks that learn independently of each other")
            _at_most(most, plan.n_blocks, f"{name} on {run.spec.net} has T = {plan.n_blocks} blocks")
            continue
        if not isinstance(plan, WholeGradient):
            raise ConfigError(f"{name} has no gradient of one loss through its net, so there is no {scaling.WAYS[way]}")
        if way == "data":
            _at_most(most, run.spec.batch_size, f"a batch has {run.spec.batch_size} images")
            continue
        if type(plan.net).forward is not Net.forward:
            raise ConfigError(f"{run.spec.net} does not run block after block, so there is no pipeline of it")
        n_blocks = len(plan.net.blocks)
        _at_most(most, n_blocks, f"{name} on {run.spec.net} has {n_blocks} blocks")
        _at_most(asked.n_micro, run.spec.batch_size, f"a batch has {run.spec.batch_size} images", "--micro-batches")


def _at_most(asked: int, there: int, what: str, flag: str = "--workers") -> None:
    if asked > there:
        raise ConfigError(f"{flag} {asked}: {what}")


def conduct(asked: Scaling, tell: Callable[[str], None], stop: threading.Event) -> list[Point] | None:
    """All points, each written when it is there; None where `stop` came before the end.

    Raises: StoreError where results cannot be written.
    """
    known = {} if asked.fresh else {p.point_id: p for p in scaling.load(asked.folder) if p.status == "ok"}
    try:
        study = _Study(asked, known, _link(asked, known, stop), stop)
        return [point for way, run in asked.rows for point in study.row(way, run, tell)]
    except InterruptedError:
        return None


@dataclass(frozen=True)
class _Study:
    """A study at work. known: points of an earlier one. link: between two workers here; None: not measured."""

    asked: Scaling
    known: Mapping[str, Point]
    link: Wire | None
    stop: threading.Event

    def row(self, way: WayName, run: Run, tell: Callable[[str], None]) -> list[Point]:
        """The points of one way, that of one worker first: it has the profile from which the others are modelled."""
        found: list[Point] = []
        for workers in sorted({1, *self.asked.workers}):
            work, base = self.asked.work(way, run, workers), found[0] if found else None
            try:
                point = self._point(work, base)
                told = f"{point.images_per_s:,.4g} examples/s ({point.kind})"
            except WorkerError as error:
                blank = _blank(self.asked, work, "measured")
                point = blank.model_copy(update={"status": "crashed", "reason": str(error)})
                told = str(error)
            scaling.save(self.asked.folder, point)
            several = "worker" if workers == 1 else "workers"
            tell(f"{point.method}, {scaling.WAYS[way]}, {workers} {several}: {told}")
            found.append(point)
            if found[0].status != "ok":  # there is nothing that the others could be held against, or modelled from
                break
        return found

    def _point(self, work: Work, base: Point | None) -> Point:
        asked = self.asked
        kind = "measured" if work.workers <= capacity(work.device) or asked.crowd else "simulated"
        point = _blank(asked, work, kind)
        if kind == "measured":
            old = self.known.get(point.point_id)
            if old is not None and _is_enough(old, work):
                return old
            point = point.model_copy(update=_measured(work, self.stop))
        of = base.profile if base is not None else self._profile(work)
        assert of is not None
        stated = asked.wire if kind == "simulated" else None
        wire = stated or self.link or Wire(0.0, float("inf"))
        expected = predicted(work, of, wire)
        rate = work.run.spec.batch_size / expected.step_s
        changes: dict[str, Any] = {"modelled_images_per_s": rate}
        if work.workers > 1:
            changes["link"] = {**wire._asdict(), "source": "measured" if stated is None else "stated"}
            changes["as_one"] = _as_one(point, base)
        else:
            changes["profile"] = of
        if kind == "simulated":
            changes |= {"images_per_s": rate, "step_s": expected.step_s, "idle": expected.idle}
            changes["sent_bytes"] = expected.n_bytes
        return point.model_copy(update=changes)

    def _profile(self, work: Work) -> dict[str, Any]:
        alone = replace(work, workers=1, steps=PROFILE_STEPS)
        return _unless_stopped(run_group(profile, alone, 1, self.stop))[0]


def _is_enough(old: Point, work: Work) -> bool:
    """Whether the profile that a point has, if it is one of one worker, covers all parts of a batch."""
    steps = (old.profile or {}).get("step_s")
    return steps is None or {str(size) for size in work.sizes} <= set(steps)


def predicted(work: Work, of: dict[str, Any], wire: Wire) -> Predicted:
    """What the model says of a point."""
    batch_size = work.run.spec.batch_size
    if work.way == "blocks":
        return model.blocks(of, work.workers, wire)
    if work.way == "data":
        return model.data(of, work.workers, wire, batch_size)
    return model.pipeline(of, work.workers, wire, batch_size, work.n_micro)


def _measured(work: Work, stop: threading.Event) -> dict[str, Any]:
    results = _unless_stopped(run_group(worker.train, work, work.workers, stop))
    elapsed = max(result["elapsed_s"] for result in results)
    digests = sorted(item for result in results for item in result["digests"].items())
    return {
        "step_s": elapsed / work.steps,
        "images_per_s": work.run.spec.batch_size * work.steps / elapsed,
        "idle": [result["blocked_s"] / result["elapsed_s"] for result in results],
        "sent_bytes": round(sum(result["sent_bytes"] for result in results)) / work.steps,
        "weights": hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16],
        "others": max(max(0.0, 1 - (r["cpu_s"] + r["blocked_s"]) / r["elapsed_s"]) for r in results),
    }


def _as_one(point: Point, base: Point | None) -> bool | None:
    """Told of blocks alone: parts of a batch add up in another order, and draw other noise."""
    if point.way != "blocks" or point.kind != "measured" or base is None:
        return None
    return point.weights == base.weights


def _link(asked: Scaling, known: Mapping[str, Point], stop: threading.Event) -> Wire | None:
    """Between two workers here, as measured for an earlier point or now."""
    for point in known.values():
        if point.link is not None and point.link["source"] == "measured" and point.device == asked.device:
            return Wire(point.link["latency_s"], point.link["bytes_per_s"])
    if max(asked.workers) < 2 or capacity(asked.device) < 2:
        return None
    return Wire(**_unless_stopped(run_group(worker.measure_link, asked.work(*asked.rows[0], 2), 2, stop))[0])


def _unless_stopped(results: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Raises: InterruptedError, which `conduct` takes for the end on request."""
    if results is None:
        raise InterruptedError
    return results


def _blank(asked: Scaling, work: Work, kind: Any) -> Point:
    spec = work.run.spec
    crowded = kind == "measured" and work.workers > capacity(work.device)
    stated = list(asked.wire) if kind == "simulated" and asked.wire else None
    identity = [spec.run_id, kind, work.way, work.workers, work.n_micro, work.steps, work.warm_up, crowded, stated]
    return Point(
        point_id=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16],
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        kind=kind,
        status="ok",
        method=spec.method,
        net=spec.net,
        dataset=spec.dataset,
        way=work.way,
        workers=work.workers,
        batch_size=spec.batch_size,
        n_micro=work.n_micro,
        steps=work.steps,
        warm_up=work.warm_up,
        settings=spec.method_settings,
        net_settings=spec.net_settings,
        crowded=crowded,
        device=work.device,
        environment=environment(torch.device(work.device), 1),
    )
