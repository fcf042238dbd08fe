"""Each planted mistake of benchmarks/mutations changes a text that is there."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "benchmarks" / "mutations").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_planted_mistakes_find_their_place(file: Path) -> None:
    held = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert held["mutants"]
    for mutant in held["mutants"]:
        source = (ROOT / mutant["file"]).read_text(encoding="utf-8")
        assert source.count(mutant["find"]) == 1, f"{mutant['file']}, {mutant['find']!r}: must occur once"
        assert mutant["find"] != mutant["replace"]
    for tests in [*held.get("first", []), *held["tests"]]:
        assert (ROOT / tests).exists(), tests
