"""One run in process: what it records, and that an interruption leaves no trace in the result."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Way
from bench.plan import RunSpec
from bench.registry import Registry
from bench.runner import Diverged, Place, Run, accuracy
from bench.store import RunFolder

REGISTRY = Registry()
CPU = Place(torch.device("cpu"))
NETS: dict[str, dict[str, Any]] = {
    "denoiser": {"T": 2, "width": 2, "hidden": 8, "dropout": 0.2},
    "denoiser-ct": {"T": 3, "width": 2, "hidden": 8},
    "mlp": {"width": 16, "depth": 1, "activation": "relu"},
}


def spec(method: str = "backprop", net: str = "mlp", **changes: Any) -> RunSpec:
    settings = REGISTRY[method].load().Config().model_dump() if method in REGISTRY.entries else {}
    base = dict(
        method=method, method_settings=settings, method_source="s", net=net, net_settings=NETS[net], dataset="digits",
        data_id="d", seed=0, epochs=2, batch_size=128, val_fraction=0.1, eval_draws=3, device="cpu",
    )  # fmt: skip
    return RunSpec(**{**base, **changes})


def start(tmp_path: Path, wanted: RunSpec, method: type[Method] | None = None) -> tuple[Run, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    folder = RunFolder(tmp_path, "exp", wanted.run_id)
    return Run(wanted, method or REGISTRY[wanted.method].load(), CPU, folder, told.append), told


def test_a_run_records_what_the_report_needs(tmp_path: Path) -> None:
    run, told = start(tmp_path, spec(method_settings={"lr": 1e-2, "weight_decay": 0.0}))
    summary = run.go()
    assert summary["status"] == "ok"
    assert summary["steps"] == 2 * (run.task.n_train // 128)
    assert 0.5 < summary["test_acc"] == summary["test_acc_noise_free"] <= 1
    assert summary["test_acc_std"] is None
    assert summary["params_inference"] == 64 * 16 + 16 + 16 * 10 + 10
    assert 0 < summary["step_ms_p50"] <= summary["step_ms_p95"]
    assert summary["train_s"] > 0 < summary["eval_s"]
    assert summary["data_s"] > 0 < summary["setup_s"]
    assert summary["cpu_peak_rss_bytes"] >= 0
    assert summary["gpu_peak_alloc_bytes"] is None
    assert [row["epoch"] for row in told] == [1, 2]
    assert told[1]["train_s"] > told[0]["train_s"]


@pytest.mark.parametrize(
    "settings", [{"order": "sequential"}, {"execution": "stacked"}, {"execution": "processes"}], ids=str
)
def test_noprop_dt_runs_in_every_order_and_execution(tmp_path: Path, settings: dict[str, str]) -> None:
    chosen = REGISTRY["noprop-dt"].load().Config(lr=1e-2, **settings).model_dump()
    run, _ = start(tmp_path, spec("noprop-dt", "denoiser", method_settings=chosen, channels_last=True))
    before = run.method.net.blocks[0].image.conv1.weight.clone()
    assert run.go()["status"] == "ok"
    assert not torch.equal(run.method.net.blocks[0].image.conv1.weight, before)


def test_a_method_is_started_once_when_all_is_as_it_was_and_before_its_time_counts(tmp_path: Path) -> None:
    """Not the twin that warms up, nor the probe; after an interruption the one that goes on, with its state."""
    started: list[float] = []

    class Starting(REGISTRY["backprop"].load()):  # type: ignore[misc]
        def start(self) -> None:
            started.append(float(next(iter(self.optimizer.state.values()), {"step": 0})["step"]))
            time.sleep(0.5)

    for epochs in (1, 2):
        run, _ = start(tmp_path, spec(epochs=2), Starting)
        run.stop_requested = epochs == 1
        summary = run.go()
    assert summary["status"] == "ok"
    assert len(started) == 2
    assert started[0] == 0 < started[1]
    assert summary["setup_s"] > 1.0


def test_stochastic_inference_is_averaged_over_draws(tmp_path: Path) -> None:
    summary = start(tmp_path, spec("noprop-dt", "denoiser"))[0].go()
    assert summary["test_acc_std"] > 0
    assert summary["test_acc_noise_free"] != summary["test_acc"]


def test_what_pictures_need_is_left_behind(tmp_path: Path) -> None:
    """Accuracy by sampler and steps on validation images, and arrays over the same few images."""
    run, _ = start(tmp_path, spec("noprop-ct", "denoiser-ct"))
    assert run.go()["status"] == "ok"
    ways = pd.read_csv(run.folder.path / "ways.csv")
    assert set(zip(ways["sampler"], ways["steps"], strict=True)) == {
        (sampler, steps) for sampler in ("ancestral", "ddim", "euler", "heun") for steps in (1, 2, 3)
    }
    assert set(ways["n_images"]) == {run.val.n_images}
    assert ways["accuracy"].between(0, 1).all()
    with np.load(run.folder.path / "exhibits.npz", allow_pickle=False) as left:
        images, labels = left["images"], left["labels"]
        assert left["label_path"].shape == (101, len(labels), 10)
        np.testing.assert_allclose(left["label_path"].sum(2), 1, rtol=1e-5)
        assert left["schedule"].shape == (101, 3)
    shown = next(iter(run.val))
    np.testing.assert_array_equal(images, shown.x[: len(labels)])
    np.testing.assert_array_equal(labels, shown.y[: len(labels)])


def test_a_sampler_that_fails_in_few_steps_does_not_cost_the_run(tmp_path: Path) -> None:
    class Failing(REGISTRY["backprop"].load()):  # type: ignore[misc]
        def ways(self) -> list[Way]:
            return [Way("euler", 1, lambda x: torch.full((len(x), 10), torch.nan)), Way("euler", 2, self.predict)]

    run, _ = start(tmp_path, spec(), Failing)
    summary = run.go()
    assert summary["status"] == "ok"
    assert summary["test_acc"] > 0
    assert pd.read_csv(run.folder.path / "ways.csv")["accuracy"].isna().tolist() == [True, False]


def test_a_trial_of_a_search_leaves_no_pictures(tmp_path: Path) -> None:
    run, _ = start(tmp_path, spec("noprop-dt", "denoiser", eval_draws=0))
    run.go()
    assert not (run.folder.path / "exhibits.npz").exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_keeps_to_its_precision_in_training_and_evaluation(tmp_path: Path, precision: str) -> None:
    seen: set[tuple[str, torch.dtype]] = set()

    class Watching(REGISTRY["backprop"].load()):  # type: ignore[misc]
        def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            seen.add(("train", (torch.ones(2, 2) @ torch.ones(2, 2)).dtype))
            return super().train_step(batch, progress)

        def predict(self, x: Tensor) -> Tensor:
            scores = super().predict(x)
            seen.add(("predict", scores.dtype))
            return scores

    assert start(tmp_path, spec(precision=precision), Watching)[0].go()["status"] == "ok"
    dtype = getattr(torch, precision)
    assert seen == {("train", dtype), ("predict", dtype)}


@pytest.mark.parametrize(("method", "net"), [("noprop-dt", "denoiser"), ("backprop", "denoiser"), ("backprop", "mlp")])
@pytest.mark.parametrize("stop_after", [3, 11])
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path, method: str, net: str, stop_after: int) -> None:
    """Bit for bit, wherever it was stopped: within an epoch or across its edge."""
    unbroken = start(tmp_path / "a", spec(method, net))[0]
    expected = unbroken.go()

    first, _ = start(tmp_path / "b", spec(method, net))
    _stop_after(first, stop_after)
    assert first.go()["status"] == "interrupted"
    second, _ = start(tmp_path / "b", spec(method, net))
    assert (second.at.epoch, second.at.step) == (stop_after // 10, stop_after % 10)
    summary = second.go()

    for key in ("test_acc", "test_acc_std", "test_acc_noise_free", "val_acc", "train_loss", "steps"):
        assert summary[key] == expected[key], key
    for a, b in zip(_tensors(unbroken.method), _tensors(second.method), strict=True):
        assert torch.equal(a, b)
    assert [r["val_acc"] for r in second.curve] == [r["val_acc"] for r in unbroken.curve]


def test_measuring_angles_leaves_no_trace(tmp_path: Path) -> None:
    """Backprop's own angle is 0 at every layer, and the run ends with the weights of one that was not looked at."""
    plain, watched = (start(tmp_path / str(a), spec(alignment=a))[0] for a in (False, True))
    plain.go()
    assert watched.go()["status"] == "ok"
    assert all(torch.equal(a, b) for a, b in zip(_tensors(plain.method), _tensors(watched.method), strict=True))
    assert [row["epoch"] for row in watched.alignment] == [0, 0, 1, 1, 2, 2]
    assert all(row["cosine"] == pytest.approx(1, abs=1e-6) for row in watched.alignment)


