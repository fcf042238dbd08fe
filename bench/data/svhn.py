"""Street View House Numbers, cropped digits, read by torchvision."""

from pathlib import Path
from typing import Any

from bench.api.dataset import DataSetInfo, Source
from bench.catalog.register import register
from bench.data.files import File, Published, split


@register
class SVHN(Published):
    info = DataSetInfo(
        name="svhn",
        title="Street View House Numbers, cropped digits",
        image_shape=(3, 32, 32),
        n_classes=10,
        n_train=73_257,
        n_test=26_032,
        source="Netzer et al. 2011, Reading digits in natural images with unsupervised feature learning",
        paper="netzer2011reading",
        size="246 MB",
    )
    torchvision = "SVHN"
    files = (
        File("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        File("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    )

    def read(self, folder: Path) -> Source:
        self.verified(folder)
        train, test = (split(part.data, part.labels) for part in self.through_torchvision(folder, download=False))
        return Source(10, train, test)

    def which(self, train: bool) -> dict[str, Any]:
        return {"split": "train" if train else "test"}  # it knows a third one, `extra`
