"""Blocks of the discrete-time net that are told the noise level, for rules whose blocks meet more levels than one.

    features = [image(x); label(z)],   logits = head(features (1 + scale) + shift),   [scale; shift] = V e(c_noise)

e: sinusoids of the level, V linear and zero at the start. Of several blocks in a row, each but the first reads z moved
towards what the one before guessed, as in the net's own forward pass (Li, Teh, Pascanu 2025, arXiv 2503.24322, Eq. 18):

    z <- (1 - g_k) z + g_k softmax(logits_k) W_embed,   g_k = tanh(w_k)

Source: the scale and shift of adaptive layer norm (Peebles, Xie 2023, "Scalable diffusion models with transformers"),
here once a block.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .denoiser import DenoiserBlock
from .labels import mean_embedding
from .towers import TIME_FEATURES, sinusoids


class LevelBlock(nn.Module):
    """Blocks of the net in a row that learn as one, told the noise level that they learn from."""

    def __init__(self, blocks: Sequence[DenoiserBlock], device: torch.device) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        # at zero without a draw, so that the net starts as the other methods' does
        outputs = [2 * 2 * block.image.fc.out_features for block in blocks]
        self.levels = nn.ModuleList(nn.Linear(TIME_FEATURES, n, device="meta").to_empty(device=device) for n in outputs)
        for p in self.levels.parameters():
            nn.init.zeros_(p)
        self.gates = nn.Parameter(torch.ones(len(blocks) - 1, device=device)) if len(blocks) > 1 else None

    def forward(self, z: Tensor, x: Tensor, c_noise: Tensor, W: Tensor) -> Tensor:
        """Shape: z (B, d), x (B, C, H, W), c_noise (B, 1), W (m, d) to logits (B, m)."""
        level = sinusoids(c_noise.squeeze(1))
        logits = self._logits(0, z, x, level)
        if self.gates is not None:
            for k, gate in enumerate(self.gates.tanh(), start=1):
                z = z + gate * (mean_embedding(logits, W) - z)
                logits = self._logits(k, z, x, level)
        return logits

    def _logits(self, k: int, z: Tensor, x: Tensor, level: Tensor) -> Tensor:
        block = self.blocks[k]
        assert isinstance(block, DenoiserBlock)
        scale, shift = self.levels[k](level).chunk(2, dim=1)
        features = torch.cat((block.image(x), block.label(z)), dim=1)
        logits: Tensor = block.head(torch.addcmul(features + shift, features, scale))
        return logits
