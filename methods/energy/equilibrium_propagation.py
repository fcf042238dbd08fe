"""Equilibrium propagation: a net with symmetric weights relaxes freely, then nudged towards the label; it learns from the
difference.

Papers: Scellier, Bengio 2017, "Equilibrium propagation: bridging the gap between energy-based models and
backpropagation"; Ernoult et al. 2019, "Updates of equilibrium prop match gradients of backprop through time in an RNN
with static input" (the primitive function); Laborieux et al. 2021, "Scaling equilibrium propagation to deep ConvNets by
drastically reducing its gradient estimator bias" (signs of beta, softmax read-out). For states s_1..s_L, s_0 the image:

    Phi = sum_l s_l . (W_l s_{l-1} + b_l),      s <- sigma(dPhi/ds - beta dl/ds),      sigma(a) = (1 + hardtanh(a - 1)) / 2
    l   = 1/2 |s_L - y|^2  (mse)    or    -y . log softmax(W_out s_{L-1} + b_out)  (ce; the net's last layer is read-out)

sigma is a / 2 clipped to [0, 1], so a fixed point is one of projected descent of E + beta l, E = |s|^2 - Phi. From s = 0
the free phase takes `free_steps` steps to s^0, then `nudged_steps` with beta from there to s^beta. For N images:

    one-sided       grad = -(dPhi(s^beta) - dPhi(s^0)) / (beta N)                 error O(beta)
    random-sign     the same with beta or -beta, one draw a mini-batch            O(beta), in the mean O(beta^2)
    centred         grad = -(dPhi(s^beta) - dPhi(s^-beta)) / (2 beta N)           O(beta^2), one more nudged phase

of the loss at the free fixed point; dPhi is by weights, with ce of Phi - beta l by the read-out's. Steps are of all
layers at once (synchronous) or of odd layers and then of even ones (asynchronous), where E never rises freely.
A prediction is a free phase, and its scores W_L s_{L-1} + b_L: with mse s_L is their sigma.

The weights are those of the mlp's linear layers, used both ways; its activation is not used, for sigma is what bounds
the states. Other nets are refused: pooling would have to be part of Phi.
Deviations from the papers: the step is AdamW's with one step size for all layers; weights start by torch's law.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench import AdamWSettings, Batch, Claims, Facts, Method, MethodInfo, Net, Progress, Seeds, Task, register
from bench.api.artifact import Artifact, Lines
from methods._shared.bilinear import Gradient, hand_over
from methods._shared.directions import draw
from methods._shared.optimizers import adamw
from methods.energy.layers import Chain, Linear, Memory, refuse_flat


class EquilibriumPropagationSettings(AdamWSettings):
    estimator: Literal["one-sided", "random-sign", "centred"] = Field(
        "centred", description="nudged towards the label, there or away by chance, or both"
    )
    loss: Literal["mse", "ce"] = Field("mse", description="squared error of the last states, or a softmax read-out")
    beta: float = Field(0.25, gt=0, lt=2, description="nudging", json_schema_extra={"search": ["log", 1e-2, 1e0]})
    free_steps: int = Field(
        30, ge=1, description="steps of the free phase", json_schema_extra={"search": ["choice", 15, 30, 60]}
    )
    nudged_steps: int = Field(
        10, ge=1, description="steps of a nudged phase", json_schema_extra={"search": ["choice", 5, 10, 15]}
    )
    relaxation: Literal["synchronous", "asynchronous"] = Field(
        "synchronous", description="all layers at once, or odd ones and then even ones"
    )


class Relaxation:
    """States of as many images as x. Layers that relax, l = 1.., have index l - 1; one more is the read-out of ce."""

    def __init__(self, chain: Chain, config: EquilibriumPropagationSettings, x: Tensor) -> None:
        self.config, self.n = config, len(x)
        self.layers: Sequence[Linear] = chain.layers  # type: ignore[assignment]
        K = len(chain.layers) - (config.loss == "ce")
        order = [*range(0, K, 2), *range(1, K, 2)] if config.relaxation == "asynchronous" else list(range(K))
        self.place = [order.index(l) for l in range(K)]
        shapes = [chain.shapes[l] for l in order]
        states, drives, self.kept, self.change = (Memory(shapes, self.n, x) for _ in range(4))
        self.flat = states.flat
        self.s = [self._of(states, l) for l in range(K)]
        self.a = [self._of(drives, l) for l in range(K)]  # half of dPhi/ds - beta dl/ds
        cuts = [0, (K + 1) // 2, K] if config.relaxation == "asynchronous" else [0, K]
        self.sweeps = [
            (order[i:j], drives.of(i, j), states.of(i, j)) for i, j in zip(cuts, cuts[1:], strict=False) if i < j
        ]
        self.first, self.error = torch.empty_like(self.a[0]), x.new_empty(self.n, *chain.shapes[-1])
        self.scores = torch.empty_like(self.error)

    def start(self, x: Tensor) -> None:
        """From s = 0; what the first layer is given never changes."""
        self.x = x
        self.flat.zero_()
        self.layers[0].forward(x, self.first, 0.5)

    def run(self, steps: int, nudge: tuple[Tensor, Tensor] | None = None) -> None:
        """Steps of all states. nudge: y one-hot, and half of beta with its sign, a 0-d tensor."""
        for _ in range(steps):
            for layers, drive, states in self.sweeps:
                for l in layers:
                    self._drive(l)
                if nudge is not None and len(self.s) - 1 in layers:
                    self._nudge(*nudge)
                torch.clamp(drive, 0, 1, out=states)

    def _drive(self, l: int) -> None:
        a, above = self.a[l], l + 1 < len(self.s)
        if l > 0:
            self.layers[l].forward(self.s[l - 1], a, 0.5)
        elif above:
            torch.addmm(self.first, self.s[1], self.layers[1].module.weight, alpha=0.5, out=a)
            return
        else:
            a.copy_(self.first)
        if above:
            self.layers[l + 1].transposed(self.s[l + 1], a, by=0.5)

    def _nudge(self, y: Tensor, by: Tensor) -> None:
        if self.config.loss == "mse":
            self.a[-1].add_(torch.sub(y, self.s[-1], out=self.error).mul_(by))
        else:
            self.layers[-1].transposed(self.readout_error(y).mul_(by), self.a[-1])

    def readout_error(self, y: Tensor) -> Tensor:
        """y - softmax, minus the gradient of ce by the scores. Shape: (N, C)."""
        return torch.sub(y, self.read().softmax(1), out=self.error)

    def keep(self) -> None:
        self.kept.flat.copy_(self.flat)

    def swap(self) -> None:
        """Go on from the states kept, and keep those that are."""
        now = self.flat.clone()
        self.flat.copy_(self.kept.flat)
        self.kept.flat.copy_(now)

    def gradient(self, beta: Tensor) -> Gradient:
        """-(dPhi(s) - dPhi(kept)) / (beta N) by weights, taken from differences of states so that none is lost."""
        torch.sub(self.kept.flat, self.flat, out=self.change.flat).div_(beta * self.n)
        gradient: Gradient = {}
        for l, layer in enumerate(self.layers[: len(self.s)]):
            d = self._of(self.change, l)
            gradient |= layer.gradient(self._of(self.kept, l - 1) if l else self.x, d)
            if l:
                gradient[layer.module.weight].addmm_(self.s[l].T, self._of(self.change, l - 1))
        return gradient

    def readout_gradient(self, y: Tensor) -> Gradient:
        """Of ce by the read-out's weights; nothing where there is none."""
        if self.config.loss == "mse":
            return {}
        return self.layers[-1].gradient(self.s[-1], self.readout_error(y).div_(-self.n))

    def _of(self, memory: Memory, l: int) -> Tensor:
        return memory.parts[self.place[l]]

    def read(self) -> Tensor:
        """Scores of the states as they are."""
        below = self.s[-1] if self.config.loss == "ce" else [self.x, *self.s][-2]
        self.layers[-1].forward(below, self.scores)
        return self.scores

    def energies(self) -> Tensor:
        """|s_l|^2 - s_l . (W_l s_{l-1} + b_l), mean over the batch. Shape: (layers that relax,)."""
        below = [self.x.flatten(1), *self.s]
        inputs = [F.linear(h, layer.module.weight, layer.module.bias) for h, layer in zip(below, self.layers, strict=False)]
        return torch.stack([(s * (s - a)).sum() / self.n for s, a in zip(self.s, inputs, strict=False)])


