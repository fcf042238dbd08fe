"""Neural ODE with the adjoint method: the gradient through all steps in time, from no memory of them.

Papers: Chen, Rubanova, Bettencourt, Duvenaud 2018, "Neural ordinary differential equations", arXiv 1806.07366,
Algorithm 1; as the baseline of Li, Teh, Pascanu 2025, arXiv 2503.24322, section 4, on NoProp's continuous-time network.

    dz/dt = v(z, x, t) = logits(z, x, t) @ W_embed on [0, 1], z_0 ~ N(0, I),   L = CE(p_out(y | z_1))
    lambda(1) = dL/dz_1,   dlambda/dt = -lambda^T dv/dz,   dL/dtheta = int_0^1 lambda^T dv/dtheta dt

z, lambda and the integral are solved backwards in T fixed steps; the image's features stand among the parameters, so
that they are computed once. The integral's discretisation differs from that of the way forward: the gradient is that
of the ODE, not exactly that of the solver.
Deviations from the papers: none. Left open by them and chosen here: z_0 is noise, as in the paper's Eq. 17.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torchdiffeq import odeint_adjoint

from bench import AdamWSettings, Batch, Claims, Facts, Method, MethodInfo, Progress, Seeds, Task, register
from bench.nets.layers import lend_generator, noise_like

from .._shared.optimizers import adamw
from .denoiser_ct import DenoiserCT


class AdjointSettings(AdamWSettings):
    solver: Literal["euler", "midpoint", "rk4"] = Field(
        "euler", description="fixed-step method, both ways, in training"
    )


EVALUATIONS = {"euler": 1, "midpoint": 2, "rk4": 4}


@register
class Adjoint(Method):
    """T evaluations of the network forward and as many, each with its derivative, backward."""

    info = MethodInfo(
        name="adjoint",
        title="Adjoint",
        family="noprop",
        paper="chen2018neural, li2025noprop",
        claims=Claims(reverse_mode="network", weight_transport=True, stochastic_inference=True),
        nets=("denoiser-ct",),
        outputs=("classes", "class probabilities"),
    )
    Config = AdjointSettings
    net: DenoiserCT

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if task.net_settings.get("embedding") == "prototype":
            return "adjoint needs a velocity that does not change between calls; prototypes pass through dropout"
        return super().refuse(task, config, facts)

    def __init__(self, task: Task, config: AdjointSettings, *, device: torch.device, seeds: Seeds) -> None:
        net = task.build_net(seeds.init).to(device)
        assert isinstance(net, DenoiserCT)
        self.net, self.config = net, config
        self.noise, self.objective = seeds.noise, task.objective
        lend_generator(net, seeds.noise)
        self.optimizer = adamw(net.parameters(), config)

    def claims(self) -> Claims:
        passes = 2 * self.net.T * EVALUATIONS[self.config.solver]
        return replace(self.info.claims, forward_passes=passes, inference_passes=self.net.T)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        loss = self.objective.loss(self.net.labels.scores(self._arrive(batch.x)), batch.y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.detach()}

    def _arrive(self, x: Tensor) -> Tensor:
        """z_1, with gradients by the adjoint method. Shape: (B, C, H, W) to (B, d)."""
        net, W = self.net.denoiser, self.net.labels.weight
        image_part = net.image_part(x)

        def velocity(t: Tensor, z: Tensor) -> Tensor:
            return net(z, image_part, net.time_part(t.view(1))) @ W  # type: ignore[no-any-return]

        path = odeint_adjoint(
            velocity,
            noise_like((len(x), self.net.labels.dim), x, self.noise),
            x.new_tensor([0.0, 1.0]),
            method=self.config.solver,
            options={"grid_constructor": self._grid},
            adjoint_params=(image_part, *self._beyond_the_image(), *([W] if self.net.labels.learned else [])),
        )
        z_1: Tensor = path[-1]
        return z_1

    def _grid(self, velocity: object, z: Tensor, ends: Tensor) -> Tensor:
        """T equal steps between two times, in either direction; by a step size torchdiffeq takes T + 1 for some T."""
        shares = torch.arange(self.net.T + 1, dtype=ends.dtype, device=ends.device) / self.net.T
        return ends[0] + (ends[-1] - ends[0]) * shares

    def _beyond_the_image(self) -> list[Tensor]:
        """The parameters that act in every step."""
        net = self.net.denoiser
        return [p for part in (net.label, net.from_label, net.time, net.from_time, net.head) for p in part.parameters()]
