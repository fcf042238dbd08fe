"""Breast cancer: tumours told apart by 30 measurements; comes with scikit-learn."""

from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.api.kinds import Input
from bench.catalog.register import register


@register
class BreastCancer(DataSet):
    info = DataSetInfo(
        name="breast-cancer",
        title="Breast cancer Wisconsin (diagnostic)",
        input=Input.vector(30),
        n_classes=2,
        n_train=455,
        n_test=114,
        source="Street, Wolberg & Mangasarian 1993, Nuclear feature extraction for breast tumor diagnosis",
        paper="street1993nuclear",
        size="embedded in scikit-learn",
    )

    def read(self, folder: Path) -> Source:
        import numpy as np
        import torch
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True)
        return Source(2, Split(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))))
