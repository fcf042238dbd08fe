"""Local losses: modules of a net learn apart from each other, each by a loss on its own output.

Papers: Nokland, Eidnes 2019, "Training neural networks with local error signals" (the losses); Belilovsky, Eickenberg,
Oyallon 2019, "Greedy layerwise learning can scale to ImageNet" (schedule=sequential), and 2020, "Decoupled greedy
learning of CNNs" (K modules at once, deeper heads). For the output h of a module and N labels y:

    pred      CE(head(h), y)
    sim       1/N^2 |S(g(h)) - S(onehot(y))|^2,         S_ij = cos(z_i - mean z_i, z_j - mean z_j)
    predsim   (1 - beta) pred + beta sim

The mean is over an example's features z. For vectors g is linear; for maps a 3x3 convolution, of whose output each
channel's standard deviation over space is a feature (where space is a single place: the output itself). Neither has a
bias. S(onehot) is 1 for two examples of a class, else -1 / (C - 1). For heads see heads.py, for the step isolated.py.
Where the net's last block is a module of its own, it is trained on features that are constants to it.

Deviations from the papers: the nets have no batch norm and no dropout; a block's pooling is part of its module, so the
loss sits behind it; lr is constant unless `decay` is set (0.25 in the first paper), and the step is AdamW's, as in
backprop here, so that the two differ by the cuts alone; the third paper's heads are deeper.
The first paper's code scales the output layer's cross-entropy by (1 - beta), too; here it counts whole.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench import Claims, Facts, MethodInfo, Seeds, Task, register
from bench.api.errors import ConfigError
from bench.api.seeds import drawn_from
from bench.api.structure import hidden_shapes

from .._shared.heads import HeadSettings, build_head
from .._shared.shapes import Shape, output_shapes
from .isolated import Isolated, IsolatedSettings, Prediction, groups


class LocalLossSettings(IsolatedSettings, HeadSettings):
    loss: Literal["pred", "sim", "predsim"] = Field("predsim", description="what judges a module's output")
    beta: float = Field(
        0.99,
        ge=0,
        le=1,
        description="weight of sim in predsim",
        json_schema_extra={"search": ["choice", 0.5, 0.9, 0.99]},
    )
    modules: int | None = Field(None, ge=1, description="modules of the net, as even as can be; none: one a block")


@register
class LocalLoss(Isolated):
    """No gradient passes from a module to the one before it."""

    info = MethodInfo(
        name="local-loss",
        title="Local losses",
        rung="cuts",
        family="local",
        paper="nokland2019training, belilovsky2019greedy, belilovsky2020decoupled",
        claims=Claims(reverse_mode="block", weight_transport=True, updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("sequence", "unordered"),
    )
    Config = LocalLossSettings

    def __init__(self, task: Task, config: LocalLossSettings, *, device: torch.device, seeds: Seeds) -> None:
        net = task.build_net(seeds.init)
        blocks = list(net.blocks)
        bodies = groups(blocks, config.modules or len(blocks))
        shapes = output_shapes(bodies, task.input)
        self.has_space = any(len(shape) == 3 for shape in shapes)
        with drawn_from(seeds.init):
            targets = [build_target(shape, task, config) for shape in shapes[:-1]]
        super().__init__(net, bodies, targets, task.objective, config, device=device, seeds=seeds)

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if reason := super().refuse(task, config, facts):
            return reason
        blocks = len(task.sketch().blocks)
        if config.modules is not None and config.modules > blocks:
            raise ConfigError(f"local-loss: modules={config.modules}, but the net has {blocks} blocks")
        if config.loss != "pred" and task.output.kind != "classes":
            return f"loss={config.loss} compares classes, and {task.name} has {task.output.kind}; use loss=pred"
        if config.head == "conv" and any(len(shape) != 3 for shape in hidden_shapes(task.sketch(), task.input)):
            return f"head=conv needs outputs with space in them, which the blocks of {task.net.name} do not give"
        return None

    def inert(self) -> Mapping[str, str]:
        return {} if self.has_space else {"pool": "vectors have no space to pool over"}


def build_target(shape: Shape, task: Task, config: LocalLossSettings) -> nn.Module:
    """What judges outputs of this shape."""
    n_outputs = task.output.size
    if config.loss == "sim":
        return Similarity(shape, n_outputs)
    prediction = Prediction(build_head(shape, n_outputs, config), task.objective)
    return prediction if config.loss == "pred" else PredSim(prediction, Similarity(shape, n_outputs), config.beta)


class Similarity(nn.Module):
    """The target `sim`: examples of a class alike, others not."""

    def __init__(self, shape: Shape, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        n, *space = shape
        self.project = nn.Conv2d(n, n, 3, padding=1, bias=False) if space else nn.Linear(n, n, bias=False)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        z = self.project(h)
        z = z.flatten(2).std(dim=2) if z[0, 0].numel() > 1 else z.flatten(1)
        z = F.normalize(z - z.mean(dim=1, keepdim=True), dim=1)
        alike, C = (y[:, None] == y).to(z.dtype), self.n_classes
        return F.mse_loss(z @ z.T, (C * alike - 1) / (C - 1))


class PredSim(nn.Module):
    """(1 - beta) pred + beta sim"""

    def __init__(self, pred: Prediction, sim: Similarity, beta: float) -> None:
        super().__init__()
        self.pred, self.sim, self.beta = pred, sim, beta

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        total: Tensor = (1 - self.beta) * self.pred(h, y) + self.beta * self.sim(h, y)
        return total
