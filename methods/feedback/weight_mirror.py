"""Weight mirror: feedback that learns the forward weights from what they do to noise.

Paper: Akrout, Wilson, Humphreys, Lillicrap, Tweed 2019, "Deep learning without weight transport", Eq. 7.

    engaged    delta_l = (B_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T,    B shaped as W

    mirror     x_n ~ N(0, I),    y_n = W x_n,    B <- B + eta (1/M sum_n y_n x_n^T - decay B)

E[y x^T] = W: B tends to W / decay, at the speed of eta decay, and scatters about it. For decay = 1 and a layer of n
inputs |B - W|^2 / |W|^2 is about n eta / 2M: the cosine between them is 0.93 for n = 256 and the defaults.
Mirror steps come every `mirror_every` training steps, after the step; every layer but the first, which sends no
message, gets noise of its own.
W is multiplied forward with the noise, without a call of the layer that would count as a pass.
A convolution mirrors one receptive field: its kernel, flat, is the W of a linear layer of that many inputs.
The step of W is AdamW's, as backprop's here.
Deviations from the paper: a mirror step takes the layer's linear part alone, without bias and activation, for whose
slopes the paper's circuit has to choose a bias; no mirror steps before training; the noise is Gaussian of variance 1,
which eta and decay would absorb otherwise; that optimiser.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench import AdamWSettings, Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, Task, register

from .._shared.optimizers import adamw
from .layered import lay, sending_layers, uniform


class WeightMirrorSettings(AdamWSettings):
    mirror_every: int = Field(1, ge=1, description="training steps from one mirror step to the next")
    mirror_lr: float = Field(
        0.02, gt=0, le=1, description="step size of the feedback, eta", json_schema_extra={"search": ["log", 1e-3, 1.0]}
    )
    mirror_decay: float = Field(1.0, gt=0, description="decay of the feedback, per mirror step and unit of mirror_lr")
    mirror_samples: int = Field(16, ge=1, description="draws of noise in a mirror step, M")


@register
class WeightMirror(Method):
    """One forward pass, one backward sweep through the whole net along B, then noise through each layer for B."""

    info = MethodInfo(
        name="weight-mirror",
        title="Weight mirror",
        family="feedback",
        paper="akrout2019deep",
        claims=Claims(reverse_mode="network", updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=("noiseless", "feedback"),
    )
    Config = WeightMirrorSettings
    net: Net

    def __init__(self, task: Task, config: WeightMirrorSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.noise = config, seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device)
        self.layers = sending_layers(self.net)
        self.feedback = lay(self.layers, [uniform(layer, seeds.init) for layer in self.layers])
        self.optimizer = adamw(self.net.parameters(), config)

    def phase(self, progress: Progress) -> str:
        """Whether a mirror step follows the step."""
        return "mirror" if progress.step % self.config.mirror_every == 0 else "engaged"

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective.loss(self.net(batch.x), batch.y)
        torch.autograd.backward(loss)
        self.optimizer.step()
        if self.phase(progress) == "mirror":
            self.mirror()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def mirror(self) -> None:
        """One mirror step of every B."""
        eta, decay, M = self.config.mirror_lr, self.config.mirror_decay, self.config.mirror_samples
        for layer, B in zip(self.layers, self.feedback, strict=True):
            W = layer.weight.flatten(1)
            x = torch.randn(M, W.shape[1], generator=self.noise, dtype=W.dtype, device=W.device)
            B.mul_(1 - eta * decay).add_((F.linear(x, W).T @ x).view_as(B), alpha=eta / M)

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.feedback}
