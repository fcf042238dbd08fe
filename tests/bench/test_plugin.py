"""The exercise that the interface must pass: a stranger's file brings what it likes, and nothing else is touched."""

from pathlib import Path

import pandas as pd
import pytest

from bench.cli import main as cli

THINGS = '''
"""A net, a data set, a method and an instrument, all in one file."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from pydantic import BaseModel, Field

import neighbour
from bench import (
    Claims, Column, DataSet, DataSetInfo, HeatMap, Method, MethodInfo, Net, Probe, Source, Split, StepSize, register,
)


class StripSettings(BaseModel):
    width: int = Field(8, ge=1, description="units")


@register
class Strip(Net):
    """One hidden layer on flat images."""

    name = "strip"
    Settings = StripSettings
    small = {"width": 4}

    def __init__(self, inputs, outputs, settings):
        super().__init__(inputs, outputs, settings)
        n = inputs.n_features
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(n, settings.width), nn.ReLU())
        self.blocks = nn.ModuleList([hidden, nn.Linear(settings.width, outputs.size)])


@register
class Bars(DataSet):
    """Which of four rows is lit."""

    info = DataSetInfo(name="bars", title="Bars", image_shape=(1, 4, 4), n_classes=4)

    def read(self, folder):
        y = torch.arange(400) % 4
        x = torch.randint(0, 40, (400, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        x[torch.arange(400), 0, y] += 150
        return Source(4, Split(x, y))


@register
class SignSGD(Method):
    """theta <- theta - lr sign(grad L)"""

    info = MethodInfo(
        name="sign-sgd", title="Sign SGD", family="backprop", paper="", nets=("strip",),
        claims=Claims(reverse_mode="network", weight_transport=True),
    )
    Config = StepSize

    def __init__(self, task, config, *, device, seeds):
        super().__init__()
        self.net, self.lr = task.build_net(seeds.init).to(device), config.lr

    def train_step(self, batch, progress):
        loss = F.cross_entropy(self.net(batch.x), batch.y)
        parameters = list(self.net.parameters())
        with torch.no_grad():
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters)):
                p -= self.lr * neighbour.sign(g)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def predict(self, x):
        return self.net(x)

    def artifacts(self, shown, noise):
        weight = self.net.blocks[-1].weight.detach()
        names = tuple("0123"), tuple("abcdefgh")
        return [HeatMap("readout", "Weights of the readout.", "weight", weight, *names)]


@register
class Norm(Probe):
    """How long the weights are."""

    name = "norm"
    columns = (
        Column("weight_norm", "norm of weights", "Euclidean norm of all weights before training", shown="terminal"),
    )

    @contextmanager
    def watch(self, method, outside):
        yield lambda: {"weight_norm": sum(float(p.square().sum()) for p in method.net.parameters()) ** 0.5}
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbour.py").write_text("def sign(g):\n    return g.sign()\n")
    file = tmp_path / "things.py"
    file.write_text(THINGS)
    return file


def bench(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_file_brings_a_net_a_data_set_a_method_and_a_quantity(
    plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("run", "--plugin", str(plugin), "--methods", "sign-sgd,backprop", "--datasets", "bars",
                 "--epochs", "20", "--batch-size", "32", "--experiment", "own", "--seeds", "2",
                 "--set", "sign-sgd.lr=1e-2", "--set", "backprop.lr=1e-2") == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert "norm of weights" in shown
    runs = pd.read_csv("reports/own/tables/runs.csv")
    assert set(runs["method"]) == {"sign-sgd", "backprop"}
    assert set(runs["net"]) == {"strip"}  # auto gives backprop the net that the other one names
    assert (runs["weight_norm"] > 0).all()
    assert runs["test_acc"].min() > 0.5
    page = Path("reports/own/report.md").read_text()
    assert "norm of weights" in page
    assert "Euclidean norm of all weights before training" in page
    assert "Weights of the readout." in page
    assert list(Path("reports/own/figures").glob("*readout*"))


def test_the_report_can_do_without_the_plugin(plugin: Path) -> None:
    bench("run", "--plugin", str(plugin), "--methods", "sign-sgd", "--datasets", "bars", "--epochs", "1",
          "--seeds", "1", "--batch-size", "32", "--experiment", "own")  # fmt: skip
    assert bench("report", "results/own", "--out", "again") == 0
    assert "norm of weights" in Path("again/report.md").read_text()
    assert (Path("again/tables/runs.csv").read_bytes()) == Path("reports/own/tables/runs.csv").read_bytes()


def test_an_edit_of_what_a_plugin_imports_makes_another_run_and_leaves_the_older_row_out(
    plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("run", "--plugin", str(plugin), "--methods", "sign-sgd", "--datasets", "bars", "--epochs", "1",
                 "--seeds", "1", "--batch-size", "32", "--experiment", "own")  # fmt: skip
    assert bench(*arguments) == 0
    (plugin.parent / "neighbour.py").write_text("def sign(g):\n    return 2 * g.sign()\n")
    assert bench(*arguments) == 0
    assert len(list(Path("results/own").glob("*/summary.json"))) == 2
    assert len(pd.read_csv("reports/own/tables/runs.csv")) == 1
    assert "Left out: 1 run made by earlier code" in Path("reports/own/report.md").read_text()
    assert bench("report", "results/own", "--all-sources", "--out", "all") == 0
    assert len(pd.read_csv("all/tables/runs.csv")) == 2


def test_check_holds_each_of_them_against_its_contract(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("check", str(plugin)) in (0, 1)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("sign-sgd", "strip", "bars"))
