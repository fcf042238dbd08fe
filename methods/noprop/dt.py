"""NoProp-DT: every block learns by itself to recover the label embedding from noise and the image.

Paper: Li, Teh, Pascanu 2025, "NoProp: Training neural networks without back-propagation or forward-propagation",
arXiv 2503.24322, Eq. 3, 5, 6, 8 and Algorithm 1. For block t = 1..T, with z_{t-1} and z_T drawn from q(. | y):

    L_t = CE(p_out(y | z_T)) + KL(q(z_0 | y) || N(0, I)) + T/2 eta (SNR(t) - SNR(t-1)) |uhat_t(z_{t-1}, x) - u_y|^2
    inference:  z_0 ~ N(0, I),   z_t = a_t uhat_t(z_{t-1}, x) + b_t z_{t-1} + sqrt(c_t) eps,   argmax p_out(. | z_T)

Every step trains all blocks on one mini-batch: the loss is the mean of L_t over t, whose gradient to a block is
that of its own term. The KL term is constant here, because the embedding is fixed, and is left out.
Algorithm 1's outer loop over t is not followed; the paper calls its order optional.
Deviations from the paper: none. Left open by it and chosen here: the clip of the cosine schedule, theta_out's start.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.optim import AdamW

from bench import Batch, Claims, Method, MethodInfo, Progress, Role, Seeds, Task, register
from bench.nets.denoiser import Denoiser, noise_like
from bench.nets.layers import lend_generator
from methods.noprop.schedule import coefficients, cosine


class NoPropDTSettings(BaseModel):
    lr: float = Field(1e-3, gt=0, description="step size", json_schema_extra={"search": ["log", 1e-5, 1e-1]})
    weight_decay: float = Field(1e-3, ge=0, description="decoupled weight decay, per step and unit of lr")
    eta: float = Field(
        0.1, gt=0, description="weight of the denoising loss", json_schema_extra={"search": ["log", 1e-2, 1e1]}
    )
    clip: float = Field(1e-3, gt=0, lt=0.5, description="distance that abar keeps from 0 and 1")
    execution: Literal["loop", "parallel"] = Field(
        "parallel", description="blocks one after another, or over the CPU's threads; equal to the last bit"
    )


@register
class NoPropDT(Method):
    """No gradient crosses a block and no forward pass runs through the stack in training."""

    info = MethodInfo(
        name="noprop-dt",
        title="NoProp-DT",
        family="noprop",
        paper="li2025noprop",
        claims=Claims(reverse_mode="block", forward_passes=1, weight_transport=True, stochastic_inference=True),
        nets=("denoiser",),
    )
    Config = NoPropDTSettings
    net: Denoiser

    def __init__(self, task: Task, config: NoPropDTSettings, *, device: torch.device, seeds: Seeds) -> None:
        net = task.build_net(seeds.init, "denoiser").to(device)
        assert isinstance(net, Denoiser)
        self.net, self.config = net, config
        self.steps = coefficients(cosine(len(net.blocks), config.clip))
        self.inference = seeds.inference
        # one generator and one optimiser per block: blocks share nothing, in whatever order they run
        *self.noise, self.readout_noise = seeds.spawn(len(net.blocks) + 1)
        for block, generator in zip(net.blocks, self.noise, strict=True):
            lend_generator(block, generator)
        *self.optimizers, self.readout_optimizer = [
            AdamW(part.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
            for part in (*net.blocks, net.readout)
        ]
        self._run = _threaded if config.execution == "parallel" and device.type == "cpu" else _in_turn

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.net.train()
        tasks = [lambda t=t: self._train_block(t, batch) for t in range(1, self.steps.T + 1)]
        losses = self._run([lambda: self._train_readout(batch.y), *tasks])
        return {"loss": torch.stack(losses).sum(), "ce": losses[0]}

    def _train_block(self, t: int, batch: Batch) -> Tensor:
        """One step of block t on its own term of the loss; its graph and gradients are freed at once."""
        z = self._noised(batch.y, t - 1, self.noise[t - 1])
        error = self.net.u_hat(t, z, batch.x) - self.net.embedding[batch.y]
        weight = self.config.eta / 2 * float(self.steps.snr_gain[t])
        return _step(self.optimizers[t - 1], weight * error.square().sum(dim=1).mean())

    def _train_readout(self, y: Tensor) -> Tensor:
        z = self._noised(y, self.steps.T, self.readout_noise)
        return _step(self.readout_optimizer, F.cross_entropy(self.net.readout(z), y))

    def _noised(self, y: Tensor, t: int, generator: torch.Generator) -> Tensor:
        """z_t ~ q(z_t | y). Shape: y (B,) to (B, d)."""
        abar = float(self.steps.abar[t])
        u = self.net.embedding[y]
        eps = noise_like(tuple(u.shape), generator)
        z: Tensor = abar**0.5 * u + (1 - abar) ** 0.5 * eps
        return z

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self._infer(x, self.inference)

    @torch.no_grad()
    def predict_noise_free(self, x: Tensor) -> Tensor:
        return self._infer(x, None)

    def _infer(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Eq. 3 over all blocks; without a generator z_0 and every eps are at their mean."""
        self.net.eval()
        shape = len(x), self.net.embedding.shape[1]
        z = noise_like(shape, generator) if generator else torch.zeros(shape, device=x.device)
        for t in range(1, self.steps.T + 1):
            a, b, c = (float(k[t]) for k in (self.steps.a, self.steps.b, self.steps.c))
            z = a * self.net.u_hat(t, z, x) + b * z
            if generator:
                z = z + c**0.5 * noise_like(shape, generator)
        scores: Tensor = self.net.readout(z)
        return scores

    def modules(self) -> Mapping[Role, nn.Module]:
        # the gates belong to the backprop baseline alone
        return {"inference": nn.ModuleList([*self.net.blocks, self.net.readout])}


def _step(optimizer: AdamW, loss: Tensor) -> Tensor:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _in_turn(tasks: list[Callable[[], Tensor]]) -> list[Tensor]:
    return [task() for task in tasks]


def _threaded(tasks: list[Callable[[], Tensor]]) -> list[Tensor]:
    """Each task on one thread of its own, as many at a time as torch has intra-op threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            return list(pool.map(lambda task: task(), tasks))
    finally:
        torch.set_num_threads(threads)
