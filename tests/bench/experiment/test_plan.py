"""Identity: what makes two runs the same run, and what does not."""

import pickle
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from bench import Input, Output
from bench.api.errors import BenchError
from bench.api.kinds import AXES
from bench.catalog.catalog import Catalog
from bench.catalog.entry import Entry
from bench.data.outline import Outline
from bench.experiment.config import Experiment, resolve
from bench.experiment.identity import Compute
from bench.experiment.plan import Run, _grid, _nets, check, plan
from bench.experiment.reading import load_preset, preset_names

CATALOG = Catalog()
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32)}


def runs(**changes: object) -> list[Run]:
    asked = Experiment.model_validate({"methods": ["noprop-dt", "backprop"], "seeds": [0, 1], **changes})
    check(asked, CATALOG)
    return plan(asked, CATALOG, device="cpu", datasets={name: loaded(name) for name in asked.datasets})


def loaded(name: str) -> Outline:
    """As much of a data set as a plan looks at."""
    card = CATALOG.datasets[name].load().info if name not in SHAPES else None
    given = card.given if card else Input.image(*SHAPES[name])
    predicted = card.wanted if card else Output.classes(10)
    assert given
    assert predicted
    return Outline(given, predicted, n_train=999, fingerprint="data")


def ids(**changes: object) -> set[str]:
    return {run.spec.run_id for run in runs(**changes)}


def test_the_order_of_arguments_cannot_matter() -> None:
    assert ids() == ids(methods=["backprop", "noprop-dt"], seeds=[1, 0])


def test_saying_a_default_changes_nothing() -> None:
    assert ids() == ids(settings={"backprop": {"lr": 1e-3}, "denoiser": {"T": 10}})


def test_lists_of_values_span_a_grid_of_rows() -> None:
    """Six of noprop-dt, whose setting is one of them, three of backprop on the same net; each is what it is alone."""
    found = runs(settings={"denoiser": {"T": [2, 5, 9]}, "noprop-dt": {"lr": [0.1, 0.2]}}, seeds=[0])
    points = [(run.spec.method, run.spec.net_settings["T"], run.spec.method_settings["lr"]) for run in found]
    assert points == [("noprop-dt", T, lr) for lr in (0.1, 0.2) for T in (2, 5, 9)] + [
        ("backprop", T, 1e-3) for T in (2, 5, 9)
    ]
    alone = runs(settings={"denoiser": {"T": 5}, "noprop-dt": {"lr": 0.2}}, seeds=[0])
    assert {run.spec.run_id for run in alone} <= {run.spec.run_id for run in found}


def test_a_setting_that_is_a_list_itself_is_one_value() -> None:
    class Settings(BaseModel):
        widths: list[int] = [4]
        depth: int = 1

    assert list(_grid(Settings, {"widths": [1, 2], "depth": [3, 4]})) == [
        {"widths": [1, 2], "depth": 3},
        {"widths": [1, 2], "depth": 4},
    ]


def test_a_wrong_value_in_a_list_is_named() -> None:
    with pytest.raises(BenchError, match="settings of denoiser: T='x' is refused"):
        runs(settings={"denoiser": {"T": [2, "x"]}})
    with pytest.raises(BenchError, match=r"settings of denoiser: T=\[\] is refused"):
        runs(settings={"denoiser": {"T": []}})


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 11},
        {"batch_size": 64},
        {"val_fraction": 0},
        {"datasets": ["mnist"]},
        {"settings": {"denoiser": {"T": 9}}},
        {"seeds": [2, 3]},
    ],
)
def test_whatever_decides_the_numbers_changes_the_identity(change: dict[str, object]) -> None:
    assert ids().isdisjoint(ids(**change))


def test_a_setting_of_one_method_leaves_the_other_s_identity_alone() -> None:
    assert len(ids() & ids(settings={"backprop": {"lr": 0.5}})) == 2


def test_the_experiment_s_name_is_not_part_of_the_identity() -> None:
    assert ids() == ids(experiment="other")


def test_auto_gives_backprop_the_net_of_the_others() -> None:
    assert {(run.spec.method, run.spec.net) for run in runs()} == {("noprop-dt", "denoiser"), ("backprop", "denoiser")}
    assert {run.spec.net for run in runs(methods=["backprop"])} == {"mlp"}
    assert {run.spec.net for run in runs(methods=["backprop"], net="cnn")} == {"cnn"}


