"""Wine: three cultivars told apart by 13 measurements; comes with scikit-learn."""

from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.api.kinds import Input
from bench.catalog.register import register


@register
class Wine(DataSet):
    info = DataSetInfo(
        name="wine",
        title="Wine recognition",
        input=Input.vector(13),
        n_classes=3,
        n_train=142,
        n_test=36,
        source="Aeberhard & Forina 1991, UCI Machine Learning Repository, doi:10.24432/C5PC7J",
        paper="aeberhard1991wine",
        size="embedded in scikit-learn",
    )

    def read(self, folder: Path) -> Source:
        import numpy as np
        import torch
        from sklearn.datasets import load_wine

        x, y = load_wine(return_X_y=True)
        return Source(3, Split(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))))
