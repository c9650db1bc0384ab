"""Damaged checkpoints are noticed, named, and passed over; nothing in them is executed."""

import os
import pickle
import random
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from killing import CONFIGURATIONS, differences, picture
from safetensors.torch import save_file

from equilibrist import RecordError
from equilibrist.run import checkpoint, load

NEWEST = "step_00000024.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from equilibrist.run import train

    directory = tmp_path_factory.mktemp("finished") / "run"
    train(CONFIGURATIONS["plain"](), directory, device="cpu", progress="none")
    return directory


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_every_flipped_bit_is_noticed(finished, tmp_path):
    whole = (finished / "checkpoints" / NEWEST).read_bytes()
    path, rng = tmp_path / NEWEST, random.Random(0)
    path.write_bytes(whole)
    checkpoint.read_checkpoint(path)  # whole it is sound
    header = int.from_bytes(whole[:8], "little") + 8
    every = [(i, bit) for i in range(header) for bit in range(8)]
    chosen = [(i, bit) for i in range(8) for bit in range(8)]  # the header's length
    chosen += rng.sample(every, 700)
    chosen += [(i, rng.randrange(8)) for i in range(header, len(whole), 3)]
    for offset, bit in chosen:
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match=NEWEST) as error:
            checkpoint.read_checkpoint(path)
        assert "renamed" not in one_line(error)


def test_every_truncation_is_noticed(finished, tmp_path):
    whole = (finished / "checkpoints" / NEWEST).read_bytes()
    path = tmp_path / NEWEST
    for length in [*range(16), *range(16, len(whole), 13), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match=f"{NEWEST} is damaged") as error:
            checkpoint.read_checkpoint(path)
        one_line(error)
    path.write_bytes(whole + b"\0")
    with pytest.raises(RecordError, match=f"{NEWEST} is damaged"):
        checkpoint.read_checkpoint(path)


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


def flip_meta(path: Path) -> None:
    content = path.read_bytes()
    step = rb"\\\"step\\\": "  # JSON within JSON within JSON
    assert content.count(step) == 1
    path.write_bytes(content.replace(step, step.replace(b"step", b"stop")))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    save_file({"w": torch.ones(3)}, path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.parent / "exploded")))


def zipped(path: Path) -> None:
    torch.save({"w": Bomb(path.parent / "exploded")}, path)


DAMAGES = [truncate, flip, flip_meta, empty, foreign, folder, pickled, zipped]


@pytest.mark.parametrize("damage", DAMAGES)
def test_newest_is_damaged(damage, run):
    damage(run / "checkpoints" / NEWEST)
    with pytest.warns(UserWarning, match=f"{NEWEST}.*falling back") as seen:
        subject = load(run, CONFIGURATIONS["plain"](), device="cpu")
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    assert subject.step == 18
    assert subject.checkpoint == "step_00000018.safetensors"
    assert not (run / "checkpoints" / "exploded").exists()
    with pytest.raises(RecordError, match=NEWEST) as error:
        load(run, CONFIGURATIONS["plain"](), device="cpu", step=24)
    one_line(error)


def test_the_bomb_explodes_where_it_is_unpickled(tmp_path):
    pickled(tmp_path / "a")
    pickle.loads((tmp_path / "a").read_bytes())
    assert (tmp_path / "exploded").is_dir()


def test_several_are_damaged(run):
    paths = sorted((run / "checkpoints").glob("step_*"))
    truncate(paths[1])
    flip(paths[2])
    with pytest.warns(UserWarning, match="falling back") as seen:
        assert load(run, CONFIGURATIONS["plain"](), device="cpu").step == 12
    for warning, path in zip(seen, reversed(paths[1:]), strict=True):
        assert str(warning.message).startswith(f"{path} is damaged (")
        assert str(warning.message).endswith(f"; falling back to {paths[0].name}")


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d is not folder])
def test_training_goes_on_from_the_one_before(damage, run, finished, go):
    damage(run / "checkpoints" / NEWEST)
    with pytest.warns(UserWarning, match=NEWEST):
        go(run)
    assert differences(picture(finished), picture(run)) == []
    go(run)  # and it is mended: no warning any more


