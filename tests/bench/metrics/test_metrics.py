"""Every built-in metric against a library or a slow and obvious version, over several unequal batches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, r2_score, root_mean_squared_error, top_k_accuracy_score
from torch import Tensor

from bench.api.errors import ConfigError
from bench.api.kinds import Output
from bench.api.metric import Metric
from bench.metrics.accuracy import Accuracy
from bench.metrics.ece import BINS, ExpectedCalibrationError
from bench.metrics.nll import NegativeLogLikelihood
from bench.metrics.perplexity import Perplexity
from bench.metrics.r2 import R2
from bench.metrics.rmse import RootMeanSquaredError
from bench.metrics.top5 import TopFive

CUTS = (1, 3, 40, 53)  # batches of 1, 2, 37, 13, 47 examples
N = 100
CLASSES, VALUES = Output.classes(8), Output("values", 2, scale=(10.0, 0.5))
TOKENS = Output("next token", 6, positions=5)
SOFT = Output("class probabilities", 8)


def softmax(out: np.ndarray) -> np.ndarray:
    shifted: np.ndarray = np.exp(out - out.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def calibration_error(out: np.ndarray, y: np.ndarray) -> float:
    """ECE as its definition reads, a bin at a time."""
    p = softmax(out)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    total = 0.0
    for m in range(BINS):
        inside = (confidence > m / BINS) & (confidence <= (m + 1) / BINS)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def rmse(out: np.ndarray, y: np.ndarray) -> float:
    return float(root_mean_squared_error(y * np.array(VALUES.scale), out * np.array(VALUES.scale)))


def perplexity(out: np.ndarray, y: np.ndarray) -> float:
    p = softmax(out)
    return float(np.exp(np.mean([-np.log(p[n, t, y[n, t]]) for n in range(len(y)) for t in range(y.shape[1])])))


ORACLES: dict[type[Metric], tuple[Output, Callable[[np.ndarray, np.ndarray], float]]] = {
    Accuracy: (CLASSES, lambda out, y: accuracy_score(y, out.argmax(axis=1))),
    NegativeLogLikelihood: (CLASSES, lambda out, y: log_loss(y, softmax(out), labels=np.arange(8))),
    ExpectedCalibrationError: (CLASSES, calibration_error),
    TopFive: (CLASSES, lambda out, y: top_k_accuracy_score(y, out, k=5, labels=np.arange(8))),
    R2: (VALUES, lambda out, y: r2_score(y, out)),
    RootMeanSquaredError: (VALUES, rmse),
    Perplexity: (TOKENS, perplexity),
}


def examples(output: Output) -> tuple[Tensor, Tensor]:
    """Outputs and labels that have to do with each other, more so in the first half than in the second."""
    g = torch.Generator().manual_seed(0)
    y = output.draw(N)
    y = torch.randn(y.shape, generator=g) if y.is_floating_point() else torch.randint(output.size, y.shape, generator=g)
    truth = y if y.is_floating_point() else torch.nn.functional.one_hot(y, output.size).float()
    noise = torch.linspace(0.3, 3, N).view(-1, *[1] * (truth.dim() - 1))
    return 2 * truth + noise * torch.randn(truth.shape, generator=g), y


def over_batches(metric: type[Metric], output: Output, out: Tensor, y: Tensor, cuts: tuple[int, ...]) -> float:
    of = metric(output)
    for batch in zip(out.tensor_split(cuts), y.tensor_split(cuts), strict=True):
        of.add(*batch)
    return of.value()


@pytest.mark.parametrize("metric", ORACLES, ids=lambda cls: cls.name)
def test_value_over_unequal_batches_is_that_of_all_examples(metric: type[Metric]) -> None:
    output, oracle = ORACLES[metric]
    out, y = examples(output)
    expected = oracle(out.double().numpy(), y.double().numpy() if y.is_floating_point() else y.numpy())
    found = over_batches(metric, output, out, y, CUTS)
    assert found == pytest.approx(expected, rel=1e-9)
    assert over_batches(metric, output, out, y, (10,)) == pytest.approx(found, rel=1e-12)
    parts = [over_batches(metric, output, *part, ()) for part in zip(out.split(90), y.split(90), strict=True)]
    assert np.mean(parts) != pytest.approx(expected, rel=1e-3)  # so that a mean over batches would be noticed
    low, high = metric.bounds
    assert low is None or found >= low
    assert high is None or found <= high


@pytest.mark.parametrize("metric", [Accuracy, NegativeLogLikelihood, ExpectedCalibrationError, TopFive])
def test_one_hot_distributions_are_judged_as_their_classes(metric: type[Metric]) -> None:
    out, y = examples(CLASSES)
    dense = torch.nn.functional.one_hot(y, 8).float()
    soft = over_batches(metric, SOFT, out, dense, CUTS)
    assert soft == pytest.approx(over_batches(metric, CLASSES, out, y, CUTS), rel=1e-12)


def test_nll_of_a_distribution_is_its_cross_entropy() -> None:
    out, q = examples(CLASSES)[0], torch.rand(N, 8).softmax(dim=1)
    expected = -(q.double() * out.double().log_softmax(dim=1)).sum(dim=1).mean()
    assert over_batches(NegativeLogLikelihood, SOFT, out, q, CUTS) == pytest.approx(float(expected), rel=1e-9)


def test_confidence_of_one_is_in_the_last_bin() -> None:
    out, y = torch.full((4, 8), -1e4), torch.tensor([0, 0, 0, 1])
    out[:, 0] = 1e4
    assert over_batches(ExpectedCalibrationError, CLASSES, out, y, (1,)) == 0.25


def test_top_5_refuses_five_classes() -> None:
    with pytest.raises(ConfigError, match="more than 5 classes, not 5; use accuracy"):
        TopFive(Output.classes(5))


def test_r2_of_equal_labels_is_undefined() -> None:
    y = torch.ones(10, 2)
    assert np.isnan(over_batches(R2, VALUES, y + 0.1, y, (3,)))


def test_perplexity_beyond_what_a_record_holds_is_infinite() -> None:
    out, y = torch.zeros(1, 5, 6), torch.zeros(1, 5, dtype=torch.int64)
    out[..., 1] = 1e6
    assert over_batches(Perplexity, TOKENS, out, y, ()) == np.inf


class Watched(torch.Tensor):
    """A tensor that notices when Python asks for its values, as a synchronisation of a GPU would be."""

    asked = 0

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("item", "__bool__", "__float__", "__int__", "tolist", "numpy", "cpu"):
            Watched.asked += 1
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("metric", ORACLES, ids=lambda cls: cls.name)
def test_adding_a_batch_asks_for_no_value(metric: type[Metric]) -> None:
    output, _ = ORACLES[metric]
    out, y = examples(output)
    of, Watched.asked = metric(output), 0
    of.add(out.as_subclass(Watched), y.as_subclass(Watched))
    assert Watched.asked == 0
    of.value()
    assert Watched.asked
