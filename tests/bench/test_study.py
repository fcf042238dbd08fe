"""The suite from Python: the same runs and numbers as the command line's."""

import re
from pathlib import Path

import pandas as pd
import pytest

import bench
from bench.api.errors import ConfigError, PluginError, StoreError
from bench.record.pack import pack
from bench.report import reasons
from tests.bench.executors.made import plugin

SMALL = {"net": "mlp", "settings": {"mlp": {"width": 8, "depth": 1}}, "epochs": 1, "quiet": True}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> bench.Study:
    results = tmp_path_factory.mktemp("results")
    return bench.run(["backprop", "cafo"], seeds=2, experiment="small", results=results, **SMALL)


def test_a_run_gives_frames_a_summary_and_figures(study: bench.Study) -> None:
    assert list(study.runs["status"]) == ["ok"] * 4
    summary = study.summary().set_index("method")
    assert list(summary["n_ok"]) == [2, 2]
    backprop = study.runs[study.runs["method"] == "backprop"]["test_acc"]
    assert summary["test_acc_mean"]["backprop"] == pytest.approx(backprop.mean())
    assert len(study.curves) == 4
    assert study.plot_accuracy() is not None
    assert study.plot_curves("train_s") is not None
    assert study.plot_trade_off("time") is not None
    assert "backprop" in study.to_latex(["test_acc"])


def test_a_notebook_shows_the_table_of_results(study: bench.Study) -> None:
    shown = study._repr_html_()
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", shown)
    assert shown.count("<tr>") == 3
    assert [cell for cell in cells if cell in ("backprop", "cafo")] == ["backprop", "cafo"]


def test_any_column_of_the_curves_is_drawn_and_an_unknown_one_is_told(study: bench.Study) -> None:
    for column in ("val_acc", "train_loss", "train_s"):
        assert study.plot_curves(column) is not None
    figure = study.plot_curves("train_loss", x="train_s")
    assert figure is not None
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == ("train_loss", "training time, s")
    with pytest.raises(ConfigError, match="unknown column of curves 'val_ac'; did you mean val_acc"):
        study.plot_curves("val_ac")
    with pytest.raises(ConfigError, match="unknown abscissa 'step'; known: epoch, train_s, train_tflop"):
        study.plot_curves("val_acc", x="step")


def test_why_runs_did_not_end_well_is_told_below_the_table(tmp_path: Path) -> None:
    study = bench.run(["noprop-dt", "backprop"], seeds=2, results=tmp_path, **SMALL | {"steps": 1, "epochs": None})
    told = ["noprop-dt on mlp, digits: skipped: noprop-dt runs on denoiser, not on mlp (2 runs)"]
    assert reasons(study) == told
    assert told[0] in study._repr_html_()
    assert reasons(study, most=0) == ["1 more in tables/failures.csv of the report"]


def test_finished_runs_are_kept_and_read_again_packed_or_not(study: bench.Study, tmp_path: Path) -> None:
    ended = [row.finished_at for row in study.rows]
    again = bench.run(["backprop", "cafo"], seeds=2, experiment="small", results=study.root.parent, **SMALL)
    pack(study.root, tmp_path / "small")
    for other in (again, bench.load(study.root), bench.load(str(tmp_path / "small"))):
        pd.testing.assert_frame_equal(other.summary(), study.summary())
    assert [row.finished_at for row in again.rows] == ended
    assert set(bench.load(study.root, select={"method": ["cafo"]}).runs["method"]) == {"cafo"}


def test_failures_are_run_again_where_they_are_named(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    bad = plugin(tmp_path, f"os.path.exists({str(mended)!r}) or sys.exit('broken')")

    def status(*retry: str) -> str:
        study = bench.run(["bad"], seeds=1, results=tmp_path, plugins=[bad], retry=retry, **SMALL | {"epochs": 12})
        return str(study.runs["status"].item())

    assert status() == "crashed"
    mended.touch()
    assert (status(), status("oom"), status("crashed")) == ("crashed", "crashed", "ok")


def test_batches_are_cut_for_want_of_memory_where_asked(tmp_path: Path) -> None:
    """This method has no way to learn the same from parts, and says so where it is asked."""
    bad, reasons = plugin(tmp_path, "raise MemoryError"), []
    for on_oom in ("fail", "shrink"):
        study = bench.run(["bad"], seeds=1, results=tmp_path, plugins=[bad], on_oom=on_oom, **SMALL | {"epochs": 12})
        assert study.runs["status"].item() == "oom"
        reasons.append(study.runs["reason"].item())
    assert ["not in smaller parts" in reason for reason in reasons] == [False, True]


def test_bad_input_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown method 'bakprop'; did you mean backprop"):
        bench.run(["bakprop"], results=tmp_path)
    with pytest.raises(ConfigError, match="unknown key 'epoch'; did you mean epochs"):
        bench.run(["backprop"], results=tmp_path, epoch=3)
    with pytest.raises(ConfigError, match="unknown key 'plugin'; did you mean plugins"):
        bench.run(["backprop"], results=tmp_path, plugin=["x.py"])
    with pytest.raises(ConfigError, match="unknown key 'data_dirs'; did you mean data_dir"):
        bench.run(["backprop"], results=tmp_path, data_dirs="x")
    with pytest.raises(ConfigError, match="retry: unknown failure 'crashd'; did you mean crashed"):
        bench.run(["backprop"], results=tmp_path, retry=["crashd"])
    with pytest.raises(ConfigError, match="on-oom: unknown answer 'shrnk'; did you mean shrink"):
        bench.run(["backprop"], results=tmp_path, on_oom="shrnk")
    for place in ({"results": "gs://b/x"}, {"data_dir": "s3://b/x"}, {"config": "s3://b/x"}, {"plugins": ["s3://b/x"]}):
        (name,) = place
        with pytest.raises(StoreError, match=f"{name} .*://b/x: a URL is no folder here; copy it"):
            bench.run(["backprop"], **{"results": tmp_path, **place})
    with pytest.raises(StoreError, match="no such folder"):
        bench.load(tmp_path / "nothing").summary()
    with pytest.raises(ConfigError, match=r"nothing\.py: no such file"):
        bench.load(tmp_path, plugins=[tmp_path / "nothing.py"])
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    with pytest.raises(PluginError, match=r"broken\.py"):
        bench.load(tmp_path, plugins=[tmp_path / "broken.py"])
