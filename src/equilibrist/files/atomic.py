"""Files that are whole or absent: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equilibrist.errors import UnwritableError

# Only this product ends names so: the unfinished files of others are left alone.
PART = ".equilibrist.part"
FULL = (errno.ENOSPC, errno.EDQUOT)
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a machine that dies, sees the old file or the new.

    Raises:
        UnwritableError: it names the file; what was there before is untouched.
    """
    try:
        _write(path, content)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UnwritableError:
    """What to tell a user of a file that cannot be written: in one line, with what to do."""
    if isinstance(error, UnwritableError):
        return error
    if isinstance(error, IsADirectoryError):
        return UnwritableError(f"{path} is a folder: remove it to go on")
    remedy = "free some space" if error.errno in FULL else "choose a place that can be written"
    return UnwritableError(f"{path} cannot be written ({error.strerror or error}): {remedy}")


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.", suffix=PART)
    temporary = Path(name)
    try:
        # The lock, where the file system has any, says until the renaming that the writer lives.
        with os.fdopen(handle, "wb") as file:
            try_lock(file.fileno())
            file.write(content)
            file.flush()
            with unless_unsupported():
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner reads; give them what open() would have
            # given. Where a file system has no permissions of its own, there is nothing to give.
            with unless_unsupported(errno.EPERM, errno.EACCES):
                os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """`value` as indented JSON. Infinite and undefined numbers become null: JSON has none."""
    write_atomically(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """What `write_json` writes."""
    text = json.dumps(json_ready(value), indent=1, ensure_ascii=False, allow_nan=False)
    # A name that is no UTF-8 holds halves of surrogate pairs, which JSON can only write as escapes.
    return (text + "\n").encode("utf-8", "backslashreplace")


def json_ready(value: Any) -> Any:
    """`value` with every non-finite float replaced by None, tuples by lists."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): json_ready(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(entry) for entry in value]
    return value


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files of processes that died while writing, and of no others."""
    for part in folder.glob(f".*{PART}"):
        if part.is_file() and not part.is_symlink() and _abandoned(part):
            part.unlink(missing_ok=True)


def _abandoned(part: Path) -> bool:
    """Whether nobody writes this file any more. Without locks only its age can tell."""
    try:
        handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        free = try_lock(handle)
        return time.time() - os.fstat(handle).st_mtime > 3600 if free is None else free
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool | None:
    """Lock an open file or folder, without waiting: whether that succeeded; None where the file
    system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD else None
    return True


@contextlib.contextmanager
def unless_unsupported(*more: int) -> Iterator[None]:
    """Go on where a file system does not know a call, or refuses it with one of these numbers."""
    unknown = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, *more)
    try:
        yield
    except OSError as error:
        if error.errno not in unknown:
            raise


def _flush_folder(folder: Path) -> None:
    """The renaming on the disk. Some file systems flush no folders: the file is whole there all the
    same, and only a machine that dies at once could bring the old one back."""
    with unless_unsupported(errno.EPERM, errno.EACCES, errno.EISDIR):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
