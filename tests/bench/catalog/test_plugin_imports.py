"""What a plugin file imports from its own folder: found, private to the plugin, hashed, and run as it was hashed."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import bench
from bench.api.errors import PluginError, SourceError
from bench.catalog import entry as entries
from bench.catalog.catalog import Catalog
from bench.catalog.entry import Entry, remembering
from tests.bench.executors.made import plugin

WAYS = {
    "plain": ("import helper", "helper.LR"),
    "renamed": ("import helper as other", "other.LR"),
    "from": ("from helper import LR", "LR"),
    "star": ("from helper import *", "LR"),
    "relative": ("from .helper import LR", "LR"),
    "relative module": ("from . import helper", "helper.LR"),
    "package": ("import parts.deep", "parts.deep.LR"),
    "package renamed": ("from parts import deep", "deep.LR"),
    "package, relative within": ("from parts.again import LR", "LR"),
    "folder without __init__": ("from loose import deep", "deep.LR"),
    "import_module": ("import importlib", "importlib.import_module('helper').LR"),
    "import_module, relative": ("import importlib", "importlib.import_module('.helper', __package__).LR"),
    "__import__": ("", "__import__('helper').LR"),
}


def made(folder: Path, name: str, lr: float, first: str = "from helper import LR", value: str = "LR") -> Path:
    """A plugin whose method gives `value` when asked for its rate, and all the neighbours that it may import."""
    for place in ("helper.py", "parts/__init__.py", "parts/deep.py", "loose/deep.py"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(f"LR = {lr}\n")
    (folder / "parts/again.py").write_text("from .deep import LR\nimport helper\nassert helper.LR == LR\n")
    file = Path(plugin(folder, "pass", name))
    file.write_text(f"{first}\n{file.read_text()}    @staticmethod\n    def rate():\n        return {value}\n")
    return file


@pytest.mark.parametrize("way", WAYS)
def test_two_plugins_with_neighbours_of_one_name_get_each_its_own(way: str, tmp_path: Path) -> None:
    files = [made(tmp_path / name, name, lr, *WAYS[way]) for name, lr in (("one", 0.1), ("two", 0.2))]
    before = sys.path.copy()
    catalog = Catalog(files)
    assert catalog.problems == []
    assert [catalog.methods[name].load().rate() for name in ("one", "two")] == [0.1, 0.2]
    assert sys.path == before
    assert not {"helper", "parts", "loose"} & sys.modules.keys()


@pytest.mark.parametrize("way", WAYS)
def test_what_it_imports_is_hashed_and_runs_as_it_was_hashed(way: str, tmp_path: Path) -> None:
    """Also where the import stands in a function that is called after the edit."""
    first, value = WAYS[way]
    lazy = "*" not in first
    text = (
        f"def look():\n    {first or 'pass'}\n    return {value}\n"
        if lazy
        else f"{first}\ndef look():\n    return {value}\n"
    )
    file = made(tmp_path, "one", 0.1, text, "look()")
    entry = Catalog([file]).methods["one"]
    cls, planned = entry.load(), entry.source_hash()
    for neighbour in (tmp_path / "helper.py", *tmp_path.glob("*/deep.py"), tmp_path / "parts/__init__.py"):
        neighbour.write_text("LR = 0.2\n")
    assert entry.source_hash() != planned
    assert cls.rate() == 0.1
    entry.check(cls, planned)
    with pytest.raises(SourceError, match=r"one was edited after the command began .* begin the same command again"):
        entry.check(entry.load(), planned)
    assert entry.load().rate() == 0.2


def test_an_edit_of_a_comment_refuses_no_run(tmp_path: Path) -> None:
    file = made(tmp_path, "one", 0.1)
    entry = Catalog([file]).methods["one"]
    planned = entry.source_hash()
    (tmp_path / "helper.py").write_text('"""The rate."""\nLR = 0.1  # as in the paper\n')
    entry.check(entry.load(), planned)


def test_a_neighbour_hides_no_installed_package(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit(3)")
    (tmp_path / "queue.py").write_text("raise SystemExit(3)")
    file = made(tmp_path, "one", 0.1, "import queue, torch", "torch.tensor(queue.Queue(3).maxsize).item()")
    assert Catalog([file]).methods["one"].load().rate() == 3


def test_a_name_that_is_computed_finds_no_neighbour(tmp_path: Path) -> None:
    """What cannot be hashed is not imported."""
    file = made(tmp_path, "one", 0.1, "import importlib\nname = 'helper'", "importlib.import_module(name).LR")
    with pytest.raises(ModuleNotFoundError, match="helper"):
        Catalog([file]).methods["one"].load().rate()


def test_methods_of_packages_are_held_to_what_the_server_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is edited after the import: only a hash that differs refuses."""
    file = made(tmp_path, "one", 0.1, "", "0.1").rename(tmp_path / "rule_of_mine.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(entries, "_remembered", {})
    entry = Entry("methods", "one", file, "rule_of_mine")
    with remembering([entry]):
        cls = entry.load()
    old, text = entry.source_hash(), file.read_text()
    file.write_text(text + "\n# a comment\n")
    entry.check(cls, entry.source_hash())
    file.write_text(text.replace("return 0.1", "return 0.2"))
    entry.check(cls, old)
    with pytest.raises(SourceError, match="rule_of_mine"):
        entry.check(cls, entry.source_hash())
    monkeypatch.delitem(sys.modules, "rule_of_mine")


def test_an_edit_while_the_server_imports_refuses_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = made(tmp_path, "one", 0.1, "", "0.1").rename(tmp_path / "rule_of_mine.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(entries, "_remembered", {})
    entry = Entry("methods", "one", file, "rule_of_mine")
    old = entry.source_hash()
    with remembering([entry]):
        cls = entry.load()
        file.write_text(file.read_text().replace("return 0.1", "return 0.2"))
    for planned in (old, entry.source_hash()):
        with pytest.raises(SourceError):
            entry.check(cls, planned)
    monkeypatch.delitem(sys.modules, "rule_of_mine")


def test_a_plugin_s_settings_of_the_whole_process_are_put_back(tmp_path: Path) -> None:
    lines = (
        "import numpy, os, random, torch, warnings",
        "torch.set_default_device('meta'); torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)",
        "torch.use_deterministic_algorithms(True); torch.manual_seed(5); numpy.random.seed(5); random.seed(5)",
        "numpy.seterr(all='raise'); warnings.simplefilter('ignore'); os.chdir('/')",
    )
    draws, folder, filters = torch.get_rng_state(), Path.cwd(), warnings.filters.copy()
    errors, drawn = np.geterr(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    Catalog([made(tmp_path, "one", 0.1, "\n".join(lines), "0.1")])
    assert torch.zeros(1).device.type == "cpu"
    assert torch.zeros(1).dtype == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), draws)
    assert (Path.cwd(), warnings.filters, np.geterr()) == (folder, filters, errors)
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == drawn


def test_a_broken_plugin_raises_in_python(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import nothing_like_this")
    complaint = "cannot be imported: ModuleNotFoundError"
    with pytest.raises(PluginError, match=complaint):
        bench.run(["backprop"], plugins=[file])
    with pytest.raises(PluginError, match=complaint):
        bench.load(tmp_path, plugins=[file])
