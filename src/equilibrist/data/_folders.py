"""Where the files of a known set lie: in a folder that was named, or in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from equilibrist.data._download import fetch
from equilibrist.errors import DataError
from equilibrist.files.reading import expanded_path as user_path
from equilibrist.files.reading import printable_path

ENVIRONMENT = "EQUILIBRIST_DATA"


def named_root(root: str | os.PathLike[str] | None) -> tuple[Path, str] | None:
    """The folder that the caller or else the environment names, and what named it; or None."""
    named = root if root is not None else os.environ.get(ENVIRONMENT) or None
    if named is None:
        return None
    return user_path(named), "--data-root" if root is not None else ENVIRONMENT


@contextmanager
def searching(root: Path, setting: str, title: str) -> Iterator[None]:
    """Around a search below `root`: refuses what is no folder, and says what cannot be read."""
    try:
        if root.exists() and not root.is_dir():
            raise DataError(
                f"{printable_path(root)}: a file, not a folder; let {setting} name the folder of the files"
            )
        if not root.exists():
            raise DataError(
                f"{printable_path(root)}: no such folder; let {setting} name the folder of the {title} files"
            )
        yield
    except OSError as error:
        raise DataError(
            f"{printable_path(root)}: cannot be read ({error.strerror}); change its permissions or let "
            f"{setting} name another folder"
        ) from None


def cached(
    folder: str,
    name: str,
    title: str,
    download: bool,
    mirrors: Sequence[str],
    md5: Mapping[str, str],
) -> Path:
    """The file `name` in the user's cache, fetched if it is missing or damaged there."""
    # Imported late: needed only where no folder of files is named.
    import pooch

    path = Path(pooch.os_cache("equilibrist")) / folder / name
    elsewhere = f"let --data-root or {ENVIRONMENT} name a folder that holds the {title} files"
    if name not in md5:
        raise DataError(f"{name}: no checksum is given, so it cannot be verified; add it to md5")
    if download:
        fetch(path, md5[name], mirrors, elsewhere)
    elif not path.is_file():
        raise DataError(
            f"{printable_path(path)}: not found and download is off; turn it on or {elsewhere}"
        )
    return path
