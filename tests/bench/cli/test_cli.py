"""The command line as a user meets it: exit codes, one line for bad input, tables."""

import sys
from pathlib import Path

import pytest

from bench.cli.main import main

SMALL = ["--net", "mlp", "--epochs", "1", "--seeds", "1", "--jobs", "2"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """bench("list", "methods") -> (exit code, stdout, stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test runner keeps its own handlers

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run", "--methods", "backprob"), "unknown method 'backprob'; did you mean backprop"),
        (("run", "--datasets", "minst"), "did you mean mnist"),
        (("run", "--net", "mpl"), "unknown net 'mpl'; did you mean mlp"),
        (("run", "--epochs", "0"), "--epochs: epochs=0 is refused"),
        (("run", "--steps", "0"), "--steps: steps=0 is refused"),
        (("run", "--steps", "5", "--seconds", "5"), "steps and seconds are different budgets; choose one"),
        (("run", "--patience", "5", "--val-fraction", "0"), "convergence needs validation data, and digits has none"),
        (("run", "--set", "backprop.lr=-1"), "settings of backprop: lr=-1 is refused"),
        (("run", "--set", "backprop.rate=1"), "unknown setting of backprop 'rate'"),
        (("run", "--preset", "defualt"), "unknown preset 'defualt'"),
        (("run", "--config", "none.yaml"), "--config none.yaml cannot be read"),
        (("run", "--plugin", "none.py"), "--plugin none.py: no such file"),
        (("run", "--experiment", "../x"), "--experiment: experiment='../x' is refused"),
        (("run", "--datasets", "npz:none.npz"), "none.npz"),
        (("run", "--datasets", "mnist", "--data-dir", "empty"), "--download"),
        (("run", "--device", "cuda:9"), "use --device cpu"),
        (("run", "--device", "cpu", "--precision", "tf32"), "precision tf32 exists on CUDA devices alone"),
        (("run", "--precision", "half"), "precision='half' is refused"),
        (("run", "--jobs", "0"), "--jobs"),
        (("run", "--wrong"), "--wrong"),
        (("show", "noprop"), "unknown method, net, data set, instrument, executor, listener, objective"),
        (("report", "nowhere"), "nowhere: no such folder"),
        (("report", "nowhere", "--style", "papr"), "unknown style 'papr'; did you mean paper?"),
        (("check", "backprob"), "unknown method, net, data set"),
        (("run", "--retry", "crashd"), "retry: unknown failure 'crashd'; did you mean crashed"),
        (("run", "--on-oom", "shrnk"), "on-oom: unknown answer 'shrnk'; did you mean shrink"),
        (("run", "--retry", "ok"), "retry: unknown failure 'ok'"),
        (("run", "--instruments", "retained"), "instrument 'retained' is part of every run"),
        (("pack", "nowhere", "out"), "nowhere"),
        (("tune", "--on-oom", "shrnk"), "on-oom: unknown answer 'shrnk'; did you mean shrink"),
        (("tune", "--settings", "lrr"), "tune: unknown setting to search 'lrr'; did you mean lr"),
        (("tune", "--settings", "weight_decay"), "declares no range for 'weight_decay'"),
        (("tune", "--val-fraction", "0"), "tune needs validation data; set val_fraction above 0"),
        (("tune", "--trials", "1"), "--trials"),
        (("memory", "--batch-size", "32,many"), "--batch-size: batch_size='many' is refused"),
        (("memory", "--batch-size", ""), "--batch-size: the value is empty"),
        (("memory", "--set", "denoiser.T=2,0"), "settings of denoiser: T=0 is refused"),
        (("estimate", "--datasets", "shape:3x4"), "write shape:CxHxW/CLASSES/IMAGES"),
        (("run", "--datasets", "imagenet-shape"), "shape without images, for `bench estimate` alone"),
        (("audit", "--methods", "backprob"), "unknown method 'backprob'; did you mean backprop"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(bench, arguments, complaint) -> None:  # type: ignore[no-untyped-def]
    code, out, err = bench(*arguments)
    assert code == 2
    assert complaint in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert out == ""


def test_a_run_ends_with_table_records_and_report(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = bench("run", "--methods", "backprop", *SMALL)
    assert (code, err) == (0, "")
    assert "[1/1] backprop on mlp, digits, seed 0: ok, test" in out
    assert "report: reports/default/report.md" in out
    assert (tmp_path / "reports/default/report.md").is_file()
    (folder,) = (path for path in (tmp_path / "results/default").iterdir() if path.is_dir())
    assert {p.name for p in folder.iterdir()} == {
        ".lock",
        "spec.json",
        "env.json",
        "summary.json",
        "curve.csv",
    }

    code, out, _ = bench("run", "--methods", "backprop", *SMALL)
    assert code == 0
    assert "kept from an earlier run" in out

    code, out, _ = bench("report", "--out", "elsewhere")
    assert (code, out) == (0, "report: elsewhere/report.md\n")


def test_two_protocols_stand_side_by_side_in_one_report(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    asked = ["--methods", "backprop", "--protocols", "matched,convergence", "--patience", "1"]
    code, out, err = bench("run", *asked, *SMALL)
    assert (code, err) == (0, "")
    assert "backprop on mlp, digits, seed 0: epoch 1/1" in out
    assert "backprop on mlp, digits, seed 0, own convergence: epoch 1 of at most 10" in out
    assert out.index("protocol=convergence") < out.index("protocol=matched")
    page = (tmp_path / "reports" / "default" / "report.md").read_text()
    assert "- Budget: 1 epoch, patience 1 within 10 epochs" in page
    assert "- **protocol**: is *matched*" in page


def test_a_dry_run_lists_the_runs_with_their_time_and_runs_none(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    asked = ["--methods", "backprop,drtp", *SMALL]
    bench("run", "--methods", "drtp", *SMALL)
    records = sorted(tmp_path.rglob("summary.json"))
    code, out, err = bench("run", *asked, "--dry-run")
    assert (code, err) == (0, "")
    rows = {line.split()[1]: line.split() for line in out.splitlines()[1:3]}
    assert rows["backprop"][-4:-2] == ["1", "0"]
    assert rows["drtp"][-4:-2] == ["1", "1"]
    assert float(rows["backprop"][-1]) == float(rows["backprop"][-2]) > 0
    assert float(rows["drtp"][-1]) == 0
    assert "2 runs" in out
    assert sorted(tmp_path.rglob("summary.json")) == records


def test_an_estimate_needs_no_data_and_no_memory(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = bench(
        "estimate", "--methods", "backprop,spsa", "--net", "mlp", "--datasets", "imagenet-shape", "--batch-size", "4096"
    )
    assert (code, err) == (0, "")
    assert [line.split()[:4] for line in out.splitlines() if line.startswith("imagenet-shape")] == [
        ["imagenet-shape", "backprop", "mlp", "4096"], ["imagenet-shape", "spsa", "mlp", "4096"]
    ]  # fmt: skip
    assert "from shapes alone" in out
    assert not (tmp_path / "results").exists()


def test_memory_sweeps_a_grid_and_keeps_what_it_has(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A batch of more images than there are is one of as many dummies: what is retained grows with it all the same."""
    grid = [
        "--methods",
        "backprop",
        "--net",
        "mlp",
        "--batch-size",
        "1000,4000",
        "--set",
        "mlp.width=4,8",
        "--jobs",
        "2",
    ]
    code, out, err = bench("memory", *grid)
    assert (code, err) == (0, "")
    assert "[4/4] backprop on mlp, digits, seed 0: ok" in out
    table = out[out.index("data set") :].splitlines()
    assert [line.split()[3:5] for line in table[1:5]] == [["1000", "4"], ["1000", "8"], ["4000", "4"], ["4000", "8"]]
    retained = [float(line.split()[5]) for line in table[1:5]]
    assert retained == pytest.approx(
        [B * (4 * (64 + 2 * w + 10) + 8) / 2**20 for B in (1000, 4000) for w in (4, 8)], rel=5e-3
    )
    assert (tmp_path / "reports/memory/figures/memory_digits.png").is_file()
    assert "accuracy" not in {path.stem for path in (tmp_path / "reports/memory/figures").iterdir()}

    code, out, _ = bench("memory", *grid)
    assert code == 0
    assert out.count("kept from an earlier run") == 4


def test_a_failed_run_is_exit_code_1_with_its_row(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plugin = tmp_path / "fail.py"
    plugin.write_text(_plugin("failing", "raise ValueError('no')"))
    code, out, err = bench("run", "--plugin", str(plugin), "--methods", "failing,backprop", *SMALL)
    assert code == 1
    assert "failing on mlp, digits, seed 0: crashed: ValueError: no" in out
    assert "0/1" in out
    assert "1/1" in out
    assert err == ""


@pytest.mark.parametrize(
    "source",
    ["import nothing_like_this", "x = 1", f"raise ValueError({'long ' * 40_000!r})", "def f(:", "raise SystemExit(3)"],
)
def test_a_broken_plugin_ends_the_command_with_one_line(bench, tmp_path: Path, source: str) -> None:  # type: ignore[no-untyped-def]
    plugin = tmp_path / ("deep/" * 40) / "broken.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(source)
    code, out, err = bench("run", "--plugin", str(plugin), "--methods", "backprop", *SMALL)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("bench: plugin ")
    assert "/broken.py " in err
    assert len(err) <= 301
    assert not Path("results").exists()


def test_a_plugin_stands_in_the_table_beside_the_built_in(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plugin = tmp_path / "mine.py"
    plugin.write_text(_plugin("mine", "pass"))
    code, out, _ = bench("run", "--plugin", str(plugin), "--methods", "mine,backprop", *SMALL)
    assert code == 0
    table = out[out.index("data set") :]
    assert "mine" in table
    assert "backprop" in table


def test_ctrl_c_before_the_first_run_is_no_traceback(bench, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.cli.run.resolve", interrupted)
    assert bench("run") == (130, "", "")


def test_lists(bench) -> None:  # type: ignore[no-untyped-def]
    for what, expected in (
        ("methods", "NoProp-DT"),
        ("datasets", "cifar100"),
        ("nets", "denoiser"),
        ("instruments", "update-dependency"),
        ("presets", "mnist-short"),
        ("objectives", "squared-error"),
        ("metrics", "rmse"),
        ("transforms", "crop"),
    ):
        code, out, err = bench("list", what)
        assert (code, err) == (0, "")
        assert expected in out


def test_show_has_paper_claims_and_settings(bench) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = bench("show", "noprop-dt")
    assert code == 0
    for expected in ("arXiv 2503.24322", "reverse_mode", "eta", "log 0.01 10.0", "weight of the denoising loss"):
        assert expected in out
    code, out, _ = bench("show", "denoiser")
    assert code == 0
    assert "steps from noise to label" in out


def test_doctor(bench) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = bench("doctor")
    assert code == 0
    for expected in ("torch", "processor", "GPU", "noprop-dt", "digits", "--download", "energy of a run"):
        assert expected in out


def _plugin(name: str, act: str) -> str:
    return f'''
import torch
from bench import Claims, Method, MethodInfo, register

@register
class Plugin(Method):
    info = MethodInfo(
        name="{name}", title="Plugin", family="toy", paper="",
        claims=Claims(reverse_mode="none"), nets=("mlp",),
    )

    def __init__(self, task, config, *, device, seeds):
        self.net = task.build_net(seeds.init).to(device)

    def train_step(self, batch, progress):
        {act}
        return {{"loss": torch.zeros(())}}

    def predict(self, x):
        return self.net(x)
'''


@pytest.mark.slow
def test_a_search_is_resumed_saved_and_used(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mine.py").write_text(MINE)
    rule = ("--plugin", "mine.py", "--methods", "mine", "--net", "mlp", "--jobs", "2")
    search = ("tune", *rule, "--trials", "4", "--epochs", "1", "--save", "--quiet")
    code, out, err = bench(*search)
    assert (code, err) == (0, "")
    assert "saved: mine on mlp, digits: lr=" in out
    trials = tmp_path / "results" / "default.tuning"
    summaries = sorted(trials.glob("*/summary.json"))
    assert not any("test_acc" in path.read_text() for path in summaries)
    stamps = [path.stat().st_mtime_ns for path in summaries]
    assert bench(*search)[1] == out
    assert [path.stat().st_mtime_ns for path in sorted(trials.glob("*/summary.json"))] == stamps

    code, out, err = bench("run", *rule, "--tuned", "--epochs", "1", "--seeds", "1", "--quiet")
    assert (code, err) == (0, "")
    (line,) = (line for line in out.splitlines() if line.startswith("mine on mlp, digits: lr="))
    rate = line.partition("lr=")[2].partition(",")[0]
    (spec,) = (tmp_path / "results" / "default").glob("*/spec.json")
    assert f'"lr": {rate}' in spec.read_text()


MINE = """
import torch
import torch.nn.functional as F

from bench import Claims, Method, MethodInfo, StepSize, register


@register
class Mine(Method):
    info = MethodInfo(name="mine", title="SGD", family="backprop", paper="", claims=Claims(reverse_mode="network"))
    Config = StepSize

    def __init__(self, task, config, *, device, seeds):
        self.net, self.lr = task.build_net(seeds.init).to(device), config.lr

    def train_step(self, batch, progress):
        loss = F.cross_entropy(self.net(batch.x), batch.y)
        parameters = list(self.net.parameters())
        with torch.no_grad():
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters)):
                p -= self.lr * g.sign()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def predict(self, x, noise=None):
        return self.net(x)
"""
