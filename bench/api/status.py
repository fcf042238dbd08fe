"""How a run may end."""

from typing import Literal

Status = Literal["ok", "diverged", "oom", "timeout", "crashed", "interrupted", "skipped"]

# An interrupted run is continued; a skipped one is asked again, since what it lacked may be there by now.
FINAL: frozenset[Status] = frozenset(("ok", "diverged", "oom", "timeout", "crashed"))

# What keeps its checkpoint: with more time, or a second start, it goes on where it was.
RESUMABLE: frozenset[Status] = frozenset(("interrupted", "timeout"))
