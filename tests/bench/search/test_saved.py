"""What a search leaves: provenance that reads back as it was written, beside the results and beside the method."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.api.errors import ConfigError, StoreError
from bench.experiment.config import Experiment
from bench.experiment.plan import Run
from bench.record import searches
from bench.record.searches import Found
from bench.search import outcome, saved
from tests.bench.search.made import CATALOG, CHANCE, asked, executor, peak_at, planned, searched

TUNED = Path("tuned", "backprop.yaml")
REFERENCE = Path(__file__).resolve().parents[3] / "results" / "reference"


def found_for(experiment: Experiment, best: float) -> list[Found]:
    assert experiment.tune is not None
    return outcome.found(searched(experiment, executor(peak_at(best))), experiment.tune)


def beside(tmp_path: Path, runs: list[Run]) -> list[Run]:
    """The runs with their methods' files in another folder, where nothing of ours is overwritten."""
    return [replace(run, method=replace(run.method, file=tmp_path / run.method.file.name)) for run in runs]


@pytest.fixture(autouse=True)
def _a_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_TUNED", raising=False)


def save(found: Iterable[Found], runs: list[Run], *, ship: bool = False) -> list[str]:
    return list(saved.save(found, saved.files_for([run.method for run in runs], ship=ship)))


def test_provenance_reads_back_as_it_was_written(tmp_path: Path) -> None:
    experiment = asked("backprop", "spsa", batch_size=32, tune={"trials": 6, "epochs": 3, "seed": 7})
    written = found_for(experiment, 1e-2)
    searches.save(written, tmp_path)
    assert searches.load(tmp_path) == written
    (row, other) = written
    assert (row.method, row.net, row.dataset, row.batch_size, row.seed) == ("backprop", "mlp", "digits", 32, 7)
    assert (row.epochs, row.reported_epochs, row.n_trials) == (3, 20, len(row.tried))
    assert row.best == max(row.tried, key=lambda trial: trial.value or 0).settings
    assert (row.date, row.declared["lr"], row.at_chance) == ("1970-01-02", ["log", 1e-5, 1e-1], CHANCE)
    assert row.fixed is not None
    assert "lr" not in row.fixed
    assert row.source == f"{CATALOG.methods['backprop'].source_hash()}-{CATALOG.nets['mlp'].source_hash()}"
    assert other.n_trials == row.n_trials


def test_a_corrupt_record_of_a_search_is_named(tmp_path: Path) -> None:
    (tmp_path / "winners.json").write_text('[{"method": "a"}]')
    with pytest.raises(StoreError, match="winners.json is corrupt"):
        searches.load(tmp_path)


def test_the_committed_searches_are_readable() -> None:
    found = [row for folder in REFERENCE.glob("*.tuning") for row in searches.load(folder)]
    assert found
    assert {row.n_trials for row in found} == {len(row.tried) for row in found}
    assert {row.verdict for row in found if row.value is not None and row.value <= row.at_chance} <= {"chance"}


def test_what_was_saved_is_used_and_said_and_lies_in_the_working_folder(tmp_path: Path) -> None:
    experiment = asked("backprop", "spsa")
    runs = beside(tmp_path, planned(experiment))
    found = found_for(experiment, 1e-2)
    unsolved = found[1].model_copy(update={"verdict": "chance"})
    told = save([found[0], unsolved], runs)
    assert told[0].startswith("saved: backprop on mlp, digits: lr=")
    assert told[1] == "not saved: spsa on mlp, digits: not solved by the search: no trial is above chance"
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["tuned", str(TUNED)]

    after = saved.applied(runs)
    assert found[0].best is not None
    for run, before in zip(after, runs, strict=True):
        if run.spec.method == "backprop":
            assert run.spec.method_settings == {**before.spec.method_settings, **found[0].best}
            assert run.spec.tuned == ("lr",)
        else:
            assert run == before
    lines = saved.told(after)
    assert lines == [
        f"backprop on mlp, digits: lr={found[0].best['lr']}, the best of 12 trials of 20 epochs "
        "(tuned/backprop.yaml, 1970-01-02)",
        "spsa on mlp, digits: no settings saved, those given are kept",
    ]


