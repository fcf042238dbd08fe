"""A listener hears each run whole and in order, and cannot harm one."""

import threading
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.api.errors import ConfigError
from bench.api.listener import Listener, RunInfo, scalars
from bench.catalog.catalog import Catalog
from bench.cli import main as cli
from bench.listeners import fan_out
from bench.runner.events import Ended, Event, Kept, Resumed, Shrunk, Started, Stepped
from tests.bench.listeners.made import BADLY, CURVE, POINTS, WELL, WHOLE, Toy, a_run, told

SMALL = {"net": "mlp", "settings": {"mlp": {"width": 8, "depth": 1}}, "epochs": 2, "quiet": True}
PLUGIN = """
from bench import Listener, register

@register
class Diary(Listener):
    "Writes what it hears into a file."

    name = "diary"
    argument = "FILE"

    def __init__(self, argument=""):
        self.file = argument

    def started(self, run):
        self.write(f"started {run.label}")

    def point(self, run, row):
        self.write(f"point {row['step']} {row['val_acc']!r}")

    def ended(self, run, summary):
        self.write(f"ended {summary['test_acc']!r}")

    def write(self, line):
        with open(self.file, "a") as file:
            print(line, file=file)
"""


def hooks(toy: Toy) -> list[tuple[str, Any]]:
    assert toy.heard[0] == ("open", None)
    assert toy.heard[-1] == ("close", None)
    return [(hook, what if hook != "point" else what["step"]) for hook, what in toy.heard[1:-1]]


def test_a_run_is_heard_from_start_to_end_with_all_columns(tmp_path: Path) -> None:
    toy, run = Toy(), a_run()
    assert told([toy], [Started(), Stepped(5, 20, 0.1), *POINTS, Ended(WELL)], tmp_path, runs=[run]) == []
    assert hooks(toy) == [("started", run.spec.run_id), ("point", 10), ("point", 20), ("ended", "ok")]
    assert [what for hook, what in toy.heard if hook == "point"] == CURVE


def test_a_failure_and_runs_that_are_kept(tmp_path: Path) -> None:
    toy = Toy()
    told([toy], [Started(), POINTS[0], Ended(BADLY), Kept(WELL)], tmp_path)
    assert [hook for hook, _ in hooks(toy)] == ["started", "point", "failed"]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Started(), Resumed(CURVE[:1]), POINTS[1], Ended(WELL)], ["started", 10, 20, "ok"]),
        ([Started(), POINTS[0], Shrunk(2), *POINTS, Ended(WELL)], ["started", 10, "oom", "started", 10, 20, "ok"]),
        ([Started(), POINTS[0], *WHOLE], ["started", 10, "interrupted", "started", 10, 20, "ok"]),
        ([Started(), Ended(WELL)], ["started", 10, 20, "ok"]),  # an executor without news of epochs
        ([Ended(WELL)], ["started", 10, 20, "ok"]),
    ],
    ids=["resumed", "shrunk", "begun again", "no epochs", "end alone"],
)
def test_each_attempt_is_complete(events: list[Event], expected: list[Any], tmp_path: Path) -> None:
    toy = Toy()
    told([toy], events, tmp_path, curve=CURVE)
    assert ["started" if hook == "started" else what for hook, what in hooks(toy)] == expected


def test_a_listener_that_raises_is_named_once_and_others_hear_on(tmp_path: Path) -> None:
    bad, good = Toy(fails=["started", "point", "ended", "close"]), Toy()
    warnings = told([bad, good], WHOLE, tmp_path)
    assert len(warnings) == 1
    assert "listener toy failed in started: RuntimeError: started is broken; runs go on" in warnings[0]
    assert bad.heard == good.heard


def test_a_listener_that_cannot_open_hears_nothing(tmp_path: Path) -> None:
    bad = Toy(fails=["open"])
    assert "failed in open" in told([bad], WHOLE, tmp_path)[0]
    assert bad.heard == [("open", None)]


def test_a_listener_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "CLOSE_S", 0.1)
    over = threading.Event()

    class Hanging(Listener):
        name = "hanging"

        def started(self, run: RunInfo) -> None:
            over.wait(60)

    toy = Toy()
    try:
        warnings = told([Hanging(), toy], WHOLE, tmp_path)
    finally:
        over.set()
    assert "listener hanging did not finish in 0.1 s" in warnings[0]
    assert len(hooks(toy)) == 4


