"""Standard output and error that never end a verb: closed, broken, or of an encoding that lacks a character."""

import errno
import io
import os
import sys
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO)  # nobody reads the pipe; the terminal was closed


class _Steady(io.FileIO):
    """A file descriptor. Once its pipe or terminal is gone, what is written to it is dropped."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            _to_null(self.fileno())
            return memoryview(data).nbytes


def steady() -> None:
    """Let the process print whatever becomes of its outlets: a sweep goes on where its output was `| head`."""
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _opened(sys.stdout, 1)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _opened(sys.stderr, 2)


def _opened(stream: TextIO | None, number: int) -> TextIO:
    """The stream on a steady descriptor. number: of the descriptor that a process without the stream is given."""
    if stream is None:
        fd, encoding = _to_null(number), "utf-8"
    else:
        stream.flush()
        fd, encoding = stream.fileno(), stream.encoding
    buffer = io.BufferedWriter(_Steady(fd, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)


def _to_null(fd: int) -> int:
    """Let the descriptor lead nowhere, for children, too."""
    null = os.open(os.devnull, os.O_WRONLY)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)
    os.set_inheritable(fd, True)
    return fd
