"""Files of published data sets: where they lie, whether they are whole, how they are fetched through torchvision.

No file of the user's is ever replaced: damage is reported, and mending it is left to them.
"""

import hashlib
import os
from collections.abc import Iterator
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from bench.api.dataset import DataSet, Split
from bench.api.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


class File(NamedTuple):
    """A file below the data folder; where it is absent, `path`.gz, the form that some publishers chose.

    md5 is None where only the compressed form has a published checksum.
    """

    path: str
    md5: str | None
    gz_md5: str | None = None


class Published(DataSet):
    """A data set whose files have published checksums and can be had through torchvision, whose class is named."""

    files: ClassVar[tuple[File, ...]]
    torchvision: ClassVar[str]

    def missing(self, folder: Path) -> list[str]:
        return [file.path for file, path in self._locate(folder) if path is None]

    def fetch(self, folder: Path) -> None:
        """Download what is missing; a broken download leaves nothing behind."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
                for _ in self.through_torchvision(Path(scratch), download=True):
                    pass
                for file, path in self._locate(folder):
                    if path is None:
                        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                        os.replace(Path(scratch, file.path), folder / file.path)
        except (OSError, RuntimeError, HTTPException) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.name}: download to {folder} failed: {reason}; try again") from error

    def verified(self, folder: Path) -> list[Path]:
        """The files, whole by their published checksums. Raises: DataError."""
        paths = []
        for file, path in self._locate(folder):
            assert path is not None, "the caller has seen to it that all files are there"
            want = file.gz_md5 if path.suffix == ".gz" else file.md5
            try:
                with path.open("rb") as stream:
                    md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            except OSError as error:
                raise DataError(f"{self.name}: cannot read {path} ({error.strerror}); allow it") from error
            if want and md5 != want:
                raise self.damaged(path, f"md5 {md5}, published {want}")
            paths.append(path)
        return paths

    def damaged(self, path: Path, why: str) -> DataError:
        return DataError(f"{self.name}: {path} is damaged ({why}); delete it, then add --download")

    def through_torchvision(self, folder: Path, *, download: bool) -> Iterator[Any]:
        """torchvision's training split, then its test split."""
        part = getattr(torchvision_datasets(self.name), self.torchvision)
        for train in (True, False):
            yield part(folder, download=download, **self.which(train))

    def which(self, train: bool) -> dict[str, Any]:
        """How torchvision's class is told the split."""
        return {"train": train}

    def _locate(self, folder: Path) -> Iterator[tuple[File, Path | None]]:
        """Each file with the path that holds it: unpacked, else compressed, else None."""
        for file in self.files:
            forms = [folder / file.path, *([folder / f"{file.path}.gz"] if file.gz_md5 else [])]
            yield file, next((form for form in forms if form.is_file()), None)


def torchvision_datasets(name: str) -> Any:
    """torchvision's data sets, which the other sets do without: its import takes a second or fails where the
    wheel does not match torch's.

    Raises: DataError.
    """
    try:
        return import_module("torchvision.datasets")
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} needs torchvision, which cannot be imported ({reason}); "
            "install the torchvision that belongs to your torch: pip install torchvision"
        ) from error


def split(x: Any, y: Any) -> Split:
    """numpy arrays as a split. Shape: x (N, C, H, W) uint8, y (N,)."""
    import numpy as np
    import torch

    labels: Tensor = torch.from_numpy(np.asarray(y, dtype=np.int64))
    return Split(torch.from_numpy(np.ascontiguousarray(x)), labels)
