"""Fetching a file once, from the first mirror that serves it intact."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from equilibrist.errors import DataError
from equilibrist.files.reading import open_regular, printable_path


class _Bar:
    """The few calls that pooch makes on a progress bar, passed on to rich.

    It draws to standard error, and only where that is a terminal.
    """

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None)

    @property
    def total(self) -> float | None:
        return self._progress.tasks[self._task].total

    @total.setter
    def total(self, size: int) -> None:
        # 0 is what pooch reports where the server does not tell the size.
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.refresh()


def fetch(path: Path, md5: str, mirrors: Sequence[str], remedy: str) -> None:
    """Place MIRROR/NAME at `path` unless a file with this MD5 lies there already.

    A file appears at `path` whole and verified, or not at all; several processes may fetch at
    once. Raises `DataError` with every mirror's reason, then `remedy`, if none serves the file.
    """
    # Imported late: needed only for a download.
    from pooch import HTTPDownloader

    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    reasons = []
    try:
        if path.is_file() and _md5(path) == md5:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            for mirror in mirrors:
                url = f"{mirror.rstrip('/')}/{path.name}"
                # "identity": a server that compresses on the way would have the .gz unpacked.
                download = HTTPDownloader(
                    progressbar=_Bar(progress, path.name),
                    chunk_size=1 << 16,
                    headers={"Accept-Encoding": "identity"},
                )
                try:
                    download(url, str(part), None)
                except (OSError, ValueError) as error:  # those of requests are OSErrors
                    reasons.append(f"{url}: {_reason(error)}")
                    continue
                found = _md5(part)
                if found == md5:
                    os.replace(part, path)
                    return
                reasons.append(f"{url}: wrong checksum (MD5 {found} instead of {md5})")
    except OSError as error:
        reasons.append(f"{printable_path(path.parent)}: {_reason(error)}")
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    why = ", ".join(reasons) or "no mirror is given"
    raise DataError(f"{printable_path(path)}: could not be fetched ({why}); {remedy}")


def _md5(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _reason(error: Exception) -> str:
    # The texts of requests nest and run on; the status or the kind says enough.
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    return getattr(error, "strerror", None) or type(error).__name__
