"""LoCo: contrastive stages that overlap, and a linear read-out of what they have learnt without labels.

Papers: Xiong, Ren, Urtasun 2020, "LoCo: Local contrastive representation learning"; Chen, Kornblith, Norouzi, Hinton
2020, "A simple framework for contrastive learning of visual representations" (SimCLR: loss and views). For hidden
blocks f_1 .. f_H and two views of each of N images, 2N rows n, the other view of n's image at p(n):

    stage k = 1 .. H-1    z = g_k(f_{k+1}(f_k(h_{k-1}))),    h_k = f_k(h_{k-1}),  h_0 the views;  h_{k-1} a constant
    L_k = -1/(2N) sum_n log( exp(s_{n p(n)}) / sum_{m != n} exp(s_nm) ),    s_nm = cos(z_n, z_m) / temperature

Stages share a block: f_k steps down grad (L_{k-1} + L_k), and so hears of the block above it, and of none further up.
The net's last block is the read-out: it learns by cross-entropy on f_H's output for the views, a constant to it. No
label reaches the hidden blocks. Prediction is the plain net, on images as they are.

A view is a crop with sides U(crop, 1) of the image's, anywhere within it, brought to the image's size by bilinear
interpolation; with `flip` it is mirrored in half of all cases. Then, with a ~ U(1 - jitter, 1 + jitter) and
b ~ U(-jitter, jitter) / 2 times the image's range, for each channel, it is (x - mean) a + mean + b + noise, held within
that range. Mirrored digits and letters are other ones, so `flip` is off unless asked for.

A shared block is evaluated twice, once in each stage, so that no graph holds more than two blocks, and steps when both
gradients are there. Reverse mode reaches over the two blocks of a stage: stages are what locality is measured between,
and as each shares a block with the next, an update waits for a later one.

Deviations from the papers: heads g_k are two layers of `projection` units upon the mean over positions, without batch
norm; AdamW in place of LARS; no blur, and colours are distorted channel by channel; the read-out learns all along, not
afterwards. One hidden block by itself is the only stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Facts, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register
from bench.api.seeds import drawn_from

from .._shared.estimators import EstimatorSettings, add_gradient, claims_of, learn, read_out
from .._shared.optimizers import adamw
from .._shared.shapes import Shape, output_shapes


class ViewSettings(AdamWSettings):
    crop: float = Field(
        0.8,
        gt=0,
        le=1,
        description="least side of a view's crop, of the image's",
        json_schema_extra={"search": ["choice", 0.4, 0.6, 0.8]},
    )
    flip: bool = Field(False, description="mirror half of the views: for things, not for digits or letters")
    jitter: float = Field(0.4, ge=0, le=1, description="strength of a view's change of contrast and brightness")
    noise: float = Field(0.1, ge=0, description="standard deviation of a view's pixel noise, in units of the data's")


class LoCoSettings(EstimatorSettings, ViewSettings):
    temperature: float = Field(
        0.2, gt=0, description="of the similarities", json_schema_extra={"search": ["log", 5e-2, 1e0]}
    )
    projection: int = Field(128, ge=1, description="units of the head of a stage")


@dataclass(frozen=True)
class Stage:
    """Blocks that learn together, the first of them shared with the stage before, and the head that judges them."""

    blocks: Sequence[nn.Module]
    head: nn.Module
    is_last: bool
    weights: nn.ModuleList

    def __call__(self, h: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The loss, and what is handed on: the output of the first block, in the last stage that of the last."""
        first: Tensor = self.blocks[0](h)
        output = first
        for block in self.blocks[1:]:
            output = block(output)
        return nt_xent(self.head(output), temperature), output if self.is_last else first


