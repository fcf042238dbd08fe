"""Backprop: the gradient of the cross-entropy through the whole net, and AdamW.

Papers: Rumelhart, Hinton, Williams 1986, "Learning representations by back-propagating errors" (the gradient);
Loshchilov, Hutter 2019, "Decoupled weight decay regularization" (the step); on the denoiser net it is the
baseline of Li, Teh, Pascanu 2025, arXiv 2503.24322, Eq. 17-19.

    delta_l = (W_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T

Four settings make it what a user would pick in place of a backprop-free rule; each has a row of its own below:

    checkpoint     a block keeps its input alone and computes the rest again on the way back; the same gradient
                   (Chen et al. 2016, "Training deep nets with sublinear memory cost"). It gains nothing on the
                   mlp, whose blocks hold little but their inputs
    micro_batches  grad L = sum_i (n_i / n) grad L_i over parts of the batch, one after another; the same gradient
                   but for rounding, unless the net has batch norm, whose statistics are then those of a part
    supervision    L + supervision * sum_l CE(head_l(h_l)) with a linear head on each hidden block, nothing detached
                   (Lee et al. 2015, "Deeply-supervised nets"; theirs are hinge losses whose weight decays)
    learns         `last`: all but the last layer stays as it was drawn

`random-features` (Rahimi, Recht 2008, "Random features for large-scale kernel machines") trains the linear layer
upon one wide block of the net. Deviations there: its features are the net's own ReLU or tanh, not cosines, and
its readout is fitted by AdamW on the cross-entropy, not by least squares.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from bench import Batch, Claims, Method, MethodInfo, Progress, Role, Seeds, Task, register
from bench.nets import net_class
from bench.nets.base import Net
from bench.nets.layers import lend_generator


class BackpropSettings(BaseModel):
    lr: float = Field(1e-3, gt=0, description="step size", json_schema_extra={"search": ["log", 1e-5, 1e-1]})
    weight_decay: float = Field(1e-3, ge=0, description="decoupled weight decay, per step and unit of lr")
    checkpoint: bool = Field(False, description="keep block inputs only and compute the rest again")
    micro_batches: int = Field(1, ge=1, description="parts of a batch whose gradients are added up")
    supervision: float = Field(0.0, ge=0, description="weight of the loss at each hidden block's own head; 0: no heads")
    learns: Literal["all", "last"] = Field("all", description="every layer, or the last one alone")


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

    def __init__(self, task: Task, config: BackpropSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config = config
        self.net = self.build_net(task, config, seeds.init).to(device)
        self.noise, self.inference = seeds.noise, seeds.inference
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
        self.optimizer = torch.optim.AdamW(learning, lr=config.lr, weight_decay=config.weight_decay, fused=True)

    @staticmethod
    def build_net(task: Task, config: Any, init: torch.Generator) -> Net:
        return task.build_net(init)

    def claims(self) -> Claims:
        claims = replace(self.info.claims, stochastic_inference=self.net.stochastic)
        claims = replace(claims, inference_passes=self.net.passes)
        passes = self.config.micro_batches * self.net.passes
        if self.config.learns == "last":
            return replace(claims, reverse_mode="layer", weight_transport=False, forward_passes=passes)
        again = self.config.checkpoint and len(self.net.blocks) > 1
        return replace(claims, forward_passes=passes * 2 if again else passes)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.config.micro_batches
        losses = [
            self._learn(x, y, len(y) / len(batch.y))
            for x, y in zip(batch.x.chunk(parts), batch.y.chunk(parts), strict=True)
        ]
        self.optimizer.step()
        return {"loss": torch.stack(losses).sum()}

    def _learn(self, x: Tensor, y: Tensor, share: float) -> Tensor:
        """Add the gradient of share * loss on (x, y); the graph is gone when this returns."""
        with _outputs(self.net.blocks[: len(self.heads)]) as hidden:
            loss = F.cross_entropy(self.net(x, self.noise), y)
        for head, h in zip(self.heads, hidden, strict=True):
            loss = loss + self.config.supervision * F.cross_entropy(head(h.flatten(1)), y)
        loss = share * loss
        torch.autograd.backward(loss)
        return loss.detach()

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net.eval()(x, self.inference)
        return scores

    @torch.no_grad()
    def predict_noise_free(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net.eval()(x)
        return scores

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.heads, "frozen": self.frozen}


class CheckpointedSettings(BackpropSettings):
    checkpoint: bool = Field(True, description="keep block inputs only and compute the rest again")


@register
class BackpropCheckpointed(Backprop):
    """The fair opponent of block-local rules: their memory at the price of a second forward pass."""

    info = MethodInfo(
        name="backprop-checkpointed",
        title="Backprop, checkpointed",
        family="backprop",
        paper="rumelhart1986learning, chen2016training",
        claims=Claims(reverse_mode="network", forward_passes=2, weight_transport=True),
    )
    Config = CheckpointedSettings


class MicroBatchSettings(BackpropSettings):
    micro_batches: int = Field(4, ge=1, description="parts of a batch whose gradients are added up")


@register
class BackpropMicroBatch(Backprop):
    """The other way to less memory: the same update from parts of the batch, one after another."""

    info = MethodInfo(
        name="backprop-micro-batch",
        title="Backprop, micro-batches",
        family="backprop",
        paper="rumelhart1986learning",
        claims=Claims(reverse_mode="network", forward_passes=4, weight_transport=True),
    )
    Config = MicroBatchSettings


class DeepSupervisionSettings(BackpropSettings):
    supervision: float = Field(1.0, ge=0, description="weight of the loss at each hidden block's own head; 0: no heads")


@register
class BackpropDeepSupervision(Backprop):
    """The heads of local rules without their cuts: what it shows is owed to the heads, not to locality."""

    info = MethodInfo(
        name="backprop-deep-supervision",
        title="Backprop, deep supervision",
        family="backprop",
        paper="rumelhart1986learning, lee2015deeply",
        claims=Claims(reverse_mode="network", weight_transport=True),
    )
    Config = DeepSupervisionSettings


class LastLayerSettings(BackpropSettings):
    learns: Literal["all", "last"] = Field("last", description="every layer, or the last one alone")


@register
class BackpropLastLayer(Backprop):
    """The floor: what the same net reaches when nothing but its last layer learns."""

    info = MethodInfo(
        name="backprop-last-layer",
        title="Last layer only",
        family="backprop",
        paper="rumelhart1986learning",
        claims=Claims(reverse_mode="layer"),
        nets=("mlp", "cnn"),
    )
    Config = LastLayerSettings


class RandomFeaturesSettings(LastLayerSettings):
    widen: int = Field(8, ge=1, description="features, in units of the width of the net's first block")


@register
class RandomFeatures(Backprop):
    """A linear classifier upon one wide random block."""

    info = MethodInfo(
        name="random-features",
        title="Random features",
        family="backprop",
        paper="rahimi2008random",
        claims=Claims(reverse_mode="layer"),
        nets=("mlp", "cnn"),
    )
    Config = RandomFeaturesSettings

    @staticmethod
    def build_net(task: Task, config: Any, init: torch.Generator) -> Net:
        width = net_class(task.net).Settings(**task.net_settings).width  # type: ignore[attr-defined]
        return task.build_net(init, depth=1, width=config.widen * width)


def _all_but_the_last_layer(net: Net) -> list[nn.Module]:
    return [layer for layer in net.modules() if next(layer.parameters(recurse=False), None) is not None][:-1]


def _heads(net: Net, task: Task, device: torch.device) -> nn.ModuleList:
    """A linear head for each hidden block, at zero: it draws nothing, and the net starts as without it."""
    with torch.no_grad(), _outputs(net.blocks[:-1]) as hidden:
        net.eval()(torch.zeros(1, *task.image_shape, device=device))
    heads = nn.ModuleList(nn.Linear(h.numel(), task.n_classes, device="meta").to_empty(device=device) for h in hidden)
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
        return nullcontext(), _replayed(block, noise, noise.get_state())

    forward: Callable[..., Tensor] = block.forward
    block.forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def _replayed(block: nn.Module, noise: torch.Generator, state: Tensor) -> Iterator[None]:
    """The same dropout masks as at first, and no second count of a batch in the statistics of batch norm."""
    now = noise.get_state()
    norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    noise.set_state(state)
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        noise.set_state(now)
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
