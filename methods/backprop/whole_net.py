"""What backprop and its controls share: one training step of a whole net, in parts or at once, and what of it learns.

    delta_l = (W_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T

Each control is a final class of its own that declares other defaults; all settings are open to all of them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import checkpoint

from bench import AdamWSettings, Batch, Claims, Method, Net, Progress, Role, Seeds, Task
from bench.api.errors import ConfigError
from bench.api.inference import inference
from bench.api.parallel import WholeGradient
from bench.nets.layers import Dropout, ReLUDropout, lend_generator

from .._shared.optimizers import adamw


class BackpropSettings(AdamWSettings):
    checkpoint: bool = Field(False, description="keep block inputs only and compute the rest again")
    micro_batches: int = Field(1, ge=1, description="parts of a batch whose gradients are added up")
    supervision: float = Field(0.0, ge=0, description="weight of the loss at each hidden block's own head; 0: no heads")
    learns: Literal["all", "last"] = Field("all", description="every layer, or the last one alone")


class WholeNet(Method):
    """A net trained by the gradient of the objective through all of it, and AdamW."""

    net: Net

    def __init__(self, task: Task, config: BackpropSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.parts, self.objective = config, config.micro_batches, task.objective
        self.net = self.build_net(task, config, seeds.init).to(device)
        self.noise, self.each_position = seeds.noise, task.output.kind == "next token"
        lend_generator(self.net, seeds.noise)
        self.frozen = nn.ModuleList(_all_but_the_last_layer(self.net) if config.learns == "last" else ())
        for layer in self.frozen:
            for p in layer.parameters(recurse=False):
                p.requires_grad_(False)
        self.heads = _heads(self.net, task, device) if config.supervision else nn.ModuleList()
        if config.checkpoint:
            for block in self.net.blocks[:-1]:  # on its way back the last one would find all it needs still there
                _checkpoint(block, seeds.noise)
        learning = [p for part in (self.net, self.heads) for p in part.parameters() if p.requires_grad]
        self.optimizer = adamw(learning, config)

    @staticmethod
    def build_net(task: Task, config: Any, init: torch.Generator) -> Net:
        """The net that is trained: the run's, unless a control has another."""
        return task.build_net(init)

    def claims(self) -> Claims:
        claims = replace(self.info.claims, stochastic_inference=self.net.stochastic)
        claims = replace(claims, inference_passes=self.net.passes)
        passes = self.parts * self.net.passes
        if self.config.learns == "last":
            local = replace(claims, updates_wait_for="earlier blocks")
            return replace(local, reverse_mode="layer", weight_transport=False, forward_passes=passes)
        again = self.config.checkpoint and len(self.net.blocks) > 1
        return replace(claims, forward_passes=passes * 2 if again else passes)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        losses = [
            self._learn(x, y, len(y) / len(batch.y))
            for x, y in zip(batch.x.chunk(self.parts), batch.y.chunk(self.parts), strict=True)
        ]
        self.optimizer.step()
        return {"loss": torch.stack(losses).sum()}

    def use_micro_batches(self, parts: int) -> str | None:
        """As `micro_batches` does; each of these is cut again."""
        if any(isinstance(layer, _BatchNorm) for layer in self.net.modules()):
            return f"batch norm of {self.net.name} would take its statistics from a part of the batch"
        if self.net.stochastic or any(getattr(layer, "p", 0) for layer in self.net.modules() if _is_dropout(layer)):
            return f"{self.net.name} draws noise for a whole batch, and would draw other noise for its parts"
        self.parts = self.config.micro_batches * parts
        return None

    def parallel_plan(self) -> WholeGradient:
        given = {name: getattr(self.config, name) for name in ("checkpoint", "micro_batches", "supervision", "learns")}
        for name, value in given.items():
            if value != (usual := BackpropSettings.model_fields[name].default):
                raise ConfigError(f"{self.info.name}: over workers {name} stays at {usual}, not {value}")
        return WholeGradient(self.net, self.noise, self.objective.loss, partial(adamw, config=self.config))

    def _learn(self, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Add the gradient of share * loss on (x, y); the graph is gone when this returns."""
        with _outputs(self.net.blocks[: len(self.heads)]) as hidden:
            loss = self.objective.loss(self.net(x, self.noise), y)
        for head, h in zip(self.heads, hidden, strict=True):
            features = h if self.each_position else h.flatten(1)
            loss = loss + self.config.supervision * self.objective.loss(head(features), y)
        loss = share * loss
        torch.autograd.backward(loss)
        return loss.detach()

    def inert(self) -> Mapping[str, str]:
        inert = {"checkpoint": "it computes the same again, to keep less"}
        if len(self.net.blocks) < 2:
            inert["supervision"] = "the net has one block, and no hidden one for a head"
        return inert

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.heads, "frozen": self.frozen}


def _is_dropout(layer: nn.Module) -> bool:
    return isinstance(layer, (ReLUDropout, _DropoutNd))


def _all_but_the_last_layer(net: Net) -> list[nn.Module]:
    return [layer for layer in net.modules() if next(layer.parameters(recurse=False), None) is not None][:-1]


def _heads(net: Net, task: Task, device: torch.device) -> nn.ModuleList:
    """A linear head for each hidden block, at zero: it draws nothing, and the net starts as without it.

    For next tokens a head reads each position by itself.
    """
    with inference(net), _outputs(net.blocks[:-1]) as hidden:
        net(task.input.zeros(1, device))
    sizes = [h.shape[-1] if task.output.kind == "next token" else h.numel() for h in hidden]
    heads = nn.ModuleList(nn.Linear(n, task.output.size, device="meta").to_empty(device=device) for n in sizes)
    for p in heads.parameters():
        nn.init.zeros_(p)
    return heads


@contextmanager
def _outputs(blocks: nn.ModuleList) -> Iterator[list[Tensor]]:
    """What the blocks give while inside, in the order of their calls."""
    seen: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, args, out: seen.append(out)) for block in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _checkpoint(block: nn.Module, noise: torch.Generator) -> None:
    """Let a block forget what it computes between its input and its output, until its gradient is due."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        drawn = [layer.get_extra_state() for layer in block.modules() if isinstance(layer, Dropout)]
        return nullcontext(), _replayed(block, noise, noise.get_state(), drawn)

    forward: Callable[..., Tensor] = block.forward
    block.forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def _replayed(block: nn.Module, noise: torch.Generator, state: Tensor, drawn: list[Tensor]) -> Iterator[None]:
    """The same dropout masks as at first, and no second count of a batch in the statistics of batch norm."""
    now = noise.get_state()
    dropouts = [layer for layer in block.modules() if isinstance(layer, Dropout)]
    drawn_now = [layer.get_extra_state() for layer in dropouts]
    norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    noise.set_state(state)
    for layer, of_first in zip(dropouts, drawn, strict=True):
        layer.set_extra_state(of_first)
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        noise.set_state(now)
        for layer, of_now in zip(dropouts, drawn_now, strict=True):
            layer.set_extra_state(of_now)
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
