"""Forward-forward: each layer tells images with their own label from images with a wrong one.

Paper: Hinton 2022, "The forward-forward algorithm: Some preliminary investigations", arXiv 2212.13345. A label c is
written into the first C pixels of the image's first channel: `amplitude` times the channel's largest magnitude at
place c, 0 elsewhere. With z+ the image with its own label, z- with a wrong one, h_0 = z, h_{l-1} a constant to layer l:

    h_l = f_l(norm(h_{l-1})),    G_l = goodness(h_l)
    loss = ff      L_l = 1/2 mean softplus(theta - G_l(z+)) + 1/2 mean softplus(G_l(z-) - theta)
    loss = symba   L_l = mean softplus(-alpha (G_l(z+) - G_l(z-)))          (Lee, Song 2023, "SymBa", arXiv 2303.08418)

recipe = hinton, mean-goodness: two published forms disagree about goodness, norm, step and more; see the table in
goodness.py. The recipe also gives lr, theta and predict_by where they are not set.
negatives = wrong: z- has one wrong label, drawn evenly; all: each of the C - 1; hard: one drawn as likely as softmax
of the scores of prediction has it (section 3.3 of the paper), the true one excepted.
predict_by = head: a softmax layer on norm(h_l) under a neutral label, 1/C at each place, which learns alongside;
goodness: the score of class c is sum_l G_l of the image with label c: C forward passes, made as one batch while that is
small (see MOST_UNITS).
Layers learn at once, or in turn over equal parts of training. The net's own classifier takes no part.

Deviations: weights start as backprop's unless start=recipe, which is worth 1.0 points in 20 epochs of MNIST (hinton);
images are normalised, so that a pixel of the label that is off has the mean brightness, and is not black (hinton); the
head has a bias; mean-goodness descended on all images at once, 1000 steps a layer; spsa sees the relu's own slope, not
the gradient that passes it. SymBa's class patterns are not here. C pixels are lost: of CIFAR-100's images a tenth of
the first channel. In a cnn the first layers see a label in a corner of the map alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import SGD

from bench import Batch, Claims, Facts, Method, MethodInfo, Net, Progress, Role, Seeds, StepSize, Task, register
from bench.api.seeds import drawn_from

from .._shared.estimators import EstimatorSettings, claims_of, learn, read_out
from .._shared.heads import zero_linear
from .._shared.shapes import output_shapes
from .goodness import MOMENTUM, RECIPES, Negatives, wrong_labels

MOST_UNITS = 2**20  # of a layer, over a batch: larger tensors cost more in page faults than in work (cnn: 2x the time)


class ForwardForwardSettings(EstimatorSettings, StepSize):
    recipe: Literal["hinton", "mean-goodness"] = Field(
        "hinton", description="which published form; mean-goodness has lr=0.03, theta=2, predict_by=goodness"
    )
    theta: float = Field(
        1.0, gt=0, description="threshold of the goodness, per unit", json_schema_extra={"search": ["log", 1e-1, 1e1]}
    )
    predict_by: Literal["head", "goodness"] = Field(
        "head", description="a linear head under a neutral label, or the goodness of each label"
    )
    loss: Literal["ff", "symba"] = Field("ff", description="each goodness against theta, or one against the other")
    alpha: float = Field(4.0, gt=0, description="slope of symba", json_schema_extra={"search": ["log", 1e-3, 1e1]})
    negatives: Negatives = Field("wrong", description="a wrong label by chance, all of them, or one thought likely")
    amplitude: float = Field(
        1.0,
        gt=0,
        description="of a label, 1: the largest of the pixels",
        json_schema_extra={"search": ["log", 0.1, 10]},
    )
    start: Literal["net", "recipe"] = Field("net", description="first weights: backprop's, or the published form's")
    schedule: Literal["simultaneous", "sequential"] = Field(
        "simultaneous", description="all layers on each mini-batch, or one after another over equal parts of training"
    )
    head_lr: float = Field(
        1e-2, gt=0, description="step size of the head", json_schema_extra={"search": ["log", 1e-4, 1e0]}
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_recipe(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("recipe") in RECIPES:
            return {**RECIPES[given["recipe"]].defaults, **given}
        return given


@register
class ForwardForward(Method):
    """Images with right and wrong labels go forward as one batch; each layer takes its step before the next."""

    info = MethodInfo(
        name="forward-forward",
        title="Forward-forward",
        family="local",
        paper="hinton2022forward, lee2023symba",
        claims=Claims(reverse_mode="layer", updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        needs=("chain", "hidden"),
    )
    Config = ForwardForwardSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if reason := super().refuse(task, config, facts):
            return reason
        if task.input.kind != "image":
            return f"forward-forward writes the label into an image, and {task.name} has {task.input.kind} inputs"
        if prod(task.input.shape[1:]) < task.output.size:
            return f"a label of {task.output.size} pixels does not fit into the image"
        return None

    def __init__(self, task: Task, config: ForwardForwardSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.recipe, self.C, self.noise = config, RECIPES[config.recipe], task.output.size, seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        self.layers = nn.ModuleList(self.recipe.layer(block) for block in self.net.blocks[:-1])
        if config.start == "recipe":
            with drawn_from(seeds.init):
                self.recipe.start(self.layers)
        shapes = output_shapes(self.layers, task.input)
        self.widest = max(map(prod, shapes))
        self.looks_from = min(self.recipe.looks_from, len(shapes) - 1)
        self.heads = nn.ModuleList()  # one or none
        if config.predict_by == "head":
            self.heads.append(zero_linear(sum(map(prod, shapes[self.looks_from :])), task.output.size))
        self.net.to(device)
        self.heads.to(device)
        self.peer_means = [torch.full((shape[0],), 0.5, device=device) for shape in shapes if self.recipe.peer]
        self.optimizers = [self.recipe.optimizer(layer, config.lr) for layer in self.layers]
        self.head_optimizers = [
            SGD(head.parameters(), lr=config.head_lr, momentum=MOMENTUM, weight_decay=3e-3, fused=True)
            for head in self.heads
        ]

    def claims(self) -> Claims:
        by_head, hard = bool(self.heads), self.config.negatives == "hard"
        passes = (2 if self.config.gradient == "spsa" else 1) + (by_head or hard)
        claims = replace(self.info.claims, forward_passes=passes, inference_passes=1 if by_head else self.C)
        if self.config.schedule == "sequential" and len(self.layers) > 1:
            claims = replace(claims, updates_wait_for="earlier blocks, in sequence")
        # hard labels depend on scores, but seldom change with them, so a step does not show it
        return claims_of(replace(claims, updates_wait_for=None) if hard else claims, self.config)

    def phase(self, progress: Progress) -> int | None:
        """The number of the layer that learns; None where all do."""
        if self.config.schedule == "simultaneous":
            return None
        return progress.step * len(self.layers) // progress.total_steps

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        in_turn = self.config.schedule == "sequential"
        turn, rest = divmod(progress.step * (len(self.layers) if in_turn else 1), progress.total_steps)
        self._cool(rest / progress.total_steps)
        found, scores = dict[str, Tensor](), None
        for head, of_head in zip(self.heads, self.head_optimizers, strict=True):
            closure = partial(read_out, head, self.objective, self._features(x), y)
            found["loss"], scores = learn(closure, head, of_head, self.config, self.noise)
        if scores is None and self.config.negatives == "hard":
            scores = self.predict(x)
        with torch.no_grad():
            labels = torch.cat([y, wrong_labels(self.config.negatives, y, self.C, self.noise, scores)])
            h = self._written(x, self.objective.embed(labels))
        losses = []
        for k, (layer, optimizer) in enumerate(zip(self.layers, self.optimizers, strict=True)):
            given = self.recipe.norm(h)
            if in_turn and k < turn:
                with torch.no_grad():
                    h = layer(given)
                continue
            loss, h = learn(partial(self._judged, k, given, len(y)), layer, optimizer, self.config, self.noise)
            losses.append(loss)
            if self.recipe.peer:
                self.peer_means[k].copy_(self._peer_mean(k, h, len(y)))
            if in_turn:
                break
        found["local_loss"] = torch.stack(losses).mean()
        return {"loss": found["local_loss"], **found}

    def _cool(self, done: float) -> None:
        """Step sizes fall linearly in the second half. done: what part of training, or of the turn, lies behind."""
        factor = min(1.0, 2 - 2 * done) if self.recipe.cools else 1.0
        lrs = [self.config.lr] * len(self.optimizers) + [self.config.head_lr] * len(self.head_optimizers)
        for optimizer, lr in zip([*self.optimizers, *self.head_optimizers], lrs, strict=True):
            optimizer.param_groups[0]["lr"] = factor * lr

    def _written(self, x: Tensor, labels: Tensor) -> Tensor:
        """The batch m times over, with labels written into it. Shape: (B, ...), (m B, C) to (m B, ...)."""
        m = len(labels) // len(x)
        rows = x.flatten(1).repeat(m, 1)
        brightest = x[:, 0].flatten(1).abs().amax(1).repeat(m)
        rows[:, : self.C] = self.config.amplitude * labels * brightest.unsqueeze(1)
        return rows.view(-1, *x.shape[1:])

    def _judged(self, k: int, given: Tensor, B: int) -> tuple[Tensor, Tensor]:
        h: Tensor = self.layers[k](given)
        return self._loss(k, h, B), h

    def _peer_mean(self, k: int, h: Tensor, B: int) -> Tensor:
        """What each unit has given lately for images with their own labels."""
        return torch.lerp(h[:B].mean((0, *range(2, h.dim()))), self.peer_means[k], MOMENTUM)

    def _loss(self, k: int, h: Tensor, B: int) -> Tensor:
        """L_k of B images with their own labels, followed by the same with wrong ones, once or several times."""
        G = self.recipe.goodness(h)
        own, wrong = G[:B], G[B:].view(-1, B)
        if self.config.loss == "symba":
            loss = -F.logsigmoid(self.config.alpha * (own - wrong)).mean()
        else:
            theta = self.recipe.threshold(self.config.theta, h)
            loss = -(F.logsigmoid(own - theta).mean() + F.logsigmoid(theta - wrong).mean()) / 2
        if not self.recipe.peer:
            return loss
        r = self._peer_mean(k, h, B)
        return loss + self.recipe.peer * (r.mean() - r).pow(2).mean()

    def _activities(self, h: Tensor) -> Iterator[Tensor]:
        """Those that predictions look at."""
        for k, layer in enumerate(self.layers):
            h = layer(self.recipe.norm(h))
            if k >= self.looks_from:
                yield h

    @torch.no_grad()
    def _features(self, x: Tensor) -> Tensor:
        """What the head reads."""
        neutral = self._written(x, x.new_full((len(x), self.C), 1 / self.C))
        return torch.cat([self.recipe.norm(h).flatten(1) for h in self._activities(neutral)], dim=1)

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        for head in self.heads:
            scores: Tensor = head(self._features(x))
            return scores
        classes = torch.eye(self.C, dtype=x.dtype, device=x.device)
        at_once = max(1, MOST_UNITS // (len(x) * self.widest))
        return torch.cat([self._goodness(x, some) for some in classes.split(at_once)]).T

    def _goodness(self, x: Tensor, classes: Tensor) -> Tensor:
        """sum_l G_l of each image with each of these labels. Shape: (B, ...), (m, C) to (m, B)."""
        h = self._written(x, classes.repeat_interleave(len(x), 0))
        total = sum(self.recipe.goodness(h) for h in self._activities(h))
        assert isinstance(total, Tensor)
        return total.view(len(classes), -1)

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": nn.ModuleList([self.layers, self.heads])}

    def blocks(self) -> list[nn.Module]:
        return [*self.layers, *self.heads]
