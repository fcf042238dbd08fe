"""Who may import whom: what must stay light, and no circle among the packages."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from bench.catalog.catalog import installed

ROOT = Path(__file__).resolve().parents[2]
LISTS = ["methods", "nets", "datasets", "instruments", "listeners", "presets"]


@pytest.mark.parametrize(
    "code",
    ["import bench", "from bench.catalog.catalog import Catalog; Catalog()"]
    + [f"from bench.cli.main import app; app(['list', '{what}'], standalone_mode=False)" for what in LISTS],
)
def test_torch_is_not_imported(code: str) -> None:
    check = f"import sys; {code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True).returncode == 0


def test_the_public_names_are_there_and_no_others() -> None:
    import bench

    assert all(getattr(bench, name) is not None for name in bench.__all__)
    assert set(dir(bench)) == {*bench.__all__, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = bench.Nothing


def test_no_circle_among_the_packages() -> None:
    """Imports under TYPE_CHECKING and inside functions count: a circle is one, whenever it closes."""
    try:
        order = list(TopologicalSorter(package_graph(ROOT / "bench")).static_order())
    except CycleError as error:
        pytest.fail(f"packages import each other in a circle: {' -> '.join(error.args[1])}")
    assert order.index("api") < order.index("runner") < order.index("executors") < order.index("cli")


def test_python_imports_nothing_of_the_command_line() -> None:
    assert [package for package, used in package_graph(ROOT / "bench").items() if "cli" in used] == []


def test_what_plugins_see_knows_nothing_of_the_harness() -> None:
    assert package_graph(ROOT / "bench")["api"] == set()


def test_the_harness_knows_no_method() -> None:
    found = {file for file, module in imports(ROOT / "bench") if module.startswith(("methods", "bench.methods"))}
    assert not found


def test_the_harness_names_no_rule_and_no_family() -> None:
    """It knows them by what their cards say. Documentation, presets and published figures name rules; prose speaks of
    backprop, and some words are names of families and of other things, too.
    """
    rules = {name for name, entry in installed().methods.items() if entry.is_ours}
    families = {str(installed().methods[name].card["family"]) for name in rules}
    words = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, rules - {'backprop'}))})(?![\w-])")
    others = {"local", "target", "energy", "feedback"}
    found = [
        (file.name, text)
        for file, text in [*texts(ROOT / "bench"), *scripts(ROOT / "bench")]
        if text in rules | families - others or (words.search(text) and text not in others)
    ]
    assert found == []


def texts(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, text) for every string in code, but for docstrings."""
    for file in sorted(folder.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        alone = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in alone:
                yield file, node.value


def scripts(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, text) for every quoted string of the page's scripts."""
    for file in sorted(folder.rglob("html/*.js")):
        yield from ((file, text) for text in re.findall(r'"([^"\n]*)"', file.read_text(encoding="utf-8")))


def test_rules_import_each_other_relatively() -> None:
    """So their hashes do not depend on the name of the package, and type checkers follow them in the folder."""
    found = {file for file, module in imports(ROOT / "methods") if module.startswith(("methods", "bench.methods"))}
    assert not found


def test_no_family_of_rules_imports_another() -> None:
    """What several share is in `_shared`, which imports none of them."""
    assert strangers(ROOT / "methods") == []


def test_an_import_across_families_is_seen(tmp_path: Path) -> None:
    for family, text in {
        "a": "from ..b.x import y\nfrom .z import w",
        "b": "from .._shared import q",
        "_shared": "",
    }.items():
        (tmp_path / family).mkdir()
        (tmp_path / family / "x.py").write_text(text)
    assert strangers(tmp_path) == [(tmp_path / "a" / "x.py", "b.x")]


def strangers(methods: Path) -> list[tuple[Path, str]]:
    """(file, module) for every relative import that leaves a family for anything but `_shared`."""
    found = []
    for file in sorted(methods.rglob("*.py")):
        family, *inner = file.relative_to(methods).parts[:-1] or ("",)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level > 1 + len(inner):
                to = node.module or node.names[0].name
                if to.partition(".")[0] not in (family, "_shared"):
                    found.append((file, to))
    return found


def test_a_circle_is_seen(tmp_path: Path) -> None:
    for name, text in {"a": "from bench.b import x", "b": "def f():\n    import bench.a.y"}.items():
        (tmp_path / "bench" / name).mkdir(parents=True)
        (tmp_path / "bench" / name / "x.py").write_text(text)
    with pytest.raises(CycleError):
        list(TopologicalSorter(package_graph(tmp_path / "bench")).static_order())


def package_graph(bench: Path) -> dict[str, set[str]]:
    """The packages of the harness, each with those that it imports; modules on its top level count as packages."""
    graph: dict[str, set[str]] = {}
    for file, module in imports(bench):
        top, _, rest = module.partition(".")
        package = file.relative_to(bench).parts[0].removesuffix(".py")
        if package == "__init__":
            continue  # the public names, fetched when they are asked for
        of_it = graph.setdefault(package, set())
        if top == "bench" and rest and rest.partition(".")[0] != package:
            of_it.add(rest.partition(".")[0])
    return {package: {of for of in used if of in graph} for package, used in graph.items()}


def imports(folder: Path) -> list[tuple[Path, str]]:
    """(file, module) for every import below a folder; `from bench import x` counts as bench.x."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(file, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "bench":
                found += [(file, f"bench.{alias.name}") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found.append((file, node.module or ""))
        found.append((file, ""))
    return found
