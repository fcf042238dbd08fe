"""Backprop: the gradient of the cross-entropy through the whole net, and AdamW.

Papers: Rumelhart, Hinton, Williams 1986, "Learning representations by back-propagating errors" (the gradient);
Loshchilov, Hutter 2019, "Decoupled weight decay regularization" (the step); on the denoiser net it is the
baseline of Li, Teh, Pascanu 2025, arXiv 2503.24322, Eq. 17-19.

    delta_l = (W_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T

Deviations from the papers: none.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Progress, Seeds, Task, register
from bench.nets.layers import lend_generator


class BackpropSettings(BaseModel):
    lr: float = Field(1e-3, gt=0, description="step size", json_schema_extra={"search": ("log", 1e-5, 1e-1)})
    weight_decay: float = Field(1e-3, ge=0, description="decoupled weight decay, per step and unit of lr")


@register
class Backprop(Method):
    """One forward and one backward pass through the whole net per step."""

    info = MethodInfo(
        name="backprop",
        title="Backprop",
        family="backprop",
        paper="rumelhart1986learning, loshchilov2019decoupled",
        claims=Claims(reverse_mode="network", forward_passes=1, weight_transport=True),
    )
    Config = BackpropSettings

    def __init__(
        self, task: Task, config: BackpropSettings, *, device: torch.device, seeds: Seeds
    ) -> None:
        self.net = task.build_net(seeds.init).to(device)
        self.noise, self.inference = seeds.noise, seeds.inference
        lend_generator(self.net, seeds.noise)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )

    def claims(self) -> Claims:
        return replace(self.info.claims, stochastic_inference=self.net.stochastic)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.net.train()
        loss = F.cross_entropy(self.net(batch.x, self.noise), batch.y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self.net.eval()(x, self.inference)

    @torch.no_grad()
    def predict_noise_free(self, x: Tensor) -> Tensor:
        return self.net.eval()(x)
