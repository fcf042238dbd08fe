"""What a data set is to the suite: an identity card, files that may be missing, and arrays. Free of torch at import."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from bench.api.errors import DataError
from bench.api.kinds import Input, Output

if TYPE_CHECKING:
    from torch import Tensor


class Split(NamedTuple):
    """Examples with their labels.

    Shape: images x (N, C, H, W), uint8 or float32; vectors (N, F), sequences (N, T, F), float32; tokens (N, T), int64.
    y (N,) int64 classes, (N, n) float32 values or class probabilities, (N, T) int64 next tokens.
    """

    x: "Tensor"
    y: "Tensor"

    def take(self, index: "Tensor") -> "Split":
        return Split(self.x[index], self.y[index])


class Source(NamedTuple):
    """A data set as its files give it. None where the files leave a split to be drawn from train.

    output: what is to be predicted; a number stands for so many classes. vocabulary: of tokens.
    """

    output: Output | int
    train: Split
    test: Split | None = None
    val: Split | None = None
    vocabulary: int = 0


@dataclass(frozen=True)
class DataSetInfo:
    """A data set's identity card. None where a figure depends on the user's own files.

    image_shape (C, H, W) and n_classes say what an image classifier needs; `input` and `output` say it of any other
    task. n_train and n_test count examples as published: validation is drawn from n_train.
    paper is the BibTeX key of its source, in the references.bib nearest above. size is that of the download. argument
    names what follows a colon after the name, as PATH in npz:PATH. objective, metrics: by name; those of the kind of
    output where it names none.
    """

    name: str
    title: str
    source: str = ""
    paper: str = ""
    image_shape: tuple[int, int, int] | None = None
    n_classes: int | None = None
    input: Input | None = None
    output: Output | None = None
    n_train: int | None = None
    n_test: int | None = None
    size: str = ""
    argument: str = ""
    objective: str = ""
    metrics: tuple[str, ...] = ()

    @property
    def given(self) -> Input | None:
        """The input of an example, where the card knows it."""
        return Input("image", self.image_shape) if self.image_shape else self.input

    @property
    def wanted(self) -> Output | None:
        """The output of an example, where the card knows it."""
        return Output.classes(self.n_classes) if self.n_classes else self.output


class DataSet(ABC):
    """A source of labelled examples.

    Subclasses set `info` and implement `read`; those that keep files say in `missing` which ones are not there, and
    those that can be downloaded do so in `fetch`. argument is what the user wrote after the colon.
    """

    info: ClassVar[DataSetInfo]

    def __init__(self, argument: str = "") -> None:
        self.argument = argument

    @property
    def name(self) -> str:
        return f"{self.info.name}:{self.argument}" if self.info.argument else self.info.name

    def card(self) -> DataSetInfo:
        """What is known of it before anything is read. Default: `info`."""
        return self.info

    @classmethod
    def layout(cls) -> str:
        """How a user's files must look, for `bench show`. Default: nothing is said."""
        return ""

    def missing(self, folder: Path) -> list[str]:
        """The files that are not on disk, relative to the data folder or absolute; cheap, for `bench list`."""
        return []

    @abstractmethod
    def read(self, folder: Path) -> Source:
        """The arrays; called when nothing is missing. Raises: DataError where files are damaged."""

    @property
    def can_be_fetched(self) -> bool:
        """Whether it has a `fetch` of its own."""
        return type(self).fetch is not DataSet.fetch

    def fetch(self, folder: Path) -> None:
        """Download what is missing, with the user's consent given. Raises: DataError."""
        raise DataError(f"{self.name} cannot be downloaded; put its files in place")
