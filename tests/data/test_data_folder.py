"""Folders of images: order, classes, crops, resizing, and what is refused."""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from equilibrist.data import DataError, folder
from equilibrist.data import _waiting as waiting

NOISE = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray, **settings: object) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)
    return pixels


def colour(height: int, width: int) -> np.ndarray:
    return NOISE.integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(height: int, width: int) -> np.ndarray:
    return NOISE.integers(0, 256, (height, width), dtype=np.uint8)


def read(source) -> np.ndarray:
    """Bytes [N, H, W, C] of a source with value range (0, 1)."""
    return (source.all() * 255).round().byte().permute(0, 2, 3, 1).numpy()


def test_images_as_they_are_in_the_order_of_their_names(tmp_path) -> None:
    wanted = {name: colour(5, 7) for name in ("b.PNG", "a.bmp", "sub/a.ppm", "c/d/e.png")}
    for name, pixels in reversed(wanted.items()):
        save(tmp_path / name, pixels)
    (tmp_path / "notes.txt").write_text("no image")
    save(tmp_path / ".hidden.png", colour(5, 7))
    save(tmp_path / ".cache" / "a.png", colour(5, 7))
    source = folder(tmp_path, value_range=(0, 1))
    assert (source.kind, source.shape, source.size) == ("images", (3, 5, 7), 4)
    order = ["a.bmp", "b.PNG", "c/d/e.png", "sub/a.ppm"]
    np.testing.assert_array_equal(read(source), np.stack([wanted[name] for name in order]))
    # Two of them lie in no subfolder.
    assert source.labels is None
    assert source.classes is None
    assert source.name == tmp_path.name
    assert source.origin == f"4 images below {tmp_path}, as they are, 5x7, colour"
    assert torch.equal(
        folder(tmp_path).all(),
        torch.from_numpy(read(source)).permute(0, 3, 1, 2).float().div(255).mul(2).sub(1),
    )


def test_subfolders_are_classes(tmp_path) -> None:
    for name in ("zebra/1.png", "ant/x/2.png", "ant/1.png", "cat/9.png"):
        save(tmp_path / name, colour(4, 4))
    source = folder(tmp_path)
    assert source.labels.tolist() == [0, 0, 1, 2]
    assert source.class_names == ("ant", "cat", "zebra")
    assert source.classes == 3


def test_a_limit_spreads_over_the_list(tmp_path) -> None:
    images = {f"{c}/{i}.png": colour(2, 2) for c in "abc" for i in range(4)}
    for name, pixels in images.items():
        save(tmp_path / name, pixels)
    source = folder(tmp_path, value_range=(0, 1), limit=6)
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    want = [images[name] for name in sorted(images)][::2]
    np.testing.assert_array_equal(read(source), np.stack(want))
    assert "at most 6" in source.origin
    assert folder(tmp_path, limit=100).size == 12
    assert folder(tmp_path, limit=1).classes == 3


@pytest.mark.parametrize("shape", [(9, 17), (17, 9), (8, 8)])
def test_a_centre_crop_without_scaling(tmp_path, shape) -> None:
    pixels = save(tmp_path / "a.png", colour(*shape))
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    want = pixels[top : top + side, left : left + side]
    got = read(folder(tmp_path, side, "center", value_range=(0, 1)))
    np.testing.assert_array_equal(got[0], want)


def test_a_crop_has_the_proportions_of_the_result(tmp_path) -> None:
    # Vertical stripes outside of the middle third, which alone may be seen.
    pixels = np.zeros((12, 36), np.uint8)
    pixels[:, 12:24] = 200
    save(tmp_path / "a.png", pixels)
    source = folder(tmp_path, (6, 6), "center", channels=1, value_range=(0, 1))
    assert (read(source) == 200).all()
    stretched = folder(tmp_path, (6, 6), channels=1, value_range=(0, 1))
    assert read(stretched)[0, :, 0].max() == 0
    assert folder(tmp_path, (4, 12)).shape == (3, 4, 12)
    assert "centre-cropped, resized (bicubic), 6x6, grey" in source.origin


def test_resizing_does_not_alias(tmp_path) -> None:
    # A checkerboard of single pixels, reduced by 8: its mean everywhere, but for a nearest or
    # unsmoothed bicubic filter 0 or 255.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    save(tmp_path / "a.png", board)
    values = read(folder(tmp_path, 8, channels=1, value_range=(0, 1))).astype(float)
    assert np.abs(values[:, 1:-1, 1:-1] - 127.5).max() <= 2


def test_grey_and_colour(tmp_path) -> None:
    pixels = save(tmp_path / "a.png", colour(3, 4))
    got = read(folder(tmp_path, channels=1, value_range=(0, 1)))[0, :, :, 0]
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(got - luma).max() <= 1
    one = save(tmp_path / "g" / "a.png", grey(3, 4))
    got = read(folder(tmp_path / "g", value_range=(0, 1)))[0]
    np.testing.assert_array_equal(got, np.repeat(one[:, :, None], 3, axis=2))


