"""Node perturbation: correlate noise in the pre-activations with the change of each example's loss.

Papers: Flower, Jabri 1993, "Summed weight neuron perturbation" (the rule); Dalm, van Gerven, Ahmad 2023, "Effective
learning with node perturbation in multi-layer neural networks", arXiv 2310.00965 (iterative and activity form,
decorrelation). With a_l = W_l h_{l-1} + b_l, the
losses L_n clean and L~_n noisy of example n, M units in all:

    noise      a~_l = W_l h~_{l-1} + b_l + xi_l,  xi_l ~ (0, sigma^2 I):   d_{l,n} = (L~_n - L_n) / sigma^2 xi_{l,n}
    iterative  the same with noise in one layer at a time, so that each has a loss difference of its own
    activity   d_{l,n} = M (L~_n - L_n) / sum_k |da_{k,n}|^2 da_{l,n},  da = a~ - a: the noise itself may stay hidden
    grad W_l = 1/N sum_n d_{l,n} h_{l-1,n}^T,   grad b_l = 1/N sum_n d_{l,n}

with E[d_l] = dL/da_l up to O(sigma^2) in the first two; h is that of the clean pass. In a convolution every
position has noise of its own. grad takes the place of the gradient in an optimiser.

Decorrelation: a layer's input x is replaced by x^ = R x, R starting at I, and after each step
R <- R - eta_d offdiag(mean x^ x^^T) R; W learns on x^. The layer of the net holds the product W R, so that
prediction costs nothing more; in a convolution x is a patch.
Deviations from the papers: the optimiser is a choice; the net is in evaluation mode; the iterative form restarts
from the input of the block that it disturbs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, StepSize, Task, register
from bench.api.layer import seen, weight_gradient
from bench.api.structure import mixing_layer

from .._shared.directions import Directions, draw
from .population import OptimizerName, apply, build_optimizer

Layer = nn.Linear | nn.Conv2d


class NodePerturbationSettings(StepSize):
    sigma: float = Field(1e-3, gt=0, description="standard deviation of the noise of a pre-activation")
    form: Literal["noise", "iterative", "activity"] = Field("noise", description="NP, INP or ANP")
    decorrelation: float = Field(0.0, ge=0, description="step size eta_d of the decorrelation of inputs; 0: none")
    directions: Directions = Field("gaussian", description="distribution of the noise")
    optimizer: OptimizerName = Field("adam", description="what steps on the estimate; momentum is 0.9")


@dataclass
class Activity:
    """What passed through the layers in one pass: inputs and pre-activations, in order."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class Decorrelated(nn.Module):
    """A layer's weights as W R. Shape: W (m, n), R (n, n)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.W = nn.Parameter(layer.weight.detach().flatten(1).clone())
        self.R = nn.Parameter(torch.eye(self.W.shape[1], device=self.W.device, dtype=self.W.dtype))

    def decorrelate(self, moment: Tensor, rate: float) -> None:
        """One step of R. Shape: moment = mean x x^T (n, n)."""
        correlation = self.R @ moment @ self.R.T
        self.R.sub_(rate * correlation.fill_diagonal_(0) @ self.R)


@register
class NodePerturbation(Method):
    """One clean pass, one noisy pass (iterative: one per layer), none backward."""

    info = MethodInfo(
        name="node-perturbation",
        title="Node perturbation",
        family="perturbation",
        paper="flower1993summed, dalm2023effective",
        claims=Claims(reverse_mode="none", forward_passes=2, updates_wait_for="later blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("chain",),
    )
    Config = NodePerturbationSettings
    net: Net

    def __init__(self, task: Task, config: NodePerturbationSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        self.net = task.build_net(seeds.init).to(device).eval()
        # one layer a block, so that block l is where layer l's noise begins to act
        self.layers: list[Layer] = [mixing_layer(block) for block in self.net.blocks]
        self.config = config
        self.noise = seeds.noise
        self.decorrelated = [Decorrelated(layer) for layer in self.layers if config.decorrelation]
        weights: list[Tensor] = [d.W for d in self.decorrelated] or [layer.weight for layer in self.layers]
        biases = [p for layer in self.layers for p in (layer.bias,) if p is not None]
        self.optimizer = build_optimizer(config.optimizer, [*weights, *biases], config.lr)

    def claims(self) -> Claims:
        passes = len(self.layers) + 1 if self.config.form == "iterative" else 2
        return replace(self.info.claims, forward_passes=passes)

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": nn.ModuleList(self.decorrelated)}

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        losses, inputs, errors = self._errors(batch)
        self._learn(inputs, [d / len(batch.x) for d in errors])
        return {"loss": losses.mean()}

    def _errors(self, batch: Batch) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Clean losses (B,), the layers' clean inputs, and the estimates d_l of dL_n/da_l, each as a_l."""
        c, n_layers = self.config, len(self.layers)
        starts = [batch.x]
        with recorded(self.layers) as clean:
            for block in self.net.blocks:
                starts.append(block(starts[-1]))
        losses = self.objective.losses(starts.pop(), batch.y)
        xi = [draw(a.shape, a, c.directions, self.noise).mul_(c.sigma) for a in clean.outputs]

        if c.form == "iterative":
            changes = [self._losses_from(k, starts[k], {k: xi[k]}, batch.y)[0] - losses for k in range(n_layers)]
            return losses, clean.inputs, [_per_example(d / c.sigma**2, x) for d, x in zip(changes, xi, strict=True)]
        noisy, disturbed = self._losses_from(0, batch.x, dict(enumerate(xi)), batch.y)
        change = noisy - losses
        if c.form == "noise":
            return losses, clean.inputs, [_per_example(change / c.sigma**2, x) for x in xi]
        da = [after - before for after, before in zip(disturbed.outputs, clean.outputs, strict=True)]
        mean_square = torch.cat([d.flatten(1) for d in da], dim=1).square().mean(dim=1)
        return losses, clean.inputs, [_per_example(change / mean_square, d) for d in da]

    def _losses_from(self, first: int, h: Tensor, xi: Mapping[int, Tensor], y: Tensor) -> tuple[Tensor, Activity]:
        """Losses (B,) from block `first` on, with noise xi in the layers that it names."""
        with recorded(self.layers, xi) as activity:
            for block in self.net.blocks[first:]:
                h = block(h)
        return self.objective.losses(h, y), activity

    def _learn(self, inputs: Sequence[Tensor], errors: Sequence[Tensor]) -> None:
        """Step on the products of errors and inputs; where inputs are decorrelated, there, and then R steps too."""
        gradients = [weight_gradient(*of) for of in zip(self.layers, inputs, errors, strict=True)]
        products, biases = zip(*(of.values() for of in gradients), strict=True)
        if self.decorrelated:
            products = tuple(g.flatten(1) @ d.R.T for g, d in zip(products, self.decorrelated, strict=True))
        apply(self.optimizer, [*products, *biases])
        for k, d in enumerate(self.decorrelated):
            layer = self.layers[k]
            d.decorrelate(second_moment(layer, inputs[k]), self.config.decorrelation)
            layer.weight.copy_((d.W @ d.R).view_as(layer.weight))


@contextmanager
def recorded(layers: Sequence[Layer], xi: Mapping[int, Tensor] | None = None) -> Iterator[Activity]:
    """Inside, inputs and pre-activations of the layers are noted, after noise xi[l] was added to that of layer l."""
    activity = Activity([], [])

    def note(noise: Tensor | None, layer: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        activity.inputs.append(args[0])
        activity.outputs.append(output if noise is None else output + noise)
        return activity.outputs[-1]

    hooks = [layer.register_forward_hook(partial(note, (xi or {}).get(k))) for k, layer in enumerate(layers)]
    try:
        yield activity
    finally:
        for hook in hooks:
            hook.remove()


def second_moment(layer: Layer, h: Tensor) -> Tensor:
    """mean x x^T over examples and positions, x being what one unit of the layer sees. Shape: (n, n)."""
    rows = seen(layer, h)
    return rows.T @ rows / len(rows)


def _per_example(factor: Tensor, x: Tensor) -> Tensor:
    return factor.view(-1, *[1] * (x.dim() - 1)) * x
