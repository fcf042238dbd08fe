"""Diabetes: a small regression task that comes with scikit-learn."""

from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.api.kinds import Input, Output
from bench.catalog.register import register


@register
class Diabetes(DataSet):
    """Ten measurements of a patient, and the progression of the disease a year later, from 25 to 346."""

    info = DataSetInfo(
        name="diabetes",
        title="Progression of diabetes from ten measurements",
        input=Input.vector(10),
        output=Output.values(),
        n_train=354,
        n_test=88,
        source="Efron, Hastie, Johnstone & Tibshirani 2004, Least angle regression",
        paper="efron2004least",
        size="embedded in scikit-learn",
    )

    def read(self, folder: Path) -> Source:
        import numpy as np
        import torch
        from sklearn.datasets import load_diabetes

        x, y = load_diabetes(return_X_y=True, scaled=False)
        return Source(Output.values(), Split(*(torch.from_numpy(of.astype(np.float32)) for of in (x, y))))
