"""What every test may ask for: a method by name on a small net, a small task, a small batch."""

import os
import tomllib
from collections.abc import Callable
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import Batch, Method, Seeds, Task
from bench.catalog.catalog import Catalog
from bench.testing.subject import CPU, nets_of, small_task

torch.set_num_threads(1)
# tables fit themselves to a width that somebody else has set: pytest-xdist for its workers, readline past os.environ
os.environ.pop("COLUMNS", None)
os.unsetenv("COLUMNS")

BROWSER = (Path("/usr/bin/chromium").exists(), Path("/usr/bin/chromedriver").exists(), find_spec("selenium"))
NO_BROWSER = "needs Chromium (Debian: chromium and chromium-driver) and selenium"


def pytest_sessionstart() -> None:
    """Entry points are written when the suite is installed; those of an older checkout name modules that are gone."""
    table = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = {(group, *point) for group, points in table["entry-points"].items() for point in points.items()}
    installed = distribution(table["name"]).entry_points
    stale = {(p.group, p.name, p.value) for p in installed if p.group.startswith("bench.")} - declared
    if stale:
        pytest.exit(f"installed entry points are stale, as {min(stale)}: pip install -e '.[dev]' once more", 2)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run also the tests that take more than a few seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": "" if config.getoption("--slow") else "slow; run with --slow",
        "gpu": "" if torch.cuda.is_available() else "needs a CUDA device",
        "browser": "" if all(BROWSER) else NO_BROWSER,
        "data": "" if os.environ.get("BENCH_DATA") else "needs data sets; name their folder in BENCH_DATA",
    }
    for item in items:
        for mark, reason in reasons.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "browser" in report.keywords]
    if skipped:
        terminalreporter.write_line(f"the report's page: {len(skipped)} tests skipped: {NO_BROWSER}")


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def task(catalog: Catalog) -> Task:
    """Digits (1x8x8, 10 classes) on a small mlp."""
    return small_task(catalog.nets["mlp"].load())


@pytest.fixture
def batch() -> Batch:
    """Sixteen random images of that task."""
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(16, 1, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator))


@pytest.fixture
def make_method(catalog: Catalog) -> Callable[..., Method]:
    """make_method("spsa", lr=1.0): a method on the CPU, by default on its first net at test size."""

    def make(
        name: str,
        *,
        net: str | None = None,
        net_settings: dict[str, Any] | None = None,
        seed: int = 0,
        task: Task | None = None,
        seeds: Seeds | None = None,
        **settings: Any,
    ) -> Method:
        cls = catalog.methods[name].load()
        task = task or small_task(catalog.nets[net or nets_of(cls)[0]].load(), net_settings)
        seeds = seeds or Seeds(seed, CPU, method=name)
        method: Method = cls(task, cls.Config(**settings), device=CPU, seeds=seeds)
        return method

    return make
