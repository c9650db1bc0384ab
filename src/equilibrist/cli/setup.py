"""What every command that works with torch does first."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from equilibrist.errors import RecipeError
from equilibrist.startup import leave

MOST_THREADS = 1024


def prepare(data_root: Path | None, threads: int = 0, progress: str = "auto") -> None:
    """Check and apply the options about the process: data folder, threads and progress.

    Ctrl-C raises KeyboardInterrupt from here on, and no longer ends the process at once.

    Args:
        data_root: Folder of data files, or None to leave EQUILIBRIST_DATA as it is.
        threads: CPU threads, or 0 for torch's choice.
        progress: How progress is shown; only checked here.

    Raises:
        RecipeError: An unknown kind of progress, or too many threads.
    """
    if progress not in ("auto", "bar", "lines", "none"):
        raise RecipeError(f"--progress {progress} is not one of auto, bar, lines, none")
    if data_root is not None:
        os.environ["EQUILIBRIST_DATA"] = str(data_root)
    if threads > MOST_THREADS:  # with many more, the operating system kills the process
        raise RecipeError(
            f"--threads {threads}: at most {MOST_THREADS}; this machine has {os.cpu_count()} cores"
        )
    if signal.getsignal(signal.SIGINT) is leave:
        # An interrupt in the middle of torch's import may surface as any error, or not at all. After it,
        # there may be files to finish.
        import torch

        signal.signal(signal.SIGINT, signal.default_int_handler)
    if threads:
        import torch

        torch.set_num_threads(threads)
