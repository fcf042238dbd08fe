"""Feedback alignment: backprop whose backward message takes a fixed random road in place of the weights'.

Papers: Lillicrap et al. 2016, "Random synaptic feedback weights support error backpropagation for deep learning";
Liao, Leibo, Poggio 2016, "How important is weight symmetry in backpropagation?" (usf, brsf);
Moskovitz, Litwin-Kumar, Abbott 2018, "Feedback alignment in deep convolutional networks" (frsf).

    delta_l = (B_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T,    B shaped as W

    fa    B ~ U(-b, b), drawn once                       b = 1 / sqrt(fan_in), the law of torch's layers
    usf   B = b / sqrt(3) * sign(W)                      uniform magnitude, the standard deviation of that law
    brsf  B = |M| * sign(W), M ~ U(-b, b) in every step  batch-wise random magnitude
    frsf  B = |M| * sign(W), M ~ U(-b, b) once           fixed random magnitude

W is that of the present step. A convolution sends its message through the transposed convolution with B. The
output layer's own gradient, biases, non-linearities and pooling are exact, and errors are those of the mean loss
over the batch, as in backprop. The first layer sends no message and has no B.
The step is AdamW's, as backprop's here, so that the road of the error is all that differs; normalised steps also
help the rule itself, whose gradients are badly scaled from layer to layer.
Deviations from the papers: that optimiser; magnitudes in the scale of the nets' own start; sign(0) = 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.autograd import Function

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register
from methods._shared.optimizers import adamw


class FeedbackAlignmentSettings(AdamWSettings):
    mode: Literal["fa", "usf", "brsf", "frsf"] = Field("fa", description="what the feedback knows of the weights")


@register
class FeedbackAlignment(Method):
    """One forward pass, one backward sweep through the whole net along B."""

    info = MethodInfo(
        name="feedback-alignment",
        title="Feedback alignment",
        family="feedback",
        paper="lillicrap2016random, liao2016important, moskovitz2018feedback",
        claims=Claims(reverse_mode="network", updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
    )
    Config = FeedbackAlignmentSettings
    net: Net

    def __init__(self, task: Task, config: FeedbackAlignmentSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.noise = config, seeds.noise
        self.net = task.build_net(seeds.init).to(device)
        _, *self.layers = (m for m in self.net.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
        self.feedback = nn.ParameterList(
            nn.Parameter(_magnitude(layer, config.mode, seeds.init).to(device), requires_grad=False)
            for layer in self.layers
        )
        for layer, B in zip(self.layers, self.feedback, strict=True):
            layer.forward = partial(_forward, layer, B)  # type: ignore[method-assign]
        self.optimizer = adamw(self.net.parameters(), config)

    def claims(self) -> Claims:
        # signs are part of the weights: what carries them back is weight transport, if of one bit each
        return replace(self.info.claims, weight_transport=self.config.mode != "fa")

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self._refresh()
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.net(batch.x), batch.y)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def _refresh(self) -> None:
        """Give B the signs that W has now; copysign keeps the magnitudes."""
        if self.config.mode == "fa":
            return
        for layer, B in zip(self.layers, self.feedback, strict=True):
            if self.config.mode == "brsf":
                B.uniform_(0, _bound(layer), generator=self.noise)
            B.copysign_(layer.weight)

    @torch.no_grad()
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        scores: Tensor = self.net(x)
        return scores

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "frozen": self.feedback}


def _bound(layer: nn.Linear | nn.Conv2d) -> float:
    return 1 / sqrt(layer.weight[0].numel())


def _magnitude(layer: nn.Linear | nn.Conv2d, mode: str, init: torch.Generator) -> Tensor:
    """B at the start. Drawn after the net, whose weights thus are those of every other method."""
    b = _bound(layer)
    if mode == "usf":
        return torch.full(layer.weight.shape, b / sqrt(3))
    return torch.empty(layer.weight.shape).uniform_(-b, b, generator=init)


class _Linear(Function):
    """y = x W^T + bias, whose message back is delta B. Shape: x (N, n), W and B (m, n), y (N, m)."""

    @staticmethod
    def forward(x: Tensor, W: Tensor, bias: Tensor, B: Tensor) -> Tensor:
        return F.linear(x, W, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x, _, _, B = inputs
        ctx.save_for_backward(x, B)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, B = ctx.saved_tensors
        return delta @ B, delta.T @ x, delta.sum(0), None


class _Conv2d(Function):
    """y = conv(x, W) + bias, whose message back is the transposed convolution of delta with B."""

    @staticmethod
    def forward(x: Tensor, W: Tensor, bias: Tensor, B: Tensor, layer: nn.Conv2d) -> Tensor:
        return F.conv2d(x, W, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, B, ctx.layer = inputs
        ctx.save_for_backward(x, B)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, B = ctx.saved_tensors
        layer: nn.Conv2d = ctx.layer
        # the weight enters backprop's kernel in the message alone, so B in its place is the whole rule
        message, grad_W, grad_bias = torch.ops.aten.convolution_backward(
            delta, x, B, [layer.out_channels], layer.stride, layer.padding, layer.dilation, False, [0, 0],
            layer.groups, [True, True, True],
        )  # fmt: skip
        return message, grad_W, grad_bias, None, None


def _forward(layer: nn.Linear | nn.Conv2d, B: Tensor, x: Tensor) -> Tensor:
    """What the layer computes, with B on the way back."""
    if isinstance(layer, nn.Linear):
        y: Tensor = _Linear.apply(x, layer.weight, layer.bias, B)
    else:
        y = _Conv2d.apply(x, layer.weight, layer.bias, B, layer)
    return y
