"""Channel goodness: the channels of each layer in groups, one a class, which compete for every image; no wrong labels.

Papers: Papachristodoulou, Kyrkou, Timotheou, Theocharides 2024, "Convolutional channel-wise competitive learning for
the forward-forward algorithm" (CwComp); Sun, Zhang, He, Wen, Shen, Xie 2025, "DeeperForward: Enhanced forward-forward
training for deeper and better performance". With S_c the channels (in an mlp: units) of class c, h_0 the images, and
h_{l-1} a constant to layer l:

    h_l = f_l(norm(h_{l-1})),    G_lc = mean of g(h_l) over the channels of S_c and all positions
    L_l = CE(softmax_c G_lc, y),    theta_l steps down grad L_l

    form             g(h)    norm
    cwcomp           h^2     batch norm, with weights of its own, at the end of f_l: goodness is that of its output
    deeper-forward   h       each group to mean 0, variance 1 over its channels and positions; images likewise, as one

Groups are consecutive channels and as even as can be. A layer with n channels for C > n classes has groups for k =
ceil(C / n) consecutive classes each, as CwComp has for CIFAR-100.
predict_by = last: G of the last hidden layer; sum: of all, added up; in both the net's own classifier takes no part.
classifier: the net's last layer, which learns by cross-entropy from the last normalised output, a constant to it.

Deviations from the papers: nets and step (AdamW's, as backprop's here) are those of the suite; goodness sits behind a
block's pooling. CwComp's grouped convolutions, dropout and its times at which layers begin and stop to learn are not
here, nor are DeeperForward's shortcuts and its choice, by accuracy, of the layers that are added up. The papers predict
by the last layer and by a sum of layers: on the digits' validation images cwcomp is as good by either, deeper-forward
better by the sum; the classifier helps neither.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench import (
    AdamWSettings,
    Batch,
    Claims,
    Facts,
    Method,
    MethodInfo,
    Net,
    Output,
    Progress,
    Role,
    Seeds,
    Task,
    register,
)
from bench.api.structure import hidden_shapes
from bench.objectives.cross_entropy import CrossEntropy

from .._shared.estimators import EstimatorSettings, claims_of, learn, read_out
from .._shared.optimizers import adamw
from .._shared.shapes import output_shapes

EPS = 1e-5  # beside a variance


class ChannelGoodnessSettings(EstimatorSettings, AdamWSettings):
    form: Literal["cwcomp", "deeper-forward"] = Field(
        "cwcomp", description="goodness of squares with batch norm, or of means with group norm"
    )
    predict_by: Literal["last", "sum", "classifier"] = Field(
        "sum", description="goodness of the last hidden layer, of all of them, or the net's own last layer"
    )


class Groups(nn.Module):
    """Channels to groups, groups to classes: class c belongs to group c // share."""

    member: Tensor
    mean: Tensor

    def __init__(self, n_channels: int, n_classes: int) -> None:
        super().__init__()
        self.n_classes, self.share = n_classes, -(-n_classes // n_channels)
        n_groups = -(-n_classes // self.share)
        self.objective = CrossEntropy(Output.classes(n_groups))
        member = torch.arange(n_channels) * n_groups // n_channels
        mean = torch.eye(n_groups)[member]
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("mean", mean / mean.sum(0), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """Means over channels and positions. Shape: (B, channels, ...) to (B, groups)."""
        return h.reshape(*h.shape[:2], -1).mean(2) @ self.mean

    def loss(self, G: Tensor, y: Tensor) -> Tensor:
        return self.objective.loss(G, y // self.share)

    def scores(self, G: Tensor) -> Tensor:
        """Shape: (B, groups) to (B, classes)."""
        return G.repeat_interleave(self.share, 1)[:, : self.n_classes]

    def normalised(self, h: Tensor) -> Tensor:
        """Each group of an example to mean 0 and variance 1. Shape: (B, channels, ...) to the same."""
        rows = h.reshape(*h.shape[:2], -1)
        rows = rows - self._spread(self.forward(h))
        variance = self._spread(self.forward(rows.square()))
        return (rows * (variance + EPS).rsqrt()).view_as(h)

    def _spread(self, of_groups: Tensor) -> Tensor:
        """Each channel the value of its group. Shape: (B, groups) to (B, channels, 1)."""
        return of_groups.index_select(1, self.member).unsqueeze(2)  # a sixth of the time of indexing


@register
class ChannelGoodness(Method):
    """One forward pass, in which each layer takes its step before the next one is evaluated."""

    info = MethodInfo(
        name="channel-goodness",
        title="Channel-wise goodness",
        family="local",
        paper="papachristodoulou2024convolutional, sun2025deeperforward",
        claims=Claims(reverse_mode="layer", updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        needs=("sequence", "hidden", "unordered"),
    )
    Config = ChannelGoodnessSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if reason := super().refuse(task, config, facts):
            return reason
        channels = hidden_shapes(task.sketch(), task.input)[-1][0]
        if config.predict_by != "classifier" and channels < task.output.size:
            return f"the last hidden layer has {channels} channels, too few for {task.output.size} classes"
        return None

    def __init__(self, task: Task, config: ChannelGoodnessSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.deeper, self.noise = config, config.form == "deeper-forward", seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        hidden = list(self.net.blocks[:-1])
        self.classifier: nn.Module = self.net.blocks[-1]
        shapes = output_shapes(hidden, task.input)
        self.groups = [Groups(shape[0], task.output.size).to(device) for shape in shapes]
        self.norms = nn.ModuleList()
        if not self.deeper:
            kinds = [nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d for shape in shapes]
            self.norms.extend(kind(shape[0], eps=1e-4) for kind, shape in zip(kinds, shapes, strict=True))
        self.net.to(device)
        self.norms.to(device)
        self.layers = nn.ModuleList(
            hidden if self.deeper else (nn.Sequential(*pair) for pair in zip(hidden, self.norms, strict=True))
        )
        self.optimizers = [adamw(block.parameters(), config) for block in self.blocks()]

    def claims(self) -> Claims:
        claims = self.info.claims if self.deeper else replace(self.info.claims, reverse_mode="block")
        passes = 2 if self.config.gradient == "spsa" else 1
        return claims_of(replace(claims, forward_passes=passes), self.config)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        h, losses = self._images(x), list[Tensor]()
        for layer, groups, optimizer in zip(self.layers, self.groups, self.optimizers, strict=False):
            loss, h = learn(partial(self._judged, layer, groups, h, y), layer, optimizer, self.config, self.noise)
            losses.append(loss)
            h = self._handed_on(groups, h)
        local = torch.stack(losses).mean()
        if self.config.predict_by == "classifier":
            closure = partial(read_out, self.classifier, self.objective, h, y)
            losses += learn(closure, self.classifier, self.optimizers[-1], self.config, self.noise)[:1]
        return {"loss": losses[-1], "local_loss": local}

    def _judged(self, layer: nn.Module, groups: Groups, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        output: Tensor = layer(h)
        return groups.loss(self._goodness(groups, output), y), output

    def _images(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:], eps=EPS) if self.deeper else x

    def _goodness(self, groups: Groups, h: Tensor) -> Tensor:
        G: Tensor = groups(h if self.deeper else h.square())
        return G

    def _handed_on(self, groups: Groups, h: Tensor) -> Tensor:
        """What the next layer sees."""
        return groups.normalised(h) if self.deeper else h

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        h, scores = self._images(x), list[Tensor]()
        for layer, groups in zip(self.layers, self.groups, strict=True):
            h = layer(h)
            scores.append(groups.scores(self._goodness(groups, h)))
            h = self._handed_on(groups, h)
        if self.config.predict_by == "classifier":
            scores = [self.classifier(h)]
        return torch.stack(scores).sum(0) if self.config.predict_by == "sum" else scores[-1]

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": nn.ModuleList(self.blocks())}

    def blocks(self) -> list[nn.Module]:
        return [*self.layers, self.classifier] if self.config.predict_by == "classifier" else [*self.layers]
