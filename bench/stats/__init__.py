"""What may be concluded from several runs."""

from bench.stats.aggregate import interquartile_means, iqm_of, performance_band, performance_profile, scores_of
from bench.stats.comparison import Verdict
from bench.stats.counts import ROW, count_runs, finished
from bench.stats.curve_flops import with_flops
from bench.stats.disturbance import BY, comparable, disturbed
from bench.stats.intervals import Interval, t_interval
from bench.stats.paired import CONCLUSION, difference_of, paired_differences, tests_of
from bench.stats.pareto import front
from bench.stats.targets import TARGETS, costs_to_target, targets_of
from bench.stats.versus import versus, versus_of

__all__ = [
    "BY",
    "CONCLUSION",
    "ROW",
    "TARGETS",
    "Interval",
    "Verdict",
    "comparable",
    "costs_to_target",
    "count_runs",
    "difference_of",
    "disturbed",
    "finished",
    "front",
    "interquartile_means",
    "iqm_of",
    "paired_differences",
    "performance_band",
    "performance_profile",
    "scores_of",
    "t_interval",
    "targets_of",
    "tests_of",
    "versus",
    "versus_of",
    "with_flops",
]
