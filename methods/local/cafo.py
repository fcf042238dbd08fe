"""CaFo: a linear classifier upon each block of a random net, and their votes.

Paper: Zhao, Wang, Jin, Lang, Li, Ling 2025, "The cascaded forward algorithm for neural network training", arXiv
2303.09728 (Rand-CE and Rand-MSE). Blocks stay as they were drawn; for the output h_l of block l, with a 1 appended:

    fit=ce      U_l steps down grad CE(U_l h_l, y)
    fit=lstsq   U_l = argmin mean_n |U h_l,n - onehot(y_n)|^2 + ridge |U|^2,  from sum h h^T and sum h onehot(y)^T
    prediction  sum_l softmax(U_l h_l)

The classifier upon the last hidden block is the net's own last layer. The sums run over all training steps: a second
pass over the same images changes nothing. They take (n_l + 1)^2 numbers a block of n_l features, and are solved before
each evaluation.
Deviations from the paper: mini-batches and AdamW's step, where it descends on all images at once (5000 steps of 0.01);
classifiers start at zero, but for the net's own; blocks have no batch norm (the authors' code takes its statistics from
the images that it is tested on); it penalises no bias. Blocks trained by DFA beforehand (CaFo+DFA) and the sparsemax
loss are not here.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register
from bench.api.structure import mixing_layer

from .._shared.estimators import EstimatorSettings, claims_of, learn, read_out
from .._shared.heads import zero_linear
from .._shared.optimizers import adamw
from .._shared.shapes import output_shapes


class CaFoSettings(EstimatorSettings, AdamWSettings):
    fit: Literal["ce", "lstsq"] = Field("ce", description="classifiers by descent on cross-entropy, or least squares")
    ridge: float = Field(
        1e-3, gt=0, description="penalty of fit=lstsq, per image", json_schema_extra={"search": ["log", 1e-6, 1e0]}
    )


@register
class CaFo(Method):
    """One forward pass; nothing but classifiers learns, each by itself."""

    info = MethodInfo(
        name="cafo",
        title="CaFo (cascaded forward)",
        family="local",
        paper="zhao2025cascaded",
        claims=Claims(reverse_mode="layer", updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities"),
        needs=("sequence", "readout"),
    )
    Config = CaFoSettings
    net: Net

    def __init__(self, task: Task, config: CaFoSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.net, self.noise = config, task.build_net(seeds.init), seeds.noise
        self.objective = task.objective
        *hidden, readout = self.net.blocks
        self.trunk = nn.ModuleList(hidden).requires_grad_(False)
        shapes = output_shapes(hidden, task.input)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Flatten(), zero_linear(prod(s), task.output.size)) for s in shapes[:-1]
        )
        self.net.to(device)
        self.heads.to(device)
        self.classifiers = nn.ModuleList([*self.heads, readout])
        if config.fit == "ce":
            self.optimizers = [adamw(head.parameters(), config) for head in self.classifiers]
        else:
            self.classifiers.requires_grad_(False)
            layers: list[nn.Linear] = [mixing_layer(head) for head in self.classifiers]
            self.seen = torch.zeros((), device=device)
            self.hh = [layer.weight.new_zeros(n := layer.in_features + 1, n) for layer in layers]
            self.hy = [layer.weight.new_zeros(layer.in_features + 1, layer.out_features) for layer in layers]

    def claims(self) -> Claims:
        if self.config.fit == "lstsq":
            return replace(self.info.claims, reverse_mode="none")
        passes = 2 if self.config.gradient == "spsa" else 1
        return claims_of(replace(self.info.claims, forward_passes=passes), self.config)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        h, y = batch
        losses = []
        for k, (block, classifier) in enumerate(zip(self.trunk, self.classifiers, strict=True)):
            h = block(h)
            judged = partial(read_out, classifier, self.objective, h, y)
            if self.config.fit == "ce":
                loss, _ = learn(judged, classifier, self.optimizers[k], self.config, self.noise)
            else:
                loss, _ = judged()
                self._add(k, h, y)
            losses.append(loss)
        if self.config.fit == "lstsq":
            self.seen += len(y)
        return {"loss": losses[-1], "local_loss": torch.stack(losses).mean()}

    def _add(self, k: int, h: Tensor, y: Tensor) -> None:
        """Add a batch to the sums of classifier k."""
        rows = F.pad(h.flatten(1).to(self.hh[k].dtype), (0, 1), value=1.0)
        with torch.autocast(rows.device.type, enabled=False):  # sums of thousands of images want all digits
            self.hh[k].addmm_(rows.T, rows)
            self.hy[k].addmm_(rows.T, self.objective.embed(y).to(rows.dtype))

    @torch.no_grad()
    def prepare_for_eval(self) -> None:
        if self.config.fit == "ce":
            return
        n = self.seen.clamp(min=1).double()
        for classifier, hh, hy in zip(self.classifiers, self.hh, self.hy, strict=True):
            A = hh.double() / n
            A.diagonal().add_(self.config.ridge)
            U = torch.cholesky_solve(hy.double() / n, torch.linalg.cholesky_ex(A).L)
            layer = mixing_layer(classifier)
            layer.weight.copy_(U[:-1].T)
            layer.bias.copy_(U[-1])

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        h, votes = x, list[Tensor]()
        for block, classifier in zip(self.trunk, self.classifiers, strict=True):
            h = block(h)
            votes.append(classifier(h).softmax(dim=1))
        return torch.stack(votes).sum(0)

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": nn.ModuleList([self.net, self.heads]), "frozen": self.trunk}
