"""Whether a learning rule does what it claims: how far gradients reach, its passes, its transport, what waits."""

from functools import partial

from torch import Tensor

from bench.api.task import Progress
from bench.audit import reverse_mode
from bench.audit.dependency import update_dependency
from bench.audit.passes import passes
from bench.audit.waiting import frozen_blocks, over_phases
from bench.audit.weight_transport import weight_transport
from bench.testing.finding import require
from bench.testing.phased import in_each_phase
from bench.testing.subject import Subject, Trainee, few_images, training_batch, validation_batch


def check_reverse_mode(subject: Subject) -> None:
    """Reverse-mode differentiation reaches as far as claimed, no less and no more, over all phases of training."""

    def reach(trainee: Trainee, place: Progress) -> str:
        return reverse_mode.reach(trainee.method, lambda: trainee.method.train_step(training_batch(1), place))

    found = in_each_phase(subject, reach)
    measured = max((of for of in reverse_mode.REACHES if of in found), key=reverse_mode.REACHES.index)
    claimed = subject.start().method.claims().reverse_mode
    require(measured == claimed, f"claims reverse_mode='{claimed}', measured '{measured}'")


def check_passes(subject: Subject) -> None:
    """The busiest layer is evaluated as often per step and per prediction as claimed, in the phase with most passes.

    A method that never calls a module (it works on bare tensors) shows nothing to count and passes.
    """

    def of_step(trainee: Trainee, place: Progress) -> int:
        steps = (partial(trainee.method.train_step, training_batch(k), place) for k in range(3))
        return max(passes(trainee.method, step) for step in steps)

    trained = max(in_each_phase(subject, of_step))
    trainee, x = subject.start(), validation_batch().x
    claims = trainee.method.claims()
    predicted = passes(trainee.method, lambda: trainee.predict(x), images=len(x))
    for what, claimed, measured in (
        ("forward_passes", claims.forward_passes, trained),
        ("inference_passes", claims.inference_passes, predicted),
    ):
        require(measured in (claimed, 0), f"claims {what}={claimed}, measured {measured}")


def check_weight_transport(subject: Subject) -> None:
    """Errors travel through transposed forward weights as claimed, where a net has layers in which that shows."""

    def transport(trainee: Trainee, place: Progress) -> bool | None:
        return weight_transport(trainee.method, trainee.seeds, few_images(), place)

    seen = in_each_phase(subject, transport)
    measured = True if any(seen) else None if None in seen else False
    claimed = subject.start().method.claims().weight_transport
    require(measured in (claimed, None), f"claims weight_transport={claimed}, measured {measured}")


def check_waiting(subject: Subject) -> None:
    """Updates wait for what is claimed, if anything is, where a net has blocks between which that shows."""
    method = subject.start().method
    claimed = method.claims().updates_wait_for
    if claimed is None or len(method.blocks()) < 2:
        return

    def matrix(trainee: Trainee, place: Progress) -> Tensor:
        return update_dependency(trainee.method, trainee.seeds, few_images(), place)

    measured = over_phases(in_each_phase(subject, matrix), frozen_blocks(method))
    require(measured in (claimed, None), f"claims updates_wait_for='{claimed}', measured '{measured}'")
