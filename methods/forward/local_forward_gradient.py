"""Local forward gradient (LG-FG): a loss for each block, patch and channel group.

Paper: Ren, Kornblith, Liao, Hinton 2023, "Scaling forward gradient with local losses", ICLR, arXiv 2210.03310.
Block b gives z (B, P patches, C channels in G groups) from the stopped output of block b-1; its head is linear:

    L_n = CE(W mean_p z_n,p + bias, y_n),         e_n = softmax(.) - onehot(y_n)
    L_n,p,g  has the value of L_n, but sees z_n,p,g alone (all other patches and groups are constants in it)

With a tangent z' of the block's output the slopes of all P G losses follow in closed form, without copies of L_n:

    s_n,p,g = 1/P sum_{c in g} (W^T e_n)_c z'_n,p,c

space = activity (LG-FG-A): noise u behind each LayerNorm; delta_n,p,c = s_n,p,g(c) u_n,p,c, pulled back through the
LayerNorm by its own Jacobian; a token-mixing layer, whose every channel reaches all groups, takes sum_g s_n,p,g.
space = weight (LG-FG-W): directions v over the block's weights; the last, grouped layer takes group by group
sum_n,p s_n,p,g v_g, the layers before it, which reach all groups, sum_n,p,g s_n,p,g v.
Heads start at zero and learn by their exact gradient 1/N sum_n e_n mean_p z_n,p^T, as does the net's last layer;
neither asks for a gradient through another layer. Estimates are averaged over k directions and N examples.

On mlp and cnn a block has one loss (P = G = 1) and its head sees the flattened output.
Deviations: the step is AdamW's, as backprop's here, where the paper takes SGD and a tenth of the step in the last
layer: AdamW scales each weight's step by itself, and a tenth only held the readout back.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench import Batch, Claims, Facts, Method, MethodInfo, Objective, Progress, Role, Seeds, Task, register
from bench.api.inference import inference
from bench.api.layer import weight_gradient
from bench.api.net import Net
from bench.nets.localmixer import GroupedLinear, TokenLinear, in_groups

from .._shared.bilinear import Gradient, add, hand_over
from .._shared.directions import Draw, draw, split, weight_directions
from .._shared.optimizers import adamw
from .forward_gradient import ForwardGradientSettings
from .tangents import Activities, Site, Weights, forward, refuse_activities, refuse_masks, refuse_resting


@register
class LocalForwardGradient(Method):
    """One forward pass per step, block by block; nothing of a block outlives its turn."""

    info = MethodInfo(
        name="local-forward-gradient",
        title="Local forward gradient (LG-FG)",
        family="forward-gradient",
        paper="ren2023scaling",
        claims=Claims(reverse_mode="none", updates_wait_for="earlier blocks"),
        nets=("localmixer", "mlp", "cnn"),
        outputs=("classes", "class probabilities", "values"),
        needs=("noiseless", "sequence", "readout"),
    )
    Config = ForwardGradientSettings
    net: Net

    @classmethod
    def refuse(cls, task: Task, config: ForwardGradientSettings, facts: Facts) -> str | None:
        reason = super().refuse(task, config, facts) or refuse_resting(cls.info.name, task.sketch())
        reason = reason or refuse_masks(cls.info.name, task.sketch())
        if reason or config.space == "weight":
            return reason
        return refuse_activities(cls.info.name, task.sketch(), task.input)

    def __init__(self, task: Task, config: ForwardGradientSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.objective = task.objective
        net = task.build_net(seeds.init)
        self.heads = _zero_heads(net, task).to(device)
        self.net = net.to(device)
        self.config, self.noise = config, seeds.noise
        parameters = [*self.net.parameters(), *self.heads.parameters()]
        self.optimizer = adamw(parameters, config)

    @torch.no_grad()
    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        estimate = weight_estimate if self.config.space == "weight" else activity_estimate
        *body, last = self.net.blocks
        z, local = batch.x, []
        for block, head in zip(body, self.heads, strict=True):
            assert isinstance(head, nn.Linear)
            z, loss, gradient = estimate(
                block, head, Batch(z, batch.y), self.config.k, self.draw, objective=self.objective
            )
            hand_over(gradient)
            local.append(loss)
        *before, linear = last if isinstance(last, nn.Sequential) else [last]
        assert isinstance(linear, nn.Linear)
        loss, _, gradient = readout(linear, nn.Sequential(*before)(z), batch.y, self.objective)
        hand_over(gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss, "local_loss": torch.stack(local).mean()}

    def draw(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return draw(shape, like, self.config.directions, self.noise)

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.heads}


def weight_estimate(
    block: nn.Module, head: nn.Linear, batch: Batch, k: int, draw: Draw, *, objective: Objective
) -> tuple[Tensor, Tensor, Gradient]:
    """LG-FG-W for one block and its head: output, loss, gradients. Shape: batch.x is the block's input."""
    flat, directions = weight_directions(block, k, draw)
    z, t = forward(block, batch.x, Weights(directions))
    loss, error, gradient = readout(head, features(z), batch.y, objective)
    per_group = slopes(t, error, head, groups(block)).sum((1, 2)) / k
    gradient |= split(per_group.sum(1) @ flat, block)
    for layer in block.modules():
        if isinstance(layer, GroupedLinear):
            for p in layer.parameters():
                v = directions[p].reshape(k, layer.groups, -1)
                gradient[p] = torch.einsum("kg,kgw->gw", per_group, v).view_as(p)
    return z, loss, gradient


