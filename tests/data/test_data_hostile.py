"""Files that others made: nothing runs, nothing hangs, memory stays in bounds, damage is one line."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import made_up_cifar as made
import numpy as np
import pytest
from PIL import ExifTags, Image
from safetensors.numpy import save

from equilibrist.data import DataError, array_file, cifar10, folder, load, mnist
from equilibrist.data._batches import read_pickle
from equilibrist.data._idx import read_idx

LOOP = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{ 1 pop } loop\n%%EOF\n"
HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"


def refused(call: Callable[[], object], path: Path) -> str:
    """The message of the one line with which `path` is refused."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def npy(header: str, body: bytes = bytes(64)) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + body


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


# -- nothing runs, nothing hangs -----------------------------------------------------------------


@pytest.mark.parametrize("content", [LOOP, b"\xc5\xd0\xd3\xc6" + LOOP, b"%PDF-1.4\n"])
def test_a_picture_that_is_a_program_is_refused_and_not_run(tmp_path, monkeypatch, content) -> None:
    proof = tmp_path / "ran"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\necho ran >> {proof}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").write_bytes(content)
    said = refused(lambda: folder(tmp_path / "images"), tmp_path / "images" / "cat.png")
    assert "not an image" in said
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "TGA", "PCX"])
def test_only_formats_that_are_named_are_decoded(tmp_path, kind) -> None:
    (tmp_path / "a.png").write_bytes(encoded(kind))
    assert "not an image" in refused(lambda: folder(tmp_path), tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "GIF", "WEBP", "PPM", "PNG"])
def test_a_raster_image_is_read_whatever_its_name_ends_in(tmp_path, kind) -> None:
    (tmp_path / "a.png").write_bytes(encoded(kind))
    assert folder(tmp_path).shape == (3, 8, 8)


@pytest.fixture
def impatient():
    """A read that waits for a pipe ends the test instead of the patience of whoever runs it."""
    import signal

    def over(*_: object) -> None:
        raise AssertionError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.png", folder),
        ("a.npy", lambda p: array_file(p / "a.npy")),
        ("a.npz", lambda p: array_file(p / "a.npz")),
        ("a.safetensors", lambda p: array_file(p / "a.safetensors")),
        ("train-images-idx3-ubyte", mnist),
        ("train-images-idx3-ubyte.gz", mnist),
        ("data_batch_1", cifar10),
        ("cifar-10-python.tar.gz", cifar10),
    ],
)
@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_not_opened(tmp_path, name, read, make) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"")
    make(tmp_path / name)
    assert "not a regular file" in refused(lambda: read(tmp_path), tmp_path / name)


def test_links_to_regular_files_are_read(tmp_path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "here" / "b.png").symlink_to(tmp_path / "a.png")
    assert folder(tmp_path / "here").size == 1


# What no reader may search through byte by byte, and what only its end would tell.
ENDLESS = {
    "a.ppm": b"P6\n#",
    "a.jpg": b"\xff\xd8\xff\xe0",
    "a.gif": b"GIF89a\4\0\4\0\0\0\0",
    "a.webp": b"RIFF\0\0\0\xf0WEBPVP8 ",
    "a.png": b"\x89PNG\r\n\x1a\n",
    "a.bmp": b"BM",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("size", [2**40, 2**27])
@pytest.mark.parametrize("name", ENDLESS)
def test_an_image_that_does_not_end_is_refused(tmp_path, name, size) -> None:
    with (tmp_path / name).open("wb") as file:
        file.write(ENDLESS[name])
        file.truncate(size)
    said = refused(lambda: folder(tmp_path), tmp_path / name)
    assert "more than its pixels may take" in said or size < 2**40


@pytest.mark.usefixtures("impatient")
def test_a_comment_that_does_not_end_is_refused(tmp_path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n#" + b"x" * 20_000_000)
    refused(lambda: folder(tmp_path), tmp_path / "a.ppm")
    (tmp_path / "a.ppm").write_bytes(b"P6\n#" + b"x" * 10_000 + b"\n2 2\n255\n" + bytes(12))
    assert folder(tmp_path).shape == (3, 2, 2)


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0"}]
)
def test_a_webp_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch, options) -> None:
    Image.new("RGB", (90, 30)).save(tmp_path / "a.webp", **options)
    assert folder(tmp_path).shape == (3, 30, 90)
    monkeypatch.setattr(sys.modules[folder.__module__], "_WEBP", 90 * 30 - 1)
    assert "of WEBP" in refused(lambda: folder(tmp_path), tmp_path / "a.webp")


