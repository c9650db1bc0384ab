"""The one place that writes results into folders: only files of its own are replaced or removed.

A file is its own if it has the SHA-256 that was noted in FOLDER/.equilibrist before it was written:
what a user has put there, or has changed since, is never touched. Where a user's file has the name
of one to be written, nothing is written and an error names it.

A link in the place of the folder is followed only where that can hide nothing: into a folder that is
empty, or that was written here before. A link in the place of a file is the user's, like any other
file that was not written here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from equilibrist.errors import RecordError, warn_user
from equilibrist.files.atomic import remove_leftovers, try_lock, unwritable, write_atomically
from equilibrist.files.reading import JSON_BYTES, open_regular, parse_json, read_regular

LEDGER = ".equilibrist"
LARGEST = 2**31  # bytes of a file that is looked into
PATIENCE = 60.0  # seconds that another writer of the same folder is waited for
Known = dict[str, list[str]]


class Owned:
    """A folder that is open for writing; made by `owned`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known, self._lost = _read(folder / LEDGER)

    def own(self, name: str) -> bool:
        """Whether the file of this name is one that was written here, as it was written."""
        path = self.folder / name
        return name in self._known and _digest(path) in self._known[name]

    def free(self, name: str) -> bool:
        """Whether a file of this name may be written: there is none, or an own one."""
        return not os.path.lexists(self.folder / name) or self.own(name)

    def holds(self, name: str, content: bytes) -> bool:
        """Whether the file of this name is an own one with this content."""
        return self.own(name) and _digest(self.folder / name) == _sum(content)

    def unused(self, name: str) -> str:
        """This name, or one like it, that nothing in the folder has."""
        stem, dot, ending = name.rpartition(".")
        tried = itertools.chain([name], (f"{stem}-{i}{dot}{ending}" for i in itertools.count(2)))
        return next(n for n in tried if not os.path.lexists(self.folder / n))

    @property
    def names(self) -> list[str]:
        """The files that were written here and not changed since."""
        return [name for name in self._known if self.own(name)]

    def refuse(self, *names: str, force: bool | None = None) -> None:
        """RecordError for the first of these names that a file of the user's has.

        With `force` a regular file is given up, but no folder, link or device; False offers it.
        """
        for name in names:
            path = self.folder / name
            if self.free(name) or (force and _regular(path)):
                continue
            if not _regular(path):
                kind = "a folder" if path.is_dir() and not path.is_symlink() else "no regular file"
                raise RecordError(f"{path} is {kind}: move it away, or name another place")
            offer = "" if force is None else " (--force replaces it)"
            lost = f" ({LEDGER} beside it, which would know it, {self._lost})" if self._lost else ""
            raise RecordError(
                f"{path} was not written by equilibrist, or has been changed since{lost}: "
                f"move it away, or name another place{offer}"
            )

    def write(self, files: Mapping[str, bytes], *, force: bool | None = None) -> None:
        """Write these files, or none where the user's are in the way.

        Raises: RecordError, UnwritableError.
        """
        self.refuse(*files, force=force)
        # Noted first: a process that dies in between leaves no file that it would not know again.
        replaced = {name: _digest(self.folder / name) for name in files if self.own(name)}
        for name, content in files.items():
            held = [replaced[name]] if name in replaced else []
            self._known[name] = [*held, _sum(content)]
        self._note()
        for name, content in files.items():
            write_atomically(self.folder / name, content)
        if replaced:
            for name, content in files.items():
                self._known[name] = [_sum(content)]
            self._note()

    def remove(self, *names: str) -> None:
        """Delete those of these files that are own ones."""
        for name in names:
            if self.own(name):
                (self.folder / name).unlink(missing_ok=True)
            self._known.pop(name, None)
        if self._known:
            self._note()
        elif _regular(self.folder / LEDGER):  # nothing is left that it would know
            (self.folder / LEDGER).unlink()

    def _note(self) -> None:
        held = {n: s for n, s in self._known.items() if s}
        write_atomically(self.folder / LEDGER, _noted(held))


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[Owned]:
    """The folder, made where there is none, locked against other writers.

    Raises:
        RecordError: a file or a link in its place, or another process that does not finish.
        UnwritableError: it cannot be made.
    """
    require_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise unwritable(Path(error.filename or folder), error) from None
    try:
        _wait(handle, folder)
        remove_leftovers(folder)
        yield Owned(folder)
    finally:
        os.close(handle)


