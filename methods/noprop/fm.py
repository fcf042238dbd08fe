"""NoProp-FM: one network learns the velocity that carries noise straight to the label embedding (flow matching).

Paper: Li, Teh, Pascanu 2025, "NoProp: Training neural networks without back-propagation or forward-propagation",
arXiv 2503.24322, Eq. 11, 13 and Algorithm 3. With z_0 ~ N(0, I), t ~ U(0, 1) for each example:

    z_t = t u_y + (1 - t) z_0 + sigma eps,   v = logits(z_t, x, t) @ W_embed (no softmax)
    L = |v - (u_y - z_0)|^2,   and where W_embed is learned + CE(p_out(y | z_t + (1 - t) v)), which keeps classes apart
    inference:  z_0 ~ N(0, I), T steps of dz/dt = v on [0, 1], the class whose embedding is nearest to z_1

No gradient runs through the steps in time; within the one network it is backprop's. Where embeddings are longer than
there are classes, v cannot leave their span, and the loss keeps a constant of the missing dimensions.
Deviations from the paper: none. Left open by it and chosen here: sigma = 0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import AdamSettings, Artifact, Batch, Claims, Method, MethodInfo, Progress, Role, Seeds, Task, Way, register
from bench.nets.layers import lend_generator, noise_like

from .._shared.optimizers import adam
from .denoiser_ct import DenoiserCT
from .labels import squared_distances
from .objective import squared_error
from .pictures import of_labels
from .samplers import SHOWN_STEPS, Solver, last, shown_times, solve, step_counts

SHARPEST = 0.1  # for pictures: at t = 1 the path has no spread, and every z_1 would be certain
SOLVERS: tuple[Solver, ...] = ("euler", "heun")


class NoPropFMSettings(AdamSettings):
    sigma: float = Field(0.0, ge=0, description="noise around the straight path")
    solver: Solver = Field("euler", description="how predictions solve the ODE")


@register
class NoPropFM(Method):
    """One evaluation of the network a step in training, T in a prediction."""

    info = MethodInfo(
        name="noprop-fm",
        title="NoProp-FM",
        family="noprop",
        paper="li2025noprop",
        claims=Claims(reverse_mode="network", weight_transport=True, stochastic_inference=True),
        nets=("denoiser-ct",),
        outputs=("classes", "class probabilities"),
    )
    Config = NoPropFMSettings
    net: DenoiserCT

    def __init__(self, task: Task, config: NoPropFMSettings, *, device: torch.device, seeds: Seeds) -> None:
        net = task.build_net(seeds.init).to(device)
        assert isinstance(net, DenoiserCT)
        self.net, self.config = net, config
        self.noise, self.objective = seeds.noise, task.objective
        lend_generator(net, seeds.noise)
        self.optimizer = adam(self.modules()["inference"].parameters(), config)

    def claims(self) -> Claims:
        passes = 2 * self.net.T if self.config.solver == "heun" else self.net.T
        return replace(self.info.claims, inference_passes=passes)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        labels = self.net.labels
        u = self.objective.project(batch.y, labels.weight)
        t = torch.rand(len(u), generator=self.noise, device=u.device)
        z_0 = noise_like(tuple(u.shape), u, self.noise)
        z = t[:, None] * u + (1 - t[:, None]) * z_0
        if self.config.sigma:
            z = z + self.config.sigma * noise_like(tuple(u.shape), u, self.noise)

        v = self.net.logits(z, batch.x, t) @ labels.weight
        loss = squared_error(v, u - z_0).mean()
        if labels.learned:
            loss = loss + self.objective.loss(labels.scores(z + (1 - t[:, None]) * v), batch.y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.detach()}

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self._predict(x, noise, self.config.solver, self.net.T)

    def ways(self) -> Iterator[Way]:
        for solver in SOLVERS:
            for steps in step_counts(self.net.T):
                yield Way(solver, steps, partial(self._predict, solver=solver, steps=steps))

    @torch.no_grad()
    def _predict(self, x: Tensor, noise: torch.Generator | None, solver: Solver, steps: int) -> Tensor:
        return -squared_distances(last(self._path(x, solver, steps, noise)), self.net.labels.weight)

    def _path(self, x: Tensor, solver: Solver, steps: int, noise: torch.Generator | None) -> Iterator[Tensor]:
        """z_0 .. z_1 in so many steps; without a generator z_0 is at its mean."""
        logits, W = self.net.along(x, steps), self.net.labels.weight
        z = noise_like((len(x), self.net.labels.dim), x, noise)
        return solve(lambda z, k: logits(z, k) @ W, z, steps, solver)

    @torch.no_grad()
    def artifacts(self, shown: Batch, noise: torch.Generator) -> Iterator[Artifact]:
        way, times = self._path(shown.x, self.config.solver, SHOWN_STEPS, noise), shown_times(shown.x)
        path = [self._probabilities(z, t) for z, t in zip(way, times, strict=True)]
        yield from of_labels(self.net.labels, shown, path, times)

    def _probabilities(self, z: Tensor, t: Tensor) -> Tensor:
        """p(y | z_t) of equally likely classes under z_t ~ N(t u_y, (1 - t)^2 + sigma^2), SHARPEST^2 or more."""
        variance = ((1 - t) ** 2 + self.config.sigma**2).clamp_min(SHARPEST**2)
        return (-squared_distances(z, t * self.net.labels.weight) / (2 * variance)).softmax(1)

    def modules(self) -> Mapping[Role, nn.Module]:
        # a fixed embedding needs no readout: the nearest one is the answer, and nothing has to keep them apart
        return {"inference": self.net if self.net.labels.learned else self.net.denoiser}
