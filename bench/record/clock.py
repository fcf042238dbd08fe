"""The time of day for records: it goes on when the machine's clock is set back."""

import math
import time

_last = 0.0


def moment(after: float = 0.0) -> float:
    """Unix seconds, later than all that this process was told before, and than `after`: records keep their order."""
    global _last
    _last = max(time.time(), math.nextafter(max(_last, after), math.inf))
    return _last
