"""Every registered net and data set keeps its contract; one that breaks it is told."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench import Input, Output
from bench.catalog.catalog import Catalog
from bench.data.digits import Digits
from bench.nets.mlp import MLP
from bench.testing import run_dataset_checks, run_net_checks

CATALOG = Catalog()


@pytest.mark.parametrize("name", sorted(CATALOG.nets))
def test_every_net_keeps_its_contract(name: str) -> None:
    assert {r.name: r.message for r in run_net_checks(CATALOG.nets[name].load()) if not r.ok} == {}


def test_a_net_that_breaks_its_contract_is_told() -> None:
    class Drawn(MLP):
        def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
            return super().forward(x) + torch.randn(1)

    assert {r.name: r.message for r in run_net_checks(Drawn) if not r.ok} == {
        "scores": "two calls without noise differ"
    }


def test_a_net_that_images_do_not_fit_without_a_word_is_told() -> None:
    class Pooled(MLP):
        def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
            return super().forward(torch.nn.functional.max_pool2d(x, 3, 1).expand_as(x))

    failed = {r.name: r.message for r in run_net_checks(Pooled) if not r.ok}
    assert failed["shapes"].startswith("image 1x1x1: ")
    assert failed["shapes"].endswith("raise ConfigError where none fit")


@pytest.mark.parametrize("name", ["triangle", "localmixer", "denoiser"])
def test_images_that_do_not_fit_a_net_are_a_reason_to_skip(name: str) -> None:
    """Asked of the plan, so that the run says skipped, and not crashed."""
    net = CATALOG.nets[name].load()
    assert net.misfit(Input.image(1, 8, 8), Output.classes(10), net.small) is None
    assert "3" in (net.misfit(Input.image(1, 3, 5), Output.classes(10), net.small) or "")


def test_a_data_set_keeps_its_contract_or_is_told(tmp_path: Path) -> None:
    class Short(Digits):
        info = replace(Digits.info, n_train=1000)

    assert all(r.ok for r in run_dataset_checks(Digits(), tmp_path))
    (found,) = run_dataset_checks(Short(), tmp_path)
    assert found.message == "its card says n_train=1000, read were 1437"
