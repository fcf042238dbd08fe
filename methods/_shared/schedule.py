"""Step sizes that fall in steps over the budget."""

from collections.abc import Sequence

from torch.optim import Optimizer

from bench import Progress


def fall(optimizer: Optimizer, lr: float, progress: Progress, at: Sequence[float], factor: float) -> None:
    """Set the step size to lr * factor^k, k the number of the parts `at` of training that are over.

    at: in [0, 1), so that training of any length passes them all.
    """
    done = progress.step / progress.total_steps
    for group in optimizer.param_groups:
        group["lr"] = lr * factor ** sum(done >= part for part in at)