def test_a_search_of_the_same_row_replaces_what_was_saved_and_others_stay(tmp_path: Path) -> None:
    narrow = asked("backprop", settings={"mlp": {"width": 32}})
    wide = asked("backprop", settings={"mlp": {"width": 64}})
    runs = beside(tmp_path, planned(narrow))
    for experiment, best in ((narrow, 1e-4), (wide, 1e-3), (narrow, 1e-2)):
        save(found_for(experiment, best), runs)
    assert len(saved.load(TUNED)) == 2
    rates = [saved.applied(beside(tmp_path, planned(e)))[0].spec.method_settings["lr"] for e in (narrow, wide)]
    assert rates == pytest.approx([1e-2, 1e-3], rel=1.0)

    other = beside(tmp_path, planned(asked("backprop", epochs=5, settings={"mlp": {"width": 16}})))
    assert saved.told(saved.applied(other))[0].endswith("; other net settings, epochs then")


def test_settings_are_those_of_one_variant(tmp_path: Path) -> None:
    both = asked("feedback-alignment", variants={"feedback-alignment": [{"mode": "fa"}, {"mode": "usf"}]})
    runs = beside(tmp_path, planned(both))
    (fa, _) = found_for(both, 1e-2)
    save([fa], runs)
    first, second = saved.told(saved.applied(runs))
    assert first.startswith("feedback-alignment on mlp, digits (mode=fa): lr=")
    assert second == "feedback-alignment on mlp, digits (mode=usf): no settings saved, those given are kept"


@pytest.mark.parametrize("name", ["backprop.tuned.yaml", str(TUNED)])
def test_a_corrupt_file_is_named(tmp_path: Path, name: str) -> None:
    runs = beside(tmp_path, planned(asked("backprop")))
    Path("tuned").mkdir()
    for text in ("- method: backprop\n", "a: [", "lr"):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=f"{name} is corrupt"):
            saved.applied(runs)


def test_the_users_settings_replace_shipped_ones_of_the_same_row_which_stay_as_they_are(tmp_path: Path) -> None:
    experiment, longer = asked("backprop"), asked("backprop", tune={"epochs": 7})
    runs = beside(tmp_path, planned(experiment))
    save(found_for(experiment, 1e-4), runs, ship=True)
    shipped = (tmp_path / "backprop.tuned.yaml").read_bytes()
    assert "(shipped, " in saved.told(saved.applied(runs))[0]
    save(found_for(longer, 1e-2), runs)  # searched less alike, and yet what the user found last
    assert (tmp_path / "backprop.tuned.yaml").read_bytes() == shipped
    assert saved.applied(runs)[0].spec.method_settings["lr"] == pytest.approx(1e-2, rel=1.0)
    assert "(tuned/backprop.yaml, " in saved.told(saved.applied(runs))[0]


def test_the_folder_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = beside(tmp_path, planned(asked("backprop")))
    monkeypatch.setenv("BENCH_TUNED", str(tmp_path / "my settings"))
    save(found_for(asked("backprop"), 1e-2), runs)
    assert saved.load(tmp_path / "my settings" / "backprop.yaml")
    monkeypatch.setenv("BENCH_TUNED", "s3://bucket/tuned")
    with pytest.raises(StoreError, match=r"\$BENCH_TUNED s3://bucket/tuned: a URL is no folder"):
        saved.files_for([run.method for run in runs])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named_before_the_search(tmp_path: Path) -> None:
    runs = planned(asked("backprop"))
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot write tuned: Permission denied"):
        saved.files_for([run.method for run in runs])
    tmp_path.chmod(0o700)


def test_a_file_in_the_folders_place_is_named_before_the_search() -> None:
    Path("tuned").write_text("")
    with pytest.raises(StoreError, match="cannot write tuned: "):
        saved.files_for([run.method for run in planned(asked("backprop"))])


@pytest.mark.parametrize("best", [{"lr": -1.0}, {"lr": float("inf")}, {"lr": True}, {"lr": "fast"}])
def test_saved_settings_are_held_to_what_flags_are(tmp_path: Path, best: dict[str, object]) -> None:
    experiment = asked("backprop")
    runs = beside(tmp_path, planned(experiment))
    (row,) = found_for(experiment, 1e-2)
    save([row.model_copy(update={"best": best})], runs)
    with pytest.raises(ConfigError, match=r"backprop in tuned/backprop\.yaml: lr=.* is refused"):
        saved.applied(runs)
