"""NoProp-DT: every block learns by itself to recover the label embedding from noise and the image.

Paper: Li, Teh, Pascanu 2025, "NoProp: Training neural networks without back-propagation or forward-propagation",
arXiv 2503.24322, Eq. 3, 5, 6, 8 and Algorithm 1. For block t = 1..T, with z_{t-1} and z_T drawn from q(. | y):

    L_t = CE(p_out(y | z_T)) + KL(q(z_0 | y) || N(0, I)) + T/2 eta (SNR(t) - SNR(t-1)) |uhat_t(z_{t-1}, x) - u_y|^2
    inference:  z_0 ~ N(0, I),   z_t = a_t uhat_t(z_{t-1}, x) + b_t z_{t-1} + sqrt(c_t) eps,   argmax p_out(. | z_T)

Order of updates: `joint` trains all blocks on each mini-batch by the mean of L_t over t, whose gradient to a block is
1/T of its own term's; `sequential` is Algorithm 1, t in the outer loop: a pass over the data trains one block, and T
passes are one epoch of the paper. theta_out and a learned W_embed take every step, on the gradients of all terms in it.
Deviations from the paper: the order is joint unless asked for; where W_embed is fixed, the KL term is a constant and
left out. Left open by it and chosen here: the clip of the cosine schedule; that predictions without noise start at
the mean of z_0 too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
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
    register,
)
from bench.api.abilities import compile_blocks
from bench.api.errors import ConfigError
from bench.api.parallel import BlockStep, IndependentBlocks
from bench.nets.layers import lend_generator, noise_like

from .._shared.optimizers import adamw
from .denoiser import Denoiser, DenoiserBlock
from .execution import Term, in_turn, threaded, train_block
from .labels import mean_embedding
from .objective import diffuse, prior_kl
from .pictures import of_labels, of_schedule
from .samplers import last
from .schedule import coefficients, cosine
from .stacked import StackedBlocks


class NoPropDTSettings(AdamWSettings):
    eta: float = Field(
        0.1, gt=0, description="weight of the denoising loss", json_schema_extra={"search": ["log", 1e-2, 1e1]}
    )
    clip: float = Field(1e-3, gt=0, lt=0.5, description="distance of abar from 0 and 1, at most half a step")
    order: Literal["joint", "sequential"] = Field(
        "joint", description="all blocks a batch, or one a pass over the data"
    )
    execution: Literal["loop", "parallel", "stacked"] = Field(
        "parallel", description="one block at a time; one a CPU thread (on a GPU as loop); all as one computation"
    )
    inference_noise: bool = Field(
        True, description="whether predictions draw z_0 and Eq. 3's noise or take their means"
    )

    @model_validator(mode="after")
    def _stacked_is_joint(self) -> Self:
        if self.execution == "stacked" and self.order == "sequential":
            raise ValueError("execution=stacked computes all blocks at once; with order=sequential use loop")
        return self


@register
class NoPropDT(Method):
    """No gradient crosses a block and no forward pass runs through the stack in training."""

    info = MethodInfo(
        name="noprop-dt",
        title="NoProp-DT",
        family="noprop",
        paper="li2025noprop",
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
    Config = NoPropDTSettings
    net: Denoiser

    def __init__(self, task: Task, config: NoPropDTSettings, *, device: torch.device, seeds: Seeds) -> None:
        net = task.build_net(seeds.init).to(device)
        assert isinstance(net, Denoiser)
        self.net, self.config, self.objective = net, config, task.objective
        self.steps = coefficients(cosine(len(net.blocks), config.clip))
        # one generator and one optimiser per block: blocks share nothing, in whatever order they run
        *self.noise, self.readout_noise = seeds.spawn(len(net.blocks) + 1)
        for block, generator in zip(net.blocks, self.noise, strict=True):
            lend_generator(block, generator)
        blocks = [block for block in net.blocks if isinstance(block, DenoiserBlock)]
        self.stack = StackedBlocks(blocks, self.noise) if config.execution == "stacked" else None
        learners = blocks if self.stack is None else [self.stack]
        *self.optimizers, self.shared_optimizer = [adamw(part.parameters(), config) for part in (*learners, net.labels)]
        self._run = threaded if config.execution == "parallel" and device.type == "cpu" else in_turn

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        reason = super().refuse(task, config, facts)
        if reason is None and config.order == "sequential" and facts.epochs % task.net_settings["T"]:
            raise ConfigError(
                "noprop-dt: order=sequential trains one block in each pass over the data; "
                f"epochs must be a multiple of T = {task.net_settings['T']}, not {facts.epochs}"
            )
        return reason

    def compile(self) -> None:
        compile_blocks(self.blocks())
        if self.stack is not None:
            self.stack.compile()

    def claims(self) -> Claims:
        return replace(self.info.claims, stochastic_inference=self.config.inference_noise)

    def inert(self) -> Mapping[str, str]:
        sequential = self.config.order == "sequential"
        return {"execution": "one block learns in a step, alone in each of the modes"} if sequential else {}

    def phase(self, progress: Progress) -> int | None:
        """The number t of the block that learns; None where all do."""
        return None if self.config.order == "joint" else 1 + progress.epoch % self.steps.T

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        T = self.steps.T
        block = self.phase(progress)
        trained = range(1, T + 1) if block is None else [block]
        share = T / len(trained)  # of a term L_t in the mean over the terms of this step
        if self.stack is not None:
            terms = [self._train_stack(batch, self.stack)]
        else:
            terms = self._run([partial(self._train_block, t, batch, share) for t in trained])
        losses = torch.stack([term.loss for term in terms])
        cross_entropy = self._train_shared(batch, [term.shared for term in terms])
        return {"loss": cross_entropy + losses.sum(), "ce": cross_entropy}

    def parallel_plan(self) -> IndependentBlocks:
        """Blocks share W_embed, and with it messages, where it learns; theta_out learns from labels and noise alone."""
        if self.stack is not None:
            raise ConfigError("noprop-dt: execution=stacked computes all blocks as one; over workers use loop")
        if self.config.order == "sequential":
            raise ConfigError("noprop-dt: order=sequential trains one block at a time; over workers use joint")
        return IndependentBlocks(self.steps.T, self._train_some, self._train_shared)

    def _train_some(self, which: Sequence[int], batch: Batch, progress: Progress) -> list[BlockStep]:
        return self._run([partial(self._train_block, k + 1, batch, 1.0) for k in which])

    def _train_block(self, t: int, batch: Batch, share: float) -> BlockStep:
        block, optimizer, noise = self.net.blocks[t - 1], self.optimizers[t - 1], self.noise[t - 1]
        loss, grad = train_block(
            block, optimizer, self.net.labels.weight, self._term(t), share, batch, noise, self.objective
        )
        return BlockStep(loss, [] if grad is None else [grad])

    def _term(self, t: int) -> Term:
        return Term(t, float(self.steps.abar[t - 1]), self.config.eta / 2 * float(self.steps.snr_gain[t]))

    def _train_stack(self, batch: Batch, stack: StackedBlocks) -> BlockStep:
        """The steps of all blocks as one computation."""
        labels, T = self.net.labels, self.steps.T
        W = labels.weight.detach().requires_grad_(labels.learned)
        u = self.objective.project(batch.y, W)
        z = torch.stack([diffuse(u, float(self.steps.abar[t]), self.noise[t]) for t in range(T)])
        u_hat = mean_embedding(stack(z, batch.x), W)
        weights = self.config.eta / 2 * self.steps.snr_gain[1:].to(u)
        loss = (weights * (u_hat - u).square().sum(-1).mean(1)).sum()
        loss.backward()
        self.optimizers[0].step()
        self.optimizers[0].zero_grad(set_to_none=True)
        return BlockStep(loss.detach(), [] if W.grad is None else [W.grad])

    def _train_shared(self, batch: Batch, of_blocks: Sequence[Sequence[Tensor]]) -> Tensor:
        """One step of theta_out and W_embed. of_blocks: the gradients of the blocks' terms by W_embed, if it learns."""
        labels, y = self.net.labels, batch.y
        u = self.objective.project(y, labels.weight)
        z_T = diffuse(u, float(self.steps.abar[-1]), self.readout_noise)
        loss = self.objective.loss(labels.scores(z_T), y)
        if labels.learned:
            loss = loss + prior_kl(u, float(self.steps.abar[0])).mean()
        loss.backward()
        if gradients := [grad for shared in of_blocks for grad in shared]:
            assert labels.weight.grad is not None
            labels.weight.grad += torch.stack(gradients).sum(0)  # in the order of t, however they were computed
        self.shared_optimizer.step()
        self.shared_optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.net.labels.scores(last(self._path(x, noise)))

    def _path(self, x: Tensor, generator: torch.Generator | None) -> Iterator[Tensor]:
        """z_0 .. z_T by Eq. 3; without a generator z_0 and every eps are at their mean."""
        generator = generator if self.config.inference_noise else None
        z = noise_like((len(x), self.net.labels.dim), x, generator)
        yield z
        for t in range(1, self.steps.T + 1):
            a, b, c = (float(k[t]) for k in (self.steps.a, self.steps.b, self.steps.c))
            z = a * self.net.u_hat(t, z, x) + b * z
            if generator is not None:
                z = z + c**0.5 * noise_like(tuple(z.shape), z, generator)
            yield z

    @torch.no_grad()
    def artifacts(self, shown: Batch, noise: torch.Generator) -> Iterator[Artifact]:
        T = self.steps.T
        path, times = (
            [self.net.labels.scores(z).softmax(1) for z in self._path(shown.x, noise)],
            torch.arange(T + 1) / T,
        )
        yield from of_labels(self.net.labels, shown, path, times)
        weight = T / 2 * self.config.eta * self.steps.snr_gain
        yield of_schedule(times, self.steps.abar.float(), weight.float())

    def modules(self) -> Mapping[Role, nn.Module]:
        # the gates belong to the backprop baseline alone
        return {"inference": nn.ModuleList([*self.net.blocks, self.net.labels])}
