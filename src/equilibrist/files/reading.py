"""Reading files that others may have made: regular files alone, in bounded memory, JSON of bounded depth."""

from __future__ import annotations

import errno
import json
import os
import shlex
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

JSON_BYTES = 2**24
"""The largest JSON file that is read. Its values take some twenty times its bytes at worst."""

ROW = 2**20
"""The longest line of a file of JSON lines that is read."""

_DEEPEST = 100  # levels; an audit has about ten, and Python gives up some way below a thousand


def printable_path(path: Path) -> str:
    """The path as a message may show it: on one line, whatever its name holds."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def printable(text: str) -> str:
    """The text as a terminal may show it, on one line: what would move its cursor or cannot be encoded is
    escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _bytes(c: str) -> str:
    """A character as bash writes its bytes; a lone surrogate, which no file name holds, as "?"."""
    try:
        raw = os.fsencode(c)
    except UnicodeEncodeError:
        raw = b"?"
    return "".join(f"\\x{b:02x}" for b in raw)


def quoted(text: str) -> str:
    """A word of a command, as it can be pasted into a shell: on one line, whatever bytes a name holds."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = {"'": "\\x27", "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    word = "".join(escaped.get(c) or (c if c.isprintable() else _bytes(c)) for c in text)
    return f"$'{word}'"


def expanded_path(path: str | os.PathLike[str]) -> Path:
    """The path that a user gave, with a leading ~ replaced where that user is known."""
    return Path(os.path.expanduser(path))


def open_regular(path: Path) -> BufferedReader:
    """The file at `path`, opened for reading.

    Raises `OSError` for a file that cannot be read, and for what is no regular file: a pipe would
    keep its reader waiting, a device may never end. Links to regular files are followed.
    """
    try:
        _require_regular(os.stat(path).st_mode, path)  # opening a device may be enough to move it
        # Not blocking: a pipe may have taken the place since.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a null, or a character that no file name can hold
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None
    try:
        _require_regular(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a regular file. Raises `OSError` as `open_regular`, and above `most` bytes."""
    with open_regular(path) as file:
        raw = file.read(most + 1) or b""
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))
    return raw


def parse_json(raw: bytes | str) -> Any:
    """The value of a JSON text.

    Raises `ValueError`, in one line, for what is no JSON, and for JSON that is nested so deeply that
    the recursion of whoever walks through it would not come back.
    """
    try:
        value = json.loads(raw if isinstance(raw, str) else raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return value
    raise ValueError("nested too deeply")


def json_lines(path: Path) -> Iterator[bytes]:
    """The lines of a regular file that end, one by one; what follows the last end is not yet written.

    Raises `OSError` as `open_regular`, and for a line that is longer than any row.
    """
    with open_regular(path) as file:
        while line := file.readline(ROW + 1):
            if len(line) > ROW:
                raise OSError(errno.EFBIG, f"a line of more than {ROW} bytes", str(path))
            if line.endswith(b"\n"):
                yield line


def dig(value: object, *path: str) -> Any:
    """Follows keys into nested objects; None as soon as one is missing."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def read_exactly(file: IO[bytes], into: memoryview) -> int:
    """Fill `into` from `file`, some at a time; how many bytes there were."""
    done = 0
    while done < len(into):
        # In pieces: readers of archives make a copy of what one call asks for.
        piece = file.read(min(len(into) - done, 2**20))
        if not piece:
            break
        into[done : done + len(piece)] = piece
        done += len(piece)
    return done


def reason(error: BaseException) -> str:
    """What an error says of itself, in one line, and not more than fits there."""
    remarks = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = printable(" ".join(remarks.split()))
    return line if len(line) <= 160 else line[:157] + "..."


def _require_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
