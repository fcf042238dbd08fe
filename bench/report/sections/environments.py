"""What the runs were made with."""

import json
from collections.abc import Iterator
from typing import Any

from bench.record.results import Results
from bench.report.blocks import Block, Facts, Heading


def section(results: Results) -> Iterator[Block]:
    if results.environments:
        yield Heading("Environment")
    for name, facts in sorted(results.environments.items()):
        yield Heading(name, 3)
        yield Facts([(key, _plain(facts[key])) for key in sorted(facts)])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