def test_what_a_listener_is_told_of_a_run() -> None:
    spec = a_run().spec
    run = RunInfo("exp", spec.run_id, spec.label, spec.model_dump(mode="json") | {"dataset": "npz:/a b/c.npz"})
    assert run.file_name == f"backprop-mlp-npz_a_b_c.npz-seed0-{spec.run_id}"
    assert run.settings["backprop.lr"] == spec.method_settings["lr"]
    assert run.settings["mlp.width"] == spec.net_settings["width"]
    assert scalars({"a": 1, "b": None, "c": "x", "d": True, "e": 0.5}) == {"a": 1.0, "e": 0.5}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "unknown listener 'tensorbord'; did you mean tensorboard"),
        ("csv:", "nothing follows the colon; write csv:FOLDER, or csv"),
        ("csv:s3://there", "a URL is no folder here"),
    ],
)
def test_bad_input_is_refused(name: str, message: str) -> None:
    with pytest.raises(bench.api.errors.BenchError, match=message):
        fan_out.make(Catalog(), [name])


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_one_line_with_the_mend(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"bench.listeners.{name}.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--methods", "backprop", "--log", f"csv,{name}"])
    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n")) == (2, 1)
    assert error == f"bench: listener {name} needs a package: pip install 'backprop-free-bench[{name}]'\n"
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_broken_is_one_line(tmp_path: Path) -> None:
    plugin = tmp_path / "bad.py"
    plugin.write_text(PLUGIN.replace("self.file = argument", "1 / 0"))
    with pytest.raises(ConfigError, match="listener diary cannot be made: ZeroDivisionError: division by zero"):
        fan_out.make(Catalog([plugin]), ["diary:x"])


def test_plugins_by_name_and_objects_hear_real_runs_which_stay_the_same(tmp_path: Path) -> None:
    """The same identity and numbers as without listeners, one of which fails always."""
    plugin, diary = tmp_path / "diary.py", tmp_path / "diary.txt"
    plugin.write_text(PLUGIN)
    toy, bad = Toy(), Toy(fails=["started", "point", "ended"])
    asked = {"methods": ["backprop"], "plugins": [plugin], **SMALL}
    quiet = bench.run(**asked, results=tmp_path / "quiet")
    logged = bench.run(**asked, results=tmp_path / "logged", log=[f"diary:{diary}", toy, bad])
    numbers = ["run_id", "status", "test_acc", "val_acc", "train_loss"]
    assert logged.runs[numbers].equals(quiet.runs[numbers])
    (row,) = logged.runs.itertuples()
    points = [f"point {p.step:.0f} {p.val_acc!r}" for p in logged.curves.itertuples()]
    assert len(points) == 2
    expected = ["started backprop on mlp, digits, seed 0", *points, f"ended {row.test_acc!r}"]
    assert diary.read_text().splitlines() == expected
    assert [hook for hook, _ in hooks(toy)] == ["started", "point", "point", "ended"]
    assert bad.heard == toy.heard


def test_trials_of_a_search_are_heard_under_their_own_name(tmp_path: Path) -> None:
    names = []

    class Names(Listener):
        name = "names"

        def started(self, run: RunInfo) -> None:
            names.append(run.experiment)

    tune = {"settings": ["lr"], "trials": 2}
    bench.run(methods=["backprop"], **SMALL, tune=tune, results=tmp_path, log=[Names()])
    assert names == ["default.tuning"] * names.count("default.tuning") + ["default"]
    assert len(names) >= 3


def test_yaml_and_lists_know_listeners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "exp.yaml"
    config.write_text(f"methods: [backprop]\nnet: mlp\nepochs: 1\nlog: [csv:{tmp_path}/there]\n")
    with pytest.raises(SystemExit):
        cli.main(["run", "--config", str(config)])
    assert (tmp_path / "there" / "default.csv").read_text().count(",point,") > 5
    plugin = tmp_path / "diary.py"
    plugin.write_text(PLUGIN)
    for argv, said in (
        (["list", "listeners"], "CSV: one table"),
        (["show", "diary"], "Writes what it hears into a file."),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([*argv, "--plugin", str(plugin)])
        assert (ended.value.code, said in capsys.readouterr().out) == (0, True)