@register
class EquilibriumPropagation(Method):
    """A free phase, one or two nudged ones, and the difference of products of neighbouring states."""

    info = MethodInfo(
        name="equilibrium-propagation",
        title="Equilibrium propagation",
        family="energy",
        paper="scellier2017equilibrium, ernoult2019updates, laborieux2021scaling",
        claims=Claims(reverse_mode="none", weight_transport=True, updates_wait_for="later blocks"),
        nets=("mlp",),
    )
    Config = EquilibriumPropagationSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        return super().refuse(task, config, facts) or refuse_flat(task)

    def __init__(
        self, task: Task, config: EquilibriumPropagationSettings, *, device: torch.device, seeds: Seeds
    ) -> None:
        self.config, self.noise, self.n_classes = config, seeds.noise, task.n_classes
        self.net = task.build_net(seeds.init)
        self.chain = Chain(self.net, task.image_shape)
        self.net.to(device)
        self.optimizer = adamw(self.net.parameters(), config)
        self.relaxation: Relaxation | None = None

    def claims(self) -> Claims:
        config, phases = self.config, 2 if self.config.estimator == "centred" else 1
        relaxed, read = config.free_steps + phases * config.nudged_steps, 1 + phases * (config.nudged_steps + 1)
        if config.loss == "mse":  # the last layer relaxes and gives the scores as well
            return replace(self.info.claims, forward_passes=relaxed, inference_passes=config.free_steps + 1)
        deep = len(self.chain.layers) > 2  # else no layer that relaxes is given what moves
        return replace(
            self.info.claims,
            forward_passes=max(relaxed, read) if deep else read,
            inference_passes=config.free_steps if deep else 1,
        )

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        x, config = batch.x, self.config
        y = F.one_hot(batch.y, self.n_classes).to(x)
        relaxation = self._relaxation(x)
        relaxation.start(x)
        relaxation.run(config.free_steps)
        loss = self._loss(relaxation, batch.y, y)
        beta = torch.full((), config.beta, dtype=x.dtype, device=x.device)
        if config.estimator == "random-sign":
            beta *= draw((1,), x, "rademacher", self.noise)[0]
        relaxation.keep()
        relaxation.run(config.nudged_steps, (y, beta / 2))
        readout = relaxation.readout_gradient(y)
        if config.estimator == "centred":
            relaxation.swap()
            relaxation.run(config.nudged_steps, (y, -beta / 2))
            readout = {p: (g + readout[p]) / 2 for p, g in relaxation.readout_gradient(y).items()}
            beta = -2 * beta  # what the last states differ by from those kept
        hand_over(relaxation.gradient(beta) | readout)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss}

    def _loss(self, relaxation: Relaxation, labels: Tensor, y: Tensor) -> Tensor:
        if self.config.loss == "ce":
            return F.cross_entropy(relaxation.read(), labels)
        return (relaxation.s[-1] - y).square().sum() / (2 * len(y))

    def _relaxation(self, x: Tensor) -> Relaxation:
        """With memory for these images; kept from step to step."""
        kept = self.relaxation
        if kept is None or kept.n != len(x) or kept.flat.dtype != x.dtype:
            self.relaxation = kept = Relaxation(self.chain, self.config, x)
        return kept

    @torch.no_grad()
    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        relaxation = Relaxation(self.chain, self.config, x)
        relaxation.start(x)
        relaxation.run(self.config.free_steps)
        return relaxation.read()

    def compile(self) -> None:
        """Nothing: what a step spends its time in are products in given memory."""

    @torch.no_grad()
    def artifacts(self, shown: Batch, noise: torch.Generator) -> Iterator[Artifact]:
        x, config = shown.x, self.config
        relaxation, energies = Relaxation(self.chain, config, x), list[Tensor]()
        nudge = F.one_hot(shown.y, self.n_classes).to(x), torch.full_like(x[0, 0, 0, 0], config.beta / 2)
        relaxation.start(x)
        for t in range(config.free_steps + config.nudged_steps):
            relaxation.run(1, nudge if t >= config.free_steps else None)
            energies.append(relaxation.energies())
        yield Lines(
            "energies",
            "Energy of each layer in the free phase and in the nudged phase behind it, mean over a few held-out images.",
            "step",
            torch.arange(1, len(energies) + 1),
            torch.stack(energies, 1).unsqueeze(0),
            panels=("energy",),
            lines=tuple(f"layer {k + 1}" for k in range(len(relaxation.s))),
        )
