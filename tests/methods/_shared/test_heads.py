"""Heads: how much they see, and that they start silent."""

import pytest
import torch
from bench.methods._shared.heads import HeadSettings, build_head, window
from torch import nn


@pytest.mark.parametrize("limit", [1, 7, 64, 2048])
@pytest.mark.parametrize("shape", [(3,), (5000,), (3, 8, 8), (32, 14, 14), (64, 7, 5), (4096, 2, 2)])
def test_a_head_sees_at_most_so_much_and_no_less_than_it_must(shape: tuple[int, ...], limit: int) -> None:
    k = window(shape, limit)
    sizes = (
        {j: nn.AvgPool2d(j, ceil_mode=True)(torch.zeros(1, *shape)).numel() for j in range(1, 15)} if shape[1:] else {}
    )
    if shape[1:]:
        fitting = [j for j, size in sizes.items() if size <= limit]
        assert k == (fitting[0] if fitting else max(shape[1:]))
    for head in ("linear", "mlp", "conv") if shape[0] < 4096 else ("linear",):
        if head == "conv" and not shape[1:]:
            continue
        built = build_head(shape, 10, HeadSettings(head=head, pool=limit))
        first = next(layer for layer in built if isinstance(layer, nn.Linear))
        assert first.in_features == (sizes[k] if shape[1:] else shape[0])
        h = torch.randn(2, *shape)
        assert torch.equal(built(h), torch.zeros(2, 10))
        assert [p.count_nonzero() for p in built[-1].parameters()] == [0, 0]
        assert all(p.count_nonzero() > 0 for layer in built[:-1] for p in layer.parameters())


def test_pooling_sees_the_edge() -> None:
    """14 = 4 + 4 + 4 + 2: the mean of each window, the smaller ones at the edge as well."""
    head = build_head((1, 14, 14), 3, HeadSettings(pool=16))
    assert window((1, 14, 14), 16) == 4
    h = torch.arange(196.0).view(1, 1, 14, 14)
    pooled = head[0](h)[0, 0]
    for i in range(4):
        for j in range(4):
            assert pooled[i, j] == pytest.approx(float(h[0, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean()))
