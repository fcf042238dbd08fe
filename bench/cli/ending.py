"""How a verb that trains or measures ends: by a signal, and with which exit code."""

import os
import signal
import sys
import threading

from bench.display.printing import BAD_INPUT, say

RUN_FAILED, CTRL_C = 1, 130
SHOW_CURSOR = "\x1b[?25h"  # bars hide it


def stop_on_signals() -> threading.Event:
    """Set by Ctrl-C and by a request to end: runs save and stop. A second Ctrl-C ends all at once."""
    stop = threading.Event()

    def asked(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            if sys.stdout.isatty():
                sys.stdout.write(SHOW_CURSOR)
                sys.stdout.flush()
            os._exit(CTRL_C)  # runs end with this process, whose end they watch
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    return stop


def stopped() -> int:
    """Says that nothing is lost; the exit code."""
    say("stopped on request; the same command continues")
    return CTRL_C


def exit_code(*, all_ok: bool, broken: bool) -> int:
    """Of a verb that came to its end. broken: whether a plugin or a corrupt record was left out."""
    return BAD_INPUT if broken else 0 if all_ok else RUN_FAILED
