"""Mono-Forward: each hidden layer learns through a projection of its own onto the classes.

Paper: Gong, Li, Abdulla 2025, "Mono-Forward: Backpropagation-free algorithm for efficient neural network training
harnessing local errors", arXiv 2501.09238. For hidden layer l = 1..L, with h_{l-1} a constant to it:

    G_l = h_l M_l^T,    L_l = CE(G_l, y),    W_l and M_l step down grad L_l
    prediction:  argmax G_L ("BP"; predict_by=last),   or argmax sum_l G_l ("FF"; predict_by=sum)

M_L is the net's own last layer, so predict_by=last is the net itself. It has a bias, the other projections have none;
there is none on the images. Projections start as torch's linear layers do.
Layers learn at once (schedule=simultaneous) or one after another, as in the independent study of Spyra and Dzwinel,
whose step was Adam's, 3.2e-4; see isolated.py.
Deviations from the paper: that bias; the step is AdamW's, as backprop's here.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import Claims, Facts, MethodInfo, Role, Seeds, Task, register
from bench.api.seeds import drawn_from

from .._shared.shapes import output_shapes
from .isolated import Isolated, IsolatedSettings, Prediction, hidden_bodies


class MonoForwardSettings(IsolatedSettings):
    predict_by: Literal["last", "sum"] = Field("last", description="the last layer's scores, or those of all layers")


@register
class MonoForward(Isolated):
    """A forward pass in which each layer takes its step before the next one is evaluated."""

    info = MethodInfo(
        name="mono-forward",
        title="Mono-Forward",
        family="local",
        paper="gong2025mono",
        claims=Claims(reverse_mode="block", weight_transport=True, updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("sequence",),
    )
    Config = MonoForwardSettings

    @classmethod
    def refuse(cls, task: Task, config: Any, facts: Facts) -> str | None:
        if config.predict_by == "sum" and task.output.kind == "values":
            return "predict_by=sum adds up scores of classes; values need predict_by=last"
        return super().refuse(task, config, facts)

    def __init__(self, task: Task, config: MonoForwardSettings, *, device: torch.device, seeds: Seeds) -> None:
        net = task.build_net(seeds.init)
        bodies = hidden_bodies(net)
        with drawn_from(seeds.init):
            targets = [
                Prediction(
                    nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), task.output.size, bias=False)), task.objective
                )
                for shape in output_shapes(bodies, task.input)[:-1]
            ]
        super().__init__(net, bodies, targets, task.objective, config, device=device, seeds=seeds)

    def predict(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        if self.config.predict_by == "last":
            return super().predict(x)
        *hidden, last = (module.body for module in self.isolated)
        h, scores = x, list[Tensor]()
        for body, target in zip(hidden, self.targets, strict=True):
            h = body(h)
            assert isinstance(target, Prediction)
            scores.append(target.head(h))
        return torch.stack([*scores, last(h)]).sum(0)

    def modules(self) -> Mapping[Role, nn.Module]:
        if self.config.predict_by == "last":
            return super().modules()
        return {"inference": nn.ModuleList([self.net, self.targets])}
