"""Made-up CIFAR-10 files in both published forms: their contents and encoding."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]
STEMS = [*TRAIN, "test_batch"]
ROWS = 6


def pixels(stem: str) -> np.ndarray:
    values = np.random.default_rng(STEMS.index(stem)).integers(0, 256, (ROWS, 3072))
    values[0, :2] = 0, 255
    return values.astype(np.uint8)


def classes(stem: str) -> np.ndarray:
    return (np.arange(ROWS) + STEMS.index(stem)) % 10


def binary(stem: str) -> bytes:
    """Rows of a label and its pixels."""
    return np.concatenate([classes(stem)[:, None].astype(np.uint8), pixels(stem)], 1).tobytes()


def short(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def array(rows: int, columns: int, body: bytes, code: bytes = b"u1") -> bytes:
    """The opcodes by which Python 2 pickled an array of bytes."""
    make = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + short(code) + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + short(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    shape = number(rows) + number(columns) + b"\x86"
    return make + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<I", len(body)) + body + b"tb"


def dictionary(**entries: bytes) -> bytes:
    body = b"".join(short(key.encode()) + value for key, value in entries.items())
    return b"\x80\x02}(" + body + b"u."


def numbers(values: list[int]) -> bytes:
    return b"](" + b"".join(number(int(value)) for value in values) + b"e"


def pickled(stem: str) -> bytes:
    """A batch in protocol 2, its strings as Python 2 wrote them."""
    return dictionary(
        batch_label=short(b"made up"),
        labels=numbers(list(classes(stem))),
        data=array(ROWS, 3072, pixels(stem).tobytes()),
        filenames=b"](" + short(b"a.png") * ROWS + b"e",
    )


def archive(folder: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


def write(root: Path, form: str) -> tuple[Path, dict[str, str]]:
    """Write one of four forms below `root`: where it lies, and the checksums that hold for it."""
    root.mkdir(parents=True, exist_ok=True)
    if form.startswith("python"):
        folder, tar = "cifar-10-batches-py", "cifar-10-python.tar.gz"
        files = {stem: pickled(stem) for stem in STEMS}
    else:
        folder, tar = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
        files = {f"{stem}.bin": binary(stem) for stem in STEMS}
    md5 = {name: hashlib.md5(body).hexdigest() for name, body in files.items() if "." not in name}
    if form.endswith("tar"):
        body = archive(folder, files)
        (root / tar).write_bytes(body)
        return root / tar, {**md5, tar: hashlib.md5(body).hexdigest()}
    (root / folder).mkdir()
    for name, body in files.items():
        (root / folder / name).write_bytes(body)
    return root / folder, md5
