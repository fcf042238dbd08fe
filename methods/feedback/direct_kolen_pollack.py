"""Direct Kolen-Pollack (DKP): direct feedback whose matrices learn, each as if its layer were the last hidden one.

Paper: Webster, Choi, Ahn 2021, "Learning the connections in direct feedback alignment".

    delta_l = (B_l e) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T,    e = (softmax - onehot) / N

    grad B_l^T = e h_l^T

h_l is what the layer gives where the signal enters, before pooling (see direct.py); B_l is dense over its units at
every position. For the last hidden layer that is the gradient of the output's weights, and B_l^T becomes them as under
Kolen-Pollack; for those before it stands in for the path that lies between. Errors and activities are there in direct
feedback alignment too: nothing new is sent.
The steps of W and B are AdamW's with the same decay; that of B is `feedback_rate` times as long, 1 as in Kolen-Pollack.
Deviations from the paper: B has W's optimiser, where the authors' code has Adam for B, its step shrinking by 0.8 an
epoch, and Nesterov's for W; B starts as in direct feedback alignment here.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register

from .._shared.direct_feedback import cut, direct_feedback
from .._shared.optimizers import adamw
from .direct import backward, forward


class DirectKolenPollackSettings(AdamWSettings):
    feedback_rate: float = Field(
        1.0, ge=0, description="step size of the feedback, in units of lr; 0: direct feedback alignment",
        json_schema_extra={"search": ["log", 1e-2, 1.0]},
    )  # fmt: skip


@register
class DirectKolenPollack(Method):
    """One forward pass with a cut after every layer, then all layers' own gradients, and those of their feedback."""

    info = MethodInfo(
        name="direct-kolen-pollack",
        title="Direct Kolen-Pollack",
        family="feedback",
        paper="webster2021learning",
        claims=Claims(reverse_mode="layer", updates_wait_for="the output"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("sequence",),
    )
    Config = DirectKolenPollackSettings
    net: Net

    def __init__(self, task: Task, config: DirectKolenPollackSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        self.stages = cut(self.net)
        self.feedback = nn.ParameterList(direct_feedback(self.stages, task.input, task.output.size, seeds.init))
        self.net.to(device)
        self.feedback.to(device)
        self.optimizer = adamw(self.net.parameters(), config)
        if len(self.feedback):
            rate = config.feedback_rate * config.lr
            self.optimizer.add_param_group({"params": list(self.feedback), "lr": rate})

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        hidden, logits = forward(self.net, self.stages, batch.x)
        e = self.objective.loss_gradient(logits.detach(), batch.y)
        for B, h in backward(hidden, logits, e, list(self.feedback), e):
            # in B's own precision and memory format, which the optimiser takes for granted
            B.grad = torch.empty_like(B).copy_((e.T @ h.flatten(1)).view_as(B))
        self.optimizer.step()
        return {"loss": self.objective.loss(logits.detach(), batch.y)}

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.feedback}
