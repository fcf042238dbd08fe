"""Discovery: everybody's methods on equal footing, and a broken one named without harm to the others."""

from pathlib import Path

import pytest

from bench.errors import ConfigError, PluginError
from bench.registry import Entry, Registry

PLUGIN = """
import torch
from bench import Claims, Method, MethodInfo, register

@register
class Coin(Method):
    info = MethodInfo(
        name="{name}", title="Coin", family="toy", paper="",
        claims=Claims(reverse_mode="none"), nets=("mlp",),
    )

    def __init__(self, task, config, *, device, seeds):
        self.n_classes = task.n_classes

    def train_step(self, batch, progress):
        return {{"loss": torch.zeros(())}}

    def predict(self, x):
        return torch.zeros(len(x), self.n_classes)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "coin.py"
    path.write_text(PLUGIN.format(name="coin"))
    return path


def test_the_card_read_from_source_is_the_class_s_own() -> None:
    registry = Registry()
    assert {"backprop", "noprop-dt"} <= registry.entries.keys()
    for name, entry in registry.entries.items():
        info = entry.load().info
        assert (info.name, info.title, info.family, info.nets) == (
            name,
            entry.card["title"],
            entry.card["family"],
            entry.card["nets"],
        )


def test_every_paper_of_ours_can_be_cited() -> None:
    for name, entry in Registry().entries.items():
        keys = entry.load().info.paper.split(", ")
        assert [c.partition("{")[2].partition(",")[0] for c in entry.citations()] == keys, name


def test_a_plugin_stands_beside_the_built_in(plugin: Path) -> None:
    registry = Registry([plugin])
    assert registry["coin"].load().info.title == "Coin"
    assert "backprop" in registry.entries
    assert registry.problems == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'backprob'; did you mean backprop"):
        Registry()["backprob"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import torch\ndef f(:", r"broken\.py cannot be imported: SyntaxError: .*\(line 2\)"),
        ("x = 1\nraise RuntimeError('no\\nluck')", r"cannot be imported: RuntimeError: no luck \(line 2\)"),
        ("import sys\nsys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("x = 1", "registers no method"),
        (PLUGIN.format(name="Bad Name"), "lower-case letters"),
        (PLUGIN.format(name="coin").replace("def predict", "def guess"), "Coin does not implement predict"),
        (PLUGIN.format(name="coin").replace("info =", "information ="), "lacks `info"),
    ],
)
def test_a_broken_plugin_is_named_in_one_line_and_the_others_stay(tmp_path: Path, source: str, complaint: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    registry = Registry([path])
    (problem,) = registry.problems
    assert "\n" not in problem
    assert str(path) in problem
    with pytest.raises(AssertionError, match=complaint):
        raise AssertionError(problem)
    assert "backprop" in registry.entries


def test_two_methods_of_one_name_are_refused(tmp_path: Path, plugin: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(PLUGIN.format(name="coin"))
    with pytest.raises(PluginError, match="two methods are named 'coin'"):
        Registry([plugin, other])
    other.write_text(PLUGIN.format(name="backprop"))
    with pytest.raises(PluginError, match="two methods are named 'backprop'"):
        Registry([other])


def test_one_file_reached_by_several_ways_is_one_plugin(tmp_path: Path, plugin: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(plugin)
    built_in = Registry()["backprop"].file
    registry = Registry([plugin, plugin.parent / "." / plugin.name, link, built_in])
    assert registry.problems == []
    assert registry.entries.keys() - Registry().entries.keys() == {"coin"}
    assert registry["backprop"].load() is Registry()["backprop"].load()


def test_a_missing_plugin_file_is_bad_input() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Registry([Path("nowhere.py")])


def test_the_source_hash_follows_the_file(plugin: Path) -> None:
    before = Registry([plugin])["coin"].source_hash()
    assert before == Registry([plugin])["coin"].source_hash()
    plugin.write_text(plugin.read_text() + "\n# changed\n")
    assert Registry([plugin])["coin"].source_hash() != before


def test_the_source_hash_follows_what_the_method_imports_from_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lab_of_mine"
    package.mkdir()
    for name, text in (
        ("__init__", ""),
        ("rule", "from lab_of_mine import shared"),
        ("shared", "from lab_of_mine.deep import x"),
        ("deep", "x = 1"),
        ("other", ""),
    ):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = Entry("rule", package / "rule.py", "lab_of_mine.rule")
    before = entry.source_hash()
    (package / "other.py").write_text("y = 2")
    assert entry.source_hash() == before
    (package / "deep.py").write_text("x = 2")
    assert entry.source_hash() != before
