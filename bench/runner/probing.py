"""What is looked at with throwaway instances, beside training: probes and trials, in each phase of it."""

import contextlib
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from bench.api.errors import MethodError
from bench.api.instrument import FEW_IMAGES, FIRST_STEPS, Probe, Reading, Trial
from bench.api.method import Method
from bench.api.seeds import Seeds
from bench.api.task import Batch, Progress, Task
from bench.audit.dependency import restore, snapshot
from bench.audit.phases import Course, PhaseOf, declares_phases, one_phase, phases, phases_of, work_of
from bench.experiment.identity import RunSpec
from bench.measure.clock import synchronize
from bench.runner.cost import Cost, Row

TRIAL = Course(100, 5)  # the training at some places of which trials are
UNPLANNED = "differs from step to step; the rule names no phases"

OTHERWISE = 0.01  # of a step's norm; what rounding makes of it is less
ROUNDING = 1e-6  # of a tensor's norm

Build = Callable[[], Method]


def warm_up(
    build: Build,
    spec: RunSpec,
    task: Task,
    device: torch.device,
    probes: Sequence[Probe],
    outside: Sequence[Tensor],
    micro_batches: int = 1,
) -> Cost:
    """Steps of a twin that is thrown away: in each phase one to make it ready, and one under the eyes of all probes.

    Its prediction is of as many images as a step takes at once. Phases that no rule declares are searched for.
    """
    size = spec.batch_size if spec.probe_only else min(spec.batch_size, task.n_train)
    x = task.input.draw(size, device)
    batch, seen = Batch(x, task.output.draw(size, device)), x[: -(-size // micro_batches)]
    course = planned(spec, task.n_train)

    def looked_at(twin: Method, phase_of: PhaseOf) -> Cost:
        steps = dict[Hashable, Row]()
        for name, phase in phases(phase_of, course).items():
            ready, then, _ = phase.places
            twin.train_step(batch, ready)
            steps[name] = _probed(
                probes, lambda probe: probe.watch(twin, outside), partial(twin.train_step, batch, then)
            )
        twin.prepare_for_eval()
        prediction = _probed(probes, lambda probe: probe.watch_prediction(twin, seen), lambda: twin.predict(seen))
        return Cost(probes, phase_of, steps, prediction)

    twin = build()
    declared = declares_phases(twin)
    cost = looked_at(twin, twin.phase if declared else one_phase)
    if probes and not declared and not spec.compile:
        found = _search(twin, Batch(x[:FEW_IMAGES], batch.y[:FEW_IMAGES]), course)
        if found is None:
            cost = Cost(probes, None, {}, {**cost.prediction, "flops_by_phase": UNPLANNED})
        elif found is not one_phase:
            del twin
            cost = looked_at(build(), found)
    synchronize(device)
    return cost


def planned(spec: RunSpec, n_train: int) -> Course:
    """All steps that a run may take, but for a budget of FLOPs, for which a step must have been looked at."""
    per_epoch = spec.steps_per_epoch(n_train)
    most = per_epoch * spec.epochs
    return Course(most if spec.steps is None else min(most, spec.steps), per_epoch)


def _search(twin: Method, few: Batch, course: Course) -> PhaseOf | None:
    """The phases of a rule that declares none. The twin is used up."""
    try:
        return phases_of(twin, work_of(twin, few), course)
    except Exception:  # a stranger's rule may fail where it is put elsewhere in training, and is run all the same
        return one_phase


def examined(build: Callable[[], tuple[Method, Seeds]], few: Batch, trials: Sequence[Trial]) -> Row:
    """What trials find on a few images in each phase, after its first steps.

    Phases differ by the blocks that they move, too: nothing is seen of what a block at rest waits for.
    """
    twin, _ = build()
    phase_of = phases_of(twin, work_of(twin, few, moved=True), TRIAL)
    found = Row()
    if phase_of is None:
        return found
    twin, seeds = build()
    for phase in phases(phase_of, TRIAL).values():
        for place in phase.places[:FIRST_STEPS]:
            twin.train_step(few, place)
        for trial in trials:
            found |= trial.examine(twin, seeds, few, phase.places[FIRST_STEPS])
    return found


def refuse_lost_state(build: Callable[[], tuple[Method, Seeds]], few: Batch) -> None:
    """Raises: MethodError where an instance that is restored from `state_dict` takes other steps than the one saved."""
    try:
        lost = _lost(build, few)
    except Exception:  # a stranger's rule may fail on a few images, or say itself that it cannot be restored
        return
    if lost:
        raise MethodError(
            f"state_dict() lacks what train_step needs: restored, {lost} takes another step, so a resumed run would "
            "end elsewhere; keep all state in attributes that are tensors, modules or optimizers, or override both"
        )


def _lost(build: Callable[[], tuple[Method, Seeds]], few: Batch) -> str | None:
    """A tensor that moves otherwise after a restoration, in the first phase of training or in the last."""
    unbroken, seeds = build()
    places = [
        phase.places for phase in phases(unbroken.phase if declares_phases(unbroken) else one_phase, TRIAL).values()
    ]
    for k, (*ready, then) in enumerate(places):
        for place in ready:
            unbroken.train_step(few, place)
        if k in (0, len(places) - 1):
            saved = snapshot(unbroken, seeds)
            restored, others = build()
            restore(restored, others, saved)
            before, expected = _tensors(unbroken), _moved(unbroken, few, then)
            torch.set_rng_state(saved[-1])
            found = _moved(restored, few, then)
            for name, old in before.items():
                step = expected[name] - old
                if (found[name] - expected[name]).norm() > OTHERWISE * step.norm() + ROUNDING * old.norm():
                    return name
    return None


def _moved(method: Method, few: Batch, place: Progress) -> dict[str, Tensor]:
    for _ in range(FIRST_STEPS):
        method.train_step(few, place)
    return _tensors(method)


def _tensors(method: Method) -> dict[str, Tensor]:
    return {
        f"{role}.{name}": tensor.detach().double()
        for role, part in method.modules().items()
        for name, tensor in part.state_dict().items()
    }


def _probed(
    probes: Sequence[Probe], watch: Callable[[Probe], AbstractContextManager[Reading]], act: Callable[[], object]
) -> Row:
    """The readings of all probes in one act; in an act for each where some cannot work together."""
    together: Row = {}
    try:
        with contextlib.ExitStack() as stack:
            readings = [stack.enter_context(watch(probe)) for probe in probes]
            act()
        for reading in readings:
            together |= reading()
        return together
    except RuntimeError:
        if len(probes) <= 1:  # torch.func's transforms allow no hooks on what is saved for backward, for one
            return {}
    return {name: value for probe in probes for name, value in _probed([probe], watch, act).items()}
