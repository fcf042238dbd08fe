"""What a run prints, kept as head and tail up to a stated size, whoever prints it and however much."""

import contextlib
import os
import threading
from collections import deque
from pathlib import Path

from bench.api.errors import StoreError
from bench.record.files import atomic_write

HEAD, TAIL = 32 * 1024, 32 * 1024  # bytes
CHUNK = 64 * 1024


class Output:
    """Reads a pipe to its end in a thread here, so that nothing is lost when the process that writes is killed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read, self.write = os.pipe()
        self._head, self._tail, self._kept, self._seen = bytearray(), deque[bytes](), 0, 0
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def close(self, patience_s: float = 5.0) -> None:
        """Write the file, once all who could write are gone; none where nothing was printed.

        A process that has left the run's process group may hold the pipe open: after a while it is no longer heard.
        """
        self._thread.join(patience_s)
        tail = b"".join(self._tail)[-TAIL:]
        left_out = self._seen - len(self._head) - len(tail)
        note = f"\n... {left_out:,} bytes left out ...\n".encode() if left_out > 0 else b""
        with contextlib.suppress(OSError, StoreError):  # a full disk is told where a record cannot be written
            if self._seen:
                atomic_write(self._file, bytes(self._head) + note + tail)
            else:
                self._file.unlink(missing_ok=True)

    def _drain(self) -> None:
        with open(self._read, "rb", buffering=0) as pipe:
            while chunk := pipe.read(CHUNK):
                self._seen += len(chunk)
                room = HEAD - len(self._head)
                self._head += chunk[:room]
                rest = chunk[room:] if room > 0 else chunk
                if rest:
                    self._tail.append(rest)
                    self._kept += len(rest)
                while self._tail and self._kept - len(self._tail[0]) >= TAIL:
                    self._kept -= len(self._tail.popleft())
