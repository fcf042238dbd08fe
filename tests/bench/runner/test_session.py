"""One run in process: what it records, and that an interruption leaves no trace in the result."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from bench import Batch, Progress, Way
from bench.api.artifact import Lines
from bench.api.instrument import FEW_IMAGES
from bench.record import artifacts
from bench.runner.events import EpochEnded
from tests.bench.runner.made import CATALOG, Watched, spec, start, tensors


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
    assert set(ways["n_images"]) == {session.run.val.n_examples}
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
            if len(batch.y) > FEW_IMAGES:  # trials keep to float32
                seen.add(("train", (torch.ones(2, 2) @ torch.ones(2, 2)).dtype))
            return super().train_step(batch, progress)  # type: ignore[no-any-return]

        def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
            scores = super().predict(x, noise)
            if len(x) > FEW_IMAGES:
                seen.add(("predict", scores.dtype))
            return scores  # type: ignore[no-any-return]

    session, _ = start(tmp_path, spec(precision=precision), Watching, lambda _: seen.clear())
    assert session.go()["status"] == "ok"
    dtype = getattr(torch, precision)
    assert seen == {("train", dtype), ("predict", dtype)}


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
    assert session.run.task.n_train + session.run.test.n_examples == 1797
    assert isinstance(told[-1], EpochEnded)
    assert told[-1].row["val_acc"] is None is summary["val_acc"]
    assert told[-1].row["train_loss"] > 0  # type: ignore[operator]


def test_a_run_on_streamed_data_ends_at_the_same_weights_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, _ = start(tmp_path / "held", spec(epochs=1))
    assert "data_on" not in held.go()
    monkeypatch.setattr("bench.data.placing.on_host", lambda *asked: True)
    streamed, _ = start(tmp_path / "streamed", spec(epochs=1))
    assert streamed.go()["data_on"] == "host"
    for a, b in zip(tensors(streamed.run.method), tensors(held.run.method), strict=True):
        assert torch.equal(a, b)
