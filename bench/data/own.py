"""A user's own data by its path: `npz:PATH` and `imagefolder:PATH`."""

from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source
from bench.api.errors import DataError
from bench.catalog.register import register


class Own(DataSet):
    @property
    def path(self) -> Path:
        try:
            return Path(self.argument).expanduser()  # the shell leaves a ~ after a colon alone
        except RuntimeError as error:
            raise DataError(f"{self.name}: there is no such user; write the path in full") from error

    def missing(self, folder: Path) -> list[str]:
        if "://" in self.argument:
            raise DataError(f"{self.name}: a URL is no place here; copy it to this machine, or mount it")
        try:
            return [] if self.path.exists() else [str(self.path.absolute())]
        except OSError as error:  # a name too long, say
            raise DataError(f"{self.info.name}:PATH: {error.strerror}; check the path") from error


@register
class Npz(Own):
    info = DataSetInfo(name="npz", title="your own arrays, in a file of numpy's", argument="PATH")

    @classmethod
    def layout(cls) -> str:
        from bench.data import npz, npz_inputs, npz_labels

        return "\n\n".join((part.__doc__ or "").strip() for part in (npz, npz_inputs, npz_labels))

    def read(self, folder: Path) -> Source:
        from bench.data.npz import read_npz

        return read_npz(self.name, self.path)


@register
class ImageFolder(Own):
    info = DataSetInfo(name="imagefolder", title="your own image files, a folder a class", argument="PATH")

    @classmethod
    def layout(cls) -> str:
        from bench.data import imagefolder

        return (imagefolder.__doc__ or "").strip()

    def read(self, folder: Path) -> Source:
        from bench.data.imagefolder import read_imagefolder

        return read_imagefolder(self.name, self.path)
