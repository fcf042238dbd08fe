"""Forward-forward: each layer tells images with their own label from images with a wrong one.

Paper: Hinton 2022, "The forward-forward algorithm: Some preliminary investigations", arXiv 2212.13345. A label c is
written into the first C pixels of the image's first channel: `amplitude` times the image's brightest pixel (by
magnitude, in that channel) at place c, 0 elsewhere. C is 100 for CIFAR-100: a tenth of that channel is lost. For layer
l, z+ the image with its label, z- with a wrong one, h_0 = z, and h_{l-1} a constant to layer l:

    h_l = f_l(norm(h_{l-1})),    G_l = goodness of h_l
    loss = ff      L_l = 1/2 mean softplus(theta - G_l(z+)) + 1/2 mean softplus(G_l(z-) - theta)
    loss = symba   L_l = mean softplus(-alpha (G_l(z+) - G_l(z-)))              (Lee, Song 2023, arXiv 2303.08418)

Two published recipes disagree; `recipe` sets all of this, and lr, theta and predict_by where those are not given:

                   hinton (his Matlab, Lowe's PyTorch)           mean-goodness (Pezeshki's PyTorch)
    G              sum h^2, theta = 1 per unit                   mean h^2, theta = 2
    norm           to mean square 1                              to length 1
    relu           gradient passes where h = 0, too              its own gradient
    + L_l          0.03 mean_u (mean_u r - r_u)^2                -
                   r_u: running mean (0.9) of unit u on z+
    step           SGD, momentum 0.9, weight decay 3e-4          Adam
                   lr 1e-3, falls to 0 in the second half        lr 0.03, constant
    predict_by     head, layers from the second on               goodness, all layers

    head       softmax of a linear layer on norm(h_l), the label neutral (1/C at each place), trained alongside
    goodness   the score of class c is sum_l G_l of the image with label c: C forward passes, made as one batch

Wrong labels are drawn evenly (negatives=wrong), all C - 1 are taken (all), or one is drawn as likely as the softmax of
the prediction's scores has it (hard), the true one excepted. Layers learn at once, or one after another over equal
parts of training. The net's own classifier takes no part.

Deviations: weights start as backprop's do, not from N(0, 1/n_out) and biases 0 (hinton); images are normalised, not
in [0, 1], so that pixels without label are those of mean brightness; the head has a bias; mean-goodness was trained on
all images at once, 1000 steps a layer, here on mini-batches. In maps a unit is one number, but a channel for r.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from bench import Batch, Claims, Facts, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register
from methods._shared.descent import descend
from methods.local.heads import zero_linear
from methods.local.isolated import output_shapes

MOMENTUM = 0.9  # of SGD, and of the running means of peer normalisation
EPS = 1e-8  # beside the length of an output, which is 0 where all units are off

Predictor = Literal["head", "goodness"]
Negatives = Literal["wrong", "all", "hard"]


@dataclass(frozen=True)
class Recipe:
    """What two published forms differ in. summed: G is a sum, and the norm that of the mean square; else the mean, and
    length 1. judged: the first layer that predictions look at. peer: weight of peer normalisation.
    """

    lr: float
    theta: float
    predict_by: Predictor
    judged: int
    summed: bool
    peer: float
    straight_through: bool
    cools: bool

    def optimizer(self, layer: nn.Module, lr: float) -> Optimizer:
        if self.summed:
            return SGD(layer.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=3e-4, fused=True)
        return Adam(layer.parameters(), lr=lr, fused=True)


RECIPES = {
    "hinton": Recipe(1e-3, 1.0, "head", judged=1, summed=True, peer=0.03, straight_through=True, cools=True),
    "mean-goodness": Recipe(
        0.03, 2.0, "goodness", judged=0, summed=False, peer=0.0, straight_through=False, cools=False
    ),
}


class ForwardForwardSettings(BaseModel):
    recipe: Literal["hinton", "mean-goodness"] = Field("hinton", description="which of the two published forms")
    lr: float | None = Field(
        None,
        gt=0,
        description="step size of the layers; none: the recipe's",
        json_schema_extra={"search": ["log", 1e-5, 1e-1]},
    )
    theta: float | None = Field(
        None, gt=0, description="threshold of the goodness per unit; none: the recipe's",
        json_schema_extra={"search": ["log", 1e-1, 1e1]},
    )  # fmt: skip
    predict_by: Predictor | None = Field(
        None, description="a linear head on one pass, or goodness over all labels; none: the recipe's"
    )
    loss: Literal["ff", "symba"] = Field("ff", description="goodness against a threshold, or of positive and negative")
    alpha: float = Field(4.0, gt=0, description="slope of loss=symba", json_schema_extra={"search": ["log", 1e-2, 1e1]})
    negatives: Negatives = Field("wrong", description="one wrong label, all of them, or one that is taken for likely")
    amplitude: float = Field(
        1.0, gt=0, description="of a label, in units of the image's brightest pixel",
        json_schema_extra={"search": ["log", 1e-1, 1e1]},
    )  # fmt: skip
    schedule: Literal["simultaneous", "sequential"] = Field(
        "simultaneous", description="all layers on each mini-batch, or one after another over equal parts of training"
    )
    head_lr: float = Field(
        1e-2, gt=0, description="step size of the head", json_schema_extra={"search": ["log", 1e-4, 1e0]}
    )

    @model_validator(mode="after")
    def _by_recipe(self) -> Self:
        recipe = RECIPES[self.recipe]
        self.lr = recipe.lr if self.lr is None else self.lr
        self.theta = recipe.theta if self.theta is None else self.theta
        self.predict_by = self.predict_by or recipe.predict_by
        return self


class StraightThroughReLU(nn.Module):
    """relu(a), with the gradient of a."""

    def forward(self, a: Tensor) -> Tensor:
        h: Tensor = _StraightThrough.apply(a)
        return h


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a.relu()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


@register
class ForwardForward(Method):
    """Images with right and wrong labels in one forward pass, in which each layer takes its step before the next."""

    info = MethodInfo(
        name="forward-forward",
        title="Forward-forward",
        family="local",
        paper="hinton2022forward, lee2023symba",
        claims=Claims(reverse_mode="layer", updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
    )
    Config = ForwardForwardSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if reason := super().refuse(task, config, facts):
            return reason
        if task.net.Settings(**task.net_settings).depth == 0:  # type: ignore[attr-defined]
            return "the net has no hidden layer, and goodness is that of hidden layers"
        _, height, width = task.image_shape
        if height * width < task.n_classes:
            return f"the label of {task.n_classes} classes does not fit into {height} x {width} pixels"
        return None

    def __init__(self, task: Task, config: ForwardForwardSettings, *, device: torch.device, seeds: Seeds) -> None:
        assert config.lr is not None
        self.config, self.recipe, self.C, self.noise = config, RECIPES[config.recipe], task.n_classes, seeds.noise
        self.net = task.build_net(seeds.init)
        hidden = [self._layer(block) for block in self.net.blocks[:-1]]
        shapes = output_shapes(hidden, task.image_shape)
        self.judged = min(self.recipe.judged, len(hidden) - 1)
        self.net.to(device)
        self.layers = nn.ModuleList(hidden)
        self.optimizers = [self.recipe.optimizer(layer, config.lr) for layer in hidden]
        self.peer_means = [torch.full(shape[:1], 0.5, device=device) for shape in shapes if self.recipe.peer]
        self.heads = nn.ModuleList()
        if config.predict_by == "head":
            n = sum(torch.Size(shape).numel() for shape in shapes[self.judged :])
            self.heads.append(zero_linear(n, task.n_classes).to(device))
            self.head_optimizer = SGD(
                self.heads.parameters(), lr=config.head_lr, momentum=MOMENTUM, weight_decay=3e-3, fused=True
            )

    def _layer(self, block: nn.Module) -> nn.Sequential:
        """A hidden block, its weights those of the net."""
        through = self.recipe.straight_through
        return nn.Sequential(
            *(StraightThroughReLU() if through and isinstance(part, nn.ReLU) else part for part in block.children())
        )

    def claims(self) -> Claims:
        config, by_head = self.config, self.config.predict_by == "head"
        hard = config.negatives == "hard"
        waits_for = ("the output" if by_head else "later blocks") if hard else self.info.claims.updates_wait_for
        return replace(
            self.info.claims,
            forward_passes=2 if by_head or hard else 1,
            inference_passes=1 if by_head else self.C,
            # in turn but one layer moves in a step, so a step does not show what they wait for
            updates_wait_for=None if config.schedule == "sequential" else waits_for,
        )

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        in_turn = self.config.schedule == "sequential"
        turn, rest = divmod(progress.step * (len(self.layers) if in_turn else 1), progress.total_steps)
        self._cool(rest / progress.total_steps)
        scores, found = None, dict[str, Tensor]()
        if self.heads:
            scores = self.heads[0](self._features(x))
            found["loss"] = descend(F.cross_entropy(scores, y), self.head_optimizer)
        elif self.config.negatives == "hard":
            scores = self.predict(x)
        labels = torch.cat([y, wrong_labels(self.config.negatives, y, self.C, self.noise, scores)])
        h, losses = self._written(x, F.one_hot(labels, self.C)), list[Tensor]()
        for k, (layer, optimizer) in enumerate(zip(self.layers, self.optimizers, strict=True)):
            learns = k == turn or not in_turn
            with torch.set_grad_enabled(learns):
                h = layer(self._normalised(h))
            if learns:
                losses.append(descend(self._loss(k, h, len(y)), optimizer))
            if k == turn and in_turn:
                break
            h = h.detach()
        found["local_loss"] = torch.stack(losses).mean()
        return {"loss": found["local_loss"], **found}

    def _cool(self, done: float) -> None:
        """Let step sizes fall linearly to 0 in the second half. done: what part of training lies behind."""
        factor = min(1.0, 2 - 2 * done) if self.recipe.cools else 1.0
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = factor * self.config.lr  # type: ignore[operator]
        if self.heads:
            self.head_optimizer.param_groups[0]["lr"] = factor * self.config.head_lr

    def _written(self, x: Tensor, labels: Tensor) -> Tensor:
        """Images with labels written into them, over and over. Shape: (B, ...), (m B, C) to (m B, ...)."""
        m = len(labels) // len(x)
        brightest = x[:, 0].flatten(1).abs().amax(1, keepdim=True)
        rows = x.flatten(1).repeat(m, 1)
        rows[:, : self.C] = labels * (self.config.amplitude * brightest).repeat(m, 1)
        return rows.view(-1, *x.shape[1:])

    def _normalised(self, h: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(h, dim=tuple(range(1, h.dim())), keepdim=True) + EPS
        return h * (h[0].numel() ** 0.5 / length) if self.recipe.summed else h / length

    def _goodness(self, h: Tensor) -> Tensor:
        """Shape: (rows, ...) to (rows,)."""
        total = h.flatten(1).pow(2).sum(1)
        return total if self.recipe.summed else total / h[0].numel()

    def _loss(self, k: int, h: Tensor, B: int) -> Tensor:
        """L_k of B images with their labels, followed by images with wrong ones: image i is row i, modulo B."""
        G = self._goodness(h)
        right, wrong = G[:B], G[B:].view(-1, B)
        if self.config.loss == "symba":
            loss = -F.logsigmoid(self.config.alpha * (right - wrong)).mean()
        else:
            theta = self.config.theta * (h[0].numel() if self.recipe.summed else 1)  # type: ignore[operator]
            loss = -(F.logsigmoid(right - theta).mean() + F.logsigmoid(theta - wrong).mean()) / 2
        if not self.recipe.peer:
            return loss
        r = torch.lerp(h[:B].mean((0, *range(2, h.dim()))), self.peer_means[k], MOMENTUM)
        self.peer_means[k].copy_(r.detach())
        return loss + self.recipe.peer * (r.mean() - r).pow(2).mean()

    def _activities(self, h: Tensor) -> Iterator[Tensor]:
        """Of the layers that predictions look at."""
        for k, layer in enumerate(self.layers):
            h = layer(self._normalised(h))
            if k >= self.judged:
                yield h

    @torch.no_grad()
    def _features(self, x: Tensor) -> Tensor:
        """What the head reads: activities under a neutral label."""
        neutral = x.new_full((len(x), self.C), 1 / self.C)
        return torch.cat([self._normalised(h).flatten(1) for h in self._activities(self._written(x, neutral))], 1)

    @torch.no_grad()
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        if self.heads:
            scores: Tensor = self.heads[0](self._features(x))
            return scores
        labels = torch.eye(self.C, dtype=x.dtype, device=x.device).repeat_interleave(len(x), 0)
        scores = torch.stack([self._goodness(h) for h in self._activities(self._written(x, labels))]).sum(0)
        return scores.view(self.C, -1).T

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": nn.ModuleList([self.layers, self.heads])}

    def blocks(self) -> list[nn.Module]:
        return [*self.layers, *self.heads]


def wrong_labels(kind: Negatives, y: Tensor, C: int, noise: torch.Generator, scores: Tensor | None) -> Tensor:
    """Labels other than y: all of them, class by class, or one an image. Shape: y (B,) to (B,), or ((C - 1) B,).

    scores: the logarithms of what kind=hard takes for likely, up to a constant. Shape: (B, C).
    """
    if kind == "all":
        return ((y + torch.arange(1, C, device=y.device).unsqueeze(1)) % C).flatten()
    if kind == "wrong":
        return (y + torch.randint(1, C, y.shape, generator=noise, device=y.device)) % C
    assert scores is not None
    # the greatest of independent Gumbel variables about the scores: a draw that numbers which are none do not stop
    gumbel = -torch.empty_like(scores).exponential_(generator=noise).log()
    chosen: Tensor = (scores.detach() + gumbel).masked_fill(F.one_hot(y, C).bool(), -torch.inf).argmax(1)
    return chosen
