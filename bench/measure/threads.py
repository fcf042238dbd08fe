"""Instruments that hold for one thread, made to hold in those that the act under measurement begins as well."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def in_new_threads(enter: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Run each Python thread that begins meanwhile inside a context of its own from `enter`.

    A subclass of Thread that replaces `run` escapes, and so does a pool whose threads began earlier.
    """
    run = threading.Thread.run

    def run_inside(thread: threading.Thread) -> None:
        with enter():
            run(thread)

    threading.Thread.run = run_inside  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        threading.Thread.run = run  # type: ignore[method-assign]
