"""Kolen-Pollack: feedback that takes the forward weights' own steps and decays with them, and so becomes them.

Papers: Kolen, Pollack 1994, "Backpropagation without weight transport"; Akrout, Wilson, Humphreys, Lillicrap, Tweed
2019, "Deep learning without weight transport", Eq. 16-17.

    delta_l = (B_{l+1}^T delta_{l+1}) * sigma'(a_l),    B shaped as W, drawn apart from it

    W <- (1 - lr wd) W - lr u,    B <- (1 - lr wd) B - lr u,    u made of delta h^T alone

    W_t - B_t = (1 - lr wd)^t (W_0 - B_0)

Both ends of a connection know delta and h, so no weight and no change of a weight is transported. The first layer
sends no message and has no B; a convolution's message is the transposed convolution with B.
The step u is AdamW's, as backprop's here. Its moments are those of equal gradients, kept twice, for W and for B: the
two steps are equal and the law above is exact, for its decay is apart from the gradient.
The decay is what makes W and B meet, so it is a thousand times backprop's here: W - B halves in 700 steps at lr = 1e-3.
Biases and the first layer, which have no B, decay by the same factor.
Deviations from the papers: that optimiser, where they take gradient descent; the papers' equations leave biases out.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register

from .._shared.optimizers import adamw
from .layered import lay, sending_layers, uniform


class KolenPollackSettings(AdamWSettings):
    weight_decay: float = Field(
        1.0, ge=0, description="decoupled weight decay of W and B, per step and unit of lr",
        json_schema_extra={"search": ["log", 1e-3, 10.0]},
    )  # fmt: skip


@register
class KolenPollack(Method):
    """One forward pass, one backward sweep through the whole net along B, one step of W and B alike."""

    info = MethodInfo(
        name="kolen-pollack",
        title="Kolen-Pollack",
        family="feedback",
        paper="kolen1994backpropagation, akrout2019deep",
        claims=Claims(reverse_mode="network", updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=("noiseless", "feedback"),
    )
    Config = KolenPollackSettings
    net: Net

    def __init__(self, task: Task, config: KolenPollackSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device)
        self.layers = sending_layers(self.net)
        self.feedback = lay(self.layers, [uniform(layer, seeds.init) for layer in self.layers])
        self.optimizer = adamw([*self.net.parameters(), *self.feedback], config)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective.loss(self.net(batch.x), batch.y)
        torch.autograd.backward(loss)
        for layer, B in zip(self.layers, self.feedback, strict=True):
            B.grad = layer.weight.grad  # delta h^T, which no B has changed on its way through this layer
        self.optimizer.step()
        return {"loss": loss.detach()}

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.feedback}
