"""Images in a folder, read with Pillow into one tensor."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from equilibrist.data._waiting import with_progress_bar
from equilibrist.data.absent import reads
from equilibrist.data.arrays import ArraySource, check_range
from equilibrist.errors import DataError
from equilibrist.files.reading import expanded_path, open_regular, printable_path, reason

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm")
"""Names that count as images, in either case."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM")
"""What a file may hold, whatever its name ends in. Pillow knows formats that are programs, and starts
an interpreter for them."""

_STRIP = 2**17  # pixels that are converted at once

_CALLS = 2**20  # reads within which Pillow finds out what a file holds

_WEBP = 2**25  # pixels; decoding this format takes 16 bytes and more for each

_SIXTEEN = ("PNG", "PPM")  # formats whose 16 bits some versions of Pillow hold in 32


@reads
def folder(
    path: str | os.PathLike[str],
    size: int | tuple[int, int] | None = None,
    crop: Literal["center"] | None = None,
    channels: int = 3,
    value_range: tuple[float, float] = (-1.0, 1.0),
    limit: int | None = None,
) -> ArraySource:
    """Every image below a folder, [N, channels, height, width], in the order of their names.

    Args:
        path: the folder. It is searched with its subfolders for the `ENDINGS`; names that begin
            with a dot are passed over.
        size: pixels of the result, one number for squares or (height, width). None takes the
            images as they are, which must then have one size.
        crop: "center" first cuts the largest centred rectangle of the result's proportions; None
            stretches each image to the result.
        channels: 3 for colour, 1 for grey (Rec. 601 luma).
        value_range: what the bytes 0 and 255 become.
        limit: take so many images at most, spread evenly over the sorted list.

    Resizing is Pillow's bicubic filter, whose support grows with the reduction, so that no detail
    is aliased. A file may hold PNG, JPEG, BMP, WEBP, GIF or PPM, whatever its name ends in, and nothing
    else: some formats that Pillow knows are programs. It may have as many pixels as Pillow allows (89
    million; of WEBP, which takes more memory, 33 million). Images are turned upright as their EXIF data say;
    transparent pixels are blended with white; 16 bits are rounded to 8; of an animation the first frame is taken. All
    images are kept in memory, as bytes.

    Where every image lies in a subfolder, the first folder of its path is its class: classes are
    counted in the order of their sorted names, which become `class_names`.

    Returns:
        The images, with their classes where subfolders name them.

    Raises:
        DataError: a folder that is missing, unreadable or without images, a file that is no image or
            damaged, images of several sizes where `size` is None, and bad arguments.
    """
    root = expanded_path(path)
    where = printable_path(root)
    _check_options(where, value_range, channels, limit)
    extent = _extent(where, size, crop)
    every = _images(root)
    found = every if limit is None else [every[i] for i in _spread(len(every), limit)]
    labels, class_names = _classes(every, found)
    data = _stacked(root, found, extent, crop is not None, channels)
    resized = f"{'centre-cropped, ' if crop else ''}resized (bicubic)"
    part = "" if limit is None else f", at most {limit} of them"
    return ArraySource(
        data,
        copy=False,
        name=printable_path(Path(root.resolve().name)),
        origin=(
            f"{len(found)} images below {where}{part}, {resized if extent else 'as they are'}, "
            f"{data.shape[2]}x{data.shape[3]}, {'colour' if channels == 3 else 'grey'}"
        ),
        value_range=value_range,
        labels=labels,
        class_names=class_names,
    )


def _check_options(
    where: str, value_range: tuple[float, float], channels: int, limit: int | None
) -> None:
    """DataError for a range of values, or a number of channels or images, that there cannot be."""
    check_range(where, value_range)
    if channels not in (1, 3):
        raise DataError(f"{where}: cannot read {channels} channels; use 3 for colour or 1 for grey")
    if limit is not None and limit < 1:
        raise DataError(f"{where}: a limit of {limit} leaves no image; give at least 1")


