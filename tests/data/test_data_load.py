"""`load`, the digits of scikit-learn, and what importing costs."""

import subprocess
import sys
from pathlib import Path

import made_up_cifar
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from equilibrist import data
from equilibrist.data import DataError


def test_digits_are_those_of_scikit_learn() -> None:
    source = data.digits()
    assert isinstance(source, data.Source)
    assert (source.name, source.kind, source.shape) == ("digits", "images", (1, 8, 8))
    assert (source.size, source.value_range) == (1797, (0.0, 1.0))
    assert "scikit-learn" in source.origin
    bunch = load_digits()
    np.testing.assert_array_equal(source.all()[:, 0].numpy() * 16, bunch.images)
    np.testing.assert_array_equal(source.labels, bunch.target)
    rng = np.random.Generator(np.random.Philox(0))
    assert source.sample(rng, 5).shape == (5, 1, 8, 8)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.1, 0.7)])
def test_digits_fill_their_range(value_range) -> None:
    values = data.digits(value_range).all()
    assert values.min().item() == np.float32(value_range[0])
    assert values.max().item() == np.float32(value_range[1])


def test_load_finds_by_name(write_mnist, tmp_path) -> None:
    assert data.load("digits", value_range=(-1.0, 1.0)).value_range == (-1.0, 1.0)
    assert data.load("eight-gaussians", sigma=0.5).sigma == 0.5
    assert data.load("Eight_Gaussians").name == "eight-gaussians"
    root = write_mnist(tmp_path / "files")
    assert data.load("mnist", root, train=False).size == 20
    # Sources without files have no use for a root, even for one that does not exist.
    assert data.load("digits", root=tmp_path / "none").size == 1797


@pytest.mark.parametrize("name", sorted(data.SOURCES))
def test_names_of_the_table_are_those_of_the_sources(name, write_mnist, tmp_path) -> None:
    root = tmp_path / "files"
    write_mnist(root)
    write_mnist(root / "fashion-mnist")
    _, md5 = made_up_cifar.write(root, "python")
    settings = {"md5": md5} if name == "cifar10" else {}
    source = data.load(name, root, **settings)
    assert source.name == name
    assert isinstance(source, data.Source)
    assert source.sample(np.random.default_rng(0), 3).shape == (3, *source.shape)


def test_load_finds_by_path(tmp_path, monkeypatch) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(pixels).save(tmp_path / "pictures" / "a.png")
    np.save(tmp_path / "points.npy", np.zeros((5, 2), np.float32))
    assert data.load(tmp_path / "pictures", channels=1).shape == (1, 4, 4)
    assert data.load(str(tmp_path / "pictures"), root="unused").size == 1
    assert data.load(f"{tmp_path}/points.npy").kind == "points"
    monkeypatch.chdir(tmp_path)
    assert data.load("pictures").name == "pictures"
    assert data.load("points.npy", dtype=torch.float64).all().dtype == torch.float64
    # A name goes before a folder of that name; a path does not.
    (tmp_path / "pictures").rename("digits")
    assert data.load("digits").size == 1797
    assert data.load("./digits").size == data.load(Path("digits")).size == 1


@pytest.mark.parametrize(
    ("call", "start", "remedy"),
    [
        (lambda: data.load("digit"), "digit: no such data", "did you mean digits?"),
        (lambda: data.load("minst"), "minst: no such data", "did you mean mnist?"),
        (
            lambda: data.load("8_gausians"),
            "8_gausians: no such data",
            "did you mean eight-gaussians?",
        ),
        (
            lambda: data.load("celeba"),
            "celeba: no such data",
            "choose one of cifar10, digits, eight-gaussians, fashion-mnist, mnist, swiss-roll, "
            "twenty-five-gaussians",
        ),
        (
            lambda: data.load("eight-gaussians", radios=2.0),
            "eight-gaussians: no setting radios",
            "did you mean radius?",
        ),
        (
            lambda: data.load("digits", batch=2),
            "digits: no setting batch",
            "choose one of value_range",
        ),
        (
            lambda: data.load("none/such"),
            "none/such: no such folder or file",
            "name one that holds samples",
        ),
        (
            lambda: data.load(Path("digits")),
            "digits: no such folder or file",
            "name one that holds samples",
        ),
        (lambda: data.load("none.npz"), "none.npz: not found", "name an array file"),
        (lambda: data.load("a.pt"), "a.pt: reading .pt files executes", "save_file"),
        (lambda: data.load(".", sise=2), ".: no setting sise", "did you mean size?"),
        (lambda: data.digits((1.0, 1.0)), "digits: value range (1.0, 1.0)", "try (0, 1)"),
        (lambda: data.mnist(value_range=(2.0, 1.0)), "mnist: value range (2.0, 1.0)", "try (0, 1)"),
    ],
)
def test_refusals_name_the_thing_and_the_remedy(call, start, remedy) -> None:
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(start)
    assert message.endswith(remedy)
    assert message.isprintable()


def test_heavy_modules_are_imported_late() -> None:
    code = (
        "import sys, equilibrist.data as d; d.eight_gaussians();"
        "print(*{'sklearn', 'pooch', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_float64_digits() -> None:
    draw = data.digits().to(dtype=torch.float64).sample(np.random.default_rng(0), 2)
    assert draw.dtype == torch.float64