def test_folder_in_the_place_of_a_checkpoint(run, finished, go):
    """Nobody deletes a folder of the user's; training says so where it gets in the way."""
    folder(run / "checkpoints" / NEWEST)
    with (
        pytest.warns(UserWarning, match=f"{NEWEST}.*falling back"),
        pytest.raises(RecordError, match=f"{NEWEST} is a folder: remove it") as error,
    ):
        go(run)
    one_line(error)
    assert not list(run.rglob("*.part"))
    (run / "checkpoints" / NEWEST).rmdir()
    go(run)
    assert differences(picture(finished), picture(run)) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_all_are_damaged(damage, run, go):
    for path in sorted((run / "checkpoints").glob("step_*")):
        damage(path)
    for call in (lambda: go(run), lambda: load(run, CONFIGURATIONS["plain"](), device="cpu")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RecordError, match="none of the 3 checkpoints") as error:
                call()
        assert str(run / "checkpoints" / NEWEST) in one_line(error)  # what is wrong, and with which
    assert not (run / "checkpoints" / "exploded").exists()


def test_checkpoint_of_another_recipe(run, tmp_path, go):
    go(tmp_path / "other", "images, spectral norm", steps=30)
    newer = tmp_path / "other" / "checkpoints" / "step_00000030.safetensors"
    shutil.copy(newer, run / "checkpoints")
    with pytest.raises(RecordError, match=r"step_00000030.*belongs to another recipe") as error:
        load(run, CONFIGURATIONS["plain"](), device="cpu")
    one_line(error)
    with pytest.raises(RecordError, match=r"step_00000030.*belongs to another recipe"):
        go(run)


def test_checkpoint_with_more_than_the_recipe_knows(run, tmp_path, go):
    go(tmp_path / "other", "spectral norm, Adam")  # the same networks
    shutil.copy(tmp_path / "other" / "checkpoints" / NEWEST, run / "checkpoints")
    with pytest.raises(RecordError, match="another recipe"):
        load(run, CONFIGURATIONS["plain"](), device="cpu")


def test_checkpoint_of_another_seed(run, tmp_path, go):
    go(tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other" / "checkpoints" / NEWEST, run / "checkpoints")
    words = f"{NEWEST} is of seed 1, not 0: it belongs to another run"
    for call in (lambda: go(run), lambda: load(run, CONFIGURATIONS["plain"](), device="cpu")):
        with pytest.raises(RecordError, match=words) as error:
            call()
        one_line(error)


def test_checkpoint_of_another_step(run, finished, go):
    shutil.copy(run / "checkpoints" / "step_00000012.safetensors", run / "checkpoints" / NEWEST)
    words = f"{NEWEST} is the checkpoint of step 12: it has been renamed"
    with pytest.raises(RecordError, match=words) as error:
        load(run, CONFIGURATIONS["plain"](), device="cpu", step=24)
    one_line(error)
    with pytest.warns(UserWarning, match=f"{words}; falling back to step_00000018") as seen:
        assert load(run, CONFIGURATIONS["plain"](), device="cpu").step == 18
    assert len(seen) == 1
    with pytest.warns(UserWarning, match=words):
        go(run)
    assert differences(picture(finished), picture(run)) == []


def test_unfinished_and_foreign_names_do_not_count(run):
    folder = run / "checkpoints"
    for name in (
        ".step_00000099.safetensors.x.part",
        "step_99.safetensors",
        "step_00000099.pt",
        "notes.txt",
    ):
        (folder / name).write_bytes(b"x")
    assert load(run, CONFIGURATIONS["plain"](), device="cpu").step == 24


def test_no_checkpoint_yet(run):
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    with pytest.raises(RecordError, match="no checkpoint yet"):
        load(run, CONFIGURATIONS["plain"](), device="cpu")
    with pytest.raises(RecordError, match=r"step_00000006.*does not exist"):
        load(run, CONFIGURATIONS["plain"](), device="cpu", step=6)