def test_budgets_may_differ_by_data_set() -> None:
    both = runs(datasets=["digits", "mnist"], epochs={"digits": 20, "mnist": 3}, seeds=[0])
    assert {(run.spec.dataset, run.spec.epochs) for run in both} == {("digits", 20), ("mnist", 3)}
    with pytest.raises(BenchError, match="epochs: none given for mnist, only for digits"):
        runs(datasets=["mnist"], epochs={"digits": 20})


def test_budgets_may_differ_by_method() -> None:
    """The paper trains its adjoint baseline for 2 epochs where the others have 100."""
    by_both = runs(datasets=["digits", "mnist"], epochs={"mnist": 100, "digits": 20, "backprop": 2}, seeds=[0])
    found = {(run.spec.method, run.spec.dataset): run.spec.epochs for run in by_both}
    assert found[("noprop-dt", "mnist")] == 100
    assert found[("noprop-dt", "digits")] == 20
    assert found[("backprop", "mnist")] == found[("backprop", "digits")] == 2


def test_a_variant_may_set_the_net_of_its_row() -> None:
    kinds = [{"net.embedding": "one-hot"}, {"net.embedding": "learned", "net.dim": 12, "eta": 0.5}]
    rows = runs(variants={"noprop-dt": kinds}, settings={"denoiser": {"T": 3}}, seeds=[0])
    found = {
        (run.spec.method, run.spec.net_settings["embedding"], run.spec.net_settings["dim"], run.spec.net_settings["T"])
        for run in rows
    }
    assert found == {("noprop-dt", "one-hot", 20, 3), ("noprop-dt", "learned", 12, 3), ("backprop", "one-hot", 20, 3)}
    etas = [run.spec.method_settings["eta"] for run in rows if run.spec.method == "noprop-dt"]
    assert etas == [0.1, 0.5]
    with pytest.raises(BenchError, match="unknown setting of denoiser 'embeding'"):
        runs(variants={"noprop-dt": [{"net.embeding": "learned"}]})


def test_nets_may_be_chosen_by_method() -> None:
    """Else backprop would be unrolled through a thousand steps wherever NoProp-CT is."""
    methods = ["noprop-dt", "noprop-ct", "backprop"]
    auto = {run.spec.net for run in runs(methods=methods) if run.spec.method == "backprop"}
    chosen = {run.spec.net for run in runs(methods=methods, nets={"backprop": ["denoiser"]})}
    assert auto == {"denoiser", "denoiser-ct"}
    assert chosen == {"denoiser", "denoiser-ct"}
    backprop = [run for run in runs(methods=methods, nets={"backprop": ["denoiser"]}) if run.spec.method == "backprop"]
    assert {run.spec.net for run in backprop} == {"denoiser"}


def test_the_net_follows_the_kind_of_input() -> None:
    """Where a method's own net does not take it and the method may run on others. --set knows of it."""
    found = {
        dataset: {(run.spec.method, run.spec.net) for run in runs(methods=["pepita", "backprop"], datasets=[dataset])}
        for dataset in ("digits", "diabetes", "digits-rows", "copying")
    }
    assert found["digits"] == found["diabetes"] == found["digits-rows"] == {("pepita", "mlp"), ("backprop", "mlp")}
    assert found["copying"] == {("pepita", "transformer"), ("backprop", "transformer")}
    assert {run.spec.net for run in runs(methods=["backprop"], datasets=["copying"], net="rnn")} == {"rnn"}
    assert {run.spec.net for run in runs(methods=["noprop-dt"], datasets=["copying"])} == {"denoiser"}
    flags = {"methods": "backprop", "datasets": "copying"}
    check(resolve(None, None, flags, ["transformer.depth=2"]), CATALOG)
    with pytest.raises(BenchError, match="no run uses 'rnn'"):
        check(resolve(None, None, flags, ["rnn.width=2"]), CATALOG)


def test_how_a_run_computes_is_part_of_what_it_is() -> None:
    assert ids() == ids(precision="float32", channels_last=False, compile=False)
    for change in ({"precision": "bfloat16"}, {"channels_last": True}, {"compile": True}):
        assert ids().isdisjoint(ids(**change))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_plan(name: str) -> None:
    assert runs(**{"seeds": [0, 1], **load_preset(name)})


