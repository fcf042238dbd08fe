"""What can go wrong, as a tree; every member is told to the user in one line with exit code 2.

BenchError
├── ConfigError    a flag, a preset or a YAML file asks for something that does not exist
├── PluginError    a method file cannot be imported or breaks the interface
├── DataError      a data set is missing, corrupt or mislabelled
├── StoreError     the results folder cannot be read or written
├── SourceError    code of a method or net is no longer what the run was planned with
└── MethodError    a method breaks the interface while it runs
"""

import difflib
import textwrap
from collections.abc import Iterable
from pathlib import Path

_OOM_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "DefaultCPUAllocator")


class BenchError(Exception):
    """Base of all errors whose message is meant for the user: names the thing and the mend."""


class ConfigError(BenchError):
    """A setting that does not exist or a value outside its bounds."""


class PluginError(BenchError):
    """A method that cannot be loaded."""


class DataError(BenchError):
    """A data set that is missing, corrupt or mislabelled."""


class StoreError(BenchError):
    """A results folder that cannot be read or written."""


class SourceError(BenchError):
    """Code that was imported is not the code whose hash the run carries."""


class MethodError(BenchError):
    """A method that breaks the interface while it runs."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, a GPU's allocator or the CPU's, which has no class of its own, has found no memory."""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error) for word in _OOM_WORDS)


def shortened(text: str | Path, longest: int = 120) -> str:
    """A path or a stranger's words for one line: a path loses its beginning, words their end."""
    if len(whole := str(text)) <= longest:
        return whole
    return f"...{whole[3 - longest :]}" if isinstance(text, Path) else f"{whole[: longest - 3]}..."


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that nobody registered, with the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(name[:100], known, n=3, cutoff=0.5)
    if not near and ":" in name:  # npy:x.npz is near npz:PATH
        of = {one.partition(":")[0]: one for one in known}
        near = [of[head] for head in difflib.get_close_matches(name.partition(":")[0][:100], of, n=3, cutoff=0.5)]
    names = textwrap.shorten(", ".join(known), 160, placeholder=" ...") or "none"
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {names}"
    return f"unknown {kind} '{name if len(name) <= 60 else name[:57] + '...'}'; {hint}"
