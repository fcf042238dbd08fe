"""What NoProp leaves for pictures: the way from noise to label, prototypes that were learned, the noise schedule."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bench import Artifact, Batch, Images, Lines

from .labels import Labels

SIGNAL, WEIGHT = r"$\bar{\alpha}$: share of signal in $z_t$", "weight of the denoising loss"


def of_labels(labels: Labels, shown: Batch, probabilities: Sequence[Tensor], times: Tensor) -> Iterator[Artifact]:
    """p(y | z_t) of the images along the way, and class embeddings that are images.

    Shape: probabilities one (B, m) for each of the times (steps + 1,).
    """
    yield Lines(
        name="label-path",
        caption="Class probabilities of a few held-out images along inference, for the first seed of each row. "
        "The number at the end is the class that is then most probable.",
        x_label="time, from noise (0) to label (1)",
        x=times,
        y=torch.stack(list(probabilities)).permute(1, 2, 0),
        panels=tuple(f"class {int(label)}" for label in shown.y),
        lines=tuple(str(k) for k in range(len(labels.weight))),
        y_label="class probability",
        limits=(-0.04, 1.04),
        emphasis=shown.y,
        pictures=shown.x,
    )
    if labels.image_shape is not None:
        yield Images(
            name="prototypes",
            caption="Class embeddings that are images, at the start of training and after it, for the first seed of "
            "each row. Every image is rescaled to its own range, channel by channel.",
            images=torch.stack((labels.start, labels.weight)).detach().unflatten(2, labels.image_shape),
            rows=("start", "learned"),
            columns=tuple(str(k) for k in range(len(labels.weight))),
        )


def of_schedule(times: Tensor, abar: Tensor, weight: Tensor) -> Lines:
    """The noise schedule, and the weight of the denoising loss. Shape: each (K,)."""
    return Lines(
        name="schedule",
        caption="Noise schedule of the first seed of each row. The weight is that of one step in the mean over "
        "steps, or at one time in the mean over time.",
        x_label="time t, from noise (0) to label (1)",
        x=times,
        y=torch.stack((abar, weight)).unsqueeze(1),
        panels=(SIGNAL, WEIGHT),
        logarithmic=(False, True),
    )
