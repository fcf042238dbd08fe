"""The file of a checkpoint: what torch.save writes, and a seal behind it by which damage is found before it is loaded.

checkpoint.pt = torch.save(state), SHA-256 of it, SEAL
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.api.errors import StoreError
from bench.record.files import atomic_write, cause, read_regular

SEAL = b"bench checkpoint 1\n"
TAIL = hashlib.sha256().digest_size + len(SEAL)
MEND = "and kept; remove it and run again"


def save(path: Path, state: Mapping[str, Any], run_id: str) -> None:
    """Raises: StoreError where there is no room."""
    import torch

    buffer = io.BytesIO()
    torch.save({**state, "run_id": run_id}, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).digest()
    buffer.write(digest + SEAL)
    atomic_write(path, buffer.getvalue())


def load(path: Path, run_id: str) -> dict[str, Any] | None:
    """The state that was saved, or None where there is no file. Nothing is unpickled but tensors and plain values.

    Raises: StoreError where the file is damaged or of another run.
    """
    import torch

    try:
        data = read_regular(path, None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise damaged(path, cause(error)) from error
    body = memoryview(data)[:-TAIL]
    if data[-len(SEAL) :] != SEAL or hashlib.sha256(body).digest() != data[-TAIL : -len(SEAL)]:
        raise damaged(path, "cut short, altered, or not written by bench")
    try:
        _refuse_packed(body)
        state: Any = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of any kind over files that it did not write
        raise damaged(path, f"torch {torch.__version__}: {error}") from error
    if not isinstance(state, dict) or state.get("run_id") != run_id:
        raise StoreError(f"{path} is that of another run {MEND}")
    return state


def damaged(path: Path, why: object) -> StoreError:
    """To be raised where a run cannot go on from its checkpoint."""
    first = " ".join(str(why).partition("\n")[0].split())[:120]
    return StoreError(f"{path} is corrupt ({first}) {MEND}")


def _refuse_packed(body: memoryview) -> None:
    """torch packs nothing, so a file whose parts are larger than the file is not torch's. Raises: ValueError."""
    with zipfile.ZipFile(io.BytesIO(body)) as members:
        if sum(member.file_size for member in members.infolist()) > len(body):
            raise ValueError("its parts claim more bytes than there are")
