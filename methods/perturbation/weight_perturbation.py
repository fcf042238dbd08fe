"""Weight perturbation: correlate random changes of all weights with the change of the loss they bring.

Papers: Dembo, Kailath 1990, "Model-free distributed learning"; Cauwenberghs 1993, "A fast stochastic
error-descent algorithm for supervised learning and optimization"; Zuege, Klos, Memmesheimer 2023, "Weight versus
node perturbation learning in temporally extended tasks". On one mini-batch, for k directions z over all
weights, E[z z^T] = I:

    g = 1/k sum_j (L(theta + sigma z_j) - L(theta)) / sigma z_j,      E[g] = grad L + O(sigma^2)

and g takes the place of the gradient in an ordinary optimiser. The k directions are held in memory and
evaluated together, by products over stacked weights, against one clean pass. `spsa` spends its memory the
other way: it holds no direction and no optimiser state, moves the weights in place, and runs n directions in turn.
Each layer is called twice a step: once clean, and once for k members, which is the work of k passes.
Deviations from the papers: k directions averaged, where they use one; the net is in evaluation mode.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from bench import Batch, Claims, Method, MethodInfo, Net, Progress, Seeds, StepSize, Task, register, step_size

from .._shared.directions import Directions, draw
from .population import OptimizerName, apply, build_optimizer, population_losses


class WeightPerturbationSettings(StepSize):
    lr: float = step_size(3e-3)
    sigma: float = Field(1e-3, gt=0, description="standard deviation of the perturbation of a weight")
    k: int = Field(16, ge=1, description="directions per step, evaluated together")
    directions: Directions = Field("gaussian", description="distribution of the directions")
    optimizer: OptimizerName = Field("adam", description="what steps on the estimate; momentum is 0.9")


@register
class WeightPerturbation(Method):
    """One clean pass, one pass of k perturbed nets, none backward."""

    info = MethodInfo(
        name="weight-perturbation",
        title="Weight perturbation",
        family="perturbation",
        paper="dembo1990model, cauwenberghs1993fast, zuege2023weight",
        claims=Claims(reverse_mode="none", forward_passes=2, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=("noiseless",),
    )
    Config = WeightPerturbationSettings
    net: Net

    def __init__(self, task: Task, config: WeightPerturbationSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device).eval()
        self.config = config
        self.noise = seeds.noise
        self.optimizer = build_optimizer(config.optimizer, self.net.parameters(), config.lr)

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        c, weights = self.config, dict(self.net.named_parameters())
        z = {name: draw((c.k, *p.shape), p, c.directions, self.noise) for name, p in weights.items()}
        clean = self.objective.loss(self.net(batch.x), batch.y)
        # in the place of the directions, for these k nets are the bulk of the memory
        moved = {name: z.pop(name).mul_(c.sigma).add_(p) for name, p in weights.items()}
        votes = (population_losses(self.net, moved, batch, self.objective) - clean) / (c.k * c.sigma**2)
        apply(self.optimizer, (torch.tensordot(votes, moved[n], dims=1) - votes.sum() * p for n, p in weights.items()))
        return {"loss": clean}
