"""A progress bar for work that turns out to be long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE = 2.0
"""Seconds before a bar appears."""

Item = TypeVar("Item")


def with_progress_bar(items: Sequence[Item], name: str) -> Iterator[Item]:
    """The items, one by one; on a terminal with a bar once they have taken two seconds.

    The bar is drawn to standard error.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    progress = Progress(*columns, TimeRemainingColumn(), console=console)
    task = progress.add_task(name, total=len(items))
    start = time.monotonic()
    try:
        for item in items:
            yield item
            progress.advance(task)
            if time.monotonic() - start > PATIENCE:
                progress.start()  # does nothing where it has started
    finally:
        progress.stop()
