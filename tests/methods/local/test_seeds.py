"""What local rules draw beside the net's weights: from the seed of the run, and by the law that their source names."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.whole_steps import N_CLASSES, batches, colour_task, in_double, train

Make = Callable[..., Any]
DRAWN: list[tuple[str, str, dict[str, Any]]] = [
    ("mono-forward", "targets", {}),
    ("local-loss", "targets", {"loss": "sim"}),
    ("local-loss", "targets", {"loss": "pred", "head": "mlp"}),
    ("loco", "heads", {}),
    ("sigprop", "context", {}),
    ("forward-forward", "layers", {"start": "recipe"}),
]


@pytest.mark.parametrize(("rule", "part", "settings"), DRAWN)
def test_every_draw_depends_on_the_seed(make_method: Make, rule: str, part: str, settings: dict[str, Any]) -> None:
    """Projections, heads or contexts that are the same for every seed, or that differ within one."""

    def drawn(seed: int) -> Tensor:
        method = make_method(rule, task=colour_task(), seed=seed, **settings)
        return torch.cat([p.detach().flatten() for p in getattr(method, part).parameters()])

    one, again, other = drawn(0), drawn(0), drawn(1)
    assert torch.equal(one, again)
    constant = (one == 0) | (one == 1)  # biases of the recipe, the norm of the context, output layers at zero
    assert float((~constant).double().mean()) > 0.3
    assert bool((one != other)[~constant].all())


@pytest.mark.parametrize(
    ("rule", "settings"), [("forward-forward", {}), ("loco", {}), ("local-loss", {"gradient": "spsa"})]
)
def test_noise_in_training_depends_on_the_seed(make_method: Make, rule: str, settings: dict[str, Any]) -> None:
    """Wrong labels, views or directions that are the same for every seed: the weights start alike here."""
    found = []
    for seed in (0, 0, 1):
        method = in_double(make_method(rule, task=colour_task(), seed=0, **settings))
        method.noise.manual_seed(seed)
        train(method, batches(2))
        found.append(torch.cat([p.detach().flatten() for p in method.net.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_contexts_start_as_torchs_linear_layer_on_labels(make_method: Make) -> None:
    """A law that forgets the fan-in: S is U(-1, 1) / sqrt(classes)."""
    context = make_method("sigprop", task=colour_task("cnn", width=40)).context.weight.detach()
    assert float(context.abs().max()) == pytest.approx(N_CLASSES**-0.5, rel=0.02)
    assert float(context.std()) == pytest.approx((3 * N_CLASSES) ** -0.5, rel=0.05)
