"""Whether a training goes the same way again: from a seed, a checkpoint, past a prediction, in parts of a batch."""

import io
import pickle
from collections.abc import Mapping

import torch
from torch import Tensor

from bench.api.abilities import MicroBatched
from bench.api.method import Method
from bench.api.task import Batch
from bench.testing.finding import ContractViolation, few, require
from bench.testing.subject import Subject, Trainee, training_batch, validation_batch

NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of torch's batch norms
PARTS, PART_STEPS = 3, 3  # of a batch of 32: 11, 11, 10


def check_seed(subject: Subject) -> None:
    """The seed decides everything, to the last bit; another one gives something else, unless nothing is drawn."""
    same, again, other = (_trace(subject.start(seed), 5) for seed in (0, 0, 1))
    require(equal(same, again), "two runs with one seed differ; draw from `seeds` only")
    differs = not torch.equal(same["losses"], other["losses"])
    claimed = subject.start().method.claims().deterministic
    require(
        differs or claimed,
        "the seed changes nothing; draw the weights from seeds.init, or claim deterministic=True if nothing is drawn",
    )
    require(not (differs and claimed), "claims deterministic=True, but the seed changes the losses")


def check_generator(subject: Subject) -> None:
    """The global generator of torch is left alone: it belongs to nobody."""
    trainee, x = subject.start(), validation_batch().x
    for name, act in (("train_step", trainee.step), ("predict", lambda: trainee.predict(x))):
        before = torch.get_rng_state()
        act()
        require(
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
    require(
        equal(_trace(resumed, 3), expected),
        "a run restored from state_dict() continues differently; some state is missing there",
    )


def check_predict(subject: Subject) -> None:
    """predict changes nothing: no parameter, no buffer, no draw of the training that follows."""
    watched, twin = _evaluable(subject), _evaluable(subject)
    x = validation_batch().x
    before = tensors(watched.method)
    generators = watched.seeds.state_dict()
    for part in (x, x[:7]):
        watched.predict(part)
    changed = [name for name, t in tensors(watched.method).items() if not _same(t, before[name])]
    is_norm = any(name.rpartition(".")[2] in NORM_STATISTICS for name in changed)
    mend = "; predict in eval mode (net.eval()) and train in train mode (net.train())" if is_norm else ""
    require(not changed, f"predict changes {few(changed)}{mend}")
    drawn = [name for name, state in watched.seeds.state_dict().items() if not torch.equal(state, generators[name])]
    require(not drawn, f"predict draws from seeds.{few(drawn)}; seeds.inference is for that")
    torch.manual_seed(0)
    after = _trace(watched, 3)
    torch.manual_seed(0)
    require(equal(after, _trace(twin, 3)), "training goes another way after a predict")


def check_inference_noise(subject: Subject) -> None:
    """Predictions repeat for equal seeds of inference, and differ for others where that is claimed."""
    trainee, x = subject.start(), validation_batch().x
    trainee.train(3)
    here, again, elsewhere = (trainee.predict(x, place) for place in (0, 0, 1))
    require(torch.equal(here, again), "two predictions differ for the same seeds.inference; draw from there only")
    measured, claimed = not torch.equal(here, elsewhere), trainee.method.claims().stochastic_inference
    require(measured == claimed, f"claims stochastic_inference={claimed}, measured {measured}")
    free, freed = trainee.scores(x, None), trainee.scores(x, None)
    require(torch.equal(free, freed), "two predictions without noise differ")


def check_micro_batches(subject: Subject) -> None:
    """Where a method says that it learns the same from batches in parts, it does, but for rounding: in float64."""
    method = subject.start().method
    if not isinstance(method, MicroBatched):
        return
    reason = method.use_micro_batches(PARTS)
    if reason is not None:
        require(isinstance(reason, str) and bool(reason), f"use_micro_batches gives {reason!r}, which is no reason")
        return
    torch.set_default_dtype(torch.float64)
    try:
        whole, cut = subject.start(), subject.start()
        assert isinstance(cut.method, MicroBatched)
        cut.method.use_micro_batches(PARTS)
        for k in range(PART_STEPS):
            x, y = training_batch(k)
            for trainee in (whole, cut):
                trainee.step(Batch(x.double(), y.clone()))
    finally:
        torch.set_default_dtype(torch.float32)
    expected, found = tensors(whole.method), tensors(cut.method)
    other = [name for name, t in found.items() if not torch.allclose(t, expected[name], rtol=1e-6, atol=1e-9)]
    require(not other, f"batches in {PARTS} parts give another update of {few(other)}")


def _evaluable(subject: Subject) -> Trainee:
    trainee = subject.start()
    trainee.train(3)
    trainee.method.prepare_for_eval()
    return trainee


def _trace(trainee: Trainee, steps: int) -> dict[str, Tensor]:
    """What the next steps lead to: losses, weights and scores."""
    losses = torch.stack(trainee.train(steps))
    return {"losses": losses, **tensors(trainee.method), "scores": trainee.predict(validation_batch().x)}


def tensors(method: Method) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, by role and name."""
    return {
        f"{role}.{name}": tensor.detach().clone()
        for role, part in method.modules().items()
        for name, tensor in part.state_dict().items()
    }


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal to the last bit, a NaN to a NaN."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
