"""Standard output and error that never end a verb: closed, broken, or of an encoding that lacks a character."""

import io
import os
import sys
from typing import Any, TextIO


class _Steady(io.FileIO):
    """A file descriptor. Once nobody reads its pipe, what is written to it is dropped."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _to_null(self.fileno())
            return memoryview(data).nbytes


def steady() -> None:
    """Let the process print whatever becomes of its outlets: a sweep goes on where its output was `| head`."""
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _opened(sys.stdout, 1)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _opened(sys.stderr, 2)


def _opened(stream: TextIO | None, fd: int) -> TextIO:
    if stream is None:
        _to_null(fd)
    else:
        stream.flush()
    encoding = "utf-8" if stream is None else stream.encoding
    buffer = io.BufferedWriter(_Steady(fd, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)


def _to_null(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)
