"""MNIST-1D as images one pixel high, for convolutional nets."""

from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.catalog.register import register
from bench.data.mnist1d import LENGTH, N_TEST, N_TRAIN, generated


@register
class MNIST1DImage(DataSet):
    """The same signals in the same splits as `mnist1d`; the 40 numbers are pixels of a row."""

    info = DataSetInfo(
        name="mnist1d-image",
        title="MNIST-1D, as images of one row",
        image_shape=(1, 1, 40),
        n_classes=10,
        n_train=N_TRAIN,
        n_test=N_TEST,
        source="Greydanus & Kobak 2024, arXiv 2011.14439",
        paper="greydanus2024scaling",
        size="generated",
    )

    def read(self, folder: Path) -> Source:
        signals = generated()
        every = Split(signals.x.view(-1, 1, 1, LENGTH), signals.y)
        return Source(10, Split(*(t[:N_TRAIN] for t in every)), Split(*(t[N_TRAIN:] for t in every)))
