"""One run in process: what it records, and that an interruption leaves no trace in the result."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Way
from bench.api.artifact import Lines
from bench.api.column import Column, Value
from bench.api.errors import MethodError
from bench.api.instrument import Gauge
from bench.api.task import Task
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.measure.accuracy import Diverged, accuracy
from bench.record import artifacts
from bench.record.folder import RunFolder
from bench.runner import checkpoint
from bench.runner.events import EpochEnded, Event
from bench.runner.session import Session
from bench.runner.state import Place, Training
from bench.spec.identity import RunSpec
from bench.spec.plan import Parts

CATALOG = Catalog()
CPU = Place(torch.device("cpu"))
INSTRUMENTS = [entry.load() for entry in CATALOG.instruments.values()]
NETS: dict[str, dict[str, Any]] = {
    "denoiser": {"T": 2, "width": 2, "hidden": 8, "dropout": 0.2},
    "denoiser-ct": {"T": 3, "width": 2, "hidden": 8},
    "mlp": {"width": 16, "depth": 1, "activation": "relu"},
}


class Watched(Session):
    """A session that keeps hold of its run and lets a test meddle before the first step."""

    run: Training
    meddle: Callable[["Watched"], None] = staticmethod(lambda session: None)

    def train(self, run: Training) -> dict[str, Any]:
        self.run = run
        self.meddle(self)
        return super().train(self.run)


def spec(method: str = "backprop", net: str = "mlp", **changes: Any) -> RunSpec:
    settings = CATALOG.methods[method].load().Config().model_dump() if method in CATALOG.methods else {}
    base = dict(
        method=method, method_settings=settings, method_source="s", net=net, net_settings=NETS[net], net_source="n",
        dataset="digits", data_id="", seed=0, epochs=2, batch_size=128, val_fraction=0.1, eval_draws=3, device="cpu",
    )  # fmt: skip
    wanted = RunSpec(**{**base, **changes})
    return wanted.model_copy(update={"data_id": fingerprint(wanted.dataset, wanted.val_fraction)})


@cache
def fingerprint(dataset: str, val_fraction: float) -> str:
    return load(CATALOG.dataset(dataset), val_fraction=val_fraction).fingerprint


def start(
    tmp_path: Path, wanted: RunSpec, method: type[Method] | None = None, meddle: Callable[[Watched], None] | None = None
) -> tuple[Watched, list[Event]]:
    told: list[Event] = []
    asked = [cls for cls in INSTRUMENTS if not hasattr(cls, "fields") or cls.name in wanted.instruments]
    parts = Parts(
        method or CATALOG.methods[wanted.method].load(),
        CATALOG.nets[wanted.net].load(),
        CATALOG.dataset(wanted.dataset),
        tuple(asked),
    )
    session = Watched(wanted, parts, CPU, RunFolder(tmp_path, "exp", wanted.run_id), told.append)
    if meddle is not None:
        session.meddle = meddle  # type: ignore[method-assign]
    return session, told


def test_a_run_records_what_the_report_needs(tmp_path: Path) -> None:
    session, told = start(tmp_path, spec(method_settings={"lr": 1e-2, "weight_decay": 0.0}))
    summary = session.go()
    assert summary["status"] == "ok"
    assert summary["steps"] == 2 * (session.run.task.n_train // 128)
    assert 0.5 < summary["test_acc"] == summary["test_acc_noise_free"] <= 1
    assert summary["test_acc_std"] is None
    assert summary["params_inference"] == 64 * 16 + 16 + 16 * 10 + 10
    assert 0 < summary["step_ms_p50"] <= summary["step_ms_p95"]
    assert summary["train_s"] > 0 < summary["eval_s"]
    assert summary["data_s"] > 0 < summary["setup_s"]
    assert summary["examples_per_s"] == pytest.approx(
        128 * summary["steps"] / (summary["train_s"] + summary["data_s"]), rel=0.05
    )
    assert summary["cpu_peak_rss_bytes"] >= 0
    assert summary["gpu_peak_alloc_bytes"] is None
    assert summary["forward_passes"] == 1
    assert summary["reverse_mode"] == "network"
    assert summary["flops_per_inference"] == 2 * (64 * 16 + 16 * 10)
    assert summary["train_flops"] == summary["steps"] * summary["flops_per_step"] > 0
    assert summary["flops_per_s"] == summary["train_flops"] / summary["train_s"]
    assert summary["peak_fraction"] == summary["flops_per_s"] / summary["peak_flops_per_s"]
    first, second = (event.row for event in told if isinstance(event, EpochEnded))
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert second["train_s"] > first["train_s"]  # type: ignore[operator]


def test_every_declared_column_has_its_place_in_the_summary(tmp_path: Path) -> None:
    summary = start(tmp_path, spec())[0].go()
    assert {column.name for column in CATALOG.columns()} <= summary.keys()


@pytest.mark.parametrize("settings", [{"order": "sequential"}, {"execution": "stacked"}], ids=str)
def test_noprop_dt_runs_in_every_order_and_execution(tmp_path: Path, settings: dict[str, str]) -> None:
    before: list[Tensor] = []

    def weight(session: Watched) -> Tensor:
        return session.run.method.net.blocks[0].image.conv1.weight  # type: ignore[union-attr, no-any-return]

    chosen = CATALOG.methods["noprop-dt"].load().Config(lr=1e-2, **settings).model_dump()
    wanted = spec("noprop-dt", "denoiser", method_settings=chosen, channels_last=True)
    session, _ = start(tmp_path, wanted, meddle=lambda session: before.append(weight(session).clone()))
    assert session.go()["status"] == "ok"
    assert not torch.equal(weight(session), before[0])


def test_stochastic_inference_is_averaged_over_draws(tmp_path: Path) -> None:
    summary = start(tmp_path, spec("noprop-dt", "denoiser"))[0].go()
    assert summary["test_acc_std"] > 0
    assert summary["test_acc_noise_free"] != summary["test_acc"]


def test_what_pictures_need_is_left_behind(tmp_path: Path) -> None:
    """Accuracy by sampler and steps on validation images, and artifacts over the same few images."""
    session, _ = start(tmp_path, spec("noprop-ct", "denoiser-ct"))
    assert session.go()["status"] == "ok"
    ways = pd.read_csv(session.folder.path / "ways.csv")
    assert set(zip(ways["sampler"], ways["steps"], strict=True)) == {
        (sampler, steps) for sampler in ("ancestral", "ddim", "euler", "heun") for steps in (1, 2, 3)
    }
    assert set(ways["n_images"]) == {session.run.val.n_images}
    assert ways["accuracy"].between(0, 1).all()
    left = {
        artifact.name: artifact
        for artifact in artifacts.from_bytes((session.folder.path / "artifacts.npz").read_bytes())
    }
    path, schedule = left["label-path"], left["schedule"]
    assert isinstance(path, Lines)
    assert isinstance(schedule, Lines)
    shown = next(iter(session.run.val))
    n = len(path.panels)
    assert path.y.shape == (n, 10, 101)
    np.testing.assert_allclose(np.asarray(path.y).sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(path.pictures, shown.x[:n])
    np.testing.assert_array_equal(path.emphasis, shown.y[:n])
    assert schedule.y.shape == (2, 1, 101)


def test_a_sampler_that_fails_in_few_steps_does_not_cost_the_run(tmp_path: Path) -> None:
    class Failing(CATALOG.methods["backprop"].load()):  # type: ignore[misc]
        def ways(self) -> list[Way]:
            return [Way("euler", 1, lambda x, _: torch.full((len(x), 10), torch.nan)), Way("euler", 2, self.predict)]

    session, _ = start(tmp_path, spec(), Failing)
    summary = session.go()
    assert summary["status"] == "ok"
    assert summary["test_acc"] > 0
    assert pd.read_csv(session.folder.path / "ways.csv")["accuracy"].isna().tolist() == [True, False]


def test_a_trial_of_a_search_leaves_no_pictures(tmp_path: Path) -> None:
    session, _ = start(tmp_path, spec("noprop-dt", "denoiser", eval_draws=0))
    assert "test_acc" not in session.go()
    assert not (session.folder.path / "artifacts.npz").exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_keeps_to_its_precision_in_training_and_evaluation(tmp_path: Path, precision: str) -> None:
    seen: set[tuple[str, torch.dtype]] = set()

    class Watching(CATALOG.methods["backprop"].load()):  # type: ignore[misc]
        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            seen.add(("train", (torch.ones(2, 2) @ torch.ones(2, 2)).dtype))
            return super().train_step(batch, progress)  # type: ignore[no-any-return]

        def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
            scores = super().predict(x, noise)
            seen.add(("predict", scores.dtype))
            return scores  # type: ignore[no-any-return]

    # trials, before training, keep to float32
    session, _ = start(tmp_path, spec(precision=precision), Watching, lambda _: seen.clear())
    assert session.go()["status"] == "ok"
    dtype = getattr(torch, precision)
    assert seen == {("train", dtype), ("predict", dtype)}


@pytest.mark.parametrize(("method", "net"), [("noprop-dt", "denoiser"), ("backprop", "denoiser"), ("backprop", "mlp")])
@pytest.mark.parametrize("stop_after", [3, 11])
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path, method: str, net: str, stop_after: int) -> None:
    """Bit for bit, wherever it was stopped: within an epoch or across its edge."""
    wanted = spec(method, net, instruments=("alignment",))
    unbroken = start(tmp_path / "a", wanted)[0]
    expected = unbroken.go()

    first, _ = start(tmp_path / "b", wanted, meddle=lambda session: _stop_after(session, stop_after))
    assert first.go()["status"] == "interrupted"
    found: list[tuple[int, int]] = []
    second, _ = start(
        tmp_path / "b", wanted, meddle=lambda session: found.append((session.run.state.epoch, session.run.state.step))
    )
    summary = second.go()
    assert found == [(stop_after // 10, stop_after % 10)]

    for key in ("test_acc", "test_acc_std", "test_acc_noise_free", "val_acc", "train_loss", "steps", "retained_bytes"):
        assert summary[key] == expected[key], key
    for a, b in zip(_tensors(unbroken.run.method), _tensors(second.run.method), strict=True):
        assert torch.equal(a, b)
    assert [r["val_acc"] for r in second.run.state.curve] == [r["val_acc"] for r in unbroken.run.state.curve]
    assert repr(second.run.state.tables) == repr(unbroken.run.state.tables)  # a NaN is no equal to itself


def test_a_checkpoint_that_lacks_what_a_gauge_has_read_is_not_gone_on_from(tmp_path: Path) -> None:
    """Its figures would be of the rest of the run alone."""
    first, _ = start(tmp_path, spec(), meddle=lambda session: _stop_after(session, 3))
    first.go()
    kept = first.folder.load_checkpoint()
    assert kept is not None
    del kept["gauges"]["contamination"]
    first.folder.save_checkpoint(kept)
    found: list[int] = []
    second, _ = start(tmp_path, spec(), meddle=lambda session: found.append(session.run.state.step))
    assert second.go()["steps"] == 2 * 10
    assert found == [0]


def test_measuring_angles_leaves_no_trace(tmp_path: Path) -> None:
    """Backprop's own angle is 0 at every layer, and the run ends with the weights of one that was not looked at."""
    plain, watched = (start(tmp_path / str(len(asked)), spec(instruments=asked))[0] for asked in ((), ("alignment",)))
    plain.go()
    assert watched.go()["status"] == "ok"
    weights = zip(_tensors(plain.run.method), _tensors(watched.run.method), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    rows = watched.run.state.tables["alignment"]
    assert [row["epoch"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert all(row["cosine"] == pytest.approx(1, abs=1e-6) for row in rows)


def test_who_depends_on_whom_is_a_table_where_asked_for(tmp_path: Path) -> None:
    session, _ = start(tmp_path, spec(epochs=1, instruments=("update-dependency",)))
    assert session.go()["status"] == "ok"
    table = pd.read_csv(session.folder.path / "update-dependency.csv")
    assert set(table["epoch"]) == {0, 1}
    assert (table["change"] > 0).all()  # of two blocks that backprop trains each depends on both


@pytest.mark.parametrize(
    ("name", "net", "settings", "waits", "transport", "passes"),
    [
        ("backprop", "mlp", {"depth": 2}, "later blocks", "yes", (1, 1)),
        ("drtp", "mlp", {"depth": 2}, "earlier blocks", "no", (1, 1)),
        ("spsa", "mlp", {"depth": 1}, None, "no", (2, 1)),
        ("noprop-dt", "denoiser", {}, "nothing", "yes", (1, 1)),
        ("noprop-ct", "denoiser-ct", {}, None, "yes", (1, 3)),
    ],
)
def test_every_record_says_what_the_rule_does(
    tmp_path: Path, name: str, net: str, settings: Any, waits: str | None, transport: str, passes: tuple[int, int]
) -> None:
    session, _ = start(tmp_path, spec(name, net, probe_only=True, net_settings={**NETS[net], **settings}))
    found = session.go()
    assert (found["updates_wait_for"], found["weight_transport"]) == (waits, transport)
    assert (found["forward_passes"], found["inference_passes"]) == passes


def test_a_method_that_fails_under_a_trial_is_run_all_the_same(tmp_path: Path) -> None:
    class Forgetful(CATALOG.methods["backprop"].load()):  # type: ignore[misc]
        def load_state_dict(self, state: Mapping[str, Any]) -> Any:
            raise KeyError("no such state")

    found = start(tmp_path, spec(epochs=1), Forgetful)[0].go()
    assert found["status"] == "ok"
    assert found["reverse_mode"] == "network"
    assert "updates_wait_for" not in found
    assert "weight_transport" not in found


def test_methods_that_share_a_net_see_the_same_batches_and_weights(tmp_path: Path) -> None:
    seen: dict[str, list[Tensor]] = {}
    weights: dict[str, dict[str, Tensor]] = {}

    def spy(session: Watched) -> None:
        method, name = session.run.method, session.spec.method
        assert method.net is not None
        weights[name] = {k: v.clone() for k, v in method.net.state_dict().items()}
        batches = seen[name] = []
        original = method.train_step
        method.train_step = lambda b, p: (batches.append(b.x), original(b, p))[1]  # type: ignore[method-assign]

    for name in ("noprop-dt", "backprop"):
        start(tmp_path, spec(name, "denoiser", epochs=1), meddle=spy)[0].go()
    assert all(torch.equal(v, weights["backprop"][k]) for k, v in weights["noprop-dt"].items())
    assert len(seen["backprop"]) == 10
    assert all(torch.equal(a, b) for a, b in zip(*seen.values(), strict=True))


def test_warm_up_and_probes_leave_no_trace(tmp_path: Path) -> None:
    """The method starts from the weights that its seed names, though kernels were warmed up before."""
    start_weights: list[Tensor] = []
    session, _ = start(
        tmp_path, spec(), meddle=lambda session: start_weights.extend(t.clone() for t in _tensors(session.run.method))
    )
    session.go()
    fresh = session.run.task.build_net(Seeds(0).init)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), start_weights, strict=True))


