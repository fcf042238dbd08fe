"""The contract of a learning rule, one function per clause. That each can fail is shown by our tests."""

import io
import pickle
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.api.errors import ConfigError, MethodError
from bench.api.instrument import FIRST_STEPS
from bench.api.interface import check_metric, loss_of
from bench.api.interface import check_scores as check_interface
from bench.api.method import Method
from bench.api.net import Net
from bench.api.task import Batch, Facts
from bench.audit import live_memory, reverse_mode
from bench.audit.passes import passes
from bench.audit.waiting import updates_wait_for
from bench.audit.weight_transport import weight_transport
from bench.spec import ranges
from bench.testing.subject import (
    BATCH_SIZE,
    Subject,
    Trainee,
    few_images,
    small_task,
    training_batch,
    validation_batch,
)

LEARN_STEPS = 1600  # forty passes over the digits
LEARN_EVERY = 40
ABOVE_CHANCE = 0.15  # six standard errors on the validation split
MOVE_PASSES = 20
FACTS_EPOCHS = 2520  # a multiple of every number of blocks up to ten
PARTS, PART_STEPS = 3, 3  # of a batch of 32: 11, 11, 10
LEAK_BYTES = 2048  # per step; one kept batch is 8192
LEAK_TRIALS = 10  # the heaps of short-lived threads show 13 kB a step in one trial of three, a leak in all


class ContractViolation(AssertionError):
    """What a method does against the contract, in one line."""


class Result(NamedTuple):
    """The outcome of one check. message: what was found, empty where it passed; expected: the reason why a failure was
    foreseen by the method itself.
    """

    name: str
    ok: bool
    message: str
    seconds: float
    expected: str = ""

    @property
    def is_fine(self) -> bool:
        """Passed where that was to be expected, or failed as foreseen."""
        return self.ok != bool(self.expected)


Check = Callable[[Subject], None]


def run_checks(
    method: type[Method],
    net: type[Net],
    *,
    net_settings: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Result]:
    """Hold a method against every check, on the CPU: one result at a time, as it comes.

    The net is small unless net_settings say otherwise. A check in which the method raises is a failed one; without an
    instance to look at, there are no further checks. A failure that the method foresees is marked so, and so is a pass
    where it foresees a failure: then its reason is out of date.
    """
    subject = Subject(method, small_task(net, net_settings), settings or {})
    for name, check in CHECKS.items():
        began = time.perf_counter()
        message, expected = complaint(partial(check, subject)), method.expected_failures.get(name, "")
        if expected and message is None:
            message = f"passes, though a failure is expected: {expected}"
            yield Result(name, True, message, time.perf_counter() - began, expected)
        else:
            yield Result(name, message is None, message or "", time.perf_counter() - began, expected)
        if message is not None and check is check_build:
            return


def complaint(act: Callable[[], None]) -> str | None:
    """What a check has to say against a stranger's code; None where it passed."""
    try:
        act()
    except (ContractViolation, MethodError) as violation:
        return str(violation)
    except Exception as error:  # it may raise anything
        return textwrap.shorten(f"{type(error).__name__}: {error}", 200)
    return None


def check_settings(subject: Subject) -> None:
    """Every setting has a default and a description, and where it is to be searched a range."""
    for name, field in subject.cls.Config.model_fields.items():
        _require(not field.is_required(), f"setting '{name}' has no default")
        _require(bool(field.description), f"setting '{name}' has no description")
    try:
        ranges.declared(subject.cls.info.name, subject.cls.Config)
    except ConfigError as error:
        raise ContractViolation(str(error)) from error


def check_build(subject: Subject) -> None:
    """The method takes the task and can be made."""
    facts = Facts("cpu", FACTS_EPOCHS, BATCH_SIZE)
    reason = subject.cls.refuse(subject.task, subject.cls.Config(**subject.settings), facts)
    _require(reason is None, f"refuse() refuses the task: {reason}")
    subject.start()
    unknown = sorted(set(subject.cls.expected_failures) - set(CHECKS))
    _require(not unknown, f"expected_failures names no such check: {_few(unknown)}")


def check_scores(subject: Subject) -> None:
    """predict gives finite floating-point scores of shape (B, classes), for whatever B."""
    trainee = subject.start()
    trainee.train(2)
    x, classes = validation_batch().x, subject.task.n_classes
    for size in (1, 7, 33):
        for name, noise in (("predict", None), ("predict with noise", trainee.seeds.inference)):
            scores = trainee.scores(x[:size], noise)
            check_interface(scores, size, classes, name)
            _require(bool(scores.isfinite().all()), f"{name} gives scores that are not finite")


def check_metrics(subject: Subject) -> None:
    """train_step returns detached 0-d tensors, `loss` among them."""
    metrics = subject.start().step()
    loss_of(metrics)
    for name, value in metrics.items():
        check_metric(name, value)


