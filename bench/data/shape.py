"""Data sets that are a shape alone: enough to estimate what learning them would take, and nothing to learn from."""

import re
from dataclasses import replace
from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source
from bench.api.errors import ConfigError, DataError
from bench.catalog.register import register

WRITTEN = re.compile(r"([0-9]{1,9})x([0-9]{1,9})x([0-9]{1,9})/([0-9]{1,9})/([0-9]{1,12})")

MOST_PIXELS, MOST_CLASSES = 100_000_000, 10_000_000


class ShapeOnly(DataSet):
    def read(self, folder: Path) -> Source:
        raise DataError(f"{self.name} is a shape without images, for `bench estimate` alone; name another data set")


@register
class ImageNetShape(ShapeOnly):
    info = DataSetInfo(
        name="imagenet-shape",
        title="the shape of ImageNet-1k, for `bench estimate` alone",
        source="Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge",
        paper="russakovsky2015imagenet",
        image_shape=(3, 224, 224),
        n_classes=1000,
        n_train=1_281_167,
        n_test=50_000,
    )


@register
class Shape(ShapeOnly):
    info = DataSetInfo(name="shape", title="any shape, for `bench estimate` alone", argument="CxHxW/CLASSES/IMAGES")

    def card(self) -> DataSetInfo:
        """Raises: ConfigError where what is written after the colon is no shape."""
        found = WRITTEN.fullmatch(self.argument)
        numbers = [int(part) for part in found.groups()] if found else [0]
        if min(numbers) < 1:
            raise ConfigError(f"{self.name}: write shape:{self.info.argument}, as in shape:3x64x64/200/100000")
        channels, height, width, n_classes, n_train = numbers
        if n_classes < 2:
            raise ConfigError(f"{self.name}: {n_classes} class is nothing to tell apart; write 2 or more")
        if channels * height * width > MOST_PIXELS or n_classes > MOST_CLASSES:
            raise ConfigError(
                f"{self.name}: at most {MOST_PIXELS:,} values an image and {MOST_CLASSES:,} classes can be estimated"
            )
        return replace(self.info, image_shape=(channels, height, width), n_classes=n_classes, n_train=n_train)
