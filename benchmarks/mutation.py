"""Planted mistakes: how many of them the tests notice, per family of learning rules.

    python benchmarks/mutation.py [--family local] [--jobs 1] [--only TEXT]

benchmarks/mutations/<family>.yaml lists the mistakes: a file, an exact piece of its text that occurs there once, the
text in its place, and the kind of mistake. The driver copies the source tree, runs the tests of the family once as they
are, then once with each mistake; a mistake is killed when a test fails (or hangs for half an hour), and survives when
all pass. The tests that kill most come first, by themselves (`first`). Not part of CI: a mistake costs 5 to 60 seconds.

Exit code 1 if a mistake survives that is not named `equivalent` (with the reason in its note).
"""

import argparse
import compileall
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue

import yaml
from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).resolve().parent.parent
TABLES = Path(__file__).resolve().parent / "mutations"
COPIED = ("bench", "docs", "methods", "tests", "pyproject.toml")
SECONDS = 1800  # a busy machine must not make a survivor look killed
SERVER = get_context("forkserver")  # of processes that have imported what does not change
SERVER.set_forkserver_preload(["torch", "numpy", "pydantic", "pytest", "sklearn.datasets", "yaml"])


class Mutant(BaseModel):
    """A mistake. equivalent: why no test can notice it; it does not count."""

    model_config = ConfigDict(extra="forbid")

    file: str
    find: str
    replace: str
    kind: str
    note: str = ""
    equivalent: str = ""

    def apply(self, tree: Path) -> None:
        path = tree / self.file
        text = path.read_text()
        if (n := text.count(self.find)) != 1:
            raise SystemExit(f"mutation: {self.file} holds {self.find!r} {n} times; it must occur once")
        path.write_text(text.replace(self.find, self.replace))


class Table(BaseModel):
    """The mistakes of a family, and the tests that must notice them. first: files that are tried before all others."""

    model_config = ConfigDict(extra="forbid")

    tests: list[str]
    first: list[str] = []
    mutants: list[Mutant]


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant mistakes, run the tests, count what they notice.")
    parser.add_argument("--family", nargs="+", help="tables to try; default: all", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="mistakes tried at once")
    parser.add_argument(
        "--only", default="", help="mistakes whose file, text, kind or note contains this", metavar="TEXT"
    )
    args = parser.parse_args()
    tables = {path.stem: Table(**yaml.safe_load(path.read_text())) for path in sorted(TABLES.glob("*.yaml"))}
    survived, scores = 0, []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        trees = [copy_of_sources(Path(folder) / str(k)) for k in range(args.jobs)]
        for family in args.family or tables:
            killed, counted = try_family(family, tables[family], trees, args.only)
            survived += counted - killed
            scores.append(f"{family:14} {killed:3} of {counted:3} killed  {100 * killed / max(counted, 1):5.1f} %")
    print("", *scores, sep="\n")
    return int(survived > 0)


def copy_of_sources(to: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)
    # read only where the hash of the source agrees
    compileall.compile_dir(to / "bench", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return to


def try_family(family: str, table: Table, trees: list[Path], only: str) -> tuple[int, int]:
    """Killed, and all that count."""
    chosen = [m for m in table.mutants if any(only in text for text in (m.file, m.find, m.replace, m.kind, m.note))]
    for mutant in chosen:
        with planted(mutant, trees[0]):
            pass  # refuses a text that is not there before any test runs
    rest = [*table.tests, *(f"--ignore={path}" for path in table.first)]
    stages = [stage for stage in (table.first, rest) if stage]
    passed, said = tests_pass(trees[0], *stages)
    if not passed:
        raise SystemExit(f"mutation: the tests of {family} fail without a mistake:\n{said}")
    free = SimpleQueue[Path]()
    for tree in trees:
        free.put(tree)

    def attempt(mutant: Mutant) -> bool:
        tree = free.get()
        try:
            with planted(mutant, tree):
                passed, said = tests_pass(tree, *stages)
        finally:
            free.put(tree)
        word = "SURVIVED" if passed else "killed"
        word = "equivalent" if passed and mutant.equivalent else word
        failed = "" if passed else said.split("FAILED ")[-1].splitlines()[0][:90]
        what = mutant.note or f"{mutant.find.strip()[:50]!r} -> {mutant.replace.strip()[:50]!r}"
        print(f"{word:10} {Path(mutant.file).stem:18} {mutant.kind:12} {what}  {failed}", flush=True)
        return not passed

    with ThreadPoolExecutor(len(trees)) as pool:
        killed = list(pool.map(attempt, chosen))
    counted = [k for k, mutant in zip(killed, chosen, strict=True) if k or not mutant.equivalent]
    return sum(counted), len(counted)


@contextmanager
def planted(mutant: Mutant, tree: Path) -> Iterator[None]:
    """The tree with this mistake, and as it was before."""
    path = tree / mutant.file
    before = path.read_text()
    mutant.apply(tree)
    try:
        yield
    finally:
        path.write_text(before)


def tests_pass(tree: Path, *stages: list[str]) -> tuple[bool, str]:
    """Whether the tests pass on the sources of this tree, stage by stage, and what pytest said last."""
    said = ""
    for tests in stages:
        log = tree / "pytest.log"
        process = SERVER.Process(target=run_pytest, args=(tree, tests, log))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return False, "FAILED hung"
        said = log.read_text()
        if process.exitcode:
            return False, said
    return True, said


def run_pytest(tree: Path, tests: list[str], log: Path) -> None:
    """In a child of the server: pytest on the sources of this tree; exits with its code."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(tree)
    # no compiled files: those of a mistake would outlive it within the second that a time stamp resolves
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(tree))
    import pytest

    import bench.methods

    if not Path(str(bench.methods.__file__)).is_relative_to(tree):
        sys.exit(f"mutation: {bench.methods.__file__} is not in {tree}")
    sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]))


if __name__ == "__main__":
    sys.exit(main())
