"""What may be concluded from several runs."""

from bench.stats.aggregate import IQM, interquartile_means, performance_band, performance_profile, scores_of
from bench.stats.comparison import Verdict, points
from bench.stats.counts import ROW, count_runs, finished
from bench.stats.curve_flops import with_flops
from bench.stats.disturbance import BY, comparable, disturbed
from bench.stats.intervals import Interval, t_interval
from bench.stats.paired import CONCLUSION, TEST_ACC_DIFF, TESTS, paired_differences
from bench.stats.pareto import front
from bench.stats.targets import TARGETS, costs_to_target
from bench.stats.twins import REFERENCE
from bench.stats.versus import VERSUS, versus

__all__ = [
    "BY",
    "CONCLUSION",
    "IQM",
    "REFERENCE",
    "ROW",
    "TARGETS",
    "TESTS",
    "TEST_ACC_DIFF",
    "VERSUS",
    "Interval",
    "Verdict",
    "comparable",
    "costs_to_target",
    "count_runs",
    "disturbed",
    "finished",
    "front",
    "interquartile_means",
    "paired_differences",
    "performance_band",
    "performance_profile",
    "points",
    "scores_of",
    "t_interval",
    "versus",
    "with_flops",
]
