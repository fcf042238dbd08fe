"""Evolution strategies: a population of noisy nets votes on the direction of the step.

Paper: Salimans, Ho, Chen, Sidor, Sutskever 2017, "Evolution strategies as a scalable alternative to
reinforcement learning", arXiv 1703.03864. For k/2 antithetic pairs theta +- sigma eps_j, eps_j ~ N(0, I):

    J(theta) = E L(theta + sigma eps),    grad J = E[L(theta + sigma eps) eps] / sigma
    g = 1 / (k sigma) sum_j (F_j+ - F_j-) eps_j

where F shapes the k losses: centred ranks as in the paper, z-scores, or raw (then E[g] = grad J). g takes the
place of the gradient in an optimiser. All members see one mini-batch and are evaluated together, by products over
stacked weights: each layer is called once a step, for k members, which is the work of k passes.
Deviations from the paper: noise is drawn afresh instead of from a shared table; tied losses share their mean
rank; no weight decay; the net is in evaluation mode (its virtual batch normalisation has no place here).
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Net, Progress, Seeds, StepSize, Task, register, step_size

from .._shared.directions import Directions, draw
from .population import OptimizerName, Shaping, apply, build_optimizer, population_losses, shaped


class EvolutionStrategiesSettings(StepSize):
    lr: float = step_size(3e-3)
    sigma: float = Field(0.02, gt=0, description="standard deviation of the perturbation of a weight")
    pairs: int = Field(16, ge=1, description="antithetic pairs; the population is twice as large")
    shaping: Shaping = Field("centred-ranks", description="what the losses of the population are turned into")
    directions: Directions = Field("gaussian", description="distribution of the directions")
    optimizer: OptimizerName = Field("adam", description="what steps on the estimate; momentum is 0.9")


@register
class EvolutionStrategies(Method):
    """One pass of the whole population, none backward."""

    info = MethodInfo(
        name="evolution-strategies",
        title="Evolution strategies",
        family="perturbation",
        paper="salimans2017evolution",
        claims=Claims(reverse_mode="none", forward_passes=1, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=("noiseless",),
    )
    Config = EvolutionStrategiesSettings
    net: Net

    def __init__(self, task: Task, config: EvolutionStrategiesSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device).eval()
        self.config = config
        self.noise = seeds.noise
        self.optimizer = build_optimizer(config.optimizer, self.net.parameters(), config.lr)

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        c, weights = self.config, dict(self.net.named_parameters())
        eps = {name: draw((c.pairs, *p.shape), p, c.directions, self.noise) for name, p in weights.items()}
        members = {name: antithetic(p, eps[name], c.sigma) for name, p in weights.items()}
        losses = population_losses(self.net, members, batch, self.objective)
        ahead, behind = shaped(losses, c.shaping).view(2, c.pairs)
        votes = (ahead - behind) / (2 * c.pairs * c.sigma)
        apply(self.optimizer, (torch.tensordot(votes, eps[name], dims=1) for name in weights))
        return {"loss": losses.mean()}


def antithetic(theta: Tensor, eps: Tensor, sigma: float) -> Tensor:
    """theta + sigma eps_j for all pairs j, then theta - sigma eps_j. Shape: (...), (pairs, ...) to (2 pairs, ...)."""
    members = theta.new_empty(2, *eps.shape)
    torch.add(theta, eps, alpha=sigma, out=members[0])
    torch.sub(theta, eps, alpha=sigma, out=members[1])
    return members.flatten(0, 1)
