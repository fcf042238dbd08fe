"""DiffusionBlocks: every block is a denoiser of its own noise levels, and learns alone to tell the class from them.

Paper: Shing, Koyama, Akiba 2026, "DiffusionBlocks: Block-wise neural network training via diffusion interpretation",
arXiv 2506.14202, for classification; factors c, weight, partition and overlap as in edm.py. For block b of
B, with sigma drawn from its interval for each example, and z = u_y + sigma eps:

    scores_b(z; sigma, x) = theta_out(c_skip z + c_out F_b(c_in z; c_noise, x))
    L_b = E[weight(sigma) CE(softmax(scores_b), y)],   L = 1/B sum_b L_b
    inference:  z ~ N(0, sigma_max^2 I); at levels s_0 = sigma_max > ... > s_{K-1} = sigma_min > s_K = 0, equal steps of
                mass, z <- D + s_{k+1} / s_k (z - D), D = softmax(scores) W_embed of the block that owns s_k (Euler);
                argmax of the last scores. K = B by default: each block once

order=random is the paper's: one block, drawn anew, a step, on L_b, whose mean over draws is the gradient of L; so B
times the epochs. Deviations from the paper: all blocks learn from each mini-batch unless asked otherwise (`joint`, as
noprop-dt); the net is NoProp's denoiser in place of a ViT, each of its blocks one of B unless `blocks` groups them
(within a group z runs along the net's own gated path, Eq. 18 of arXiv 2503.24322); as those blocks end in logits,
F_b = logits W_embed; c_noise enters by one scale and shift of the features before a block's head, zero at the start,
not by AdaLN in each layer, and not before theta_out, which all blocks share; embeddings are the net's, fixed one-hot by
default, of unit length wherever they are used (the authors' code predicts with them as they are, and starts z with a
variance of 1 + sigma_max^2). Left open by the paper: weight decay.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench import (
    AdamWSettings,
    Artifact,
    Batch,
    Claims,
    Facts,
    Method,
    MethodInfo,
    Progress,
    Role,
    Seeds,
    Task,
    Way,
    register,
)
from bench.api.errors import ConfigError
from bench.api.parallel import BlockStep, IndependentBlocks
from bench.api.seeds import derive
from bench.nets.layers import lend_generator, noise_like

from .._shared.optimizers import adamw
from .denoiser import Denoiser, DenoiserBlock, DenoiserSettings
from .edm import EDMSettings, NoiseLevels, euler_step, inference_levels, owner, precondition
from .execution import in_turn, threaded
from .labels import mean_embedding
from .level_block import LevelBlock
from .pictures import of_labels, of_schedule
from .samplers import last, step_counts


class DiffusionBlocksSettings(EDMSettings, AdamWSettings):
    gamma: float = Field(
        0.05, ge=0, le=1, description="overlap: part of its length by which an interval of ln sigma grows at each end"
    )
    blocks: int | None = Field(
        None, ge=1, description="blocks that learn alone, the net cut as evenly as can be; none: each block of the net"
    )
    order: Literal["joint", "random"] = Field("joint", description="all blocks a batch, or one drawn at random")
    execution: Literal["loop", "parallel"] = Field(
        "parallel", description="one block at a time, or one a CPU thread (on a GPU as loop)"
    )
    steps: int | None = Field(None, ge=1, description="Euler steps of a prediction; none: as many as blocks")
    inference_noise: bool = Field(True, description="whether predictions draw the first z or start at its mean")


class Trained(NamedTuple):
    """What one block's step gives: its loss, plain cross-entropy, and gradients of what all blocks share."""

    loss: Tensor
    cross_entropy: Tensor
    shared: list[Tensor]


