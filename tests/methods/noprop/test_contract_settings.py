"""The contract of a learning rule under the settings that its suite does not run by default."""

from collections.abc import Iterator
from typing import Any

import pytest

from bench.catalog.catalog import Catalog
from bench.testing import CHECKS, run_checks

CASES: list[tuple[str, str, dict[str, Any], dict[str, Any], bool]] = [
    ("noprop-dt", "denoiser", {}, {"execution": "loop"}, False),
    ("noprop-dt", "denoiser", {}, {"execution": "stacked"}, False),
    ("noprop-dt", "denoiser", {}, {"order": "sequential"}, False),
    ("noprop-dt", "denoiser", {}, {"inference_noise": False}, False),
    ("noprop-dt", "denoiser", {"embedding": "learned"}, {}, False),
    ("noprop-dt", "denoiser", {"embedding": "learned"}, {"execution": "stacked"}, True),
    ("noprop-dt", "denoiser", {"class_probability": "posterior"}, {}, True),
    ("noprop-dt", "denoiser", {"embedding": "prototype"}, {}, True),
    ("diffusion-blocks", "denoiser", {"embedding": "learned"}, {"execution": "loop"}, False),
    ("diffusion-blocks", "denoiser", {}, {"order": "random"}, False),
    ("diffusion-blocks", "denoiser", {}, {"blocks": 2, "steps": 5}, True),
    ("diffusion-blocks", "denoiser", {}, {"inference_noise": False}, True),
    ("noprop-ct", "denoiser-ct", {"embedding": "learned"}, {}, True),
    ("noprop-ct", "denoiser-ct", {"embedding": "prototype"}, {}, True),
    ("noprop-ct", "denoiser-ct", {}, {"sampler": "ddim"}, True),
    ("noprop-ct", "denoiser-ct", {}, {"sampler": "heun"}, True),
    ("noprop-ct", "denoiser-ct", {}, {"schedule": "linear"}, True),
    ("noprop-fm", "denoiser-ct", {"embedding": "learned"}, {}, True),
    ("noprop-fm", "denoiser-ct", {"embedding": "prototype"}, {}, True),
    ("noprop-fm", "denoiser-ct", {}, {"solver": "heun", "sigma": 0.1}, True),
    ("adjoint", "denoiser-ct", {"embedding": "learned"}, {}, True),
    ("adjoint", "denoiser-ct", {}, {"solver": "midpoint"}, True),
]


def cases() -> Iterator[Any]:
    for name, net, net_settings, settings, slow in CASES:
        shown = "-".join(str(v) for v in (*net_settings.values(), *settings.values()))
        marks = pytest.mark.slow if slow else ()
        yield pytest.param(name, net, net_settings, settings, id=f"{name}-{shown}", marks=marks)


def excused(net_settings: dict[str, Any], settings: dict[str, Any]) -> set[str]:
    """Checks that ask for more than can be had on nets this small, in trainings this short."""
    short = net_settings.get("embedding") == "prototype" or settings.get("sampler") in ("ddim", "heun")
    return {"learns"} if short else set()


@pytest.mark.parametrize(("name", "net", "net_settings", "settings"), list(cases()))
def test_method_keeps_the_contract(
    name: str, net: str, net_settings: dict[str, Any], settings: dict[str, Any], catalog: Catalog
) -> None:
    method, shared = catalog.methods[name].load(), catalog.nets[net].load()
    results = list(run_checks(method, shared, net_settings={**shared.small, **net_settings}, settings=settings))
    complaints = {r.name: r.message for r in results if not r.ok}
    assert {k: v for k, v in complaints.items() if k not in excused(net_settings, settings)} == {}
    assert [r.name for r in results] == list(CHECKS)