# -- memory --------------------------------------------------------------------------------------


def test_an_idx_file_is_unpacked_no_further_than_its_header_promises(tmp_path) -> None:
    head = struct.pack(">HBBIII", 0, 8, 3, 10, 28, 28)
    with gzip.open(tmp_path / "a.gz", "wb", 1) as file:
        file.write(head)
        for _ in range(100):
            file.write(bytes(2**22))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="more bytes follow its end"):
        read_idx(tmp_path / "a.gz", (None, 28, 28), "fetch it again")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**16  # KiB


def test_an_idx_file_that_promises_more_than_any_stream_holds_is_not_believed(tmp_path) -> None:
    head = struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 28, 28)
    (tmp_path / "a.gz").write_bytes(gzip.compress(head + bytes(784)))
    with pytest.raises(DataError, match="bytes are missing"):
        read_idx(tmp_path / "a.gz", (None, 28, 28), "fetch it again")


PEAK = """
import os, sys, threading
from pathlib import Path
from equilibrist.data import array_file, digits, folder
def used(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def watch():
    while not stop.wait(0.002): peak[0] = max(peak[0], used())
for path in sorted(Path(sys.argv[1]).iterdir()):
    stop, start = threading.Event(), used(); peak = [start]
    thread = threading.Thread(target=watch); thread.start()
    source = (folder if path.is_dir() else array_file)(path)
    stop.set(); thread.join(); del source
    print(path.name, peak[0] - start)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_reading_takes_twice_the_decoded_arrays_at_most(tmp_path) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((2**21 // 128, 1024))
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "big-endian.npy", values.astype(">f8"))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(values))
    np.savez(tmp_path / "a.npz", a=values)
    (tmp_path / "a.safetensors").write_bytes(save({"a": values}))
    (tmp_path / "images").mkdir()
    pixels = rng.integers(0, 256, (3072, 3072, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", compress_level=0)
    sizes = dict.fromkeys(("a.npy", "big-endian.npy", "fortran.npy", "a.npz"), values.nbytes)
    sizes |= {"a.safetensors": values.nbytes, "images": 4 * 3 * 3072**2}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    peaks = dict(line.split() for line in done.stdout.splitlines())
    assert peaks.keys() == sizes.keys()
    for name, size in sizes.items():
        assert int(peaks[name]) <= 2 * size + 64 * 2**20, name


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_large_image_is_in_memory_twice_and_no_more(tmp_path) -> None:
    """As Pillow has it, four bytes a pixel, and as its array; neither a turn nor transparency adds."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for name, mode, options in (
        ("turned.jpg", "RGB", {"exif": turned}),
        ("a.gif", "P", {}),
        ("cmyk.jpg", "CMYK", {}),
        ("la.png", "LA", {}),
        ("rgba.png", "RGBA", {}),
    ):
        (tmp_path / name).mkdir()
        Image.new(mode, (4800, 4800)).save(tmp_path / name / name, **options)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    for line in done.stdout.splitlines():
        name, peak = line.split()
        assert int(peak) <= 2 * 3 * 4800**2 + 2**26, name


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x02Nr\xff\xff\xff\x1f.",
        b"\x80\x02Np2000000000\n.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
        b"\x80\x05\x96" + struct.pack("<Q", 2**32) + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
        b"\x80\x02N\x82\x01.",
        b"\x80\x02}]2.",
    ],
)
def test_a_pickle_gets_no_memory_that_its_bytes_do_not_fill(raw) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"CIFAR-10|damaged"):
        read_pickle(raw)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**16


