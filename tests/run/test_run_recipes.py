"""Samples by address; recipes in a user's own file."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import CONFIGURATIONS, images, recipe

from equilibrist import Recipe, RecipeError, resolve
from equilibrist.optimizers import Adam
from equilibrist.run import load, samples
from equilibrist.solvers import Alternating

# -- samples -------------------------------------------------------------------------------------------


def test_samples_by_seed_and_index(tmp_path, go):
    run = go(tmp_path / "a", "spectral norm, Adam")
    again = load(tmp_path / "a", CONFIGURATIONS["spectral norm, Adam"](), device="cpu")
    assert run.samples(20).shape == (20, 2)
    assert torch.equal(run.samples(20), again.samples(20))
    assert torch.equal(run.samples(20, index=3), again.samples(20, index=3))
    assert not torch.equal(run.samples(20, index=3), run.samples(20))
    other = go(tmp_path / "b", "spectral norm, Adam", seed=1)
    assert not torch.equal(other.samples(20), run.samples(20))
    # The latents themselves depend on the seed, whatever the weights are.
    other.players, other.constants = run.players, run.constants
    assert not torch.equal(other.samples(20), run.samples(20))


def test_the_last_sheet_is_what_sampling_gives(tmp_path, go):
    run = go(tmp_path)
    sheet = np.load(tmp_path / "samples" / "step_00000024.npy")
    assert sheet.dtype == np.float32
    assert sheet.shape == (2048, 2)
    assert np.array_equal(sheet, run.samples(2048).numpy())


def test_an_older_step(tmp_path, go):
    run = go(tmp_path)
    older = load(tmp_path, CONFIGURATIONS["plain"](), device="cpu", step=12)
    assert (older.step, older.checkpoint) == (12, "step_00000012.safetensors")
    assert not torch.equal(older.samples(5), run.samples(5))
    go(tmp_path / "short", steps=12)
    short = load(tmp_path / "short", CONFIGURATIONS["plain"](steps=12), device="cpu")
    assert torch.equal(older.samples(5), short.samples(5))


def test_batch_norm_sheets_do_not_fail_on_a_remainder_of_one(tmp_path, go):
    """2048 = 89 x 23 + 1: batch statistics of one sample are undefined."""
    run = go(tmp_path, "momentum, batch norm", batch=23, steps=2)
    assert torch.isfinite(run.samples(24)).all()
    assert torch.isfinite(run.samples(1)).all()


def test_sheets_of_images(tmp_path):
    from PIL import Image

    values = torch.linspace(0, 1, 10 * 16).reshape(10, 1, 4, 4)
    path = samples.write_sheet(tmp_path / "a.b", values, images())
    assert path.name == "a.b.png"
    with Image.open(path) as picture:
        assert picture.mode == "L"
        assert picture.width > 350


# -- a recipe in a file ----------------------------------------------------------------------------------

FILE = '''
"""A user's own."""
from killing import recipe
from equilibrist.optimizers import Adam
from equilibrist.solvers import Alternating

def mine(steps: int = 4, lr: float = 1e-3, exact: bool = False, label: str | None = None):
    """My GAN."""
    return recipe(Alternating(1, Adam(lr)), steps=steps)

def wrong():
    return {"steps": 3}

def none():
    pass

def fails(steps: int = 3):
    raise ValueError("no such thing\\nsecond line")

def needs(width: int):
    return mine()
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


def test_own_file(file, tmp_path):
    found = resolve(f"{file}:mine", {"lr": "0.01"})
    assert found.settings == {"steps": 4, "lr": 0.01, "exact": False, "label": None}
    assert found.origin == {
        "kind": "file",
        "path": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    built = found.build()
    assert isinstance(built, Recipe)
    assert built.solver == Alternating(1, Adam(0.01))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("{file}:mein", {}, ["defines no function 'mein'", "did you mean mine?"]),
        ("{file}", {}, ["names no function", "file.py:function"]),
        ("{file}:", {}, ["names no function"]),
        ("{folder}/absent.py:mine", {}, ["absent.py does not exist"]),
        ("{folder}:mine", {}, ["does not exist"]),
        ("{file}:mine", {"steps": "four"}, ["steps=four is not a whole number"]),
        ("{file}:mine", {"lr": "nan"}, ["lr=nan is not a finite number"]),
        ("{file}:mine", {"exact": "perhaps"}, ["exact=perhaps is not true or false"]),
        ("{file}:mine", {"stebs": "1"}, ["no setting 'stebs'", "did you mean steps?"]),
        ("{file}:wrong", {}, ["returns dict: it must return a Recipe"]),
        ("{file}:none", {}, ["returns NoneType"]),
        ("{file}:fails", {}, ["own.py:fails fails on its settings: no such thing"]),
        ("{file}:needs", {}, ["needs a value for width", "--set width="]),
        ("{folder}/text.txt:mine", {}, ["text.txt is not a Python file"]),
    ],
)
def test_own_file_is_wrong(name, settings, words, file, tmp_path):
    (tmp_path / "text.txt").write_text("x = 1")
    with pytest.raises(RecipeError) as error:
        resolve(name.format(file=file, folder=tmp_path), settings).build()
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import nothing_of_that_name",
            "ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('a\\nb')", "a b"),
        ("x = 'ä".encode("latin-1"), "SyntaxError"),
        ("raise SystemExit('bye')", "SystemExit"),
    ],
)
def test_own_file_fails_on_import(code, words, tmp_path):
    path = tmp_path / "broken.py"
    path.write_bytes(code if isinstance(code, bytes) else code.encode())
    with pytest.raises(RecipeError, match=r"broken.py fails on import") as error:
        resolve(f"{path}:f")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_of_every_kind(file, tmp_path):
    path = tmp_path / "kinds.py"
    path.write_text(
        "from typing import Literal\n"
        "def f(a: int = 1, b: float = 2, c: bool = True, d: str = 'x', e: Literal['p', 3] = 'p',\n"
        "      g: int | None = None, h: float | None = 1.0): ...\n"
    )
    given = {"a": "7", "b": "1e-3", "c": "no", "d": "y=z", "e": "3", "g": "5", "h": "none"}
    found = resolve(f"{path}:f", given)
    assert found.settings == {"a": 7, "b": 1e-3, "c": False, "d": "y=z", "e": 3, "g": 5, "h": None}
    assert isinstance(resolve(f"{path}:f").settings["b"], int | float)


def test_two_files_of_one_name_do_not_mix(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text(f"def f(x: str = '{name}'): ...\n")
    found = [resolve(f"{tmp_path / name}/own.py:f") for name in ("a", "b")]
    assert [f.settings["x"] for f in found] == ["a", "b"]


def test_library_recipe_object(tmp_path):
    from equilibrist import train

    built = recipe(Alternating(1, Adam(1e-3)), steps=3)
    run = train(built, tmp_path / "run", device="cpu", progress="none")
    assert (run.step, run.seed, run.interrupted) == (3, 0, False)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"] == "python"
    shutil.rmtree(tmp_path / "run" / "samples")  # a run is read without them
    assert load(tmp_path / "run", built).step == 3