def activity_estimate(
    block: nn.Module, head: nn.Linear, batch: Batch, k: int, draw: Draw, *, objective: Objective
) -> tuple[Tensor, Tensor, Gradient]:
    """LG-FG-A for one block and its head: output, loss, gradients. Shape: batch.x is the block's input."""
    space = Activities(k, draw)
    z, t = forward(block, batch.x, space)
    loss, error, gradient = readout(head, features(z), batch.y, objective)
    s = slopes(t, error, head, groups(block)) / k
    for site in space.sites:
        add(gradient, site.gradient(_credit(site, s)))
    return z, loss, gradient


def readout(linear: nn.Linear, h: Tensor, y: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Gradient]:
    """Mean loss of a linear read-out, its gradient by the scores (B, classes) and by the weights."""
    scores = linear(h)
    error = objective.loss_gradient(scores, y)
    return objective.loss(scores, y), error, weight_gradient(linear, h, error)


def features(z: Tensor) -> Tensor:
    """What a head sees of a block's output: the mean over patches, or all of it. Shape: (B, features)."""
    return z.mean(1) if _has_patches(z) else z.flatten(1)


def slopes(t: Tensor, error: Tensor, head: nn.Linear, groups: int) -> Tensor:
    """s, the slope of each local loss along each direction, over N. Shape: t (k, B, ...) to (k, B, P, G)."""
    t = t if _has_patches(t[0]) else t.flatten(2).unsqueeze(2)
    effect = in_groups(error @ head.weight, groups) / t.shape[2]
    return torch.einsum("kbpgc,bgc->kbpg", in_groups(t, groups), effect)


def groups(block: nn.Module) -> int:
    """Channel groups that have a loss of their own."""
    return next((layer.groups for layer in block.modules() if isinstance(layer, GroupedLinear)), 1)


def _credit(site: Site, s: Tensor) -> Tensor:
    """The noise at a site, each entry times the slopes of the losses that it reaches, summed over k."""
    if isinstance(site.layer, TokenLinear):
        return torch.einsum("kbpg,kbpc->bpc", s, site.noise)
    if _has_patches(site.noise[0]):
        return torch.einsum("kbpg,kbpgc->bpgc", s, in_groups(site.noise, s.shape[-1])).flatten(-2)
    return torch.einsum("kbpg,kb...->b...", s, site.noise)


def _has_patches(z: Tensor) -> bool:
    return z.dim() == 3


def _zero_heads(net: Net, task: Task) -> nn.ModuleList:
    """One linear head per block but the last, all zero, without a draw from the global generator."""
    heads, z = nn.ModuleList(), task.input.zeros(1)
    with inference(net):
        for block in net.blocks[:-1]:
            z = block(z)
            head = nn.Linear(features(z).shape[1], task.output.size, device="meta").to_empty(device="cpu")
            for p in head.parameters():
                p.zero_()
            heads.append(head)
    return heads
