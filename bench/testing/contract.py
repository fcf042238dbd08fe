"""The contract of a learning rule: its clauses, one function each. That each can fail is shown by our tests."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

from bench.api.method import Method
from bench.api.net import Net
from bench.api.task import Facts
from bench.testing import claims, effects, interface, learning, phased, repeating
from bench.testing.finding import Result, complaint, few, require
from bench.testing.subject import BATCH_SIZE, Subject, small_task

FACTS_EPOCHS = 2520  # a multiple of every number of blocks up to ten

Check = Callable[[Subject], None]


def run_checks(
    method: type[Method],
    net: type[Net],
    *,
    net_settings: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
) -> Iterator[Result]:
    """Hold a method against every check but those of `without`, on the CPU: one result at a time, as it comes.

    The net is small unless net_settings say otherwise. A check in which the method raises is a failed one; without an
    instance to look at, there are no further checks. A failure that the method foresees is marked so, and so is a pass
    where it foresees a failure: then its reason is out of date.
    """
    subject = Subject(method, small_task(net, net_settings), settings or {})
    foreseen = method.expected_failures
    for name, check in CHECKS.items():
        if name in without:
            continue
        began = time.perf_counter()
        message, expected = complaint(partial(check, subject)), foreseen.get(name, "")
        if expected and message is None:
            message = f"passes, though a failure is expected: {expected}"
            yield Result(name, True, message, time.perf_counter() - began, expected)
        else:
            yield Result(name, message is None, message or "", time.perf_counter() - began, expected)
        if check is check_build:
            if message is not None:
                return
            foreseen = subject.start().method.foreseen()


def check_build(subject: Subject) -> None:
    """The method takes the task and can be made."""
    facts = Facts("cpu", FACTS_EPOCHS, BATCH_SIZE)
    reason = subject.cls.refuse(subject.task, subject.cls.Config(**subject.settings), facts)
    require(reason is None, f"refuse() refuses the task: {reason}")
    unknown = sorted(set(subject.start().method.foreseen()) - set(CHECKS))
    require(not unknown, f"expected_failures names no such check: {few(unknown)}")


CHECKS: Mapping[str, Check] = {
    "settings": interface.check_settings,
    "build": check_build,
    "scores": interface.check_scores,
    "metrics": interface.check_metrics,
    "learns": learning.check_learns,
    "moves": learning.check_moves,
    "seed": repeating.check_seed,
    "generator": repeating.check_generator,
    "resume": repeating.check_resume,
    "phases": phased.check_phases,
    "effect": effects.check_effect,
    "draws": effects.check_draws,
    "predict": repeating.check_predict,
    "inference-noise": repeating.check_inference_noise,
    "no-leak": learning.check_no_leak,
    "reverse-mode": claims.check_reverse_mode,
    "passes": claims.check_passes,
    "weight-transport": claims.check_weight_transport,
    "waiting": claims.check_waiting,
    "divergence": interface.check_divergence,
    "micro-batches": repeating.check_micro_batches,
    "memory": learning.check_memory,
}