@register
class DiffusionBlocks(Method):
    """No gradient crosses a block and no forward pass runs through the stack in training."""

    info = MethodInfo(
        name="diffusion-blocks",
        title="DiffusionBlocks",
        family="noprop",
        paper="shing2026diffusionblocks, karras2022elucidating",
        claims=Claims(
            reverse_mode="block",
            forward_passes=1,
            weight_transport=True,
            stochastic_inference=True,
            updates_wait_for="nothing",
        ),
        nets=("denoiser",),
        outputs=("classes", "class probabilities"),
    )
    Config = DiffusionBlocksSettings
    net: Denoiser

    def __init__(self, task: Task, config: DiffusionBlocksSettings, *, device: torch.device, seeds: Seeds) -> None:
        net = task.build_net(seeds.init).to(device)
        assert isinstance(net, Denoiser)
        self.net, self.config, self.seed, self.objective = net, config, seeds.seed, task.objective
        members = [block for block in net.blocks if isinstance(block, DenoiserBlock)]
        T, B = len(members), config.blocks or len(members)
        cuts = [-(-k * T // B) for k in range(B + 1)]
        self.units = nn.ModuleList(LevelBlock(members[a:b], device) for a, b in pairwise(cuts))
        self.levels = NoiseLevels.of(config)
        self.intervals = [own.widened(config.gamma, self.levels.whole) for own in self.levels.shares(len(self.units))]
        # one generator and one optimiser per block: blocks share nothing, in whatever order they run
        self.noise = seeds.spawn(len(self.units))
        for unit, generator in zip(self.units, self.noise, strict=True):
            lend_generator(unit, generator)
        *self.optimizers, self.shared_optimizer = [adamw(of.parameters(), config) for of in (*self.units, net.labels)]
        self._run = threaded if config.execution == "parallel" and device.type == "cpu" else in_turn

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        reason = super().refuse(task, config, facts)
        if reason is not None:
            return reason
        net = DenoiserSettings(**task.net_settings)
        if net.embedding == "prototype":
            return "diffusion-blocks' embeddings have unit length, not an image's; use embedding=one-hot or learned"
        if net.class_probability == "posterior":
            return "diffusion-blocks learns by the cross-entropy of a linear read-out; use class_probability=softmax"
        if config.blocks is not None and config.blocks > net.T:
            raise ConfigError(f"diffusion-blocks: blocks={config.blocks}, but the net has T={net.T} blocks")
        return None

    @property
    def steps(self) -> int:
        """Evaluations of a prediction."""
        return self.config.steps or len(self.units)

    def claims(self) -> Claims:
        # theta_out reads every step; each block is evaluated once where there are as many steps as blocks
        return replace(self.info.claims, stochastic_inference=self.config.inference_noise, inference_passes=self.steps)

    def blocks(self) -> list[nn.Module]:
        return list(self.units)

    def inert(self) -> Mapping[str, str]:
        return {"execution": "blocks share nothing, so that threads compute the same"}

    def phase(self, progress: Progress) -> int | None:
        """The number of the block that learns; None where all do."""
        return None if self.config.order == "joint" else derive(self.seed, "block", progress.step) % len(self.units)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        block = self.phase(progress)
        trained = range(len(self.units)) if block is None else [block]
        results = self._run([partial(self._train_block, b, batch, 1 / len(trained)) for b in trained])
        self._train_shared(batch, [result.shared for result in results])
        return {
            "loss": torch.stack([result.loss for result in results]).sum(),
            "ce": torch.stack([result.cross_entropy for result in results]).mean(),
        }

    def parallel_plan(self) -> IndependentBlocks:
        """Blocks share theta_out, and W_embed where it learns: their gradients by it are all that workers exchange."""
        if self.config.order == "random":
            raise ConfigError("diffusion-blocks: order=random trains one block a step; over workers use joint")
        return IndependentBlocks(len(self.units), self._train_some, self._train_shared)

    def _train_some(self, which: Sequence[int], batch: Batch, progress: Progress) -> list[BlockStep]:
        results = self._run([partial(self._train_block, b, batch, 1 / len(self.units)) for b in which])
        return [BlockStep(result.loss, result.shared) for result in results]

    def _train_shared(self, batch: Batch, of_blocks: Sequence[Sequence[Tensor]]) -> None:
        """One step of theta_out and W_embed on the gradients that the blocks' losses have by them."""
        for p, gradients in zip(self.net.labels.parameters(), zip(*of_blocks, strict=True), strict=True):
            p.grad = torch.stack(gradients).sum(0)  # in the order of b, however they were computed
        self.shared_optimizer.step()
        self.shared_optimizer.zero_grad(set_to_none=True)

    def _train_block(self, b: int, batch: Batch, share: float) -> Trained:
        """A step of block b on `share` times L_b; its graph and gradients are freed before this returns."""
        noise, optimizer = self.noise[b], self.optimizers[b]
        # leaves of its own, so that blocks that run at once do not add to one gradient
        shared = {name: p.detach().requires_grad_() for name, p in self.net.labels.named_parameters()}
        W = self._unit_rows(shared.get("weight", self.net.labels.weight))
        u = self.objective.project(batch.y, W)
        sigma = self.levels.draw(len(u), self.intervals[b], u, noise)
        z = u + sigma * noise_like(tuple(u.shape), u, noise)
        weight, guess = self._denoise(b, z, batch.x, sigma, W)
        with torch.autocast(z.device.type, enabled=False):
            scores = F.linear(guess, shared["readout.weight"], shared["readout.bias"])
            cross_entropy = self.objective.losses(scores, batch.y)
            loss = share * (weight.squeeze(1) * cross_entropy).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        gradients = [p.grad for p in shared.values() if p.grad is not None]
        return Trained(loss.detach(), cross_entropy.detach().mean(), gradients)

    def _denoise(self, b: int, z: Tensor, x: Tensor, sigma: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
        """weight(sigma), and c_skip z + c_out F_b, which theta_out reads. Shape: z (B, d), sigma (B, 1), W (m, d)."""
        c = precondition(sigma, self.config.sigma_data)
        logits = self.units[b](c.c_in * z, x, c.c_noise, W)
        with torch.autocast(z.device.type, enabled=False):  # where sigma is small, rounding is all the noise there is
            return c.weight, c.c_skip * z + c.c_out * (logits.to(W.dtype) @ W)

    def _unit_rows(self, W: Tensor) -> Tensor:
        return F.normalize(W) if self.net.labels.learned else W

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self._predict(x, noise, self.steps)

    def ways(self) -> Iterator[Way]:
        for steps in step_counts(2 * len(self.units)):
            yield Way("euler", steps, partial(self._predict, steps=steps))

    @torch.no_grad()
    def _predict(self, x: Tensor, noise: torch.Generator | None, steps: int) -> Tensor:
        return last(self._path(x, noise, steps))

    def _path(self, x: Tensor, generator: torch.Generator | None, steps: int) -> Iterator[Tensor]:
        """The scores at each level of the probability flow; without a generator z starts at its mean."""
        W = self._unit_rows(self.net.labels.weight)
        sigmas = inference_levels(self.levels, steps)
        z = sigmas[0] * noise_like((len(x), W.shape[1]), x, generator if self.config.inference_noise else None)
        for k in range(steps):
            scores = self._scores(owner(k, steps, len(self.units)), z, x, sigmas[k], W)
            yield scores
            z = euler_step(z, mean_embedding(scores, W), sigmas[k], sigmas[k + 1])

    def _scores(self, b: int, z: Tensor, x: Tensor, sigma: float, W: Tensor) -> Tensor:
        _, guess = self._denoise(b, z, x, z.new_full((len(z), 1), sigma), W)
        return self.net.labels.scores(guess)

    @torch.no_grad()
    def artifacts(self, shown: Batch, noise: torch.Generator) -> Iterator[Artifact]:
        times = torch.arange(1, self.steps + 1) / self.steps
        path = [scores.softmax(1) for scores in self._path(shown.x, noise, self.steps)]
        yield from of_labels(self.net.labels, shown, path, times)
        sigma = torch.tensor(inference_levels(self.levels, self.steps)[:-1])
        yield of_schedule(times, 1 / (1 + sigma.square()), precondition(sigma, self.config.sigma_data).weight)

    def modules(self) -> Mapping[Role, nn.Module]:
        # the net's own gates belong to the backprop baseline alone
        return {"inference": nn.ModuleList([self.units, self.net.labels])}
