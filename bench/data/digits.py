"""Handwritten digits that come with scikit-learn: real, small, and always there."""

from functools import cache
from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.catalog.register import register

N_TEST = 360


@register
class Digits(DataSet):
    info = DataSetInfo(
        name="digits",
        title="Optical recognition of handwritten digits",
        image_shape=(1, 8, 8),
        n_classes=10,
        n_train=1437,
        n_test=360,
        source="Alpaydin & Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49",
        paper="alpaydin1998optical",
        size="embedded in scikit-learn",
    )

    def read(self, folder: Path) -> Source:
        from bench.data.split import draw

        images = everything()
        train, test = draw(images.y, N_TEST)
        return Source(10, images.take(train), images.take(test))


@cache
def everything() -> Split:
    """All images, kept: reading takes half as long as setting up a small run, and runs are forked with them there."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 17 grey levels, 0..16, spread over 0..255
    x = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    return Split(x, torch.from_numpy(digits.target.astype(np.int64)))
