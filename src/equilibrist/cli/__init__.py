"""The command `equilibrist`.

Imports point downwards: `program` builds the command and imports every subcommand, one module each; these
import the helpers `auditing`, `loading`, `options`, `output`, `paths`, `setup` and `exit_codes`. Importing
the package imports no torch: whatever needs it is imported inside the functions that use it.
"""

from typing import NoReturn

from equilibrist.cli.program import app, main
from equilibrist.startup import start

__all__ = ["app", "main", "script"]


def script() -> NoReturn:
    """Run the command as a program: the entry point that earlier versions installed."""
    start(lambda: main)
