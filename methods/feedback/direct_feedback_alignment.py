"""Direct feedback alignment: the output error reaches every hidden layer at once, through a random matrix each.

Papers: Nokland 2016, "Direct feedback alignment provides learning in deep neural networks"; for sdfa and the conv
form, Frenkel, Lefebvre, Bol 2021, "Learning without feedback: fixed random learning signals allow for feedforward
training of deep neural networks".

    dfa    delta_l = (B_l e) * sigma'(a_l),                grad W_l = delta_l h_{l-1}^T,    e = (softmax - onehot) / N
    sdfa   delta_l = (B_l sign(e) / N) * sigma'(a_l)

The output layer has its true gradient e h^T. N is the batch size: hidden and output layers both follow the mean
over the batch, so one learning rate means the same to both. Where the error enters, and B_l: see direct.py.
The step is AdamW's, as backprop's here; normalised steps also free the rule from the scale of B_l, which plain
gradient descent would need tuned layer by layer.
The sign of a softmax's error is 1 - 2 onehot, whatever the net says: sdfa's signal has a large part common to all
examples and never vanishes. ReLU units die of it; it wants activation=tanh, as in the papers.
Deviations from the papers: cross-entropy of a softmax, not of sigmoids; that optimiser.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register

from .._shared.direct_feedback import cut, direct_feedback
from .._shared.optimizers import adamw
from .direct import backward, forward


class DirectFeedbackAlignmentSettings(AdamWSettings):
    mode: Literal["dfa", "sdfa"] = Field("dfa", description="the error sent to hidden layers, or its sign")


@register
class DirectFeedbackAlignment(Method):
    """One forward pass with a cut after every layer, then all layers' own gradients, each by itself."""

    info = MethodInfo(
        name="direct-feedback-alignment",
        title="Direct feedback alignment",
        family="feedback",
        paper="nokland2016direct, frenkel2021learning",
        claims=Claims(reverse_mode="layer", updates_wait_for="the output"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("sequence",),
    )
    Config = DirectFeedbackAlignmentSettings
    net: Net

    def __init__(
        self, task: Task, config: DirectFeedbackAlignmentSettings, *, device: torch.device, seeds: Seeds
    ) -> None:
        self.config = config
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        self.stages = cut(self.net)
        self.feedback = nn.ParameterList(direct_feedback(self.stages, task.input, task.output.size, seeds.init))
        self.net.to(device)
        self.feedback.to(device)
        self.optimizer = adamw(self.net.parameters(), config)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        hidden, logits = forward(self.net, self.stages, batch.x)
        e = self.objective.loss_gradient(logits.detach(), batch.y)
        sent = e.sign() / len(e) if self.config.mode == "sdfa" else e
        for _ in backward(hidden, logits, sent, list(self.feedback), e):
            pass
        self.optimizer.step()
        return {"loss": self.objective.loss(logits.detach(), batch.y)}

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "frozen": self.feedback}