@pytest.mark.parametrize(
    ("dataset", "epochs"), [("mnist", (100, 2, 100)), ("cifar10", (150, 4, 500)), ("cifar100", (150, 4, 1000))]
)
def test_the_paper_s_presets_are_table_3(dataset: str, epochs: tuple[int, int, int]) -> None:
    """Batch 128, step size and weight decay 1e-3 everywhere; three kinds of embedding but for the adjoint."""
    by_method = dict(zip(("noprop-dt", "adjoint", "noprop-ct"), epochs, strict=True))
    by_method |= {"backprop": by_method["noprop-dt"], "noprop-fm": by_method["noprop-ct"]}
    found = [run.spec for run in runs(**load_preset(f"noprop-paper-{dataset}"))]
    for spec in found:
        assert (spec.dataset, spec.epochs, spec.batch_size) == (dataset, by_method[spec.method], 128)
        assert spec.method_settings["lr"] == spec.method_settings["weight_decay"] == 1e-3
        assert spec.method_settings.get("eta") == {"noprop-dt": 0.1, "noprop-ct": 1.0}.get(spec.method)
        assert spec.net_settings["T"] == (10 if spec.method in ("backprop", "noprop-dt") else 1000)
        assert (spec.net_settings["width"], spec.net_settings["hidden"], spec.net_settings["dropout"]) == (32, 256, 0.2)
        assert spec.eval_draws == 5
    kinds = {name: {s.net_settings["embedding"] for s in found if s.method == name} for name in by_method}
    assert kinds.pop("adjoint") == {"one-hot"}
    assert set(map(frozenset, kinds.values())) == {frozenset({"one-hot", "learned", "prototype"})}
    assert {s.seed for s in found} == {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "net", "optimizer"),
    [
        ("backprop", "denoiser", torch.optim.AdamW),
        ("noprop-dt", "denoiser", torch.optim.AdamW),
        ("adjoint", "denoiser-ct", torch.optim.AdamW),
        ("noprop-ct", "denoiser-ct", torch.optim.Adam),
        ("noprop-fm", "denoiser-ct", torch.optim.Adam),
    ],
)
def test_the_optimisers_are_table_3_s(
    make_method: Callable[..., Any], name: str, net: str, optimizer: type[torch.optim.Optimizer]
) -> None:
    """AdamW, for the two continuous-time rules Adam with weight decay, each with the step size and decay asked for."""
    method = make_method(name, net=net, lr=3e-3, weight_decay=7e-4)
    held = [getattr(method, "optimizer", None), getattr(method, "shared_optimizer", None)]
    found = [of for of in (*held, *getattr(method, "optimizers", [])) if of is not None]
    assert found
    assert {type(of) for of in found} == {optimizer}
    assert {(g["lr"], g["weight_decay"]) for of in found for g in of.param_groups} == {(3e-3, 7e-4)}


def test_seeds_are_outermost() -> None:
    assert [run.spec.seed for run in runs()] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"methods": ["noprop"]}, "unknown method 'noprop'"),
        ({"net": "resnet50"}, "unknown net 'resnet50'"),
        ({"nets": {"backprop": ["resnet50"]}}, "unknown net 'resnet50'"),
        ({"nets": {"backdrop": ["mlp"]}}, "unknown method 'backdrop'"),
        ({"datasets": ["minst"]}, "did you mean mnist"),
        ({"instruments": ["alignement"]}, "unknown instrument 'alignement'; did you mean alignment"),
        ({"instruments": ["retained"]}, "instrument 'retained' is part of every run"),
        ({"settings": {"backprob": {}}}, "unknown method or net in settings 'backprob'; did you mean backprop"),
        ({"settings": {"backprop": {"learning_rate": 1}}}, "unknown setting of backprop 'learning_rate'"),
        ({"settings": {"denoiser": {"T": 0}}}, "settings of denoiser: T=0 is refused"),
        ({"epochs": 14, "settings": {"noprop-dt": {"order": "sequential"}}}, "epochs must be a multiple of T = 10"),
    ],
)
def test_unknown_names_and_values_are_refused_before_anything_runs(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint):
        runs(**change)


