"""The contracts of metrics and objectives: ours pass, and each clause can fail."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.api.metric import Metric
from bench.api.objective import Objective
from bench.catalog.catalog import Catalog
from bench.metrics.accuracy import Accuracy
from bench.metrics.nll import NegativeLogLikelihood
from bench.objectives.cross_entropy import CrossEntropy
from bench.objectives.mean_squared_error import MeanSquaredError
from bench.testing import run_metric_checks, run_objective_checks

CATALOG = Catalog()
COLUMNS = CATALOG.columns()


@pytest.mark.parametrize("name", CATALOG.metrics)
def test_our_metrics_keep_their_contract(name: str) -> None:
    assert [r for r in run_metric_checks(CATALOG.metrics[name].load(), COLUMNS) if not r.ok] == []


@pytest.mark.parametrize("name", CATALOG.objectives)
def test_our_objectives_keep_their_contract(name: str) -> None:
    assert [r for r in run_objective_checks(CATALOG.objectives[name].load()) if not r.ok] == []


class MeanOfBatches(Accuracy):
    """Takes the mean of each batch's mean: the usual mistake."""

    def add(self, out: Tensor, y: Tensor) -> None:
        self.hits.append((out.argmax(dim=1) == y).float().mean())
        self.count += 1


class OutOfBounds(NegativeLogLikelihood):
    bounds = (0.0, 0.5)


class TakenKey(NegativeLogLikelihood):
    key = "acc"


class OddKey(NegativeLogLikelihood):
    key = "Odd Key"


class WrongGradient(CrossEntropy):
    def output_gradient(self, out: Tensor, y: Tensor) -> Tensor:
        return super().output_gradient(out, y) / len(out)


class SummedLoss(CrossEntropy):
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return self.losses(out, y).sum()


class WrongProjection(CrossEntropy):
    def project(self, y: Tensor, weight: Tensor) -> Tensor:
        return 2 * super().project(y, weight)


class WrongConstant(MeanSquaredError):
    def constant(self, y: Tensor) -> Tensor:
        return torch.ones(self.output.shape)


def failed(results: Any) -> list[str]:
    return [result.name for result in results if not result.ok]


@pytest.mark.parametrize(
    ("metric", "clauses"),
    [
        (MeanOfBatches, ["batches", "bounds"]),  # it cannot judge distributions either
        (OutOfBounds, ["bounds"]),
        (TakenKey, ["declaration"]),
        (OddKey, ["declaration"]),
    ],
)
def test_a_metric_that_breaks_a_clause_fails_it(metric: type[Metric], clauses: list[str]) -> None:
    found = failed(run_metric_checks(metric, [*COLUMNS, *metric.columns()]))
    assert set(clauses) & set(found)
    assert set(found) <= {*clauses, "declaration"}


@pytest.mark.parametrize(
    ("objective", "clauses"),
    [
        (WrongGradient, ["gradient"]),
        (SummedLoss, ["losses", "constant"]),
        (WrongProjection, ["targets"]),
        (WrongConstant, ["constant"]),
    ],
)
def test_an_objective_that_breaks_a_clause_fails_it(objective: type[Objective], clauses: list[str]) -> None:
    found = failed(run_objective_checks(objective))
    assert found
    assert set(found) <= set(clauses)
