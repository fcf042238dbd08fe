"""The digits as sequences: eight rows of eight pixels, from top to bottom."""

from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.api.kinds import Input
from bench.catalog.register import register
from bench.data.digits import N_TEST, everything


@register
class DigitsRows(DataSet):
    """The same images in the same splits as `digits`; a row is a step, a column a feature."""

    info = DataSetInfo(
        name="digits-rows",
        title="Handwritten digits, read row by row",
        input=Input.sequence(8, 8),
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
        rows = Split(images.x.squeeze(1).float() / 255, images.y)
        train, test = draw(rows.y, N_TEST)
        return Source(10, rows.take(train), rows.take(test))
