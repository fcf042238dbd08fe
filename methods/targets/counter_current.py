"""Counter-current learning: a net of images and its mirror, a net of labels, teach each other layer by layer.

Paper: Kao, Hariharan 2024, "Counter-current learning: A biologically plausible dual network approach for deep
learning", in the form of the authors' code, which gave the published figures. Of images n, h_0 = x, and of classes c,
b_L = onehot(c):

    h_l = s(W_l h_{l-1}),    b_{l-1} = s(V_l b_l),        all inputs constants: no gradient goes from layer to layer
    S_nc = <h_{l,n}, b_{l,c}>,    Y_nc = [y_n = c],       for l = 1..L-1 with n_l units
    loss=dot      E_l = 128 / n_l mean (S - Y)^2
    loss=cosine   E_l = mean (S - Y)^2 + 1/2 mean (h_l h_l^T - I)^2 + 1/2 mean (b_l b_l^T - I)^2,  rows of norm 1

W_l steps down E_l with b_l held, V_{l+1} with h_l held, and the last layer W_L down the cross-entropy. So layers next
to the labels teach those next to the images, and the other way round. The mirror of a convolution is a transposed one,
that of max-pooling repeats each value over its window. The paper has `dot` for MLPs, and for CNNs `cosine` with
momentum and with gradients centred (those of a unit's weights have mean 0). Its formula sets the images of a batch
against the labels of that batch and wants Y = I (pairs=batch), even from two images of a class; the code sets them
against each class once (pairs=class).
Each layer's gradient is clipped in norm, the step is SGD's. The mirror is evaluated twice a step, for n_classes rows:
nothing of its graph is kept while the images pass.

Deviations from the code: where s is ReLU, E_l sees ELU in its place, and mirrors have ELU, as the code has everywhere;
with ReLU itself units fall silent for good. It clips the norm over a whole net; by layer, none waits for another. The
limit is 1 for both nets here, in the code 1 for MLPs and 0.3 for its CNN on CIFAR-10 (none on CIFAR-100); momentum 0.8
is that of CIFAR-10. Mirrors have no shift. V_1, which would give images, teaches nothing and is left out. For CNNs the
code also has weight decay 1e-6, a warm-up over 100 steps, a cosine schedule down to 1e-3, and leaves images that are
read_out well out of E_l, for which all layers would wait for the scores; what these are worth is open.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD

from bench import Batch, Claims, Method, MethodInfo, Net, Progress, Role, Seeds, StepSize, Task, register
from bench.api.seeds import drawn_from
from bench.api.structure import is_flat

from .._shared.estimators import EstimatorSettings, claims_of, learn, read_out
from .._shared.stages import stages
from .mirror import Mirror, mirrors

EPS = 1e-12  # least length of a row, so that one of zeros has a direction, 0


class CounterCurrentSettings(EstimatorSettings, StepSize):
    lr: float = Field(1.0, gt=0, description="step size", json_schema_extra={"search": ["log", 1e-2, 1e1]})
    momentum: float | None = Field(None, ge=0, lt=1, description="of SGD; null: 0 with loss=dot, 0.8 with cosine")
    clip: float = Field(1.0, gt=0, description="most that the norm of a layer's gradient may be")
    loss: Literal["dot", "cosine"] | None = Field(
        None, description="products of activations, or of their directions; null: dot on mlp, cosine on cnn"
    )
    pairs: Literal["class", "batch"] = Field("class", description="images against each class, or against their labels")


@register
class CounterCurrent(Method):
    """A pass of labels down, then one of images up, in which each layer and its mirror take a step."""

    info = MethodInfo(
        name="counter-current",
        title="Counter-current learning",
        family="target",
        paper="kao2024counter",
        claims=Claims(reverse_mode="layer", forward_passes=2, updates_wait_for="earlier blocks"),
        nets=("mlp", "cnn"),
        needs=("chain",),
    )
    Config = CounterCurrentSettings
    net: Net

    def __init__(self, task: Task, config: CounterCurrentSettings, *, device: torch.device, seeds: Seeds) -> None:
        self.config, self.n_classes, self.noise = config, task.output.size, seeds.noise
        self.objective = task.objective
        self.net = task.build_net(seeds.init)
        with drawn_from(seeds.init):
            self.feedback = mirrors(self.net, task.input, bias=False)
        self.net.to(device)
        self.feedback.to(device)
        self.stages = stages(self.net)[:-1]
        self.seen = [nn.ELU() if isinstance(stage.activation, nn.ReLU) else stage.activation for stage in self.stages]
        self.is_cosine = (config.loss or ("dot" if is_flat(self.net) else "cosine")) == "cosine"
        paper = 0.8 if self.is_cosine else 0.0
        self.momentum = paper if config.momentum is None else config.momentum
        *self.optimizers, self.output_optimizer = [self._optimizer(block) for block in self.net.blocks]
        self.feedback_optimizers = [self._optimizer(mirror) for mirror in self.feedback]

    def _optimizer(self, part: nn.Module) -> SGD:
        parameters = list(part.parameters())

        def tame(*_: Any) -> None:
            if self.is_cosine:
                centre(parameters)
            clip_grad_norm_(parameters, self.config.clip)

        optimizer = SGD(parameters, lr=self.config.lr, momentum=self.momentum, fused=True)
        optimizer.register_step_pre_hook(tame)
        return optimizer

    def claims(self) -> Claims:
        # two for the mirror's side: what it says of each class, with and without a step
        claims = replace(self.info.claims, forward_passes=3 if self.config.gradient == "spsa" else 2)
        if self.config.gradient != "backprop":
            # clipped, a step along one direction has one length: what it waits for turns its sign, which seldom shows
            claims = replace(claims, updates_wait_for=None)
        return claims_of(claims, self.config)

    def train_step(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        h, y = batch
        signals = self._signals()
        losses = []
        for k, stage in enumerate(self.stages):
            of_block = partial(self._judged, k, h, signals[k], y)
            loss, seen = learn(of_block, self.net.blocks[k], self.optimizers[k], self.config, self.noise)
            losses.append(loss)
            of_mirror = partial(self._mirrored, k, seen, signals[k + 1], y)
            learn(of_mirror, self.feedback[k], self.feedback_optimizers[k], self.config, self.noise)
            h = seen if self.seen[k] is stage.activation else seen.relu()  # relu(elu(a)) = relu(a)
        of_output = partial(read_out, self.net.blocks[-1], self.objective, h, y)
        loss, _ = learn(of_output, self.net.blocks[-1], self.output_optimizer, self.config, self.noise)
        return {"loss": loss} | ({"local_loss": torch.stack(losses).mean()} if losses else {})

    @torch.no_grad()
    def _signals(self) -> list[Tensor]:
        """b_l for the output of each block, last the scores. Shape: (n_classes, *units of the block)."""
        weight = next(self.net.parameters())
        signals = [torch.eye(self.n_classes, dtype=weight.dtype, device=weight.device)]
        for k in range(len(self.feedback) - 1, -1, -1):
            signals.insert(0, self._signal(k, signals[0]))
        return signals

    def _signal(self, k: int, above: Tensor) -> Tensor:
        """b of block k from that of the block above."""
        mirror = self.feedback[k]
        assert isinstance(mirror, Mirror)
        if above.dim() == 4:
            above = F.interpolate(above, size=mirror.before_pooling)
        below: Tensor = self.seen[k](mirror(above))
        return below

    def _judged(self, k: int, h: Tensor, signal: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """E of block k by its weights, and what it sees."""
        seen: Tensor = self.seen[k](self.stages[k].pool(self.stages[k].weigh(h)))
        return self._loss(seen, signal, y), seen

    def _mirrored(self, k: int, seen: Tensor, above: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """E of block k by the weights of the mirror."""
        signal = self._signal(k, above)
        return self._loss(seen, signal, y, h_moves=False), signal

    def _loss(self, h: Tensor, b: Tensor, y: Tensor, *, h_moves: bool = True) -> Tensor:
        """E of a block, up to what is constant where h is. Shape: h (N, *units), b (C, *units), y (N,)."""
        of = partial(cosine_loss, h_moves=h_moves) if self.is_cosine else dot_loss
        if self.config.pairs == "batch":
            return of(h.flatten(1), b.flatten(1)[y], torch.eye(len(y), dtype=h.dtype, device=h.device))
        return of(h.flatten(1), b.flatten(1), self.objective.embed(y).to(h.dtype))

    def modules(self) -> Mapping[Role, nn.Module]:
        return {"inference": self.net, "training_only": self.feedback}


def dot_loss(h: Tensor, b: Tensor, Y: Tensor) -> Tensor:
    """Shape: h (N, n), b (M, n), Y (N, M)."""
    return 128 / h.shape[1] * F.mse_loss(h @ b.T, Y)


def cosine_loss(h: Tensor, b: Tensor, Y: Tensor, *, h_moves: bool = True) -> Tensor:
    """Shape: as above. h_moves: False leaves out the spread of h, a constant that costs more than all else."""
    of_b = _products(b)
    lengths_b = _lengths(of_b)
    spread = _spread(of_b, lengths_b)
    if h_moves:
        of_h = _products(h)
        lengths_h = _lengths(of_h)
        spread = spread + _spread(of_h, lengths_h)
    else:
        lengths_h = torch.linalg.vector_norm(h, dim=1).clamp_min(EPS)
    return F.mse_loss(h @ b.T / torch.outer(lengths_h, lengths_b), Y) + 0.5 * spread


def _products(rows: Tensor) -> Tensor:
    """R R^T, from which lengths and cosines are had without a pass over R.

    Either R gives half of its derivative, by symmetry: that of one, twice, saves a product as large as this.
    """
    products = rows @ rows.detach().T
    return 2 * products - products.detach()


def _lengths(products: Tensor) -> Tensor:
    return products.diagonal().clamp_min(EPS**2).sqrt()


def _spread(products: Tensor, lengths: Tensor) -> Tensor:
    """How far directions are from orthogonal: mean square of their cosines less I."""
    return F.mse_loss(products / torch.outer(lengths, lengths), torch.eye(len(lengths)).to(products))


def centre(parameters: Iterable[Tensor]) -> None:
    """Take from the gradient of each unit's weights its mean (Yong et al. 2020)."""
    for p in parameters:
        if p.grad is not None and p.dim() > 1:
            p.grad -= p.grad.flatten(1).mean(1).view(-1, *[1] * (p.dim() - 1))
