"""The kinds of input and output that arrays are, held against the data set's card."""

from bench.api.dataset import DataSet, Source, Split
from bench.api.errors import DataError
from bench.api.kinds import Input, InputKind, Output

KNOWN: dict[tuple[str, int], InputKind] = {
    ("uint8", 4): "image",
    ("float32", 4): "image",
    ("float32", 2): "vector",
    ("float32", 3): "sequence",
    ("int64", 2): "tokens",
}  # type and axes of x
NOUNS: dict[InputKind, str] = {
    "image": "image",
    "vector": "vector",
    "sequence": "sequence",
    "tokens": "sequence of tokens",
}


def recognised(dataset: DataSet, source: Source) -> tuple[Source, Input, Output]:
    """The source with labels of one axis that are values as columns, and its kinds.

    Raises: DataError where the arrays are of no kind, or of another than the card says.
    """
    card = dataset.card()
    output = source.output if isinstance(source.output, Output) else Output.classes(source.output)
    vocabulary = source.vocabulary or (card.given.vocabulary if card.given else 0)
    given = _input(dataset.name, source.train, vocabulary)
    for what, said, found in (("input", card.given, given), ("output", card.wanted, output)):
        if said is not None and said != found:
            raise DataError(f"{dataset.name}: its card says {what} {said}, its arrays are {found}")
    if output.kind == "values":
        train, test, val = (_columns(split) for split in (source.train, source.test, source.val))
        assert train is not None
        source = source._replace(train=train, test=test, val=val)
    return source, given, output


def plural(noun: str) -> str:
    head, of, rest = noun.partition(" of ")
    return f"{head}s{of}{rest}"


def _input(name: str, split: Split, vocabulary: int) -> Input:
    x = split.x
    kind = KNOWN.get((str(x.dtype).removeprefix("torch."), x.ndim))
    if kind is None or 0 in x.shape[1:]:
        raise DataError(
            f"{name}: train: x is {tuple(x.shape)} {x.dtype}; expected images (N, C, H, W) uint8 or float32, "
            "vectors (N, F) or sequences (N, T, F) float32, or tokens (N, T) int64"
        )
    if kind != "tokens":
        return Input(kind, tuple(x.shape[1:]))
    if vocabulary < 1:
        raise DataError(f"{name}: tokens need a vocabulary; say how many tokens there are")
    return Input.tokens(x.shape[1], vocabulary)


def _columns(split: Split | None) -> Split | None:
    """Shape: y (N,) to (N, 1); None as it is."""
    return split._replace(y=split.y.unsqueeze(1)) if split is not None and split.y.ndim == 1 else split