def archive(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def entry(kind: bytes, size: int = 0, name: str = "cifar-10-batches-py/test_batch"):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, "../../etc/passwd" if size == 0 else ""
    return info


@pytest.mark.parametrize(
    "raw",
    [
        archive(entry(tarfile.SYMTYPE)),
        archive(entry(tarfile.LNKTYPE)),
        archive(entry(tarfile.CHRTYPE)),
        archive(entry(tarfile.GNUTYPE_SPARSE)),
        archive(entry(tarfile.REGTYPE, 2**26 + 1)),
        archive(entry(tarfile.XHDTYPE, 4096)),
        gzip.compress(b"x" * 1024, mtime=0),
        gzip.compress(b"", mtime=0),
    ],
    # The bytes hold the time at which they were made, which must not become part of a test's name.
    ids=["symlink", "link", "device", "sparse", "large", "header", "no-archive", "empty"],
)
def test_odd_archives_are_refused(tmp_path, raw) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(raw)
    refused(lambda: cifar10(tmp_path, train=False, md5={}), path)


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'shape': (3, 2), ",
        HEADER % "(True, 2)",
        "{[]: 1}",
        HEADER % ("(" + "-" * 3000 + "1,)"),
        HEADER % "(3, 2)" + "}",
        (HEADER % "(8, 2)").replace("<f4", "<f3"),
        (HEADER % "(8, 2)").replace("'<f4'", "[('a', '|O')]"),
        HEADER % "(10000000000000000000000, 2)",
        HEADER % ("(" + "1, " * 200 + ")"),
    ],
)
def test_damaged_headers_of_arrays(tmp_path, header) -> None:
    (tmp_path / "a.npy").write_bytes(npy(header))
    refused(lambda: array_file(tmp_path / "a.npy"), tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("descr", "what"),
    [
        *((kind, "text") for kind in ("<U0", "|S0", ">U0", "<U4", "|S4")),
        *(("|V0", "bytes"), ("|V8", "bytes"), ("<M8[s]", "dates"), ("<m8", "spans of time")),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_an_array_of_no_numbers_gets_no_memory(tmp_path, descr, what, packed) -> None:
    descr = descr.removesuffix("[s]")
    raw = npy((HEADER % "(500000000,)").replace("<f4", descr), b"")
    path = tmp_path / ("a.npz" if packed else "a.npy")
    path.write_bytes(raw)
    if packed:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.npy", raw)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refused(lambda: array_file(path), path)
    assert f"holds {what}, not numbers; save the array again, as numbers" in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**16  # KiB


def test_headers_of_other_writers_are_read(tmp_path) -> None:
    for header in (
        '{"shape": (8L, 2L), "fortran_order": False, "descr": "<f4"}\n',
        "{ 'fortran_order':False,'shape':(8,2),'descr':'<f4',}   \n",
    ):
        (tmp_path / "a.npy").write_bytes(npy(header))
        assert array_file(tmp_path / "a.npy").size == 8


def zipped(method: int = 0, flag: int = 0, name: str = "a.npy") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, npy(HEADER % "(8, 2)") if name.endswith(".npy") else b"hello")
    raw = bytearray(buffer.getvalue())
    at = raw.index(b"PK\1\2")
    raw[at + 8] |= flag
    raw[6] |= flag
    if method:
        raw[at + 10] = raw[8] = method
    return bytes(raw)


@pytest.mark.parametrize(
    "raw",
    [zipped(flag=1), zipped(99), zipped(14), zipped(12), zipped(name="a.txt")],
    ids=["encrypted", "method-99", "method-14", "method-12", "no-array"],
)
def test_odd_archives_of_arrays(tmp_path, raw) -> None:
    (tmp_path / "a.npz").write_bytes(raw)
    refused(lambda: array_file(tmp_path / "a.npz"), tmp_path / "a.npz")


def headed(header: object, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"a": {"dtype": "F4", "shape": [3, 2], "data_offsets": [0, 3]}}, bytes(3)),
        ({"a": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}}, bytes(25)),
        ({"a": {"dtype": "F32", "shape": [3, 2], "data_offsets": [1, 25]}}, bytes(25)),
        ({"a": {"dtype": "F32", "shape": [-3, -2], "data_offsets": [0, 24]}}, bytes(24)),
        ({"a": {"dtype": "F32", "shape": [3, True], "data_offsets": [0, 12]}}, bytes(12)),
        ({"a": {"dtype": "F32", "shape": [10**18] * 1000, "data_offsets": [0, 0]}}, b""),
        ({"a": 3}, b""),
        ([], b""),
        ({"__metadata__": 1}, b""),
        (
            {
                "a": {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]},
                "b": {"dtype": "U8", "shape": [2, 2], "data_offsets": [2, 6]},
            },
            bytes(6),
        ),
    ],
)
def test_damaged_headers_of_tensors(tmp_path, header, body) -> None:
    (tmp_path / "a.safetensors").write_bytes(headed(header, body))
    refused(lambda: array_file(tmp_path / "a.safetensors", "a"), tmp_path / "a.safetensors")