def _spread(count: int, limit: int) -> range | list[int]:
    """At most `limit` of `count` places, at equal distances."""
    return range(count) if limit >= count else [i * count // limit for i in range(limit)]


def _classes(
    every: Sequence[Path], found: Sequence[Path]
) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    """Labels of the files `found`, by the first folder of their paths, and the folders' names; (None, None) where a
    file lies in no subfolder."""
    if any(len(file.parts) < 2 for file in every):
        return None, None
    names = sorted({file.parts[0] for file in every})
    return np.array([names.index(file.parts[0]) for file in found]), names


def _stacked(
    root: Path, files: Sequence[Path], extent: tuple[int, int] | None, crop: bool, channels: int
) -> NDArray[np.uint8]:
    """The images [N, channels, height, width] of these files below `root`."""
    data: NDArray[np.uint8] | None = None
    for i, file in enumerate(with_progress_bar(files, printable_path(root))):
        pixels = _pixels(root / file, extent, crop, channels)
        if data is None:
            data = np.empty((len(files), *pixels.shape), np.uint8)
        if pixels.shape != data.shape[1:]:
            first = " x ".join(map(str, data.shape[2:]))
            raise DataError(
                f"{printable_path(root / file)}: is {' x '.join(map(str, pixels.shape[1:]))} pixels, but "
                f"{files[0].name} is {first}; give a size to resize them to"
            )
        data[i] = pixels
    assert data is not None
    return data


def _extent(
    where: str, size: int | Sequence[int] | None, crop: str | None
) -> tuple[int, int] | None:
    """(width, height), as Pillow has it."""
    if crop not in (None, "center"):
        raise DataError(f'{where}: unknown crop {crop!r}; use "center" or None')
    if size is None:
        if crop is not None:
            raise DataError(f"{where}: a crop needs a size; give both")
        return None
    sides = list(size) if isinstance(size, Sequence) else [size, size]
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise DataError(f"{where}: size {size} is no number of pixels; give one, or two")
    return sides[1], sides[0]


def _images(root: Path) -> list[Path]:
    """The images below `root`, relative to it, sorted."""
    if not root.exists():
        raise DataError(f"{printable_path(root)}: no such folder; name the folder of the images")
    if not root.is_dir():
        raise DataError(
            f"{printable_path(root)}: a file, not a folder; name the folder of the images"
        )
    found = sorted(_walk(root), key=lambda file: file.parts)
    if not found:
        raise DataError(
            f"{printable_path(root)}: holds no image ({' '.join(ENDINGS)}); name the folder of the images"
        )
    return found


def _walk(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        name = printable_path(Path(error.filename or root))
        raise DataError(
            f"{name}: cannot be read ({error.strerror}); make it a folder that you may read"
        ) from None

    # Links to folders are followed, as their author expects.
    seen = set()
    for parent, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                yield (Path(parent) / name).relative_to(root)


def _pixels(
    path: Path, extent: tuple[int, int] | None, crop: bool, channels: int
) -> NDArray[np.uint8]:
    """One image, [channels, height, width]."""
    try:
        with open_regular(path) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of EXIF data and palettes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _require_bounds(stream)
            pixels = _decoded(_Opening(stream), channels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = round(Image.MAX_IMAGE_PIXELS or 0, -6) // 10**6
        raise DataError(
            f"{printable_path(path)}: has more than {most} million pixels; reduce it"
        ) from None
    except _LargeError as error:
        raise DataError(f"{printable_path(path)}: {error}; reduce it") from None
    except OSError as error:
        if error.strerror is not None:
            raise DataError(
                f"{printable_path(path)}: {reason(error)}; replace it or take it away"
            ) from None
        raise DataError(
            f"{printable_path(path)}: not an image, truncated or damaged; put one of "
            f"{', '.join(_FORMATS)} in its place, or take it away"
        ) from None
    except _UnscaledError as error:
        raise DataError(f"{printable_path(path)}: {error}; convert it to 8 bits") from None
    except Exception as error:  # Pillow's plugins raise nearly anything at damaged files
        raise DataError(
            f"{printable_path(path)}: truncated or damaged ({type(error).__name__}); replace it or take it away"
        ) from None
    size = pixels.shape[1], pixels.shape[0]
    if extent is not None and size != extent:
        # Not `resize(box=...)`: its filter reads pixels beyond the box.
        left, upper, right, lower = _centre(size, extent) if crop else (0, 0, *size)
        image = _image(pixels[upper:lower, left:right])
        del pixels
        pixels = np.asarray(image.resize(extent, Image.Resampling.BICUBIC), dtype=np.uint8)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


class _LargeError(Exception):
    """A file or an image that takes more than it is worth."""


class _Opening:
    """A file whose format is being found out: readers that look for its next part byte by byte may not
    do so without end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.left = stream, float(_CALLS)

    def read(self, n: int = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise OSError("it has no end")
        return self.stream.read(n)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _require_bounds(stream: IO[bytes]) -> None:
    """_LargeError for a file whose size or header says that decoding it would take too long
    or too much."""
    if Image.MAX_IMAGE_PIXELS is None:  # set so by a user who wants no bounds
        return
    most = Image.MAX_IMAGE_PIXELS
    head = stream.read(30)
    stream.seek(0)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        most = min(most, _WEBP)
        if math.prod(_webp_size(head)) > most:
            raise _LargeError(f"has more than {most // 10**6} million pixels, too many of WEBP")
    size = os.fstat(stream.fileno()).st_size
    if size > 4 * most + 2**26:
        raise _LargeError(f"has {size >> 20} MiB, more than its pixels may take")


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height, by the three kinds of chunk that a WEBP file begins with."""
    if head[12:16] == b"VP8X":
        sides = int.from_bytes(head[24:27], "little"), int.from_bytes(head[27:30], "little")
        return sides[0] + 1, sides[1] + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    sides = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
    return sides[0] & 0x3FFF, sides[1] & 0x3FFF


def _decoded(stream: _Opening, channels: int) -> NDArray[np.uint8]:
    """The image in 8 bits, [height, width, 3] or [height, width], without transparency, upright."""
    with Image.open(stream, formats=_FORMATS) as file:
        stream.left = math.inf
        file.load()
        sixteen = file.mode.startswith("I;16") or (file.mode == "I" and file.format in _SIXTEEN)
        turn = file.getexif().get(ExifTags.Base.Orientation, 1)
        width, height = file.size
        sides = (width, height) if turn in (5, 6, 7, 8) else (height, width)
        pixels = np.empty((*sides, 3) if channels == 3 else sides, np.uint8)
        lying = _turned(pixels, turn)
        # Strip by strip, the turn with it: a large image is in memory twice and no more.
        rows = max(1, _STRIP // width)
        for top in range(0, height, rows):
            strip = file.crop((0, top, width, min(top + rows, height)))
            lying[top : top + rows] = np.asarray(_plain(strip, channels, sixteen))
    return pixels


def _turned(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """A view of an upright image as its file has it, by the number that EXIF data have for that."""
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels.swapaxes(0, 1) if turn in (5, 6, 7, 8) else pixels


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Pixels as Pillow has them, without a further copy of all."""
    height, width = pixels.shape[:2]
    image = Image.new("RGB" if pixels.ndim == 3 else "L", (width, height))
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        image.paste(Image.fromarray(np.ascontiguousarray(pixels[top : top + rows])), (0, top))
    return image


class _UnscaledError(Exception):
    """Pixels of which nothing says what is white."""


def _plain(image: Image.Image, channels: int, sixteen: bool) -> Image.Image:
    """The image in 8 bits, colour or grey, without transparency."""
    if sixteen:
        values = np.asarray(image).clip(0, 65535).astype(np.uint32)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise _UnscaledError(f"its pixels (mode {image.mode}) have no scale")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB" if channels == 3 else "L")


def _centre(have: tuple[int, int], want: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred box (left, upper, right, lower) with the proportions of `want`."""
    scale = min(have[0] / want[0], have[1] / want[1])
    width, height = max(1, round(want[0] * scale)), max(1, round(want[1] * scale))
    left, upper = (have[0] - width) // 2, (have[1] - height) // 2
    return left, upper, left + width, upper + height
