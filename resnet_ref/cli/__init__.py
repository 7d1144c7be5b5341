"""The command line: one file a command; every error is one line of stderr.

Until a command begins nothing is at stake, and Ctrl-C ends the process at once: what is being imported may make
something else of a KeyboardInterrupt.
"""

import contextlib
import os
import signal
from typing import NoReturn


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants none
        signal.signal(signal.SIGINT, _leave)
    from resnet_ref.cli import group

    group.main(arguments)


def begin() -> None:
    """From here on there may be something to tidy up: Ctrl-C is a KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: object) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, b"resnet-ref: interrupted\n")
    os._exit(130)
