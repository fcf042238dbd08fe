"""Classes that Python code hands over: a notebook's, a script's, a module's."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from bench.api.errors import PluginError
from bench.catalog.catalog import Catalog
from bench.catalog.given import write

IMPORTS = """
import torch, numpy as np
import torch.nn.functional as F
from bench import *
from typing import Literal
"""
PARTS = """
RATE = 0.5
Kind = Literal["sign", "plain"]

def step(p, g):  # a comment
    return p - RATE * g

class Settings(StepSize):
    kind: Kind = "sign"
"""
RULE = """
@register
class Mine(Method):
    info = MethodInfo(name="mine", title="Mine", family="toy", paper="", claims=Claims(reverse_mode="network"))
    Config = Settings
    momentum = 0.9

    def __init__(self, task, config, *, device, seeds):
        self.net = task.build_net(seeds.init).to(device)

    def train_step(self, batch, progress):
        loss = F.cross_entropy(self.net(batch.x), batch.y)
        parameters = list(self.net.parameters())
        with torch.no_grad():
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters)):
                p.copy_(step(p, g.sign()))
        return {"loss": loss.detach()}

    @torch.no_grad()
    def predict(self, x, noise=None):
        return self.net(x)
"""
Notebook = Callable[..., dict[str, Any]]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """Runs cells as IPython does, which keeps their texts in `In`; gives their names."""

    def run(*cells: str) -> dict[str, Any]:
        main = types.ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", main)
        names = vars(main)
        names["In"] = []
        for cell in cells:
            names["In"].append(cell)
            exec(cell, names)  # noqa: S102  (cells are text)
        return names

    return run


def test_a_class_of_a_notebook_is_run_beside_a_rule_of_ours(notebook: Notebook, tmp_path: Path) -> None:
    names = notebook(IMPORTS, "RATE = 0.1", PARTS, RULE, "x = torch.zeros(3)", "p = g = 1")
    small = {"net": "mlp", "settings": {"mlp": {"width": 8, "depth": 1}}, "steps": 3, "quiet": True}
    study = bench.run([names["Mine"], "backprop"], results=tmp_path, experiment="nb", **small)
    assert dict(zip(study.runs["method"], study.runs["status"], strict=True)) == {"mine": "ok", "backprop": "ok"}
    (file,) = (tmp_path / "nb" / ".plugins").iterdir()
    again = bench.run([names["Mine"]], results=tmp_path, experiment="nb", **small)
    assert [row.finished_at for row in again.rows if row.spec["method"] == "mine"] == [
        row.finished_at for row in study.rows if row.spec["method"] == "mine"
    ]
    assert Catalog([file]).methods["mine"].load().Config().kind == "sign"
    text = file.read_text()
    assert "RATE = 0.5" in text
    assert "# a comment" in text
    assert "numpy" not in text
    assert "zeros(3)" not in text


def test_a_constant_is_written_as_it_is_now(notebook: Notebook, tmp_path: Path) -> None:
    names = notebook(IMPORTS, PARTS, RULE, "for RATE in (0.1, 0.2): pass")
    assert "RATE = 0.2" in write(names["Mine"], tmp_path).read_text()


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("RATE = torch.ones(3)", "", r"'RATE' \(Tensor\), which each process would make anew"),
        ("RATE = torch.nn.Linear(1, 1)", "", r"'RATE' \(Linear\), which each process would make anew"),
        ("RATE = torch.Size([np.random.randint(10**9)])", "", r"its source makes 'RATE' \(Size\) otherwise"),
        ("from helper_here import RATE", "", "'RATE' is of helper_here, a module that is not installed"),
        (
            "",
            "Mine.train_step = lambda *of: {'loss': torch.ones(())}",
            r"its source makes 'Mine' \(ABCMeta\) otherwise",
        ),
        ("", "Mine.momentum = 0.5", r"its source makes 'Mine' \(ABCMeta\) otherwise"),
        ("", "In[-2] = 'Mine'", "the source is not known"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_and_nothing_is_left(
    before: str, after: str, complaint: str, notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "helper_here.py").write_text("RATE = 0.1")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    names = notebook(IMPORTS, PARTS, before, RULE, after)
    with pytest.raises(PluginError, match=f"class Mine: .*{complaint}.*; put the class into a .py file"):
        write(names["Mine"], tmp_path / "plugins")
    assert not list(tmp_path.glob("plugins/*"))
    sys.modules.pop("helper_here", None)


def test_a_class_made_in_a_function_is_refused(notebook: Notebook, tmp_path: Path) -> None:
    names = notebook(IMPORTS, PARTS, "def made():\n" + RULE.replace("\n", "\n    ") + "\n    return Mine", "M = made()")
    with pytest.raises(PluginError, match="class Mine is made inside made.<locals>; put the class into a .py file"):
        write(names["M"], tmp_path)


def test_a_script_hands_over_its_own_class_without_being_run_again(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = IMPORTS + PARTS + RULE + "\nraise SystemExit('run again')"
    (tmp_path / "script.py").write_text(script)
    names = notebook(IMPORTS, PARTS, RULE)
    del names["In"]
    names["__file__"] = str(tmp_path / "script.py")
    catalog = Catalog()
    assert catalog.add(names["Mine"], tmp_path / "plugins") == "mine"
    assert catalog.methods["mine"].load().info.title == "Mine"


def test_the_file_of_a_module_beside_a_notebook_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rule_beside", "unregistered_beside"):
        text = IMPORTS + PARTS + RULE
        (tmp_path / f"{name}.py").write_text(text if name == "rule_beside" else text.replace("@register", ""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    import rule_beside
    import unregistered_beside

    catalog = Catalog()
    assert catalog.add(rule_beside.Mine, tmp_path / "plugins") == "mine"
    assert (catalog.methods["mine"].file, catalog.methods["mine"].module) == (tmp_path / "rule_beside.py", None)
    with pytest.raises(PluginError, match=r"unregistered_beside.py registers nothing; put @register before"):
        catalog.add(unregistered_beside.Mine, tmp_path / "plugins")
    assert not (tmp_path / "plugins").exists()


def test_a_class_of_an_installed_package_stays_what_it_is(tmp_path: Path) -> None:
    catalog = Catalog()
    assert catalog.add(catalog.methods["spsa"].load(), tmp_path) == "spsa"
    assert catalog.problems == []
    with pytest.raises(PluginError, match="Linear is no subclass of bench.Method"):
        catalog.add(torch.nn.Linear, tmp_path)
    with pytest.raises(PluginError, match="Linear is no subclass of bench.Method"):
        bench.run([torch.nn.Linear], results=tmp_path)
