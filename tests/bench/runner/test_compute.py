"""How a run computes: each setting is felt, learns as float32 does, and leaves no trace outside."""

from typing import Any

import pytest
import torch

from bench.catalog.catalog import Catalog
from bench.runner import compute
from bench.testing.subject import CPU, Subject, Trainee, small_task

STEPS = 30


def trainee(catalog: Catalog, name: str, net: str) -> Trainee:
    settings = {"lr": 1e-2, **({"execution": "parallel"} if name == "noprop-dt" else {})}
    return Subject(catalog.methods[name].load(), small_task(catalog.nets[net].load()), settings).start()


@pytest.mark.parametrize(
    ("name", "net"), [("backprop", "cnn"), ("noprop-dt", "denoiser"), ("noprop-fm", "denoiser-ct")]
)
def test_bfloat16_learns_what_float32_learns(catalog: Catalog, name: str, net: str) -> None:
    """Autocast's cache, left on, would hold the first weights for ever: the loss would stay where it began."""
    exact, cast = trainee(catalog, name, net), trainee(catalog, name, net)
    expected = exact.train(STEPS)
    with compute.precision("bfloat16", CPU):
        losses = cast.train(STEPS)
    assert not torch.equal(torch.stack(losses), torch.stack(expected))
    fall = float(expected[0] - torch.stack(expected[-5:]).mean())
    assert fall > 0.3
    assert float(losses[0] - torch.stack(losses[-5:]).mean()) == pytest.approx(fall, rel=0.25)


@pytest.mark.parametrize(
    ("name", "net"), [("noprop-dt", "denoiser"), ("noprop-ct", "denoiser-ct"), ("noprop-fm", "denoiser-ct")]
)
def test_bfloat16_leaves_noprop_s_first_losses_where_they_are(catalog: Catalog, name: str, net: str) -> None:
    """Schedules and embeddings keep their precision: weighed by SNR', errors of theirs would be large."""
    exact, cast = trainee(catalog, name, net), trainee(catalog, name, net)
    expected = torch.stack(exact.train(3))
    with compute.precision("bfloat16", CPU):
        torch.testing.assert_close(torch.stack(cast.train(3)), expected, rtol=1e-2, atol=0)


SIGNS = {"directions": "rademacher"}  # the same draws in both precisions


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("forward-gradient", SIGNS),
        ("local-forward-gradient", SIGNS),
        ("local-forward-gradient", {"space": "weight"}),
        ("node-perturbation", {**SIGNS, "sigma": 0.1}),
        ("node-perturbation", {**SIGNS, "sigma": 0.1, "form": "activity", "decorrelation": 0.1}),
        ("weight-perturbation", {"sigma": 1e-3, "k": 1}),  # sums of weights whose small differences count
        ("evolution-strategies", {"shaping": "z-score"}),
        ("low-rank-evolution", {}),
    ],
)
@pytest.mark.parametrize("net", ["mlp", "cnn", "localmixer"])
def test_bfloat16_leaves_estimates_where_they_are(
    catalog: Catalog, name: str, settings: dict[str, Any], net: str
) -> None:
    """Forward passes in bfloat16, the estimator's own sums in the parameters' precision."""
    method = catalog.methods[name].load()
    if net not in method.info.nets:
        pytest.skip(f"{name} does not train {net}")
    estimates = []
    for precision in ("float32", "bfloat16"):
        subject: Any = Subject(method, small_task(catalog.nets[net].load()), settings).start()
        subject.method.optimizer.register_step_pre_hook(
            lambda optimizer, *_: estimates.append(
                torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]])
            )
        )
        with compute.precision(precision, CPU):
            subject.train(1)
    exact, cast = estimates
    assert not torch.equal(exact, cast)
    assert float(torch.cosine_similarity(exact, cast, dim=0)) > 0.99
    assert float(cast.norm() / exact.norm()) == pytest.approx(1, abs=0.1)


def test_products_are_bfloat16_inside_and_float32_outside() -> None:
    a = torch.randn(4, 4)
    with compute.precision("bfloat16", CPU):
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize(("name", "inside"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee")])
def test_float32_is_exact_also_for_convolutions_on_cuda(name: str, inside: str) -> None:
    """Torch's own default is tf32 there."""
    cudnn: Any = torch.backends.cudnn
    before = torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision
    with compute.precision(name, CPU):
        assert (torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision) == (inside, inside)
    assert (torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision) == before


def test_channels_last_changes_the_format_and_no_number(catalog: Catalog) -> None:
    plain, last = trainee(catalog, "backprop", "cnn"), trainee(catalog, "backprop", "cnn")
    compute.to_channels_last(last.method)
    weights = [p for p in last.method.modules()["inference"].parameters() if p.dim() == 4 and p.shape[1] > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    torch.testing.assert_close(last.train(5), plain.train(5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["forward-gradient", "guided-forward-gradient", "local-forward-gradient"])
def test_estimates_step_the_same_weights_in_channels_last(catalog: Catalog, name: str) -> None:
    """Gradients written out by hand are in any format; a fused optimiser takes them as they lie."""
    plain, last = trainee(catalog, name, "cnn"), trainee(catalog, name, "cnn")
    compute.to_channels_last(last.method)
    plain.train(3)
    last.train(3)
    parts = (each.method.modules()["inference"].parameters() for each in (plain, last))
    for p, q in zip(*parts, strict=True):
        torch.testing.assert_close(q, p, rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # compiling takes a quarter of a minute
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks there itself
def test_compiled_blocks_learn_the_same(catalog: Catalog) -> None:
    plain, compiled = trainee(catalog, "backprop", "mlp"), trainee(catalog, "backprop", "mlp")
    compute.compile_steps(compiled.method)
    torch.testing.assert_close(compiled.train(5), plain.train(5), rtol=1e-4, atol=1e-5)
