"""Signal propagation: the label travels forward through the same layers, and each layer tells the images by it.

Paper: Kohan, Rietman, Siegelmann 2023, "Signal propagation: the framework for learning and inference in a forward
pass". For images n of a batch with labels y_n, h_0 = x, one-hot labels c:

    h_1 = f_1(x),                t_1 = relu(LayerNorm(S c))    shaped as h_1: the context, S learns
    h_l = f_l(h_{l-1}),          t_l = f_l(t_{l-1})            the same weights; h_{l-1}, t_{l-1} detached
    s_nm = <h_{l,n}, t_{l,m}>    over all units; in maps the mean over positions
    L_l = mean_n CE(softmax_m s_nm, m*),    m* = argmax_m <t_{l-1,n}, t_{l-1,m}>

for l = 1 <t_0,n, t_0,m> is that of the labels, so that m* is an image of the same class; deeper, m* is what the
context of the layer before says (target=gram), or the same class again (target=label). The last layer is a classifier,
trained by cross-entropy on its detached input. Prediction is the plain net: there is no context.

The context of an image is that of its class, so that n_classes of them stand for a batch: sum_m exp s_nm is
sum_c N_c exp s_nc with N_c images of class c, and their rows ride behind those of the images in one call of each
layer. Which image of a class is m* makes no difference.
Adam steps each layer, S with the first, by itself; lr falls to a quarter after 50, 75, 87.5 and 93.75% of training,
as in the authors' code. Deviations from it: no normalisation, dropout or augmentation, for the shared nets have none.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register, step_size

from .._shared.estimators import EstimatorSettings, claims_of, learn, read_out
from .._shared.optimizers import adam
from .._shared.schedule import fall
from .._shared.shapes import output_shapes


class SigPropSettings(EstimatorSettings, AdamSettings):
    lr: float = step_size(5e-4)
    weight_decay: float = Field(0.0, ge=0, description="Adam's L2 penalty, part of the gradient")
    target: Literal["gram", "label"] = Field("gram", description="nearest context of the layer before, or same class")


class Context(nn.Module):
    """t_1 of each class. Shape: () to (n_classes, *units)."""

    def __init__(self, n_classes: int, units: tuple[int, ...], init: torch.Generator) -> None:
        super().__init__()
        bound = 1 / n_classes**0.5  # torch's law for a linear layer on one-hot labels
        self.weight = nn.Parameter(torch.empty(n_classes, *units).uniform_(-bound, bound, generator=init))
        self.norm = nn.LayerNorm(units)

    def forward(self) -> Tensor:
        normalised: Tensor = self.norm(self.weight)
        return normalised.relu()


@register
class SigProp(Method):
    """One forward pass of images and contexts, in which each layer takes its step before the next one is evaluated."""

    info = MethodInfo(
        name="sigprop",
        title="Signal propagation",
        family="local",
        paper="kohan2023signal",
        claims=Claims(reverse_mode="block", updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        needs=("sequence",),
    )
    Config = SigPropSettings
    net: Net

    def __init__(self, task: Task, config: SigPropSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.n_classes, self.noise = config, task.output.size, seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        *self.hidden, self.output = self.net.blocks
        (units,) = output_shapes(self.net.blocks[:1], task.input)
        self.context = Context(task.output.size, tuple(units), seeds.init)
        self.net.to(device)
        self.context.to(device)
        first = nn.ModuleList([self.net.blocks[0], self.context])
        self.weights = [first, *self.net.blocks[1:]] if self.hidden else [self.output]
        self.optimizers = [adam(of.parameters(), config) for of in self.weights]

    def claims(self) -> Claims:
        passes = 2 if self.config.gradient == "spsa" else 1
        return claims_of(replace(self.info.claims, forward_passes=passes), self.config)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        for optimizer in self.optimizers:
            fall(optimizer, self.config.lr, progress, at=(0.5, 0.75, 0.875, 0.9375), factor=0.25)
        counts = self.objective.embed(y).sum(0)
        rows = x  # behind the first block followed by those of the contexts
        for k, optimizer in enumerate(self.optimizers[: len(self.hidden)]):
            by_label = k == 0 or self.config.target == "label"
            nearest = y if by_label else nearest_context(rows[len(y) :], counts)[y]
            closure = partial(self._judged, k, rows, nearest, counts)
            _, rows = learn(closure, self.weights[k], optimizer, self.config, self.noise)
        closure = partial(read_out, self.output, self.objective, rows[: len(y)], y)
        loss, _ = learn(closure, self.output, self.optimizers[-1], self.config, self.noise)
        return {"loss": loss}

    def _judged(self, k: int, rows: Tensor, nearest: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.hidden[k](rows)
        if k == 0:
            rows = torch.cat([rows, self.context()])
        h, t = rows.split([len(nearest), self.n_classes])
        return similarity_loss(h, t, nearest, counts), rows

    def inert(self) -> Mapping[str, str]:
        return {"target": "until contexts have moved for long, the nearest one is that of the same class"}

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.context}


def similarity_loss(h: Tensor, t: Tensor, nearest: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy of each image's context among those of the batch: mean_n log sum_c N_c exp s_nc - s_{n, m*}.

    Shape: h (B, *units), t (C, *units), nearest (B,) classes, counts N_c (C,); a map has channels first.
    """
    s = h.flatten(1) @ t.flatten(1).T / prod(h.shape[2:])
    chosen = s.gather(1, nearest.unsqueeze(1)).squeeze(1)
    return ((s + counts.to(s.dtype).log()).logsumexp(1) - chosen).mean()


def nearest_context(t: Tensor, counts: Tensor) -> Tensor:
    """m* of each class, sought among those in the batch. Shape: t (C, *units), counts (C,) to (C,)."""
    rows = t.flatten(1)
    return (rows @ rows.T).masked_fill(counts == 0, -torch.inf).argmax(1)
