"""Training over two workers against the same training in one process, and the bytes against a count by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.bench.scale.made import BATCH, MICRO, STEPS, in_one_process, over_workers, planned, work_of


@pytest.mark.parametrize("embedding", ["one-hot", "learned"])
def test_blocks_on_two_workers_learn_what_one_process_does_to_the_last_bit(tmp_path: Path, embedding: str) -> None:
    """T = 3 over 2 workers, dropout and batch norm included; with learned embeddings each block's gradient travels."""
    work = work_of(planned("noprop-dt", f"denoiser.embedding={embedding}", "denoiser.dim=5"), "blocks", 2)
    results, weights = over_workers(work, tmp_path)
    alone = in_one_process(work)
    assert weights.keys() == alone.keys()
    assert all(torch.equal(weights[name], alone[name]) for name in alone)

    of_block = 0 if embedding == "one-hot" else 10 * 5 * 4  # W_embed is (10, 5) in float32
    assert [result["sent_bytes"] for result in results] == [STEPS * of_block * 2, STEPS * of_block * 1]


@pytest.mark.parametrize(("embedding", "blocks"), [("one-hot", 3), ("learned", 2)])
def test_diffusion_blocks_on_two_workers_learn_what_one_process_does_to_the_last_bit(
    tmp_path: Path, embedding: str, blocks: int
) -> None:
    """Grouped or not, with each block's scale and shift of the level; theta_out's gradients travel in any case."""
    settings = (f"denoiser.embedding={embedding}", "denoiser.dim=5", f"diffusion-blocks.blocks={blocks}")
    work = work_of(planned("diffusion-blocks", *settings), "blocks", 2)
    results, weights = over_workers(work, tmp_path)
    alone = in_one_process(work)
    assert weights.keys() == alone.keys()
    assert all(torch.equal(weights[name], alone[name]) for name in alone)

    dim = 10 if embedding == "one-hot" else 5
    of_block = 4 * (10 * dim + 10 + (0 if embedding == "one-hot" else 10 * dim))  # theta_out, W_embed
    assert [result["sent_bytes"] for result in results] == [STEPS * of_block * (blocks - 1), STEPS * of_block]


def test_backprop_on_parts_of_a_batch_learns_what_one_process_does(tmp_path: Path) -> None:
    """Fails where gradients are summed instead of averaged, or where a part is seen twice."""
    run = planned("backprop", net="mlp")
    results, weights = over_workers(work_of(run, "data", 2, float64=True), tmp_path)
    alone = in_one_process(work_of(run, "data", 1, float64=True))
    assert weights.keys() == alone.keys()
    assert max(float((weights[name] - alone[name]).abs().max()) for name in alone) < 1e-12

    n_parameters = sum(p.numel() for p in alone.values())
    # a ring of two: each sends half of the gradient twice
    assert [result["sent_bytes"] for result in results] == [STEPS * n_parameters * 8] * 2


def test_parts_that_differ_by_an_image_weigh_as_much_as_they_hold(tmp_path: Path) -> None:
    run = planned("backprop", net="mlp")
    odd = run.spec.model_copy(update={"batch_size": BATCH + 1})
    work = work_of(replace(run, spec=odd), "data", 2, float64=True)
    _, weights = over_workers(work, tmp_path)
    alone = in_one_process(work)
    assert max(float((weights[name] - alone[name]).abs().max()) for name in alone) < 1e-12


@pytest.mark.parametrize("net", ["mlp", "denoiser"])
def test_a_pipeline_learns_what_one_process_does_with_micro_batches_to_the_last_bit(tmp_path: Path, net: str) -> None:
    """On the denoiser with batch norm, z_0 drawn by the first stage, and gates and read-out that every stage has."""
    work = work_of(planned("backprop", "denoiser.dropout=0", "mlp.depth=2", "mlp.width=32", net=net), "pipeline", 2)
    results, weights = over_workers(work, tmp_path)
    alone = in_one_process(
        work_of(planned("backprop", "denoiser.dropout=0", "mlp.depth=2", "mlp.width=32",
                        f"backprop.micro_batches={MICRO}", net=net), "pipeline", 2)
    )  # fmt: skip
    assert weights.keys() == alone.keys()
    assert all(torch.equal(weights[name], alone[name]) for name in alone)

    hidden = 32 if net == "mlp" else 10
    rest = 0 if net == "mlp" else 3 + 110  # gates, theta_out
    each = STEPS * 4 * (BATCH * hidden + rest)  # a ring of two sends its payload once at each worker
    assert [result["sent_bytes"] for result in results] == [each, each]
