"""Which rule runs on which net for which task: the table is pinned, what it allows runs, what it refuses says why."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from bench import Batch, Input, Method, Net, Objective, Output, Progress, Seeds, Task
from bench.api.kinds import OutputKind
from bench.catalog.catalog import Catalog
from bench.experiment.matrix import matrix, why_not
from bench.metrics.accuracy import Accuracy
from bench.objectives.cross_entropy import CrossEntropy
from bench.objectives.mean_squared_error import MeanSquaredError

CATALOG = Catalog()
IMAGES = Input.image(1, 8, 8)
PINNED = Path(__file__).with_name("matrix.txt")
KINDS: tuple[OutputKind, ...] = ("classes", "class probabilities", "values")
STEPS = 2


class NoSettings(BaseModel):
    """None."""


class Skip(nn.Module):
    """relu(x + f(x)) with two convolutions and batch norms, without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [layer for _ in range(2) for layer in (conv(channels, channels), nn.BatchNorm2d(channels), nn.ReLU())]
        self.inner = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.inner(x)).relu()


def conv(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)


class SmallResNet(Net):
    """A stranger's net: batch norm, skip connections, layers without bias, global pooling."""

    name = "small-resnet"
    Settings = NoSettings
    small: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, inputs: Input, outputs: Output, settings: NoSettings) -> None:
        super().__init__(inputs, outputs, settings)
        c = 12
        stem = nn.Sequential(conv(inputs.shape[0], c), nn.BatchNorm2d(c), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, outputs.size))
        self.blocks = nn.ModuleList([stem, Skip(c), nn.Sequential(nn.MaxPool2d(2), Skip(c)), head])


def judged(kind: OutputKind) -> tuple[Output, Objective]:
    output = Output(kind, 2 if kind == "values" else 10)
    return output, (MeanSquaredError if kind == "values" else CrossEntropy)(output)


def batch(kind: OutputKind, k: int) -> Batch:
    generator = torch.Generator().manual_seed(k)
    x, labels = torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 10
    y = {
        "classes": labels,
        "class probabilities": 0.9 * torch.eye(10)[labels] + 0.01,
        "values": torch.randn(16, 2, generator=generator),
    }[kind]
    return Batch(x, y)


def trained(cls: type[Method], net: type[Net], kind: OutputKind) -> tuple[Method, Seeds]:
    output, objective = judged(kind)
    prototypes: Callable[[], Tensor] = lambda: torch.randn(10, 1, 8, 8)  # noqa: E731
    task = Task("made up", IMAGES, output, objective, 1000, net, net.small, prototypes, (Accuracy,))
    seeds = Seeds(0, "cpu", method=cls.info.name)
    method = cls(task, cls.Config(), device=torch.device("cpu"), seeds=seeds)
    for k in range(STEPS):
        loss = method.train_step(batch(kind, k), Progress(k, 100, k // 50))["loss"]
        assert loss.isfinite()
    method.prepare_for_eval()
    return method, seeds


def check_prediction(method: Method, seeds: Seeds, kind: OutputKind) -> None:
    """It has the output's shape, is finite, and leaves statistics and modes alone."""
    parts = list(method.modules().values())
    before = [b.clone() for part in parts for b in part.buffers()]
    modes = [m.training for part in parts for m in part.modules()]
    x, noise = batch(kind, 9).x, [seeds.inference] if method.claims().stochastic_inference else []
    out = method.predict(x, *noise)
    assert out.shape == (len(x), judged(kind)[0].size)
    assert out.isfinite().all()
    assert not out.requires_grad
    assert all(map(torch.equal, before, [b for part in parts for b in part.buffers()]))
    assert modes == [m.training for part in parts for m in part.modules()]


def test_the_matrix_is_as_pinned() -> None:
    """A line a rule: the nets that it runs on, and the kinds of output that it learns on some net."""
    cells = matrix(CATALOG, IMAGES, KINDS)
    lines = []
    for name in sorted(CATALOG.methods):
        runs = [cell for cell in cells if cell.method == name and not cell.reason]
        nets = dict.fromkeys(cell.net for cell in runs if cell.output == "classes")
        lines.append(
            f"{name}: {', '.join(nets)} | {', '.join(kind for kind in KINDS if kind in {c.output for c in runs})}"
        )
    assert lines == PINNED.read_text(encoding="utf-8").splitlines()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", sorted(CATALOG.methods))
def test_what_the_matrix_allows_runs_and_what_it_refuses_has_a_reason(name: str) -> None:
    """On every net of the suite, on a stranger's residual net with batch norm, on soft labels and on values."""
    cls = CATALOG.methods[name].load()
    first = CATALOG.nets[cls.info.nets[0] if cls.info.nets[0] in CATALOG.nets else "mlp"].load()
    cases: list[tuple[type[Net], OutputKind]] = [(entry.load(), "classes") for entry in CATALOG.nets.values()]
    cases += [(SmallResNet, "classes"), (first, "class probabilities"), (first, "values")]
    n_run = 0
    for net, kind in cases:
        output, objective = judged(kind)
        reason = why_not(cls, net, IMAGES, output, objective)
        if reason is None:
            n_run += 1
            check_prediction(*trained(cls, net, kind), kind)
        else:
            assert len(reason) > 10
    assert n_run


def test_most_rules_run_on_a_residual_net_with_batch_norm() -> None:
    output, objective = judged("classes")
    runs = [
        name
        for name, entry in CATALOG.methods.items()
        if why_not(entry.load(), SmallResNet, IMAGES, output, objective) is None
    ]
    assert len(runs) >= 20
    assert {"backprop", "feedback-alignment", "direct-feedback-alignment", "spsa", "mono-forward", "sigprop"} <= {*runs}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "name",
    ["backprop", "feedback-alignment", "forward-gradient", "guided-forward-gradient", "local-forward-gradient", "drtp"],
)
def test_running_statistics_move_once_a_step(name: str) -> None:
    """Mistakes: a second pass of a step, for tangents, that moves them again; a pass for each of several directions."""
    cls = CATALOG.methods[name].load()
    method, _ = trained(cls, SmallResNet, "classes")
    assert method.net is not None
    norms = [m for m in method.net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [int(norm.num_batches_tracked) for norm in norms] == [STEPS] * len(norms)
    output, objective = judged("classes")
    plain = SmallResNet.build(IMAGES, output, {}, Seeds(0, "cpu", method=cls.info.name).init)
    task = Task("made up", IMAGES, output, objective, 1000, SmallResNet, {}, lambda: torch.zeros(1), (Accuracy,))
    other = cls(task, cls.Config(), device=torch.device("cpu"), seeds=Seeds(0, "cpu", method=cls.info.name))
    assert other.net is not None
    other.train_step(batch("classes", 0), Progress(0, 100, 0))
    plain(batch("classes", 0).x)
    for (where, found), exact in zip(other.net.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, exact, msg=lambda said, where=where: f"{where}: {said}")