def publish(folder: Path, files: Mapping[str, bytes], *, force: bool | None = None) -> None:
    """Write these files into the folder by the rule above.

    Args:
        folder: made where there is none. It is one that the user has named: a link in its place is
            followed.
        files: contents by name.
        force: True replaces regular files of these very names, whoever wrote them; the error says
            so where it is False.

    Raises: what `owned` and `Owned.write` do.
    """
    with owned(folder.resolve()) as place:
        place.write(files, force=force)


def require_folder(folder: Path) -> None:
    """RecordError where results cannot go: into a file, or through a link that might hide others'
    files. Asked before long work, too."""
    if folder.is_symlink():
        if not folder.is_dir():
            raise RecordError(f"{folder} is a link that leads to no folder: remove it to go on")
        if any(folder.iterdir()) and not _regular(folder / LEDGER):
            raise RecordError(
                f"{folder} is a link to {folder.resolve()}, which holds other files: "
                "let it lead to an empty folder, or remove it"
            )
    elif folder.exists() and not folder.is_dir():
        raise RecordError(f"{folder} is a file, not a folder: move it away, or name another place")


def mark_written(folder: Path) -> None:
    """Note that this folder is written to: where it is moved, and a link left in its place, it is
    known again."""
    if not os.path.lexists(folder / LEDGER):
        write_atomically(folder / LEDGER, _noted({}))


def unmark_written(folder: Path) -> None:
    """Take a mark back, where nothing else is in the folder or has been noted."""
    with contextlib.suppress(OSError):
        if os.listdir(folder) == [LEDGER] and _regular(folder / LEDGER):
            (folder / LEDGER).unlink()


def require_free(folder: Path, *names: str, force: bool | None = None) -> None:
    """RecordError where `publish` would refuse these files now; nothing is made or changed."""
    folder = folder.resolve()
    require_folder(folder)
    if folder.is_dir():
        Owned(folder).refuse(*names, force=force)
    place = next(p for p in (folder, *folder.parents) if p.exists())
    if not place.is_dir():
        raise RecordError(f"{place} is a file, not a folder: move it away, or name another place")
    if not os.access(place, os.W_OK | os.X_OK):
        denied = OSError(errno.EACCES, os.strerror(errno.EACCES))
        raise unwritable(place, denied)


def _wait(handle: int, folder: Path) -> None:
    begun = time.monotonic()
    # Without locks (None) two that write at once may mix: each file is whole all the same, and this
    # is too rare to be a reason to lose a result.
    while try_lock(handle) is False:
        if time.monotonic() - begun > PATIENCE:
            raise RecordError(f"another process is writing to {folder}: wait for it")
        time.sleep(0.02)


def _read(ledger: Path) -> tuple[Known, str]:
    """The noted checksums, and why there are none: the file is missing, or not of that form."""
    if not _regular(ledger):
        return {}, "is no regular file" if os.path.lexists(ledger) else "is missing"
    try:
        entries = dict(parse_json(read_regular(ledger, JSON_BYTES)).get("written", {}))
    except (OSError, ValueError, TypeError, AttributeError):
        warn_user(f"{ledger} is damaged: files beside it count as the user's from now on")
        return {}, "is damaged"
    return {
        name: [s for s in sums if isinstance(s, str)]
        for name, sums in entries.items()
        if isinstance(sums, list) and re.fullmatch(r"[^/\0]+", name) and name not in (".", "..")
    }, ""


def _noted(known: Known) -> bytes:
    return json.dumps({"format": 1, "written": known}, indent=1, sort_keys=True).encode()


def _regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _digest(path: Path) -> str:
    """SHA-256 of a regular file, no link; an empty text for anything else, and for what is so large that
    it was hardly written here: reading it could take hours."""
    if not _regular(path):
        return ""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > LARGEST:
                return ""
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
