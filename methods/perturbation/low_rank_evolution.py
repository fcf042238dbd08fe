"""Low-rank evolution strategies: a population whose members differ from the net by matrices of rank r.

Paper: Sarkar et al. 2025, "Evolution strategies at the hyperscale", arXiv 2511.16652 (EGGROLL). For a weight
matrix W (m, n) and k/2 antithetic pairs W +- sigma E_j:

    E_j = A_j B_j^T / sqrt(r),   A_j (m, r), B_j (n, r) ~ N(0, 1)
    x (W + sigma E_j)^T = x W^T + sigma / sqrt(r) (x B_j) A_j^T
    g = 1 / (k sigma) sum_j (F_j+ - F_j-) E_j,   F = z-score of the loss

No E_j is ever formed: x W^T is one product of the shared weights for all members, who travel through the net as
further rows of the batch, and in the first layer, where they still agree on x, it is computed once. A bias
gets full noise: it is a column of A whose x B is the constant 1. The entries of E have unit variance and are
uncorrelated, so that with raw losses E[g] is the gradient to second order in sigma; the sum over pairs has
full rank. Each layer is called once a step, on k times the rows of the batch (the first on the batch itself).
Deviations from the paper: convolutions, which it does not treat, count as matrices (m, channels x kernel); g carries
1 / sigma, so that lr has the scale of other estimators of the gradient; sigma and lr are constant; the optimiser is a
choice, Adam by default as in evolution-strategies, where the paper's step is plain ascent.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import Batch, Claims, Facts, Method, MethodInfo, Net, Progress, Seeds, StepSize, Task, register, step_size
from bench.api.forms.convolution import convolve_members
from bench.api.structure import owners

from .._shared.directions import draw
from .population import (
    OptimizerName,
    Shaping,
    apply,
    build_optimizer,
    shaped,
)


class LowRankEvolutionSettings(StepSize):
    lr: float = step_size(3e-3)
    sigma: float = Field(0.02, gt=0, description="standard deviation of the perturbation of a weight")
    pairs: int = Field(32, ge=1, description="antithetic pairs; the population is twice as large")
    rank: int = Field(1, ge=1, description="rank r of a member's perturbation of a matrix")
    shaping: Shaping = Field("z-score", description="what the losses of the population are turned into")
    optimizer: OptimizerName = Field("adam", description="what steps on the estimate; momentum is 0.9")


Layer = nn.Linear | nn.Conv2d


class Factors(NamedTuple):
    """The noise of one layer. Shape: A (pairs, m, r), B (pairs, n, r), bias (pairs, m)."""

    A: Tensor
    B: Tensor
    bias: Tensor

    def weight(self, votes: Tensor) -> Tensor:
        """sum_j votes_j E_j. Shape: (pairs,) to (m, n)."""
        scale = votes / self.A.shape[-1] ** 0.5
        A = self.A * scale[:, None, None]
        return torch.einsum("jmr,jnr->mn", A, self.B)


@register
class LowRankEvolution(Method):
    """One pass of the whole population around shared weights, none backward."""

    info = MethodInfo(
        name="low-rank-evolution",
        title="Low-rank evolution (EGGROLL)",
        family="perturbation",
        paper="sarkar2025evolution",
        claims=Claims(reverse_mode="none", forward_passes=1, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=("noiseless",),
    )
    Config = LowRankEvolutionSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if reason := super().refuse(task, config, facts):
            return reason
        for layer in owners(task.sketch()):
            if type(layer) not in (nn.Linear, nn.Conv2d):
                kind = type(layer).__name__
                return f"low-rank-evolution perturbs linear layers and convolutions; {task.net.name} has a {kind}"
            if layer.bias is None:
                return f"low-rank-evolution perturbs biases, too, and {task.net.name} has a layer without"
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                return f"low-rank-evolution perturbs whole matrices; {task.net.name} has a grouped convolution"
        return None

    def __init__(self, task: Task, config: LowRankEvolutionSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device).eval()
        self.layers = [m for m in self.net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        self.config = config
        self.noise = seeds.noise
        self.optimizer = build_optimizer(config.optimizer, self.net.parameters(), config.lr)

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        c = self.config
        factors = [self._draw(layer) for layer in self.layers]
        with perturbed(self.layers, factors, c.sigma, len(batch.x)):
            out = self.net(batch.x)
        losses = self.objective.losses(out.view(2 * c.pairs, len(batch.x), *out.shape[1:]), batch.y).mean(dim=1)
        ahead, behind = shaped(losses, c.shaping).view(2, c.pairs)
        apply(self.optimizer, self._estimates(factors, (ahead - behind) / (2 * c.pairs * c.sigma)))
        return {"loss": losses.mean()}

    def _draw(self, layer: Layer) -> Factors:
        pairs, rank = self.config.pairs, self.config.rank
        m, n = layer.weight.flatten(1).shape
        shapes = (pairs, m, rank), (pairs, n, rank), (pairs, m)
        return Factors(*(draw(shape, layer.weight, "gaussian", self.noise) for shape in shapes))

    def _estimates(self, factors: list[Factors], votes: Tensor) -> Iterator[Tensor]:
        for layer, f in zip(self.layers, factors, strict=True):
            yield f.weight(votes).view_as(layer.weight)
            yield votes @ f.bias


@contextmanager
def perturbed(layers: list[Layer], factors: list[Factors], sigma: float, batch_size: int) -> Iterator[None]:
    """Inside, a net made of `layers` answers for the whole population: B rows in, 2 pairs x B rows out."""
    hooks = [
        layer.register_forward_hook(partial(_answer_for_all, f, sigma, batch_size))
        for layer, f in zip(layers, factors, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _answer_for_all(
    f: Factors, sigma: float, batch_size: int, layer: Layer, args: tuple[Tensor], shared: Tensor
) -> Tensor:
    """The shared product plus each member's own part. Shape: args and shared (B or k B, ...) to (k B, ...)."""
    left = torch.cat((f.A * (sigma / f.A.shape[-1] ** 0.5), sigma * f.bias.unsqueeze(-1)), dim=-1)
    left = torch.cat((left, -left))  # (k, m, r + 1)
    if isinstance(layer, nn.Linear):
        right = _with_constant(_project(args[0], f.B, batch_size), dim=2)
        base = shared.view(-1, batch_size, len(layer.weight)).expand(len(left), -1, -1)
        return torch.baddbmm(base, right, left.transpose(1, 2)).flatten(0, 1)
    right = _with_constant(_convolve(layer, args[0], f.B, batch_size), dim=2)
    own = (left.unsqueeze(1) @ right.flatten(3)).view(-1, batch_size, *shared.shape[1:])
    return own.add_(shared.view(-1, batch_size, *shared.shape[1:])).flatten(0, 1)


