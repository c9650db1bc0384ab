"""What the command prints: results on stdout, errors and warnings on stderr, one line each."""

from __future__ import annotations

import sys
import warnings
from typing import Literal

from equilibrist.files.reading import printable


def say(text: str) -> None:
    """Print one line of results, with characters that would move the cursor escaped."""
    print(printable(text), flush=True)


def complain(text: str, kind: Literal["error", "warning"] = "error") -> None:
    """Print an error or a warning as one line on stderr."""
    line = printable(" ".join(text.split()))
    print(f"equilibrist: {kind}: {line}", file=sys.stderr, flush=True)


def show_warnings_in_one_line() -> None:
    """Print Python's warnings as this command's errors are printed, the same text only once."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        text = str(message)
        if text not in shown:  # the same text from a second place would tell a reader nothing new
            shown.add(text)
            complain(text, "warning")

    warnings.showwarning = show
