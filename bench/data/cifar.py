"""CIFAR-10 and CIFAR-100: natural images in colour, read by torchvision."""

from pathlib import Path

from bench.api.dataset import DataSetInfo, Source
from bench.catalog.register import register
from bench.data.files import File, Published, split


class Cifar(Published):
    def read(self, folder: Path) -> Source:
        self.verified(folder)
        parts = self.through_torchvision(folder, download=False)
        train, test = (split(part.data.transpose(0, 3, 1, 2), part.targets) for part in parts)
        assert self.info.n_classes is not None
        return Source(self.info.n_classes, train, test)


@register
class CIFAR10(Cifar):
    info = DataSetInfo(
        name="cifar10",
        title="CIFAR-10 natural images",
        image_shape=(3, 32, 32),
        n_classes=10,
        n_train=50_000,
        n_test=10_000,
        source="Krizhevsky 2009, Learning multiple layers of features from tiny images",
        paper="krizhevsky2009learning",
        size="170 MB",
    )
    torchvision = "CIFAR10"
    files = (
        File("cifar-10-batches-py/batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        File("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
        File("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        File("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        File("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
        File("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        File("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
    )


@register
class CIFAR100(Cifar):
    info = DataSetInfo(
        name="cifar100",
        title="CIFAR-100 natural images, fine labels",
        image_shape=(3, 32, 32),
        n_classes=100,
        n_train=50_000,
        n_test=10_000,
        source="Krizhevsky 2009, Learning multiple layers of features from tiny images",
        paper="krizhevsky2009learning",
        size="169 MB",
    )
    torchvision = "CIFAR100"
    files = (
        File("cifar-100-python/meta", "7973b15100ade9c7d40fb424638fde48"),
        File("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
        File("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    )