def _project(x: Tensor, B: Tensor, batch_size: int) -> Tensor:
    """x B_j for every member. Shape: x (B or k B, n), B (pairs, n, r) to (k, B, r)."""
    if len(x) == batch_size:  # still one x for all
        product = x @ B.transpose(0, 1).flatten(1)
        return product.view(batch_size, len(B), -1).transpose(0, 1).repeat(2, 1, 1)
    return x.view(-1, batch_size, x.shape[1]) @ B.repeat(2, 1, 1)


def _convolve(layer: nn.Conv2d, x: Tensor, B: Tensor, batch_size: int) -> Tensor:
    """x convolved with the r filters B_j of every member. Shape: x (B or k B, c, h, w) to (k, B, r, h', w')."""
    filters = B.transpose(1, 2).reshape(len(B), -1, *layer.weight.shape[1:])
    x = x.view(-1, batch_size, *x.shape[1:])
    if len(x) == 1:  # both of a pair are the same yet
        return convolve_members(layer, x, filters).repeat(2, 1, 1, 1, 1)
    return convolve_members(layer, x, filters.repeat(2, 1, 1, 1, 1))


def _with_constant(x: Tensor, dim: int) -> Tensor:
    """x with a 1 behind its last entry along `dim`."""
    return torch.cat((x, torch.ones_like(x.narrow(dim, 0, 1))), dim)
