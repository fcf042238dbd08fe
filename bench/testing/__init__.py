"""The contracts of methods, nets and data sets: run by our tests over all of them and by `bench check` over one."""

from bench.testing.contract import CHECKS, run_checks
from bench.testing.finding import ContractViolation, Result
from bench.testing.instruments import run_instrument_checks
from bench.testing.judges import run_metric_checks, run_objective_checks
from bench.testing.layers import check_forms
from bench.testing.parts import run_dataset_checks, run_net_checks
from bench.testing.subject import Subject, Trainee, nets_of, small_task

__all__ = [
    "CHECKS",
    "ContractViolation",
    "Result",
    "Subject",
    "Trainee",
    "check_forms",
    "nets_of",
    "run_checks",
    "run_dataset_checks",
    "run_instrument_checks",
    "run_metric_checks",
    "run_net_checks",
    "run_objective_checks",
    "small_task",
]