def check_learns(subject: Subject) -> None:
    """Validation accuracy on the digits rises clearly above chance."""
    trainee, (x, y) = subject.start(steps=LEARN_STEPS), validation_batch()
    needed, best = 1 / subject.task.n_classes + ABOVE_CHANCE, 0.0
    while best < needed and trainee.done < LEARN_STEPS:
        trainee.train(LEARN_EVERY)
        best = max(best, _accuracy(trainee.predict(x), y))
    _require(best >= needed, f"reaches {best:.0%} on digits in {LEARN_STEPS} steps; {needed:.0%} is asked for")


def check_moves(subject: Subject) -> None:
    """Every parameter that serves inference moves within a training of a few steps, each a data pass of its own."""
    trainee = subject.start(steps=MOVE_PASSES, steps_per_pass=1)  # a rule may take its parts one a data pass
    before = _parameters(trainee.method)
    trainee.train(MOVE_PASSES)
    still = [name for name, p in _parameters(trainee.method).items() if torch.equal(p, before[name])]
    _require(not still, f"{_few(still)} never moves; leave it out of modules()['inference'] or train it")


def check_seed(subject: Subject) -> None:
    """The seed decides everything, to the last bit; another one gives something else, unless nothing is drawn."""
    same, again, other = (_trace(subject.start(seed), 5) for seed in (0, 0, 1))
    _require(_equal(same, again), "two runs with one seed differ; draw from `seeds` only")
    differs = not torch.equal(same["losses"], other["losses"])
    claimed = subject.start().method.claims().deterministic
    _require(
        differs or claimed,
        "the seed changes nothing; draw the weights from seeds.init, or claim deterministic=True if nothing is drawn",
    )
    _require(not (differs and claimed), "claims deterministic=True, but the seed changes the losses")


def check_generator(subject: Subject) -> None:
    """The global generator of torch is left alone: it belongs to nobody."""
    trainee, x = subject.start(), validation_batch().x
    for name, act in (("train_step", trainee.step), ("predict", lambda: trainee.predict(x))):
        before = torch.get_rng_state()
        act()
        _require(
            torch.equal(before, torch.get_rng_state()),
            f"{name} draws from (or seeds) torch's global generator; draw from `seeds`",
        )


def check_resume(subject: Subject) -> None:
    """An instance restored from a checkpoint continues bit for bit."""
    unbroken = subject.start()
    unbroken.train(3)
    file = io.BytesIO()
    torch.save(unbroken.state(), file)
    expected = _trace(unbroken, 3)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ContractViolation(
            "state_dict() holds more than tensors, numbers, strings and their containers"
        ) from error
    resumed = subject.start()
    resumed.resume(state)
    _require(
        _equal(_trace(resumed, 3), expected),
        "a run restored from state_dict() continues differently; some state is missing there",
    )


def check_predict(subject: Subject) -> None:
    """predict changes nothing: no parameter, no buffer, no draw of the training that follows."""
    watched, twin = _evaluable(subject), _evaluable(subject)
    x = validation_batch().x
    before = _tensors(watched.method)
    generators = watched.seeds.state_dict()
    for part in (x, x[:7]):
        watched.predict(part)
    changed = [name for name, t in _tensors(watched.method).items() if not _same(t, before[name])]
    _require(not changed, f"predict changes {_few(changed)}")
    drawn = [name for name, state in watched.seeds.state_dict().items() if not torch.equal(state, generators[name])]
    _require(not drawn, f"predict draws from seeds.{_few(drawn)}; seeds.inference is for that")
    torch.manual_seed(0)
    after = _trace(watched, 3)
    torch.manual_seed(0)
    _require(_equal(after, _trace(twin, 3)), "training goes another way after a predict")


def check_inference_noise(subject: Subject) -> None:
    """Predictions repeat for equal seeds of inference, and differ for others where that is claimed."""
    trainee, x = subject.start(), validation_batch().x
    trainee.train(3)
    here, again, elsewhere = (trainee.predict(x, place) for place in (0, 0, 1))
    _require(torch.equal(here, again), "two predictions differ for the same seeds.inference; draw from there only")
    measured, claimed = not torch.equal(here, elsewhere), trainee.method.claims().stochastic_inference
    _require(measured == claimed, f"claims stochastic_inference={claimed}, measured {measured}")
    free, freed = trainee.scores(x, None), trainee.scores(x, None)
    _require(torch.equal(free, freed), "two predictions without noise differ")


def check_no_leak(subject: Subject) -> None:
    """After training on a batch, random images are not given the labels of that batch."""
    trainee = subject.start()
    x, y = training_batch(0)
    noise = torch.randn(5, *x.shape, generator=torch.Generator().manual_seed(0))
    # as many of each class, so that a constant answer is at chance exactly
    y = (torch.arange(len(y)) % subject.task.n_classes)[
        torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    ]
    hits = []
    for images in noise:
        trainee.step(Batch(x.clone(), y.clone()))
        hits.append(_accuracy(trainee.predict(images), y))
    chance, found = 1 / subject.task.n_classes, sum(hits) / len(hits)
    _require(
        found < chance + ABOVE_CHANCE,
        f"guesses {found:.0%} of labels on random images; chance is {chance:.0%}",
    )


