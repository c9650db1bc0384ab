"""`python -m equilibrist`, and what the installed command calls.

Ctrl-C is looked after before anything else is imported: nothing has been begun then that would have to
be ended in order, and a traceback out of an import tells nobody anything.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def script() -> NoReturn:
    """Run the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, leave)
    from equilibrist.cli import main  # which takes the signal over when torch is there

    try:
        code = main()
    except KeyboardInterrupt:  # between the last line of the command and here
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said
    sys.exit(code)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """End at once, with a word."""
    os.write(2, b"equilibrist: error: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    from equilibrist.__main__ import (
        script as begin,
    )  # the module by its name, imported once for all

    begin()
