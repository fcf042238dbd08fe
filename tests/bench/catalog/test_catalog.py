"""Discovery: everybody's methods on equal footing, and a broken one named without harm to the others."""

from pathlib import Path

import pytest

import bench.nets.layers
from bench.api.errors import ConfigError, PluginError
from bench.catalog.cards import cards
from bench.catalog.catalog import Catalog
from bench.catalog.entry import Entry
from bench.catalog.register import name_of
from bench.catalog.sources import meaning, sources

ROOT = Path(__file__).resolve().parents[3]

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
        self.n_classes = task.output.size

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
    catalog = Catalog()
    assert {"backprop", "noprop-dt"} <= catalog.methods.keys()
    for name, entry in catalog.methods.items():
        info = entry.load().info
        assert (info.name, info.title, info.family, info.nets) == (
            name,
            entry.card["title"],
            entry.card["family"],
            entry.card["nets"],
        )


def test_sources_are_read_when_a_card_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench list nets` must not pay for the methods'."""
    read: list[Path] = []
    monkeypatch.setattr("bench.catalog.entry.cards", lambda file: read.append(file) or cards(file))
    entry = Catalog().nets["mlp"]
    assert read == []
    assert entry.card["name"] == "mlp"
    assert read == [entry.file]


def test_every_paper_of_ours_can_be_cited() -> None:
    for name, entry in Catalog().methods.items():
        keys = entry.load().info.paper.split(", ")
        assert [c.partition("{")[2].partition(",")[0] for c in entry.citations()] == keys, name


def test_a_plugin_stands_beside_the_built_in(plugin: Path) -> None:
    catalog = Catalog([plugin])
    assert catalog.methods["coin"].load().info.title == "Coin"
    assert "backprop" in catalog.methods
    assert catalog.problems == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'backprob'; did you mean backprop"):
        Catalog().methods["backprob"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import torch\ndef f(:", r"broken\.py cannot be imported: SyntaxError: .*\(line 2\)"),
        ("x = 1\nraise RuntimeError('no\\nluck')", r"cannot be imported: RuntimeError: no luck \(line 2\)"),
        ("import sys\nsys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("x = 1", "registers nothing"),
        (PLUGIN.format(name="Bad Name"), "lower-case letters"),
        (PLUGIN.format(name="coin").replace("def train_step", "def step"), "Coin does not implement train_step"),
        (PLUGIN.format(name="coin").replace("info =", "information ="), "lacks `info"),
    ],
)
def test_a_broken_plugin_is_named_in_one_line_and_the_others_stay(tmp_path: Path, source: str, complaint: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    catalog = Catalog([path])
    (problem,) = catalog.problems
    assert "\n" not in problem
    assert str(path) in problem
    with pytest.raises(AssertionError, match=complaint):
        raise AssertionError(problem)
    assert "backprop" in catalog.methods


def test_two_methods_of_one_name_are_refused(tmp_path: Path, plugin: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(PLUGIN.format(name="coin"))
    with pytest.raises(PluginError, match="two methods are named 'coin'"):
        Catalog([plugin, other])
    other.write_text(PLUGIN.format(name="backprop"))
    with pytest.raises(PluginError, match="two methods are named 'backprop'"):
        Catalog([other])


def test_one_file_reached_by_several_ways_is_one_plugin(tmp_path: Path, plugin: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(plugin)
    built_in = Catalog().methods["backprop"].file
    catalog = Catalog([plugin, plugin.parent / "." / plugin.name, link, built_in])
    assert catalog.problems == []
    assert catalog.methods.keys() - Catalog().methods.keys() == {"coin"}
    assert catalog.methods["backprop"].load() is Catalog().methods["backprop"].load()


def test_a_missing_plugin_file_is_bad_input() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Catalog([Path("nowhere.py")])


def test_the_source_hash_follows_the_code_and_not_comments_and_docstrings(plugin: Path) -> None:
    first = plugin.read_text()
    before = Catalog([plugin]).methods["coin"].source_hash()
    for same in (
        first + "\n# changed\n",
        f'"""About."""\n{first}',
        first.replace("class Coin(Method):", 'class Coin(Method):\n    """About."""'),
        first.replace("    def predict(self, x):", '    def predict(\n        self, x\n    ):\n        """About."""'),
    ):
        plugin.write_text(same)
        assert Catalog([plugin]).methods["coin"].source_hash() == before, same
    changed = {
        meaning(f"x = {value}".encode()) for value in ("1", "1.0", "True", "None", "'y'", "y", "[1]", "(1,)", "-1")
    }
    assert len(changed) == 9
    plugin.write_text(first.replace("torch.zeros(())", "torch.zeros(1)"))
    assert Catalog([plugin]).methods["coin"].source_hash() != before


def test_a_source_as_deep_as_python_reads_has_a_hash() -> None:
    """A long chain of elif is a deep tree."""
    text = "if a: pass\n" + "".join(f"elif b == {k}: pass\n" for k in range(900))
    assert meaning(text.encode()) != meaning(text.replace("899", "900").encode())


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
    entry = Entry("methods", "rule", package / "rule.py", "lab_of_mine.rule")
    before = entry.source_hash()
    (package / "other.py").write_text("y = 2")
    assert entry.source_hash() == before
    (package / "deep.py").write_text("x = 2")
    assert entry.source_hash() != before


def test_a_plugin_s_neighbours_count_and_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_me.py").write_text("N = 1\n")
    path = tmp_path / "rule.py"
    path.write_text("import beside_me\n" + PLUGIN.format(name="coin"))
    entry = Catalog([path]).methods["coin"]
    before = entry.source_hash()
    assert entry.load().info.name == "coin"
    (tmp_path / "beside_me.py").write_text("N = 2\n")
    assert entry.source_hash() != before


def test_a_layer_of_the_shared_nets_counts_for_the_net_and_for_methods_that_use_it() -> None:
    """A change of dropout moves the numbers of every run on the net that has it."""
    catalog = Catalog()
    layers = Path(bench.nets.layers.__file__)
    for entry in (catalog.nets["denoiser"], catalog.methods["noprop-dt"], catalog.methods["backprop"]):
        assert layers in sources(entry.file, entry.module), entry.name
    assert layers not in sources(catalog.nets["mlp"].file, catalog.nets["mlp"].module)


def test_the_rest_of_the_harness_does_not_count() -> None:
    for entry in (*Catalog().methods.values(), *Catalog().nets.values()):
        counted = {f.relative_to(ROOT).as_posix() for f in sources(entry.file, entry.module)}
        forms = "bench/nets/", "bench/api/forms/", "bench/api/layer.py"
        assert [f for f in counted if f.startswith("bench/") and not f.startswith(forms)] == [], entry.name


def test_forms_of_layers_count_for_the_rules_that_ask_for_them() -> None:
    """Mistake: a form is found by the kind of layer, not by an import, and an edit of it would orphan no record."""
    for name, asks in (("feedback-alignment", True), ("evolution-strategies", True), ("spsa", False)):
        entry = Catalog().methods[name]
        counted = {f.relative_to(ROOT).as_posix() for f in sources(entry.file, entry.module)}
        assert {"bench/api/forms/linear.py", "bench/api/forms/norms.py"} <= counted or not asks, name


def test_all_four_kinds_are_found_alike() -> None:
    catalog = Catalog()
    assert catalog.problems == []
    for shelf in (catalog.methods, catalog.nets, catalog.datasets, catalog.instruments):
        assert shelf
        for name, entry in shelf.items():
            assert name_of(entry.load()) == name
            assert entry.card["title"], f"{name} has no line for `bench list`"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnits", "did you mean mnist"),
        ("cifar-10", "did you mean cifar10"),
        ("npy:x.npz", "npz:PATH"),
        ("npz:", "write npz:PATH"),
        ("npz", "npz:PATH"),
        ("digits:8", "takes nothing after a colon"),
    ],
)
def test_an_unknown_data_set_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        Catalog().dataset(name)


def test_columns_stand_in_the_order_of_tables_and_each_once() -> None:
    columns = [column.name for column in Catalog().columns()]
    assert columns[0] == "test_acc"
    assert len(set(columns)) == len(columns)
    assert {"retained_bytes", "live_peak_bytes", "cpu_peak_rss_bytes", "gpu_peak_alloc_bytes"} <= set(columns)
