"""Whether batches were cut because whole ones ran out of memory."""

from typing import ClassVar

from bench.api.column import Column
from bench.api.instrument import Instrument
from bench.catalog.register import register


@register
class Cut(Instrument):
    """Read off the attempt."""

    name = "cut"
    rank: ClassVar[int] = 26
    columns = (
        Column(
            "oom_micro_batches",
            "micro-batches (OOM)",
            "parts into which each batch was cut, their gradients added up, after whole ones had run out of memory "
            "(--on-oom shrink); time and memory are those of such steps",
            decimals=0,
            shown="terminal",
        ),
    )
