"""Whether a learning rule does what it claims: how far gradients reach, its passes, its transport, what waits."""

from bench.api.instrument import FIRST_STEPS
from bench.audit import reverse_mode
from bench.audit.passes import passes
from bench.audit.waiting import updates_wait_for
from bench.audit.weight_transport import weight_transport
from bench.testing.finding import require
from bench.testing.subject import Subject, few_images, validation_batch


def check_reverse_mode(subject: Subject) -> None:
    """Reverse-mode differentiation reaches as far as claimed, no less and no more."""
    trainee = subject.start()
    measured = reverse_mode.reach(trainee.method, lambda: trainee.train(3))
    claimed = trainee.method.claims().reverse_mode
    require(measured == claimed, f"claims reverse_mode='{claimed}', measured '{measured}'")


def check_passes(subject: Subject) -> None:
    """The busiest layer is evaluated as often per step and per prediction as claimed.

    A method that never calls a module (it works on bare tensors) shows nothing to count and passes.
    """
    trainee, x = subject.start(), validation_batch().x
    claims = trainee.method.claims()
    trained = max(passes(trainee.method, trainee.step) for _ in range(3))
    predicted = passes(trainee.method, lambda: trainee.predict(x), images=len(x))
    for what, claimed, measured in (
        ("forward_passes", claims.forward_passes, trained),
        ("inference_passes", claims.inference_passes, predicted),
    ):
        require(measured in (claimed, 0), f"claims {what}={claimed}, measured {measured}")


def check_weight_transport(subject: Subject) -> None:
    """Errors travel through transposed forward weights as claimed, where a net has layers in which that shows."""
    trainee = subject.start()
    trainee.train(FIRST_STEPS)
    measured = weight_transport(trainee.method, trainee.seeds, few_images(), trainee.progress())
    claimed = trainee.method.claims().weight_transport
    require(measured in (claimed, None), f"claims weight_transport={claimed}, measured {measured}")


def check_waiting(subject: Subject) -> None:
    """Updates wait for what is claimed, if anything is, where a net has blocks between which that shows."""
    trainee = subject.start()
    claimed = trainee.method.claims().updates_wait_for
    if claimed is None:
        return
    trainee.train(FIRST_STEPS)
    measured = updates_wait_for(trainee.method, trainee.seeds, few_images(), trainee.progress())
    require(measured in (claimed, None), f"claims updates_wait_for='{claimed}', measured '{measured}'")
