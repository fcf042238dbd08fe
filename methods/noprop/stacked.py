"""All T blocks of the discrete-time net as one computation, for devices where many small kernels cost more than one.

The parameters of equal layers are stacked along a leading axis T: convolutions become grouped ones, linear layers
batched products, batch norm one over T times the channels. The blocks' own parameters become views of the stacks, so
that inference, state and reports see the blocks as ever. Each block draws its dropout from its own generator, so the
numbers are those of the blocks one after another, within rounding.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.nets.layers import ReLUDropout

from .denoiser import DenoiserBlock
from .towers import ImageTower


class StackedBlocks:
    """T blocks in training, in one call. No module: what is trained are the blocks, seen another way."""

    def __init__(self, blocks: Sequence[DenoiserBlock], generators: Sequence[torch.Generator]) -> None:
        self.T, self.generators, self.block = len(blocks), generators, blocks[0]
        members = [dict(block.named_parameters()) for block in blocks]
        self.stacks: dict[str, nn.Parameter] = {}
        for name in members[0]:
            stack = nn.Parameter(torch.stack([of[name].detach() for of in members]))
            for own, row in zip(members, stack.detach(), strict=True):
                own[name].data = row
            self.stacks[name] = stack
        norms = [{n: of for n, of in block.named_modules() if isinstance(of, nn.BatchNorm1d)} for block in blocks]
        self._norms = {name: [of[name] for of in norms] for name in norms[0]}
        self._running = {name: _stack_statistics(layers) for name, layers in self._norms.items()}

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.stacks.values()

    def compile(self) -> None:
        """Let torch.compile have the computation."""
        self._logits = torch.compile(self._logits, dynamic=False)  # type: ignore[method-assign]

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        """Shape: z (T, B, d), x (B, C, H, W) to logits (T, B, m)."""
        return self._logits(z, x)

    def _logits(self, z: Tensor, x: Tensor) -> Tensor:
        block = self.block
        image = self._tower("image", x.expand(self.T, *x.shape), block.image, shared=True)
        if isinstance(block.label, ImageTower):
            label = self._tower("label", z.view(self.T, len(x), *block.label.image_shape), block.label, shared=False)
        else:
            h = self._norm("label.norm1", self._linear("label.fc1", z)).relu()
            inner = self._norm("label.norm2", self._linear("label.fc2", h)).relu()
            label = h + self._norm("label.norm3", self._linear("label.fc3", inner))
        h = torch.cat((image, label), dim=-1)
        h = self._norm("head.1", self._linear("head.0", h)).relu()
        h = self._norm("head.4", self._linear("head.3", h)).relu()
        return self._linear("head.6", h)

    def _tower(self, at: str, x: Tensor, tower: ImageTower, *, shared: bool) -> Tensor:
        """Shape: x (T, B, C, H, W), a view of (B, C, H, W) where all blocks see the same, to (T, B, hidden)."""
        h = x[0] if shared else x.transpose(0, 1).flatten(1, 2)
        h = self._dropped(F.max_pool2d(self._conv(f"{at}.conv1", h, 1 if shared else self.T), 2), tower.drop1)
        h = self._dropped(self._conv(f"{at}.conv2", h, self.T), tower.drop2)
        h = self._dropped(F.max_pool2d(self._conv(f"{at}.conv3", h, self.T), 2), tower.drop3)
        features = h.reshape(len(h), self.T, -1).transpose(0, 1)
        return self._norm(f"{at}.norm", self._linear(f"{at}.fc", features))

    def _conv(self, name: str, h: Tensor, groups: int) -> Tensor:
        """Shape: (B, T C, H, W), or (B, C, H, W) in one group, to (B, T C', H, W)."""
        weight, bias = self._of(name, "weight"), self._of(name, "bias")
        return F.conv2d(h, weight.flatten(0, 1), bias.flatten(), padding=1, groups=groups)

    def _linear(self, name: str, h: Tensor) -> Tensor:
        """Shape: (T, B, i) to (T, B, o)."""
        return torch.baddbmm(self._of(name, "bias").unsqueeze(1), h, self._of(name, "weight").mT)

    def _norm(self, name: str, h: Tensor) -> Tensor:
        """Batch norm of each block on its own: over B for each of T times C channels. Shape: (T, B, C) to the same."""
        mean, var = self._running[name]
        for layer in self._norms[name]:
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked += 1
        assert layer.momentum is not None
        flat = F.batch_norm(
            h.transpose(0, 1).flatten(1),
            mean.view(-1),
            var.view(-1),
            self._of(name, "weight").flatten(),
            self._of(name, "bias").flatten(),
            training=True,
            momentum=layer.momentum,
            eps=layer.eps,
        )
        return flat.view(len(flat), self.T, -1).transpose(0, 1)

    def _dropped(self, h: Tensor, dropout: ReLUDropout) -> Tensor:
        """ReLU, and dropout with each block's mask from its own generator. Shape: (B, T C, H, W) to the same."""
        if dropout.p == 0:
            return h.relu_()
        B, channels, *size = h.shape
        one = (B, *size, channels // self.T)  # channels last, as the blocks draw
        keep = torch.stack([dropout.keep(one, h.device, generator) for generator in self.generators], dim=3)
        return dropout.drop(h, keep.flatten(3).permute(0, 3, 1, 2))

    def _of(self, layer: str, parameter: str) -> Tensor:
        return self.stacks[f"{layer}.{parameter}"]


def _stack_statistics(layers: Sequence[nn.BatchNorm1d]) -> tuple[Tensor, Tensor]:
    """The running means and variances of a layer in all blocks, as one tensor each that the layers see rows of."""
    stacked = []
    for buffer in ("running_mean", "running_var"):
        rows = torch.stack([getattr(layer, buffer) for layer in layers])
        for layer, row in zip(layers, rows, strict=True):
            layer.register_buffer(buffer, row)
        stacked.append(rows)
    return stacked[0], stacked[1]