def test_transparency_lies_on_white(tmp_path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 10, 20, 30, 255
    save(tmp_path / "a.png", pixels)
    got = read(folder(tmp_path, value_range=(0, 1)))[0]
    assert got[0, 0].tolist() == [10, 20, 30]
    assert (got[1] == 255).all()
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
    palette.putpalette([9, 9, 9, 50, 60, 70])
    (tmp_path / "p").mkdir()
    palette.save(tmp_path / "p" / "a.gif", transparency=0)
    got = read(folder(tmp_path / "p", value_range=(0, 1)))[0]
    assert got[0].tolist() == [[255] * 3, [50, 60, 70]]


def test_sixteen_bits_are_rounded(tmp_path) -> None:
    values = np.array([[0, 257 * 7, 257 * 7 + 128], [257 * 7 + 129, 65535, 300]], np.uint16)
    save(tmp_path / "a.png", values)
    got = read(folder(tmp_path, channels=1, value_range=(0, 1)))[0, :, :, 0]
    assert got.tolist() == [[0, 7, 7], [8, 255, 1]]


def test_exif_turns_upright(tmp_path) -> None:
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    save(tmp_path / "a.png", pixels, exif=exif)
    got = read(folder(tmp_path, value_range=(0, 1)))[0, :, :, 0]
    assert got.shape == (4, 2)
    assert got[0].tolist() == [255, 255]
    assert got[1:].max() == 0


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "webp", "gif", "bmp", "ppm", "png"])
def test_every_format(tmp_path, ending) -> None:
    flat = np.full((8, 8, 3), 100, np.uint8)
    save(tmp_path / f"a.{ending}", flat)
    assert np.abs(read(folder(tmp_path, value_range=(0, 1))).astype(int) - 100).max() <= 3


def test_a_link_to_a_folder_above_ends(tmp_path) -> None:
    save(tmp_path / "a" / "1.png", colour(2, 2))
    try:
        (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert folder(tmp_path).size == 1


def test_home_is_expanded(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "pictures" / "a.png", colour(2, 2))
    assert folder("~/pictures").name == "pictures"


def _truncated(path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(colour(40, 40)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:700])


def _floats(path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path.with_suffix(".pfm"))
    path.with_suffix(".pfm").rename(path)


@pytest.mark.parametrize(
    ("name", "spoil", "wrong"),
    [
        ("z.png", lambda p: p.write_bytes(b""), "not an image, truncated or damaged; put one of"),
        ("z.jpg", lambda p: p.write_text("<html>404</html>"), "not an image, truncated or damaged"),
        ("z.jpg", _truncated, "truncated or damaged"),
        ("z.png", lambda p: p.symlink_to("nowhere"), "No such file"),
        ("z.png", _floats, "its pixels (mode F) have no scale; convert it to 8 bits"),
        (
            "z.png",
            lambda p: save(p, colour(5, 4)),
            "is 5 x 4 pixels, but a.png is 4 x 4; give a size to resize them to",
        ),
    ],
)
def test_spoilt_files_are_named(tmp_path, name, spoil, wrong) -> None:
    save(tmp_path / "a.png", colour(4, 4))
    spoil(tmp_path / name)
    with pytest.raises(DataError) as caught:
        folder(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}: ")
    assert wrong in message
    assert message.isprintable()


def test_every_truncation_is_noticed_or_harmless(tmp_path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(colour(6, 6)).save(buffer, "PNG")
    whole, file = buffer.getvalue(), tmp_path / "a.png"
    file.write_bytes(whole)
    want = read(folder(tmp_path, value_range=(0, 1)))
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        try:
            got = read(folder(tmp_path, value_range=(0, 1)))
        except DataError as error:
            assert str(error).startswith(f"{file}: ")  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
        else:  # only what follows the pixels is lost
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda p: folder(p / "none"), "none: no such folder; name"),
        (lambda p: folder(p / "a.png"), "a.png: a file, not a folder"),
        (lambda p: folder(p / "empty"), "holds no image (.png .jpg"),
        (lambda p: folder(p, channels=2), "cannot read 2 channels; use 3 for colour or 1"),
        (lambda p: folder(p, 4, crop="middle"), "unknown crop 'middle'; use \"center\" or None"),
        (lambda p: folder(p, crop="center"), "a crop needs a size"),
        (lambda p: folder(p, limit=0), "a limit of 0 leaves no image"),
        (lambda p: folder(p, 0), "size 0 is no number of pixels"),
        (lambda p: folder(p, (4, -4)), "size (4, -4) is no number of pixels"),
        (lambda p: folder(p, (4, 4, 4)), "is no number of pixels"),
        (lambda p: folder(p, 2.5), "size 2.5 is no number of pixels"),
        (lambda p: folder(p, value_range=(1, 0)), "value range (1, 0)"),
    ],
)
def test_refusals(tmp_path, call, wrong) -> None:
    save(tmp_path / "a.png", colour(4, 4))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        call(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert wrong in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_refusing_system(tmp_path, monkeypatch) -> None:
    save(tmp_path / "sub" / "a.png", colour(4, 4))
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"sub: cannot be read \(Permission denied\)"):
        folder(tmp_path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("patience", "terminal", "drawn"), [(-1, True, True), (60, True, False), (-1, False, False)]
)
def test_a_bar_appears_on_a_terminal_when_it_takes_long(
    tmp_path, monkeypatch, patience, terminal, drawn
) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", colour(4, 4))
    screen = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(waiting, "PATIENCE", patience)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder(tmp_path).size == 3
    assert ("3/3" in screen.getvalue()) == drawn
    assert bool(screen.getvalue().strip()) == drawn
