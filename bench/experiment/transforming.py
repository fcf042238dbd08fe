"""The transforms of an experiment's training batches: whether they suit the data, and what labels are afterwards."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bench.api.errors import ConfigError
from bench.api.kinds import Input, Output
from bench.catalog.catalog import Catalog
from bench.catalog.entry import Entry

if TYPE_CHECKING:
    from bench.api.transform import Transform


def fitting(
    names: Sequence[str], dataset: str, given: Input, output: Output, catalog: Catalog
) -> tuple[tuple[Entry, ...], Output]:
    """The transforms on a data set, and its labels after them.

    Raises: ConfigError for a name that is not there or stands twice, or one that is not made for these data.
    """
    if len(set(names)) < len(names):
        raise ConfigError(f"transforms: {', '.join(names)}: name each once")
    for name in names:
        cls: type[Transform] = catalog.transforms[name].load()
        for found, made_for in ((given.kind, cls.takes), (output.kind, cls.judged)):
            if found not in made_for:
                raise ConfigError(
                    f"the transform {name} is made for {', '.join(made_for)}; {dataset} has {found}; leave it out of "
                    "transforms"
                )
        output = cls.labels(output)
    return tuple(catalog.transforms[name] for name in names), output


def after(transforms: "Iterable[type[Transform]]", output: Output) -> Output:
    """What labels are after transforms, in their order."""
    for transform in transforms:
        output = transform.labels(output)
    return output
