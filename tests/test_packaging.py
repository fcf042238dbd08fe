"""What is installed: one top-level package, and nothing by a name that users give to folders of their own."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.catalog.catalog import Catalog

ROOT = Path(__file__).resolve().parents[1]
USER = """
import json, sys
import methods.mine
from bench.catalog.catalog import Catalog
catalog = Catalog()
entry = catalog.methods["noprop-dt"]
if "load" in sys.argv:
    entry.load()
found = [sorted(catalog.methods), catalog.problems, entry.source_hash(), str(entry.file), methods.mine.ANSWER]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files."""
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = builder.build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize(("place", "package"), [("checkout", True), ("checkout", False), ("wheel", True)])
def test_a_users_own_methods_folder_and_the_rules_of_the_suite_do_not_hide_each_other(
    place: str, package: bool, tmp_path: Path, wheel: Path
) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text("ANSWER = 42")
    if package:
        (tmp_path / "methods" / "__init__.py").touch()
    home = {"checkout": ROOT, "wheel": wheel}[place]
    run = [sys.executable, "-c", USER, *(["load"] if place == "wheel" else [])]
    environ = {**os.environ, "PYTHONPATH": str(home)}
    done = subprocess.run(run, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    names, problems, source, file, answer = json.loads(done.stdout)
    assert (names, problems, answer) == (sorted(Catalog().methods), [], 42)
    assert Path(file).is_relative_to(home)
    assert source == Catalog().methods["noprop-dt"].source_hash()  # records made from either belong together


def test_a_wheel_holds_one_package_with_the_rules_in_it(wheel: Path) -> None:
    assert {path.name for path in wheel.iterdir() if path.suffix != ".dist-info"} == {"bench"}
    rules = {path.relative_to(ROOT / "methods") for path in (ROOT / "methods").rglob("*.py")}
    inside = wheel / "bench" / "methods"
    assert {path.relative_to(inside) for path in inside.rglob("*.py")} == rules
    assert (inside / "references.bib").is_file()
    assert not (wheel / "bench" / "methods.py").exists()  # the folder is there in its place
