"""When a run ends: after its steps, its seconds, or when validation no longer gets better."""

from bench.runner.state import Training


def refusal(run: Training) -> str | None:
    """Why a budget of FLOPs cannot be kept to, if it cannot: what a step takes is known only once one was probed."""
    if run.spec.flops is None or run.spec.probe_only:
        return None
    if run.affordable is None:
        return "a budget of FLOPs needs flops_per_step, which could not be measured; give epochs, steps or seconds"
    if run.affordable == 0:
        of_step = run.cost.flops(run.course(1))
        return f"one training step takes {of_step:.4g} FLOPs, more than the whole budget of {run.spec.flops:.4g}"
    return None


def is_out_of_time(run: Training) -> bool:
    return run.spec.seconds is not None and run.clock.times.train_s >= run.spec.seconds


def steps_ahead(run: Training) -> int:
    """Steps to be taken in this epoch before one looks again; 0 where it is over.

    Where seconds are the budget: half of the steps for which there is time. So the clock, which makes one wait for a
    GPU, is read some log2(steps) times, and yet training ends with the step that brings it to its seconds, as long as
    no steps take twice what they took before.
    """
    left = min(run.steps_per_epoch - run.state.step, run.total_steps - run.taken)
    if run.spec.seconds is None:
        return left
    if is_out_of_time(run):
        return 0
    times = run.clock.times
    steps_a_second = len(times.steps_s) / times.train_s if times.steps_s else 0.0
    return min(left, max(1, int(steps_a_second * (run.spec.seconds - times.train_s) / 2)))


def best_epoch(run: Training) -> int | None:
    """The row of the curve, from 1, that has the best validation metric, the first of equals; None without any."""
    primary = run.task.primary
    scores = [row[f"val_{primary.key}"] for row in run.state.curve]
    found = [score for score in scores if isinstance(score, float)]
    best = max if primary.better == "higher" else min
    return 1 + scores.index(best(found)) if found else None


def stopped_by(run: Training) -> str | None:
    """What ends the run at this edge between epochs, or after a part of one; None where it goes on."""
    spec, best = run.spec, best_epoch(run)
    out = run.affordable is not None and run.taken >= run.affordable
    over = {
        "steps": out and spec.steps is not None,
        "flops": out and spec.flops is not None,
        "seconds": is_out_of_time(run),
        "patience": spec.patience is not None and best is not None and len(run.state.curve) - best >= spec.patience,
        "epochs": run.taken >= run.steps_per_epoch * spec.epochs,
    }
    return next((budget for budget, is_over in over.items() if is_over), None)