def test_methods_that_share_a_net_see_the_same_batches_and_weights(tmp_path: Path) -> None:
    seen: dict[str, list[Tensor]] = {}
    weights = {}
    for name in ("noprop-dt", "backprop"):
        run, _ = start(tmp_path, spec(name, "denoiser", epochs=1))
        weights[name] = {k: v.clone() for k, v in run.method.net.state_dict().items()}  # type: ignore[attr-defined]
        batches = seen[name] = []
        original = run.method.train_step
        run.method.train_step = lambda b, p, o=original, kept=batches: (kept.append(b.x), o(b, p))[1]  # type: ignore[method-assign,misc]
        run.go()
    assert all(torch.equal(v, weights["backprop"][k]) for k, v in weights["noprop-dt"].items())
    assert len(seen["backprop"]) == 10
    assert all(torch.equal(a, b) for a, b in zip(*seen.values(), strict=True))


def test_warm_up_leaves_no_trace(tmp_path: Path) -> None:
    """The method starts from the weights that its seed names, though kernels were warmed up before."""
    run, _ = start(tmp_path, spec())
    fresh = run.task.build_net(Seeds(0).init)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), _tensors(run.method), strict=True))


def test_the_test_split_is_read_at_the_end_only(tmp_path: Path) -> None:
    run, told = start(tmp_path, spec())
    test, reads = run.test, []

    class Watched:
        def __iter__(self) -> Any:
            reads.append(len(told))
            return iter(test)

    run.test = Watched()  # type: ignore[assignment]
    run.go()
    assert reads == [2]


