"""Checks that every learning rule passes: run by our tests over all methods and by `bench check` over one."""

from bench.testing.contract import CHECKS, ContractViolation, Result, run_checks
from bench.testing.subject import SMALL_NETS, Subject, Trainee, small_task

__all__ = [
    "CHECKS",
    "SMALL_NETS",
    "ContractViolation",
    "Result",
    "Subject",
    "Trainee",
    "run_checks",
    "small_task",
]