def whole(kind: str) -> bytes:
    """A small sound file."""
    values = np.random.default_rng(1).random((6, 3, 4, 4)).astype(np.float32)
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, values)
    elif kind == "npz":
        np.savez_compressed(buffer, a=values[:1])
    elif kind == "safetensors":
        return save({"a": values})
    elif kind == "idx":
        return gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 6, 4, 4) + bytes(range(96)), mtime=0)
    elif kind == "pickle":
        body = np.zeros((6, 3072), np.uint8).tobytes()
        return made.dictionary(labels=made.numbers([1] * 6), data=made.array(6, 3072, body))
    elif kind == "tar":
        return gzip.compress(
            gzip.decompress(made.archive("cifar-10-batches-bin", {"test_batch.bin": bytes(3073)})),
            mtime=0,
        )
    else:
        return encoded(kind)
    return buffer.getvalue()


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "npy": ("a.npy", array_file),
    "npz": ("a.npz", array_file),
    "safetensors": ("a.safetensors", array_file),
    "idx": ("a.gz", lambda p: read_idx(p, (None, 4, 4), "fetch it again")),
    "pickle": ("test_batch", lambda p: cifar10(p.parent, train=False, md5={})),
    "tar": ("cifar-10-binary.tar.gz", lambda p: cifar10(p.parent, train=False, md5={})),
    "PNG": ("a.png", lambda p: folder(p.parent)),
    "JPEG": ("a.jpg", lambda p: folder(p.parent)),
    "GIF": ("a.gif", lambda p: folder(p.parent)),
    "BMP": ("a.bmp", lambda p: folder(p.parent)),
    "WEBP": ("a.webp", lambda p: folder(p.parent)),
    "PPM": ("a.ppm", lambda p: folder(p.parent)),
}


def harmed(raw: bytes, rng: random.Random) -> bytes:
    """Some bits flipped, a tail lost, or a stretch replaced; more often near the header."""
    body = bytearray(raw)
    where = len(body) if rng.random() < 0.3 else min(len(body), 200)
    way = rng.randrange(4)
    if way == 0:
        return bytes(body[: rng.randrange(len(body))])
    if way == 1:
        at = rng.randrange(where)
        body[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
        return bytes(body)
    for _ in range(1 if way == 2 else rng.randrange(2, 6)):
        body[rng.randrange(where)] ^= 1 << rng.randrange(8)
    return bytes(body)


@pytest.mark.parametrize("kind", READERS)
def test_whatever_is_damaged_is_read_or_refused_in_one_line(tmp_path, kind) -> None:
    name, read = READERS[kind]
    path, raw, rng = tmp_path / name, whole(kind), random.Random(kind)
    path.write_bytes(raw)
    read(path)
    refusals = 0
    for _ in range(300):
        path.write_bytes(harmed(raw, rng))
        try:
            read(path)
        except DataError as error:
            refusals += 1
            message = str(error)
            assert name in message or "array" in message
            assert "\n" not in message
            assert message.isprintable()
            assert len(message) < 700
    assert refusals > 50


# -- names ---------------------------------------------------------------------------------------


def test_names_that_are_not_utf8_are_read_and_shown(tmp_path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xff\x1b[31m"))
    (place / os.fsdecode(b"c\xfe")).mkdir(parents=True)
    (place / os.fsdecode(b"c\xfe") / os.fsdecode(b"\xe9.png")).write_bytes(encoded("PNG"))
    source = folder(place)
    assert source.size == 1
    assert source.origin.isprintable()
    for name in ("npy", "safetensors"):
        (place / f"a.{name}").write_bytes(whole(name))
        assert array_file(place / f"a.{name}").size == 6
    (place / "a.npy").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        array_file(place / "a.npy")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a" * 300, "~nobody-of-this-name/a.npy", "a\0.npy", "\ud800.npy"])
def test_names_that_no_file_can_have(name) -> None:
    with pytest.raises(DataError) as caught:
        load(name)
    assert str(caught.value).isprintable()


def test_an_unpickled_batch_leaves_no_trace_in_the_reader() -> None:
    """BUILD writes attributes into whatever it is given: functions too, if one were at hand."""
    raw = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x05stateK\x01sb."
    with pytest.raises(ValueError, match="damaged"):
        read_pickle(raw)
    assert pickle.loads(pickle.dumps(1)) == 1
