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
Norms, skip connections and products of activities carry the true gradient: see `layered`.
The step is AdamW's, as backprop's here, so that the road of the error is all that differs; normalised steps also
help the rule itself, whose gradients are badly scaled from layer to layer.
Deviations from the papers: that optimiser; magnitudes in the scale of the nets' own start; sign(0) = 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register

from .._shared.optimizers import adamw
from .layered import Layer, bound, lay, sending_layers, uniform


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
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=("noiseless", "feedback"),
    )
    Config = FeedbackAlignmentSettings
    net: Net

    def __init__(self, task: Task, config: FeedbackAlignmentSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.noise = config, seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device)
        self.layers = sending_layers(self.net)
        self.feedback = lay(self.layers, [_magnitude(layer, config.mode, seeds.init) for layer in self.layers])
        self.optimizer = adamw(self.net.parameters(), config)

    def claims(self) -> Claims:
        # signs are part of the weights: what carries them back is weight transport, if of one bit each
        return replace(self.info.claims, weight_transport=self.config.mode != "fa")

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self._refresh()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective.loss(self.net(batch.x), batch.y)
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
                B.uniform_(0, bound(layer), generator=self.noise)
            B.copysign_(layer.weight)

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "frozen": self.feedback}


def _magnitude(layer: Layer, mode: str, init: torch.Generator) -> Tensor:
    """B at the start."""
    return torch.full(layer.weight.shape, bound(layer) / sqrt(3)) if mode == "usf" else uniform(layer, init)
