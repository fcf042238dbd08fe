"""By what a task is learnt and judged, and what is refused before anything runs."""

from pathlib import Path

import pytest

from bench.api.dataset import DataSetInfo
from bench.api.errors import ConfigError
from bench.api.kinds import Output
from bench.catalog.catalog import Catalog
from bench.experiment.identity import Compute
from bench.experiment.judging import judges

INFO = DataSetInfo("toy", "A toy")


def names(output: Output, *metrics: str, info: DataSetInfo = INFO) -> list[str]:
    objective, found = judges(Compute(metrics=metrics), info, output, Catalog())
    return [objective.name, *(entry.name for entry in found)]


def test_the_kind_of_output_chooses_where_nobody_else_does() -> None:
    assert names(Output.classes(10)) == ["cross-entropy", "accuracy", "nll", "ece"]
    assert names(Output.values()) == ["squared-error", "r2", "rmse"]
    assert names(Output("next token", 5, 3)) == ["next-token", "perplexity"]


def test_the_card_chooses_before_the_kind_and_the_user_before_the_card() -> None:
    info = DataSetInfo("toy", "A toy", metrics=("top-5", "accuracy"))
    assert names(Output.classes(10), info=info) == ["cross-entropy", "top-5", "accuracy"]
    assert names(Output.classes(10), "nll", info=info) == ["cross-entropy", "nll"]


def test_a_key_that_another_metric_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from bench.catalog.register import register\nfrom bench.metrics.accuracy import Accuracy\n"
        "@register\nclass Mine(Accuracy):\n    name = 'mine'\n"
    )
    with pytest.raises(ConfigError, match="metrics accuracy and mine both record test_acc; choose another key"):
        judges(Compute(metrics=("mine",)), INFO, Output.classes(3), Catalog([file]))


@pytest.mark.parametrize(
    ("output", "metrics", "told"),
    [
        (Output.classes(3), ["top-5"], "top-5 needs more than 5 classes, not 3"),
        (Output.values(), ["accuracy"], "accuracy judges classes, class probabilities; toy has values, which r2, rmse"),
        (Output.classes(3), ["nll", "accuracy", "nll"], "name each once"),
        (Output.classes(3), ["acuracy"], "did you mean accuracy"),
    ],
)
def test_what_cannot_judge_is_refused(output: Output, metrics: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        names(output, *metrics)
