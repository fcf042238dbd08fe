"""How long a run will take, from a few of its training steps and one prediction, timed."""

import math
import statistics
import time

import torch

from bench.audit.phases import one_phase, phases
from bench.experiment.identity import RunSpec
from bench.experiment.plan import Parts, refusal
from bench.measure.clock import synchronize
from bench.runner import compute, evaluate, setup
from bench.runner.evaluate import EVAL_BATCH
from bench.runner.state import Place, Training

STEPS = 10  # timed in each phase, unless they take longer than
LONG_S = 1.0


def seconds(spec: RunSpec, parts: Parts, place: Place) -> float | str:
    """Of training, evaluation included; an upper bound where a budget may end it before. Set-up is left out.

    Where method or net refuse the task: their reason.
    """
    loaded = setup.load(spec, parts, place)
    if reason := refusal(spec, parts, loaded):
        return reason
    with compute.precision(spec.precision, place.device):
        run = setup.set_up(spec, parts, setup.task_of(spec, parts, loaded, place.device), loaded, place.device)
        training = _steps_s(run)
        if spec.seconds is not None:
            training = min(training, spec.seconds)
        return training + _images_judged(run) * _prediction_s(run)


def _steps_s(run: Training) -> float:
    """Of all training steps: in each phase their number times the median of some, their data included."""
    order, size, total = run.order(), run.spec.batch_size, 0.0
    for phase in phases(run.cost.phase_of or one_phase, run.course(run.total_steps)).values():
        took = list[float]()
        for k in range(min(STEPS, run.steps_per_epoch)):
            place = phase.places[min(k, len(phase.places) - 1)]
            began = time.perf_counter()
            run.method.train_step(run.batch_of(order[k * size : (k + 1) * size]), place)
            synchronize(run.device)
            took.append(time.perf_counter() - began)
            if sum(took) > LONG_S:
                break
        total += phase.steps * statistics.median(took)
    return total


def _prediction_s(run: Training) -> float:
    """Of one image, in a batch as evaluations take them."""
    run.method.prepare_for_eval()
    x = run.test.batch(torch.arange(min(EVAL_BATCH, run.test.n_examples), device=run.device)).x
    began = time.perf_counter()
    with torch.no_grad():
        run.method.predict(x)
    synchronize(run.device)
    return (time.perf_counter() - began) / len(x)


def _images_judged(run: Training) -> int:
    """In all validations and the test; with and without noise where inference draws any."""
    epochs = math.ceil(run.total_steps / run.steps_per_epoch)
    if not evaluate.is_stochastic(run):
        return epochs * run.val.n_examples + run.test.n_examples
    return 2 * epochs * run.val.n_examples + (run.spec.eval_draws + 1) * run.test.n_examples
