"""Starts the command as a program, so that Ctrl-C ends it in one line however early it comes.

The signal is handled before the command is imported. Until then nothing has begun that would have to be
finished, and a traceback out of an import would help nobody.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130


def start(load: Callable[[], Callable[[], int]]) -> NoReturn:
    """Load the command, run it and exit with its code.

    Args:
        load: Imports the command and returns its `main`. It is called once Ctrl-C is handled.
    """
    # torch's large tensors in huge pages, where the system gives them: half the time to make one of 30 million numbers.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, leave)
    main = load()  # the command replaces the handler once torch is imported
    try:
        code = main()
    except KeyboardInterrupt:  # between the last line of the command and here
        code = INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is done and printed
    sys.exit(code)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Handle Ctrl-C before torch is imported: print one line and end the process at once."""
    os.write(2, b"equilibrist: error: interrupted\n")
    os._exit(INTERRUPTED)
