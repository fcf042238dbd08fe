"""Budgets as they are asked for: by whom they are bounded, what contradicts itself, and what they leave alone."""

from pathlib import Path
from typing import Any

import pytest

from bench import Input, Output
from bench.api.errors import ConfigError
from bench.catalog.catalog import Catalog
from bench.data.outline import Outline
from bench.experiment.budget import words
from bench.experiment.config import Experiment, resolve
from bench.experiment.identity import RunSpec
from bench.experiment.plan import plan

CATALOG = Catalog()
STEPS = 7  # an epoch, of 999 images in batches of 128


def specs(n_val: int = 99, **asked: Any) -> list[RunSpec]:
    experiment = Experiment.model_validate({"methods": ["backprop"], "epochs": 4, **asked})
    digits = Outline(Input.image(1, 8, 8), Output.classes(10), n_train=999, n_val=n_val, fingerprint="data")
    return [run.spec for run in plan(experiment, CATALOG, device="cpu", datasets={"digits": digits})]


def test_a_spec_without_a_budget_is_the_run_that_it_was() -> None:
    """The literal was computed before there were other budgets than epochs."""
    spec = RunSpec(
        method="backprop", method_settings={"lr": 1e-3}, method_source="s", net="mlp", net_settings={}, net_source="n",
        dataset="digits", data_id="d", seed=0, epochs=2, batch_size=128, val_fraction=0.1, eval_draws=3, device="cpu",
    )  # fmt: skip
    assert spec.run_id == "ba0430efd081006a"
    others = [spec.model_copy(update=change) for change in ({"steps": 9}, {"seconds": 9.0}, {"patience": 9})]
    assert len({spec.run_id, *(other.run_id for other in others)}) == 4


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (7, 1), (8, 2), (70, 10)])
def test_epochs_follow_from_steps(steps: int, epochs: int) -> None:
    (spec,) = specs(steps=steps)
    assert (spec.steps, spec.epochs) == (steps, epochs)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["4 epochs"]),
        ({"steps": 100}, ["100 steps"]),
        ({"seconds": 60}, ["60 s within 4 epochs"]),
        ({"flops": 1e12}, ["1e+12 FLOPs within 4 epochs"]),
        ({"patience": 3}, ["patience 3 within 4 epochs"]),
        ({"protocols": ["matched"]}, ["4 epochs"]),
        ({"protocols": ["convergence"]}, ["patience 10 within 4 epochs"]),
        ({"protocols": "matched,convergence"}, ["4 epochs", "patience 10 within 40 epochs"]),
        ({"protocols": "matched,convergence", "patience": 3}, ["4 epochs", "patience 3 within 40 epochs"]),
        (
            {"protocols": "matched,convergence", "steps": 14, "patience": 3},
            ["14 steps", "patience 3 within 20 epochs"],
        ),
        ({"epochs": {"backprop": 2}, "protocols": "matched,convergence"}, ["2 epochs", "patience 10 within 20 epochs"]),
    ],
    ids=str,
)
def test_each_row_is_run_under_each_protocol(asked: dict[str, Any], found: list[str]) -> None:
    runs = specs(**asked)
    assert [words(spec.model_dump()) for spec in runs] == found
    assert len({spec.run_id for spec in runs}) == len({spec.label for spec in runs}) == len(found)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"steps": 5, "seconds": 1.0}, "steps and seconds are different budgets; choose one$"),
        ({"steps": 5, "patience": 3}, "steps and patience are different budgets; choose one, or run them side by side"),
        ({"steps": -1}, "--steps: steps=-1 is refused: input should be greater than or equal to 1"),
        ({"seconds": -1.0}, "--seconds: seconds=-1.0 is refused: input should be greater than 0"),
        ({"flops": float("inf")}, "--flops: flops=inf is refused"),
        ({"patience": 0}, "--patience: patience=0 is refused"),
        ({"protocols": "matched,own"}, "--protocols: protocols.1='own' is refused: input should be 'matched' or"),
    ],
)
def test_budgets_that_make_no_sense_are_one_line(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as error:
        resolve("default", None, flags, [])
    assert "\n" not in str(error.value)


def test_own_convergence_needs_validation_images() -> None:
    with pytest.raises(ConfigError, match="convergence needs validation data, and digits has none; set val_fraction"):
        specs(n_val=0, patience=3)
    assert specs(n_val=0, steps=3)


def test_a_flag_s_budget_replaces_the_file_s(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("methods: [backprop]\nseconds: 60\n")
    asked = resolve(None, file, {"steps": 5}, [])
    assert (asked.steps, asked.seconds) == (5, None)
