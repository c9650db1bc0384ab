"""`python -m equilibrist`, and what the installed command calls."""

from collections.abc import Callable
from typing import NoReturn

from equilibrist.startup import start


def script() -> NoReturn:
    """Run the command."""
    start(_load)


def _load() -> Callable[[], int]:
    from equilibrist.cli import main

    return main


if __name__ == "__main__":
    script()
