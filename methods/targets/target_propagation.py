"""Target propagation: feedback layers carry targets from the output down, and each layer steps towards its own.

Papers: Lee, Zhang, Fischer, Bengio 2015, "Difference target propagation" (rule=dtp); Ernoult, Normandin, Moudgil,
Spinney, Belilovsky, Rish, Richards, Bengio 2022, "Towards scaling difference target propagation by learning backprop
targets" (rule=l-drl). For block l = 1..L, h_l = F_l(h_{l-1}), scores h_L, labels y, and feedback layers G_2..G_L:

    t_L     = h_L - beta (softmax(h_L) - onehot(y))
    t_{l-1} = h_{l-1} + G_l(t_l) - G_l(h_l)
    F_l     steps down the mean over the batch of 1/2 |F_l(h_{l-1}) - t_l|^2, summed over units

Before it hands on a target, G_l takes `feedback_steps` steps, each on new noise xi, eta ~ N(0, sigma_l^2), down the
batch mean of

    dtp     |G_l(F_l(h_{l-1} + xi)) - (h_{l-1} + xi)|^2
    l-drl   (-2 <xi, G_l(F_l(h_{l-1} + xi)) - G_l(h_l)> + |G_l(h_l + eta) - G_l(h_l)|^2) / sigma_l^2

and no gradient enters F_l. dtp makes G_l an inverse of F_l: targets are then those of Gauss and Newton. l-drl makes its
Jacobian the transpose of F_l's: for small beta (t_l - h_l) / beta is then minus backprop's gradient by h_l.

Every target but the last passes through the feedback layers of all later blocks, which learn from these blocks'
weights: updates wait for later blocks, by whichever gradient a block steps.

G_l mirrors block l, whose activation is s_l: G_l(h) = s_{l-1}(V_l unpool(h) + c_l) in dtp, V_l unpool(s_l(h)) in l-drl,
where a shift would cancel. V_l is a transposed convolution where the block is a convolution, and values go back to the
places of the maxima that h_l was pooled from, those of noise as well. sigma_l is `sigma` times the root mean square of
h_{l-1}. One evaluation gives all h_l, another each layer's step: nothing of a layer's graph is kept meanwhile.
feedback_steps=0 leaves G as it is drawn: with dtp much the fixed-weight DTP of Shibuya et al. 2023.

Deviations from the papers: the step is AdamW's in both nets, as backprop's here (Ernoult et al.: SGD with momentum and
weight decay, a step size a layer for G, a cosine schedule); sigma_l, which they choose layer by layer, and the division
by its square. Lee et al. begin with the gradient by h_{L-1}, which takes W_L^T, and train G on all images before F.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register
from bench.api.seeds import drawn_from

from .._shared.directions import draw
from .._shared.estimators import EstimatorSettings, claims_of, learn
from .._shared.optimizers import adamw
from .._shared.stages import pooled, stages, unpooled
from .mirror import mirrors


class TargetPropagationSettings(EstimatorSettings, AdamWSettings):
    rule: Literal["dtp", "l-drl"] = Field("l-drl", description="feedback learns the inverse, or backprop's Jacobian")
    beta: float = Field(
        0.1, gt=0, description="step of the output's target", json_schema_extra={"search": ["log", 1e-2, 1e0]}
    )
    sigma: float = Field(
        0.1,
        gt=0,
        description="noise in a layer's feedback loss, in units of what the layer is given",
        json_schema_extra={"search": ["log", 1e-2, 1e0]},
    )
    feedback_lr: float = Field(
        1e-3, gt=0, description="step size of feedback layers", json_schema_extra={"search": ["log", 1e-5, 1e-1]}
    )
    feedback_steps: int = Field(
        5,
        ge=0,
        description="steps of each feedback layer per batch",
        json_schema_extra={"search": ["choice", 1, 5, 20]},
    )


@dataclass(frozen=True)
class Trace:
    """What one evaluation of a block leaves: its input, its output, and from where in `size` its maxima came."""

    below: Tensor
    h: Tensor
    places: Tensor | None
    size: torch.Size


@register
class TargetPropagation(Method):
    """A forward pass, then down block by block: the feedback layer learns and hands on a target, the block steps."""

    info = MethodInfo(
        name="target-propagation",
        title="Target propagation",
        family="target",
        paper="lee2015difference, ernoult2022towards",
        claims=Claims(reverse_mode="layer", forward_passes=7, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("chain",),
    )
    Config = TargetPropagationSettings
    net: Net

    def __init__(self, task: Task, config: TargetPropagationSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.noise = config, seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        with drawn_from(seeds.init):
            self.feedback = mirrors(self.net, task.input, bias=config.rule == "dtp")
        self.net.to(device)
        self.feedback.to(device)
        self.stages = stages(self.net)
        self.optimizers = [adamw(block.parameters(), config) for block in self.net.blocks]
        of_feedback = config.model_copy(update={"lr": config.feedback_lr})
        self.feedback_optimizers = [adamw(mirror.parameters(), of_feedback) for mirror in self.feedback]

    def claims(self) -> Claims:
        steps, each = (
            self.config.feedback_steps if len(self.feedback) else 0,
            2 if self.config.gradient == "spsa" else 1,
        )
        passes = max(1 + each + steps, each * steps + 1)  # of a layer, and of what mirrors it
        return claims_of(replace(self.info.claims, forward_passes=passes), self.config)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, y = batch
        traces = self._evaluate(x)
        scores = traces[-1].h
        target = scores - self.config.beta * self.objective.output_gradient(scores, y)
        for k in range(len(self.stages) - 1, 0, -1):
            trace = traces.pop()
            self._train_feedback(k, trace)
            self._step(k, trace.below, target)
            target = self._target_below(k, trace, target)
        self._step(0, x, target)
        return {"loss": self.objective.loss(scores, y)}

    @torch.no_grad()
    def _evaluate(self, x: Tensor) -> list[Trace]:
        below, traces = x, list[Trace]()
        for stage in self.stages:
            a = stage.activation(stage.weigh(below))
            h, places = pooled(stage.pool, a)
            traces.append(Trace(below, h, places, a.shape))
            below = h
        return traces

    def _step(self, k: int, below: Tensor, target: Tensor) -> None:
        block = self.net.blocks[k]

        def closure() -> tuple[Tensor, Tensor]:
            h: Tensor = block(below)
            return (h - target).square().sum() / (2 * len(h)), h

        learn(closure, block, self.optimizers[k], self.config, self.noise)

    @torch.no_grad()
    def _target_below(self, k: int, trace: Trace, target: Tensor) -> Tensor:
        by_target, by_h = self._feed_back(k, self._lift(k, trace, torch.cat([target, trace.h]))).chunk(2)
        return trace.below + (by_target - by_h)

    def _train_feedback(self, k: int, trace: Trace) -> None:
        below, h = trace.below, trace.h
        # the least that is added lets a layer of silent units divide nothing by zero
        sigma = self.config.sigma * (below.square().mean() + 1e-12).sqrt()
        lifted_h = self._lift(k, trace, h)
        for _ in range(self.config.feedback_steps):
            xi = sigma * draw(below.shape, below, "gaussian", self.noise)
            with torch.no_grad():
                lifted = self._lift(k, trace, self.net.blocks[k](below + xi))
            if self.config.rule == "dtp":
                closure = partial(self._inverts, k, lifted, below + xi)
            else:
                eta = sigma * draw(h.shape, h, "gaussian", self.noise)
                moved = torch.cat([lifted - lifted_h, self._lift(k, trace, h + eta) - lifted_h])
                closure = partial(self._transposes, k, moved, xi, sigma)
            learn(closure, self.feedback[k - 1], self.feedback_optimizers[k - 1], self.config, self.noise)

    def _inverts(self, k: int, lifted: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """G's loss with dtp, and what it gives back."""
        back = self._feed_back(k, lifted)
        return (back - noisy).square().sum() / len(back), back

    def _transposes(self, k: int, moved: Tensor, xi: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """G's loss with l-drl, and what it gives for both differences: it is linear."""
        back = self._feed_back(k, moved)
        by_xi, by_eta = back.chunk(2)
        return (by_eta.square().sum() - 2 * (xi * by_xi).sum()) / sigma.square() / len(xi), back

    def _lift(self, k: int, trace: Trace, h: Tensor) -> Tensor:
        """What V of block k acts on. Shape: h (m N, ...), for a trace of N images."""
        stage = self.stages[k]
        if self.config.rule == "l-drl":
            h = stage.activation(h)
        return unpooled(stage.pool, h, trace.places, trace.size)

    def _feed_back(self, k: int, lifted: Tensor) -> Tensor:
        below: Tensor = self.feedback[k - 1](lifted)
        return self.stages[k - 1].activation(below) if self.config.rule == "dtp" else below

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only" if self.config.feedback_steps else "frozen": self.feedback}
