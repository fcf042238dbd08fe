"""PEPITA: a second forward pass, on an image modulated by the error, takes the place of the backward pass.

Paper: Dellaferrera, Kreiman 2022, "Error-driven input modulation: solving the credit assignment problem without a
backward pass" (Present the Error to Perturb the Input To modulate Activity).

    first pass     h_l = sigma(W_l h_{l-1}),  h_0 = x,      e = softmax - onehot  (of each example, not divided by N)
    second pass    h_l^err likewise from      h_0^err = x + F e
    hidden layers  grad W_l = 1/N sum (h_l - h_l^err) (h_{l-1}^err)^T
    last layer     grad W_L = 1/N sum (softmax^err - onehot) (h_{L-1}^err)^T

F ~ U(-b, b), b = scale sqrt(6 / n_0), is drawn once. grad takes the place of the gradient in SGD with momentum, whose
step size falls tenfold after 60% and again after 90% of training. No derivative is taken anywhere. The rule descends as
far as the weights oppose F (W_L ... W_1 F negative), and it is this way that training turns them.

Convolution: h_l is the map behind the activation, before pooling; products are averaged over its positions. A linear
layer that follows convolutions directly learns from e, the error of the first pass, as in the authors' code.

Deviations from the paper: layers have biases, which learn as weights of an input 1; no dropout, for the shared nets
have none (with it both passes need the same mask); weights start by torch's law, not He's. Images come normalised,
not in [0, 1]: they are some three times larger beside F e, and so are the steps of the first layer for one lr.
The authors' code divides by the batch size twice in convolutions; here it is once.
One step size serves both nets: lr 0.1 is the paper's for MNIST on its mlp; its cnn takes 0.01 and batches of 50, and a
cnn here wants its own. The velocity is torch's, v <- m v + grad, w <- w - lr v: when lr falls, all of v shrinks.
In the authors' code lr is inside it, v <- m v + lr grad: what was gathered before the fall keeps its size.
"""

from collections.abc import Mapping
from math import sqrt

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, StepSize, Task, register, step_size
from bench.api.layer import weight_gradient
from bench.api.structure import mixing_layer

from .._shared.bilinear import Gradient, hand_over
from .._shared.direct_feedback import cut
from .._shared.schedule import fall


class PepitaSettings(StepSize):
    lr: float = step_size(1e-1)
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    scale: float = Field(0.05, gt=0, description="size of F, in units of He's uniform law")


@register
class Pepita(Method):
    """Two forward passes, then an outer product for each layer, made while the second goes by."""

    info = MethodInfo(
        name="pepita",
        title="PEPITA",
        family="target",
        paper="dellaferrera2022error",
        claims=Claims(reverse_mode="none", forward_passes=2, updates_wait_for="the output"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("chain",),
    )
    Config = PepitaSettings
    net: Net

    def __init__(self, task: Task, config: PepitaSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config = config
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device)
        self.stages = cut(self.net)
        b = config.scale * sqrt(6 / task.input.n_features)
        feedback = torch.empty(task.output.size, *task.input.shape).uniform_(-b, b, generator=seeds.init)
        self.feedback = nn.ParameterList([nn.Parameter(feedback.to(device), requires_grad=False)])
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr, momentum=config.momentum, fused=True)

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        fall(self.optimizer, self.config.lr, progress, at=(0.6, 0.9), factor=0.1)
        h, clean = batch.x, list[Tensor]()
        for stage in self.stages:
            clean.append(stage.learn(h))
            h = stage.pool(clean[-1])
        logits = self.net.blocks[-1](h)
        hand_over(self._second_pass(batch, clean, self.objective.loss_gradient(logits, batch.y)))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": self.objective.loss(logits, batch.y)}

    def _second_pass(self, batch: Batch, clean: list[Tensor], e: Tensor) -> Gradient:
        """grad of all weights. Shape: clean h_l as each layer gives it, e (N, C), divided by N already."""
        (feedback,) = self.feedback
        x, y = batch
        h = x + torch.einsum("nc,c...->n...", len(y) * e, feedback)
        gradient: Gradient = {}
        layer: nn.Module | None = None
        for stage, before in zip(self.stages, clean, strict=True):
            layer, after = mixing_layer(stage.learn), stage.learn(h)
            change = (before - after).div_(len(y) * after[0, 0].numel())
            gradient |= weight_gradient(layer, _input(layer, h), change)
            h = stage.pool(after)
        behind_convolution = isinstance(layer, nn.Conv2d)
        output = self.net.blocks[-1]
        e = e if behind_convolution else self.objective.loss_gradient(output(h), y)
        return gradient | weight_gradient(mixing_layer(output), h.flatten(1), e)

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "frozen": self.feedback}


def _input(layer: nn.Module, h: Tensor) -> Tensor:
    """What the layer sees where the block sees h."""
    return h.flatten(1) if isinstance(layer, nn.Linear) else h