def test_without_validation_the_curve_has_the_loss_alone(tmp_path: Path) -> None:
    run, told = start(tmp_path, spec(val_fraction=0))
    summary = run.go()
    assert run.task.n_train + run.test.n_images == 1797
    assert told[-1]["val_acc"] is None is summary["val_acc"]
    assert told[-1]["train_loss"] > 0


class Exploding(Method):
    """Its loss becomes NaN at the third step."""

    info = MethodInfo("exploding", "Exploding", "toy", "", Claims(reverse_mode="none"))

    def __init__(self, task: Any, config: Any, *, device: Any, seeds: Any) -> None:
        self.count = torch.zeros(())

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.count += 1
        return {"loss": torch.where(self.count < 3, 1.0, torch.nan)}

    def predict(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 10)


def test_a_loss_that_is_no_number_is_divergence(tmp_path: Path) -> None:
    summary = start(tmp_path, spec(method_settings={}), Exploding)[0].go()
    assert summary["status"] == "diverged"
    assert summary["reason"] == "the loss is nan at step 3 of epoch 1"
    assert "test_acc" not in summary


def test_scores_that_are_no_numbers_are_divergence() -> None:
    batches = [Batch(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(Diverged, match="scores are not finite"):
        accuracy(lambda x: torch.full((4, 10), torch.inf), batches)


def test_accuracy_counts_every_image_once() -> None:
    y = torch.arange(10)
    batches = [Batch(torch.zeros(7, 1), y[:7]), Batch(torch.zeros(3, 1), y[7:])]
    assert accuracy(lambda x: torch.nn.functional.one_hot(torch.full((len(x),), 2), 10).float(), batches) == 0.1


def test_a_method_that_does_not_fit_is_skipped_with_the_reason(tmp_path: Path) -> None:
    summary = start(tmp_path, spec("noprop-dt", "mlp"))[0].go()
    assert summary == {"status": "skipped", "reason": "noprop-dt runs on denoiser, not on mlp"}


def _stop_after(run: Run, steps: int) -> None:
    original, count = run.method.train_step, [0]

    def step(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        count[0] += 1
        run.stop_requested = count[0] == steps
        return original(batch, progress)

    run.method.train_step = step  # type: ignore[method-assign]


def _tensors(method: Method) -> list[Tensor]:
    return list(method.net.state_dict().values())  # type: ignore[attr-defined]


class Hungry(Method):
    """Takes 200 MiB in a prediction, and 20 MiB in a step."""

    info = MethodInfo("hungry", "Hungry", "toy", "", Claims(reverse_mode="none"))

    def __init__(self, task: Any, config: Any, *, device: Any, seeds: Any) -> None:
        self.net = task.build_net(seeds.init)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        return {"loss": torch.ones(20 * 2**18).mean()}

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x) + torch.ones(200 * 2**18).mean()


@pytest.mark.parametrize("alignment", [False, True])
def test_peaks_are_those_of_training_steps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alignment: bool
) -> None:
    """Neither what validation takes, be the run saved after it, nor a second instance that is put beside the first."""
    monkeypatch.setattr(Run, "_save_is_due", lambda self: True)
    net = {"width": 2048, "depth": 3, "activation": "relu"}  # the probe's gradient alone is 33 MiB
    run, _ = start(tmp_path, spec(method_settings={}, net_settings=net, alignment=alignment), Hungry)
    summary = run.go()
    assert summary["status"] == "ok"
    assert 19 * 2**20 < summary["cpu_peak_rss_bytes"] < 30 * 2**20


def test_every_record_holds_what_backward_keeps_and_the_peak_of_live_tensors(tmp_path: Path) -> None:
    summary = start(tmp_path, spec())[0].go()
    B, inputs, width, classes = 128, 64, 16, 10
    # the flattened batch and the hidden layer's output for products, scores' log-softmax and labels for the loss
    assert summary["retained_bytes"] == 4 * B * (inputs + width + classes) + 8 * B + 4
    parameters = 64 * 16 + 16 + 16 * 10 + 10
    assert 4 * 4 * parameters < summary["live_peak_bytes"] < 8 * 4 * parameters + 2 * summary["retained_bytes"]