def test_the_test_split_is_read_at_the_end_only(tmp_path: Path) -> None:
    reads: list[int] = []

    def spy(session: Watched) -> None:
        test = session.run.test

        class Spied:
            def __iter__(self) -> Iterator[Batch]:
                reads.append(len(told))
                return iter(test)

        session.run = replace(session.run, test=Spied())  # type: ignore[arg-type]

    session, told = start(tmp_path, spec(), meddle=spy)
    session.go()
    assert reads == [2]


def test_without_validation_the_curve_has_the_loss_alone(tmp_path: Path) -> None:
    session, told = start(tmp_path, spec(val_fraction=0))
    summary = session.go()
    assert session.run.task.n_train + session.run.test.n_images == 1797
    assert isinstance(told[-1], EpochEnded)
    assert told[-1].row["val_acc"] is None is summary["val_acc"]
    assert told[-1].row["train_loss"] > 0  # type: ignore[operator]


class Toy(Method):
    """Draws nothing and learns nothing."""

    info = MethodInfo("toy", "Toy", "toy", "", Claims(reverse_mode="none"))

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        super().__init__()
        self.count = torch.zeros(())

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.count += 1
        return {"loss": torch.ones(())}

    def predict(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.zeros(len(x), 10)


class Exploding(Toy):
    """Its loss becomes NaN at the third step."""

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        super().train_step(batch, progress)
        return {"loss": torch.where(self.count < 3, 1.0, torch.nan)}


def test_a_loss_that_is_no_number_is_divergence(tmp_path: Path) -> None:
    summary = start(tmp_path, spec(method_settings={}), Exploding)[0].go()
    assert summary["status"] == "diverged"
    assert summary["reason"] == "the loss is nan at step 3 of epoch 1"
    assert "test_acc" not in summary


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ({}, "without 'loss'"),
        ({"loss": 1.0}, "is a float"),
        ({"loss": torch.zeros(3)}, r"shape \(3,\)"),
        (1.0, "float"),
    ],
    ids=["none", "float", "vector", "no-mapping"],
)
def test_a_loss_that_is_none_is_told_in_the_words_of_the_contract(
    tmp_path: Path, returned: Any, complaint: str
) -> None:
    class Broken(Toy):
        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            return returned  # type: ignore[no-any-return]

    with pytest.raises(MethodError, match=complaint):
        start(tmp_path, spec(method_settings={}), Broken)[0].go()