def check_reverse_mode(subject: Subject) -> None:
    """Reverse-mode differentiation reaches as far as claimed, no less and no more."""
    trainee = subject.start()
    measured = reverse_mode.reach(trainee.method, lambda: trainee.train(3))
    claimed = trainee.method.claims().reverse_mode
    _require(measured == claimed, f"claims reverse_mode='{claimed}', measured '{measured}'")


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
        _require(measured in (claimed, 0), f"claims {what}={claimed}, measured {measured}")


def check_weight_transport(subject: Subject) -> None:
    """Errors travel through transposed forward weights as claimed, where a net has layers in which that shows."""
    trainee = subject.start()
    trainee.train(FIRST_STEPS)
    measured = weight_transport(trainee.method, trainee.seeds, few_images(), trainee.progress())
    claimed = trainee.method.claims().weight_transport
    _require(measured in (claimed, None), f"claims weight_transport={claimed}, measured {measured}")


def check_waiting(subject: Subject) -> None:
    """Updates wait for what is claimed, if anything is, where a net has blocks between which that shows."""
    trainee = subject.start()
    claimed = trainee.method.claims().updates_wait_for
    if claimed is None:
        return
    trainee.train(FIRST_STEPS)
    measured = updates_wait_for(trainee.method, trainee.seeds, few_images(), trainee.progress())
    _require(measured in (claimed, None), f"claims updates_wait_for='{claimed}', measured '{measured}'")


def check_divergence(subject: Subject) -> None:
    """Images that are not numbers give a loss that is none either, which the runner reports as divergence."""
    trainee = subject.start()
    trainee.step()
    x, y = training_batch(0)
    loss = torch.as_tensor(trainee.step(Batch(torch.full_like(x, torch.nan), y))["loss"])
    _require(not loss.isfinite(), f"the loss on NaN images is {float(loss):.3g}; a divergence would go unnoticed")


def check_memory(subject: Subject) -> None:
    """Memory in use does not grow from step to step."""
    trainee = subject.start()
    trainee.train(5)
    # a leak shows every time, the wandering of the allocator does not
    for _ in range(LEAK_TRIALS):
        growth = live_memory.growth(trainee.step)
        if growth < LEAK_BYTES:
            return
    raise ContractViolation(f"memory grows by {growth:,.0f} bytes per step; is a graph kept?")


def check_micro_batches(subject: Subject) -> None:
    """Where a method says that it learns the same from batches in parts, it does, but for rounding: in float64."""
    reason = subject.start().method.cut_batches(PARTS)
    if reason is not None:
        _require(isinstance(reason, str) and bool(reason), f"cut_batches gives {reason!r}, which is no reason")
        return
    torch.set_default_dtype(torch.float64)
    try:
        whole, cut = subject.start(), subject.start()
        cut.method.cut_batches(PARTS)
        for k in range(PART_STEPS):
            x, y = training_batch(k)
            for trainee in (whole, cut):
                trainee.step(Batch(x.double(), y.clone()))
    finally:
        torch.set_default_dtype(torch.float32)
    expected, found = _tensors(whole.method), _tensors(cut.method)
    other = [name for name, t in found.items() if not torch.allclose(t, expected[name], rtol=1e-6, atol=1e-9)]
    _require(not other, f"batches in {PARTS} parts give another update of {_few(other)}")


CHECKS: Mapping[str, Check] = {
    "settings": check_settings,
    "build": check_build,
    "scores": check_scores,
    "metrics": check_metrics,
    "learns": check_learns,
    "moves": check_moves,
    "seed": check_seed,
    "generator": check_generator,
    "resume": check_resume,
    "predict": check_predict,
    "inference-noise": check_inference_noise,
    "no-leak": check_no_leak,
    "reverse-mode": check_reverse_mode,
    "passes": check_passes,
    "weight-transport": check_weight_transport,
    "waiting": check_waiting,
    "divergence": check_divergence,
    "micro-batches": check_micro_batches,
    "memory": check_memory,
}


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ContractViolation(complaint)


def _evaluable(subject: Subject) -> Trainee:
    trainee = subject.start()
    trainee.train(3)
    trainee.method.prepare_for_eval()
    return trainee


def _trace(trainee: Trainee, steps: int) -> dict[str, Tensor]:
    """What the next steps lead to: losses, weights and scores."""
    losses = torch.stack(trainee.train(steps))
    return {"losses": losses, **_tensors(trainee.method), "scores": trainee.predict(validation_batch().x)}


def _tensors(method: Method) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, by role and name."""
    return {
        f"{role}.{name}": tensor.detach().clone()
        for role, part in method.modules().items()
        for name, tensor in part.state_dict().items()
    }


def _parameters(method: Method) -> dict[str, Tensor]:
    part = method.modules().get("inference", nn.Module())
    return {name: p.detach().clone() for name, p in part.named_parameters() if p.requires_grad}


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal to the last bit, a NaN to a NaN."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _accuracy(scores: Tensor, y: Tensor) -> float:
    return float((scores.argmax(dim=1) == y).double().mean())


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
