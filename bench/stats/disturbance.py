"""Whether a quantity that depends on time was measured while others were at work on the same machine."""

import pandas as pd

from bench.api.column import Column

BY = "contamination"  # the column that names who


def disturbed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs during which others were at work."""
    return runs[[isinstance(by, str) and by != "" for by in runs[BY]]] if BY in runs else runs[:0]


def comparable(column: Column, *sides: pd.DataFrame) -> bool:
    """Whether the means of a column may be held against each other: no times of disturbed runs."""
    return not (column.timed and any(len(disturbed(side)) for side in sides))