def test_a_run_knows_its_parts_by_where_they_are_found() -> None:
    (run, *_) = runs(instruments=["alignment"], datasets=["digits"])
    again = pickle.loads(pickle.dumps(run))
    assert again == run
    parts = again.load()
    assert (parts.method.info.name, parts.net.name, parts.dataset.name) == ("noprop-dt", "denoiser", "digits")
    named = {instrument.name for instrument in parts.instruments}
    assert {"clock", "retained", "alignment"} <= named
    assert "update-dependency" not in named


@pytest.mark.parametrize("part", ["method", "net"])
def test_the_code_of_a_part_is_part_of_the_identity(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids()
    kind = f"{part}s"
    monkeypatch.setattr(Entry, "check", lambda entry, cls, planned: None)  # what was loaded is as it was
    monkeypatch.setattr(Entry, "source_hash", lambda entry: "changed" if entry.kind == kind else "as it was")
    changed = ids()
    monkeypatch.setattr(Entry, "source_hash", lambda entry: "as it was")
    assert ids().isdisjoint(changed)
    assert before.isdisjoint(changed)


def test_the_version_of_the_harness_is_part_of_the_identity() -> None:
    (run, *_) = runs()
    other = run.spec.model_copy(update={"numerics": run.spec.numerics + 1})
    assert other.run_id != run.spec.run_id


def test_a_setting_of_the_experiment_passes_to_its_runs_by_its_name() -> None:
    """So that one more is one line."""
    asked = {
        "batch_size": 64, "val_fraction": 0.2, "threads": 2, "precision": "bfloat16", "channels_last": True,
        "compile": True, "objective": "squared-error", "metrics": ("accuracy",), "transforms": ("crop",),
        "data_on": "host",
    }  # fmt: skip
    assert set(asked) | {"instruments"} == set(Compute.model_fields)
    (run, *_) = runs(**asked)
    assert {name: getattr(run.spec, name) for name in asked} == asked


@pytest.mark.parametrize(
    ("flags", "assignments", "place"),
    [
        (
            {"methods": "backprop", "net": "mlp"},
            ["drtp.lr=0.5"],
            "--set: no run uses 'drtp'; the runs are of backprop, mlp",
        ),
        ({"methods": "backprop", "net": "mlp"}, ["cnn.width=9"], "--set: no run uses 'cnn'"),
        ({"methods": "backprop", "settings": {"drtp": {"lr": 1.0}}}, [], "settings: no run uses 'drtp'"),
        ({"methods": "backprop"}, ["dtrp.lr=0.5"], "unknown method or net in settings 'dtrp'; did you mean drtp"),
    ],
)
def test_settings_that_the_user_wrote_must_be_used(flags: dict[str, Any], assignments: list[str], place: str) -> None:
    with pytest.raises(BenchError, match=place):
        check(resolve(None, None, flags, assignments), CATALOG)


def test_a_file_s_own_settings_must_be_used_unless_a_flag_left_out_their_method(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("methods: [backprop, drtp]\nnet: mlp\nsettings:\n  drtp: {lr: 0.1}\n")
    check(resolve(None, file, {}, []), CATALOG)
    check(resolve(None, file, {"methods": "backprop"}, []), CATALOG)
    file.write_text("methods: [backprop]\nnet: mlp\nsettings:\n  drtp: {lr: 0.1}\n")
    with pytest.raises(BenchError, match=r"mine\.yaml: no run uses 'drtp'"):
        check(resolve(None, file, {}, []), CATALOG)
    file.write_text("methods: [backprop]\nepochs: {digits: 3, mnits: 4}\n")
    with pytest.raises(BenchError, match="unknown method or data set in epochs 'mnits'; did you mean mnist"):
        check(resolve(None, file, {}, []), CATALOG)


@pytest.mark.parametrize("name", sorted({*preset_names()} - {"audit"}))  # whose methods `bench audit` brings
def test_a_preset_uses_all_of_its_settings_and_may_be_run_in_part(name: str) -> None:
    asked = resolve(name, None, {}, [])
    pairs = set(chain(*(chain(*_nets(asked, CATALOG, kind)) for kind in AXES)))
    assert {*asked.settings, *asked.variants, *asked.nets} <= pairs
    check(resolve(name, None, {"methods": asked.methods[0]}, []), CATALOG)