def test_scores_of_a_wrong_shape_are_told_in_the_words_of_the_contract(tmp_path: Path) -> None:
    class Broken(Toy):
        def predict(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return torch.zeros(len(x), 3)

    with pytest.raises(MethodError, match="shape"):
        start(tmp_path, spec(method_settings={}), Broken)[0].go()


def test_scores_that_are_no_numbers_are_divergence() -> None:
    batches = [Batch(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(Diverged, match="scores are not finite"):
        accuracy(lambda x: torch.full((4, 10), torch.inf), batches, 10)


def test_accuracy_counts_every_image_once() -> None:
    y = torch.arange(10)
    batches = [Batch(torch.zeros(7, 1), y[:7]), Batch(torch.zeros(3, 1), y[7:])]
    always_2 = lambda x: torch.nn.functional.one_hot(torch.full((len(x),), 2), 10).float()  # noqa: E731
    assert accuracy(always_2, batches, 10) == 0.1


def test_a_method_that_does_not_fit_is_skipped_with_the_reason(tmp_path: Path) -> None:
    summary = start(tmp_path, spec("noprop-dt", "mlp"))[0].go()
    assert summary == {"status": "skipped", "reason": "noprop-dt runs on denoiser, not on mlp"}


class Hungry(Toy):
    """Takes 200 MiB in a prediction, and 40 MiB in a step: from 32 MiB on the allocator gives back what is freed."""

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        self.net = task.build_net(seeds.init)
        self.cycle = [self.predict]  # so that letting go of it is not enough

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {"loss": torch.ones(40 * 2**18).mean()}

    def predict(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(x) + torch.ones(200 * 2**18).mean()  # type: ignore[no-any-return]


def least_peak(folder: Path, go: Callable[[Path], dict[str, Any]]) -> int:
    """The least of three: pages of libraries that the system had taken back may return at any time, and count."""
    summaries = [go(folder / str(k)) for k in range(3)]
    assert {summary["status"] for summary in summaries} == {"ok"}
    return min(summary["cpu_peak_rss_bytes"] for summary in summaries)


@pytest.mark.parametrize("asked", [(), ("alignment",)], ids=["plain", "alignment"])
def test_peaks_are_those_of_training_steps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    """Neither what validation takes, be the run saved after it, nor a second instance that is put beside the first."""
    monkeypatch.setattr(checkpoint.Saver, "is_due", lambda self: True)
    net = {"width": 2048, "depth": 3, "activation": "relu"}  # the gradient of the angle alone is 33 MiB
    wanted = spec(method_settings={}, net_settings=net, instruments=asked)
    peak = least_peak(tmp_path, lambda folder: start(folder, wanted, Hungry)[0].go())
    assert 39 * 2**20 < peak < 50 * 2**20


def test_a_gauge_with_nothing_to_do_is_read_and_never_put_on(tmp_path: Path) -> None:
    class Idle(Gauge):
        name = "idle"
        columns = (Column("nothing", "nothing", "nothing"),)
        idle = True

        def on(self) -> None:
            raise AssertionError

        off = on

        def read(self) -> Mapping[str, Value]:
            return {"nothing": 7}

    session, _ = start(tmp_path, spec())
    session.parts = replace(session.parts, instruments=(*session.parts.instruments, Idle))
    assert session.go()["nothing"] == 7


def test_a_resumed_run_keeps_the_peak_of_what_went_before(tmp_path: Path) -> None:
    class Shrinking(Hungry):
        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            return {"loss": torch.ones((40 if progress.step < 3 else 1) * 2**18).mean()}

    def go(folder: Path) -> dict[str, Any]:
        start(folder, wanted, Shrinking, lambda session: _stop_after(session, 5))[0].go()
        return start(folder, wanted, Shrinking)[0].go()

    wanted = spec(method_settings={})
    assert 39 * 2**20 < least_peak(tmp_path, go) < 50 * 2**20


def test_every_record_holds_what_backward_keeps_and_the_peak_of_live_tensors_by_kind(tmp_path: Path) -> None:
    summary = start(tmp_path, spec())[0].go()
    B, inputs, width, classes = 128, 64, 16, 10
    # the flattened batch and the hidden layer's output for products, scores' log-softmax and labels for the loss
    assert summary["retained_bytes"] == 4 * B * (inputs + width + classes) + 8 * B + 4
    parameters = 64 * 16 + 16 + 16 * 10 + 10
    assert summary["live_parameters_bytes"] == 4 * parameters
    assert summary["live_optimizer_bytes"] == 2 * 4 * parameters + 4 * 4  # and the step's number for each tensor
    assert summary["live_gradients_bytes"] <= 4 * parameters
    assert summary["live_other_bytes"] == 4 * B * inputs + 8 * B  # the batch
    kinds = ("parameters", "gradients", "optimizer", "activations", "other")
    assert summary["live_peak_bytes"] == sum(summary[f"live_{kind}_bytes"] for kind in kinds)


def test_a_rule_under_which_a_probe_cannot_work_has_its_other_columns(tmp_path: Path) -> None:
    """torch.func.grad allows no hooks on what is saved for backward."""

    class Functional(Toy):
        def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
            self.w = torch.zeros(3)

        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            self.w -= torch.func.grad(lambda w: (w - 1).square().sum())(self.w)
            return {"loss": self.w.sum()}

    summary = start(tmp_path, spec(method_settings={}), Functional)[0].go()
    assert summary["status"] == "ok"
    assert summary.get("retained_bytes") is None
    assert summary["live_peak_bytes"] > 0


def _stop_after(session: Watched, steps: int) -> None:
    original, count = session.run.method.train_step, [0]

    def step(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        count[0] += 1
        session.stop_requested = count[0] == steps
        return original(batch, progress)

    session.run.method.train_step = step  # type: ignore[method-assign]


def _tensors(method: Method) -> list[Tensor]:
    assert method.net is not None
    return list(method.net.state_dict().values())


def test_a_run_that_compiles_is_not_probed_by_what_compiled_code_does_not_bear(tmp_path: Path) -> None:
    class Eager(CATALOG.methods["backprop"].load()):  # type: ignore[misc]
        def compile(self) -> None:
            """Compiling takes long, and is not the point."""

    summary = start(tmp_path, spec(compile=True), Eager)[0].go()
    assert summary["status"] == "ok"
    assert not {"retained_bytes", "live_peak_bytes", "flops_per_step"} & summary.keys()
    assert summary["train_flops"] is None
    assert summary["params_inference"] > 0


def test_an_end_probe_leaves_a_table_and_no_trace_in_the_result(tmp_path: Path) -> None:
    plain, _ = start(tmp_path, spec())
    probed, _ = start(tmp_path, spec(instruments=("read-out",)))
    same = {"test_acc", "val_acc", "train_loss"}
    assert {k: v for k, v in plain.go().items() if k in same} == {k: v for k, v in probed.go().items() if k in same}
    table = pd.read_csv(probed.folder.path / "read-out.csv")
    assert table["layer"].tolist() == [0, 1, 2]
    assert not (plain.folder.path / "read-out.csv").exists()


def test_a_trial_of_a_search_is_shown_to_no_end_probe(tmp_path: Path) -> None:
    """It might look at test images, where there are none to validate on."""
    session, _ = start(tmp_path, spec(instruments=("read-out",), eval_draws=0))
    session.go()
    assert not (session.folder.path / "read-out.csv").exists()


def test_trials_see_a_rule_with_stages_in_its_first(tmp_path: Path) -> None:
    """A step in which cascade draws its layers anew would hide by what they learn."""
    session, _ = start(tmp_path, spec("cascade", probe_only=True))
    assert session.go()["weight_transport"] == "yes"
