"""Exit codes of the command. Errors that a user can act upon carry their own (`errors.py`)."""

from equilibrist.errors import NonFiniteError, StoppedError

DONE = 0
UNEXPECTED = 1
USAGE = 2
FILES = 3
DIVERGED = NonFiniteError.exit_code
INTERRUPTED = StoppedError.exit_code

SUMMARY = (
    "Exit codes: 0 done; 1 an unforeseen fault; 2 a wrong name, setting or option; 3 data or a run "
    "directory missing or damaged; 4 training diverged; 5 a required claim does "
    "not hold; 130 interrupted (saved: run the same command again to go on)."
)
