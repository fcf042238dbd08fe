"""What may be concluded from several runs."""

from bench.stats.counts import ROW, count_runs, finished
from bench.stats.intervals import Interval, t_interval
from bench.stats.paired import REFERENCE, TEST_ACC_DIFF, paired_differences

__all__ = [
    "REFERENCE",
    "ROW",
    "TEST_ACC_DIFF",
    "Interval",
    "count_runs",
    "finished",
    "paired_differences",
    "t_interval",
]
