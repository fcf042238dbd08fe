"""ZIP files that somebody else may have made: what they may hold, and how much.

A ZIP file of some kilobytes can claim gigabytes. What it claims is bounded before anything is unpacked: each member,
all of them together, and how many times larger than the file they are.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from bench.api.errors import StoreError
from bench.record.files import LARGEST, SAFE_NAME, cause, read_regular
from bench.record.schema import WEIGHTS

LARGEST_PACK = 2**30  # bytes of the file, and of all members together
MOST_MEMBERS = 1_000_000
MOST_TIMES = 200  # larger than the file: tables of numbers come to 20
FREE = 2**22  # bytes that any file may hold, however well it is packed

Unreadable = (OSError, EOFError, ValueError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)


def refuse_bomb(members: Sequence[zipfile.ZipInfo], size: int, largest: int) -> None:
    """size: of the file. largest: of all members together, all in bytes. Raises: ValueError."""
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"it claims {len(members):,} members")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise ValueError("it is oddly compressed")
    claimed = sum(member.file_size for member in members)
    if claimed > min(largest, max(FREE, MOST_TIMES * size)):
        raise ValueError(f"{size:,} bytes claim to hold {claimed:,}, which is too large")


class Pack:
    """The files of packed runs. names: by run."""

    def __init__(self, path: Path, mend: str) -> None:
        """mend: what to do where the pack is corrupt. Raises: StoreError where it is, or is refused."""
        self.path, self.mend = path, mend
        try:
            data = read_regular(path, LARGEST_PACK)
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            members = self._zip.infolist()
        except Unreadable as error:
            raise self._corrupt(error) from error
        try:
            refuse_bomb(members, len(data), LARGEST_PACK)
        except ValueError as error:
            raise StoreError(f"{path} is refused: {error}; {mend}") from error
        self.names: dict[str, set[str]] = {}
        for member in members:
            run_id, _, name = member.filename.partition("/")
            if not (SAFE_NAME.fullmatch(run_id) and SAFE_NAME.fullmatch(name)):
                raise StoreError(f"{path} is refused: '{member.filename!a}' is no file of a run; {mend}")
            if member.file_size > LARGEST and name != WEIGHTS:
                raise StoreError(f"{path} is refused: '{member.filename}' is too large; {mend}")
            self.names.setdefault(run_id, set()).add(name)

    def read(self, name: str) -> bytes:
        """Raises: StoreError where the member is corrupt."""
        try:
            return self._zip.read(name)
        except Unreadable as error:
            raise self._corrupt(error) from error

    def _corrupt(self, error: BaseException) -> StoreError:
        why = cause(error) if isinstance(error, (OSError, ValueError)) else error
        return StoreError(f"{self.path} is corrupt ({why}); {self.mend}")