@register
class LoCo(Method):
    """Two views of each image in one batch; stage after stage takes its step."""

    info = MethodInfo(
        name="loco",
        title="LoCo",
        family="local",
        paper="xiong2020loco, chen2020simple",
        claims=Claims(reverse_mode="block", weight_transport=True),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("sequence", "hidden", "unordered"),
    )
    Config = LoCoSettings
    net: Net

    def __init__(self, task: Task, config: LoCoSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.noise = config, seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        *hidden, self.readout = self.net.blocks
        pairs = [hidden[k : k + 2] for k in range(max(len(hidden) - 1, 1))]
        shapes = output_shapes(hidden, task.input)[-len(pairs) :]
        with drawn_from(seeds.init):
            self.heads = nn.ModuleList(projection_head(shape, config.projection) for shape in shapes)
        self.net.to(device)
        self.heads.to(device)
        self.stages = [
            Stage(pair, head, pair is pairs[-1], nn.ModuleList([*pair, head]))
            for pair, head in zip(pairs, self.heads, strict=True)
        ]
        # the second block of a stage steps with the next one, but for the last
        own = [[*pair[:1], head] for pair, head in zip(pairs, self.heads, strict=True)]
        own[-1] += pairs[-1][1:]
        self.optimizers = [adamw(nn.ModuleList(of).parameters(), config) for of in [*own, [self.readout]]]

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if reason := super().refuse(task, config, facts):
            return reason
        if task.input.kind != "image":
            return f"loco learns from two views of an image, and {task.name} has {task.input.kind} inputs"
        return None

    def claims(self) -> Claims:
        alone = len(self.stages) == 1
        waits = replace(self.info.claims, updates_wait_for="earlier blocks" if alone else "later blocks")
        passes = (1 if alone else 2) * (2 if self.config.gradient == "spsa" else 1)
        return claims_of(replace(waits, forward_passes=passes), self.config)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        h = views(x, self.config, self.noise)
        losses = []
        for stage, optimizer in zip(self.stages, self.optimizers, strict=False):
            # adds to what the stage before sent to the shared block
            closure = partial(stage, h, self.config.temperature)
            loss, h = add_gradient(closure, stage.weights, self.config, self.noise)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
        closure = partial(read_out, self.readout, self.objective, h, torch.cat([y, y]))
        readout_loss, _ = learn(closure, self.readout, self.optimizers[-1], self.config, self.noise)
        return {"loss": readout_loss, "local_loss": torch.stack(losses).mean()}

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.heads}

    def blocks(self) -> list[nn.Module]:
        """The stages, which overlap, and the read-out."""
        return [*(nn.Sequential(*stage.blocks) for stage in self.stages), self.readout]


def projection_head(shape: Shape, units: int) -> nn.Sequential:
    """g for outputs of this shape. Drawn from the global generator: see `drawn_from`."""
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if len(shape) > 1 else []
    return nn.Sequential(*pool, nn.Linear(shape[0], units), nn.ReLU(), nn.Linear(units, units))


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each row's other view among all other rows. Shape: z (2N, n), row n + N the other view of n."""
    z = F.normalize(z, dim=1)
    s = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(s, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def views(x: Tensor, config: ViewSettings, generator: torch.Generator) -> Tensor:
    """Two views of each image. Shape: (N, C, H, W) to (2N, C, H, W), first one of each, then the other."""
    low, high = (edge.repeat(2, 1, 1, 1) for edge in (x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)))
    x = x.repeat(2, 1, 1, 1)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(len(x), *shape, dtype=x.dtype, device=x.device).uniform_(low, high, generator=generator)

    side = uniform(config.crop, 1, 2, 1)  # of columns and of rows
    centre = (1 - side) * uniform(-1, 1, 2, 1)
    if config.flip:
        side[:, 0] *= uniform(-1, 1, 1).sign()
    columns, rows = (
        centre[:, axis] + side[:, axis] * (2 * torch.arange(n, device=x.device) + 1 - n) / n  # an image spans -1 .. 1
        for axis, n in enumerate((x.shape[3], x.shape[2]))
    )
    grid = torch.stack(torch.broadcast_tensors(columns.unsqueeze(1), rows.unsqueeze(2)), dim=3)
    view = F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    channels, mean = (x.shape[1], 1, 1), view.mean((2, 3), keepdim=True)
    a = uniform(1 - config.jitter, 1 + config.jitter, *channels)
    b = uniform(-config.jitter, config.jitter, *channels) / 2 * (high - low)
    noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    return torch.addcmul(mean * (1 - a) + b, view, a).add_(noise, alpha=config.noise).clamp_(low, high)
