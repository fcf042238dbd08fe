"""Weight transport: seen in rules that have it, not in those that do without, and nothing said of what is not seen."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task
from bench.audit.weight_transport import weight_transport
from bench.catalog.catalog import Catalog
from bench.testing import Subject, Trainee, small_task
from bench.testing.subject import few_images

CATALOG = Catalog()


def trained(name: str, net: str, net_settings: dict[str, Any] | None = None, seed: int = 0, **settings: Any) -> Trainee:
    of = CATALOG.nets[net].load()
    task = small_task(of, {**of.small, **(net_settings or {})})
    trainee = Subject(CATALOG.methods[name].load(), task, settings).start(seed)
    trainee.train(3)
    return trainee


def measured(trainee: Trainee) -> bool | None:
    return weight_transport(trainee.method, trainee.seeds, few_images(), trainee.progress())


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("backprop", {}, True),
        ("backprop-checkpointed", {}, True),
        ("backprop-last-layer", {}, False),
        ("feedback-alignment", {"mode": "fa"}, False),
        ("feedback-alignment", {"mode": "usf"}, True),
        ("feedback-alignment", {"mode": "brsf"}, True),
        ("feedback-alignment", {"mode": "frsf"}, True),
        ("direct-feedback-alignment", {}, False),
        ("direct-feedback-alignment", {"mode": "sdfa"}, False),
        ("drtp", {}, False),
        ("kolen-pollack", {}, False),
        ("direct-kolen-pollack", {}, False),
        ("weight-mirror", {}, False),
        ("forward-gradient", {}, False),
        ("node-perturbation", {}, False),
        ("spsa", {}, False),
    ],
)
def test_on_a_net_whose_every_layer_can_be_tried(
    name: str, settings: dict[str, Any], expected: bool, activation: str
) -> None:
    """Forward gradients too, although they know W by its product with a tangent: that one goes forward."""
    assert measured(trained(name, "mlp", {"activation": activation}, **settings)) is expected


@pytest.mark.parametrize(
    ("name", "net"),
    [("backprop", "cnn"), ("backprop-reversible", "reversible"), ("backprop", "localmixer"),
     ("backprop-micro-batch", "denoiser"), ("noprop-dt", "denoiser"),
     ("noprop-ct", "denoiser-ct"), ("noprop-fm", "denoiser-ct"), ("adjoint", "denoiser-ct")],
)  # fmt: skip
def test_one_layer_in_which_it_shows_is_enough(name: str, net: str) -> None:
    """Within a block also, where no error leaves the block."""
    assert measured(trained(name, net)) is True


@pytest.mark.parametrize("name", ["feedback-alignment", "direct-feedback-alignment", "drtp", "weight-mirror"])
def test_convolutions_that_learn_unseen_are_not_acquitted(name: str) -> None:
    assert measured(trained(name, "cnn")) is None


@pytest.mark.parametrize("seed", range(3))
def test_steps_of_mere_rounding_are_none_of_it(seed: int) -> None:
    """The bias of a token-mixing layer has no gradient, for a normalisation follows; AdamW steps on its rounding."""
    assert measured(trained("forward-gradient", "localmixer", seed=seed)) is None


class Greedy(Method):
    """Each block learns by backprop from a head of its own, as block-local rules do."""

    info = MethodInfo("greedy", "Greedy", "local", "", Claims(reverse_mode="block", weight_transport=True))

    def __init__(self, task: Task, config: Any, *, device: torch.device, seeds: Seeds) -> None:
        self.net = task.build_net(seeds.init)
        with torch.random.fork_rng():
            self.heads = nn.ModuleList(nn.LazyLinear(task.output.size) for _ in self.net.blocks[:-1])
            self._losses(task.input.zeros(1), torch.zeros(1, dtype=torch.int64))
        self.optimizer = torch.optim.SGD([*self.net.parameters(), *self.heads.parameters()], lr=0.05)

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        losses = []
        for block, head in zip(self.net.blocks, [*self.heads, nn.Flatten()], strict=True):
            x = block(x.detach())
            losses.append(F.cross_entropy(head(x.flatten(1)), y))
        return torch.stack(losses).sum()

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        loss = self._losses(*batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_heads_that_learn_unseen_are_not_acquitted(net: str) -> None:
    """The errors travel back through the heads, which the net does not hold."""
    trainee = Subject(Greedy, small_task(CATALOG.nets[net].load())).start()
    trainee.train(3)
    assert measured(trainee) is None


def test_the_method_is_left_as_it_was(make_method: Callable[..., Method]) -> None:
    one, other = trained("backprop", "mlp"), trained("backprop", "mlp")
    measured(one)
    assert torch.equal(torch.stack(one.train(3)), torch.stack(other.train(3)))
