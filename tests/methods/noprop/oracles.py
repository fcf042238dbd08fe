"""What several slow references of NoProp need, written from the equations alone."""

import torch
from bench.methods.noprop.labels import Labels
from torch import Tensor


def p_out(labels: Labels, z: Tensor) -> Tensor:
    """log p_out(y | z) up to a constant: theta_out(z), or Eq. 15-16 class by class. Shape: (..., d) to (..., m)."""
    scores = z @ labels.readout.weight.T + labels.readout.bias
    if labels.settings.class_probability == "softmax":
        return scores
    guess = torch.einsum("...m,md->...d", scores.softmax(-1), labels.weight)
    distances = [((guess - u) ** 2).sum(-1) for u in labels.weight]
    return -torch.stack(distances, dim=-1) / (2 * labels.settings.sigma**2)
