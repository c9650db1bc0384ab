"""What a run directory holds is never lost: checkpoints, records, the code that made them."""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import CONFIGURATIONS, differences, picture, recipe
from torch import nn

from equilibrist import RecipeError, RecordError
from equilibrist.errors import UnwritableError
from equilibrist.optimizers import SGD, Adam
from equilibrist.run import checkpoint, ensemble, load, train
from equilibrist.run.record import Record
from equilibrist.solvers import Alternating, Simultaneous


def steps(directory: Path) -> list[int]:
    return [step for step, _ in checkpoint.existing(directory / "checkpoints")]


def status(directory: Path) -> Any:
    return json.loads((directory / "status.json").read_text())


def everything(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


# -- checkpoints -----------------------------------------------------------------------------------


def test_damaged_checkpoints_do_not_count_among_those_that_are_kept(
    tmp_path: Path, go: Any, stop_at: Any
) -> None:
    go(tmp_path)
    for step in (18, 24):
        damage(checkpoint.path_of(tmp_path / "checkpoints", step))
    stop_at(14)
    with pytest.warns(UserWarning, match="falling back to step_00000012"):
        run = go(tmp_path, keep=2)
    assert run.checkpoint == "step_00000014.safetensors"
    assert steps(tmp_path) == [12, 14, 18, 24]  # the damaged ones are not ours to delete
    with pytest.warns(UserWarning, match="falling back to step_00000014"):
        assert go(tmp_path, keep=2).step == 24
    assert steps(tmp_path) == [18, 24]


def test_a_directory_without_its_checkpoints_is_not_begun_anew(tmp_path: Path, go: Any) -> None:
    for stop in ("whole", "killed"):
        folder = tmp_path / stop
        go(folder)
        if stop == "killed":  # the state of a process that died while it trained
            running = {"state": "running", "step": 18, "checkpoint": "step_00000018.safetensors"}
            (folder / "status.json").write_text(json.dumps(running))
        shutil.move(folder / "checkpoints", tmp_path / f"{stop}-elsewhere")
        before = picture(folder)
        with pytest.raises(RecordError, match="its checkpoints are gone: put them back") as caught:
            go(folder)
        assert "\n" not in str(caught.value)
        assert differences(before, picture(folder)) == []
        (folder / "checkpoints").rmdir()
        shutil.move(tmp_path / f"{stop}-elsewhere", folder / "checkpoints")
        assert go(folder).step == 24


def test_newer_checkpoints_that_are_gone_are_told(tmp_path: Path, go: Any) -> None:
    go(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    checkpoint.path_of(tmp_path / "run" / "checkpoints", 24).unlink()
    with pytest.warns(
        UserWarning, match="step_00000024.safetensors is gone: going on from step 18"
    ):
        go(tmp_path / "run")
    assert differences(picture(tmp_path / "whole"), picture(tmp_path / "run")) == []


def test_an_ensemble_without_its_checkpoints_is_not_begun_anew(tmp_path: Path) -> None:
    made = recipe(Simultaneous(SGD(0.05)))
    ensemble(made, tmp_path, (0, 1), device="cpu", progress="none")
    for path in (tmp_path / "seed_1" / "checkpoints").glob("step_*"):
        path.unlink()
    before = picture(tmp_path)
    with (
        pytest.warns(UserWarning, match="share no checkpoint"),
        pytest.raises(RecordError, match="seed_1 was trained to step 24"),
    ):
        ensemble(recipe(Simultaneous(SGD(0.05)), steps=30), tmp_path, (0, 1), progress="none")
    assert differences(before, picture(tmp_path)) == []


# -- ensembles between their members' last files ---------------------------------------------------


@pytest.mark.parametrize("place", ["seed_1/checkpoints/", "seed_2/checkpoints/", "seed_1/status"])
def test_an_ensemble_that_dies_among_its_last_files_ends_as_any_other(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seeds = recipe(Alternating(1, Adam(1e-3))), (0, 1, 2)
    ensemble(made, tmp_path / "whole", seeds, device="cpu", progress="none")
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        last = "step_00000024" in str(target) or b'"finished"' in Path(source).read_bytes()
        if place in str(target) and last:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            ensemble(made, tmp_path / "cut", seeds, device="cpu", progress="none")
    found = ensemble(made, tmp_path / "cut", seeds, device="cpu", progress="none")
    assert [run.step for run in found.runs] == [24, 24, 24]
    for seed in seeds:
        a, b = (picture(tmp_path / kind / f"seed_{seed}") for kind in ("whole", "cut"))
        assert differences(a, b) == []
        assert status(tmp_path / "cut" / f"seed_{seed}")["state"] == "finished"


# -- a first start that fails ----------------------------------------------------------------------


def test_a_first_start_that_fails_blocks_nothing(tmp_path: Path) -> None:
    """Batch norm refuses batches of one sample, within the first step, by an error of torch's own."""
    for folder in ("new", "mine"):
        (tmp_path / folder).mkdir()
        wrong = recipe(Simultaneous(SGD(0.05)), norm=True, batch=1)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            train(wrong, tmp_path / folder, device="cpu", progress="none")
        assert [p.name for p in (tmp_path / folder).iterdir()] == [".lock"]
        right = recipe(Simultaneous(SGD(0.05)), norm=True)
        assert train(right, tmp_path / folder, device="cpu", progress="none").step == 24


def test_a_start_that_was_killed_before_its_first_step_blocks_nothing(
    tmp_path: Path, go: Any
) -> None:
    go(tmp_path / "r")
    for path in (
        *(tmp_path / "r" / "checkpoints").glob("step_*"),
        tmp_path / "r" / "metrics.jsonl",
    ):
        path.unlink()
    (tmp_path / "r" / "status.json").unlink()
    (tmp_path / "r" / "samples" / "notes.txt").write_text("mine")
    assert go(tmp_path / "r", batch=17).step == 24
    assert (tmp_path / "r" / "samples" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "content", ['{"cake": "two eggs"}', "two eggs", "[]", '{"format": 1, "cake": "two eggs"}']
)
def test_a_recipe_that_is_none_of_a_run_s_is_left_alone(
    content: str, tmp_path: Path, go: Any
) -> None:
    own = ["recipe.json", "environment.json", "status.json", "metrics.jsonl", "samples/real.png"]
    own += ["tensorboard/events.out.tfevents.1", "checkpoints/step_00000000.safetensors"]
    for name in own:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    before = everything(tmp_path)
    for _ in range(2):
        with pytest.raises(RecordError, match=r"recipe\.json.*: choose another folder") as caught:
            go(tmp_path)
        assert "\n" not in str(caught.value)
        assert everything(tmp_path) == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "running", "step": 3}'])
def test_a_record_whose_status_says_nothing_of_no_step_is_not_given_up(
    content: str, tmp_path: Path, go: Any
) -> None:
    go(tmp_path)
    for path in (*(tmp_path / "checkpoints").glob("step_*"), tmp_path / "metrics.jsonl"):
        path.unlink()
    (tmp_path / "status.json").write_text(content)
    before = everything(tmp_path)
    with pytest.raises(RecordError):
        go(tmp_path, batch=17)
    assert everything(tmp_path) == before


def test_what_a_failed_start_takes_back_is_its_own(tmp_path: Path, go: Any, at_step: Any) -> None:
    def fail() -> None:
        old = tmp_path / "tensorboard" / "events.out.tfevents.1"
        old.parent.mkdir()
        old.write_text("mine")
        os.utime(old, (1, 1))
        (tmp_path / "samples" / "step_00000012.png").write_text("mine")
        shutil.move(tmp_path / "checkpoints", tmp_path / "moved")
        (tmp_path / "moved" / "step_00000000.safetensors").write_text("mine")
        (tmp_path / "checkpoints").symlink_to(tmp_path / "moved")
        raise ValueError("boom")

    at_step({1: fail})
    with pytest.raises(ValueError, match="boom"):
        go(tmp_path)
    for name in (
        "tensorboard/events.out.tfevents.1",
        "samples/step_00000012.png",
        "moved/step_00000000.safetensors",
    ):
        assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "recipe.json").exists()


@pytest.mark.parametrize("name", ["samples", "checkpoints"])
def test_a_link_in_the_place_of_a_run_s_folder(name: str, tmp_path: Path, go: Any) -> None:
    """To a folder that the run has written it is followed, to anybody else's not."""
    run, moved, other = (tmp_path / place for place in ("run", "moved", "other"))
    go(run, steps=12)
    shutil.move(run / name, moved)
    shutil.copytree(moved, other)
    (other / ".equilibrist").unlink()
    (run / name).symlink_to(other)
    before = everything(other)
    with pytest.raises(RecordError, match=f"{name} is a link to .*, which holds other files"):
        go(run)
    assert everything(other) == before
    (run / name).unlink()
    (run / name).symlink_to(moved)
    assert go(run).step == 24
    assert any("00000024" in path.name for path in moved.iterdir())


def test_a_run_that_was_trained_is_never_given_up(tmp_path: Path, go: Any, at_step: Any) -> None:
    def fail() -> None:
        raise ValueError("boom")

    at_step({6: fail})
    with pytest.raises(ValueError, match="boom"):
        go(tmp_path)
    assert [row["step"] for row in Record(tmp_path).rows()] == [4]  # no checkpoint yet
    with pytest.raises(RecordError, match="another run"):
        go(tmp_path, batch=17)
    assert go(tmp_path).step == 24


def test_an_ensemble_that_fails_at_once_blocks_nothing(tmp_path: Path) -> None:
    wrong = recipe(Simultaneous(SGD(0.05)), norm=True, batch=1)
    with pytest.raises(Exception, match="more than 1 value per channel"):
        ensemble(wrong, tmp_path, (0, 1), device="cpu", progress="none")
    right = recipe(Simultaneous(SGD(0.05)), norm=True)
    found = ensemble(right, tmp_path, (0, 1), device="cpu", progress="none")
    assert [run.step for run in found.runs] == [24, 24]


# -- other code ------------------------------------------------------------------------------------

NETWORKS = """
from torch import nn, tanh, sin
SLOPE = 0.2

def squash(x):
    return tanh(x)

class Net(nn.Module):
    "A network."
    def __init__(self, a, b):
        super().__init__()
        self.first, self.last = nn.Linear(a, 8), nn.Linear(8, b)

    def forward(self, x):
        return self.last(SLOPE * squash(self.first(x)))
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user's, as it is after an edit."""
    (tmp_path / "code").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "code")

    def edited(old: str = "", new: str = "", **settings: Any) -> Any:
        text = NETWORKS.replace(old, new) if old else NETWORKS
        name = "networks_of_mine"
        (tmp_path / "code" / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        shutil.rmtree(tmp_path / "code" / "__pycache__", ignore_errors=True)
        importlib.invalidate_caches()
        net = importlib.import_module(name).Net
        return recipe(
            Simultaneous(SGD(0.05)),
            generator=lambda: net(4, 2),
            critic=lambda: net(2, 1),
            **settings,
        )

    yield edited
    sys.modules.pop("networks_of_mine", None)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("self.last(SLOPE *", "self.last(2 * SLOPE *", "Net"),
        ("return tanh(x)", "return sin(x)", "squash"),
        ("SLOPE = 0.2", "SLOPE = 0.3", "Net"),
    ],
)
def test_other_code_is_noticed_and_kept(
    old: str, new: str, name: str, networks: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(networks(), folder, device="cpu", progress="none")
    before = json.loads((folder / "recipe.json").read_text())
    with pytest.warns(UserWarning, match=f"was trained by other code: that of {name} has changed"):
        load(folder, networks(old, new), device="cpu")
    with pytest.warns(UserWarning, match=f"code of {name} has changed since step 24") as seen:
        train(networks(old, new, steps=30), folder, device="cpu", progress="none")
    assert len(seen) == 1
    after = json.loads((folder / "recipe.json").read_text())
    assert after["code"][name] != before["code"][name]
    kept = {"until_step": 24, "origin": before["origin"], "code": before["code"]}
    assert after["history"] == [kept]
    with pytest.warns(UserWarning, match="was trained by other code until step 24"):
        load(folder, networks(old, new, steps=30), device="cpu")
    train(
        networks(old, new, steps=36), folder, device="cpu", progress="none"
    )  # nothing more to say
    assert json.loads((folder / "recipe.json").read_text())["history"] == [kept]


def test_comments_and_layout_are_no_other_code(networks: Any, tmp_path: Path) -> None:
    train(networks(), tmp_path / "run", device="cpu", progress="none")
    other = networks('    "A network."', '    # of mine\n    """A network of mine."""\n', steps=30)
    train(other, tmp_path / "run", device="cpu", progress="none")
    assert "history" not in json.loads((tmp_path / "run" / "recipe.json").read_text())


def test_an_ensemble_notices_other_code(networks: Any, tmp_path: Path) -> None:
    ensemble(networks(), tmp_path / "run", (0, 1), device="cpu", progress="none")
    other = networks("tanh(x)", "sin(x)", steps=30)
    with pytest.warns(UserWarning, match="squash has changed since step 24") as seen:
        ensemble(other, tmp_path / "run", (0, 1), device="cpu", progress="none")
    assert len(seen) == 2
    manifest = json.loads((tmp_path / "run" / "seed_1" / "recipe.json").read_text())
    assert [entry["until_step"] for entry in manifest["history"]] == [24]


# -- a pair that is none any more ------------------------------------------------------------------


class Bounded(nn.Module):
    """A generator whose samples are bounded whatever its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(z))


def wild(lr: float) -> Any:
    return recipe(Alternating(1, Adam(lr)), generator=Bounded, spectral_norm=True)


@pytest.mark.filterwarnings("ignore:values of eight-gaussians run")
def test_a_run_whose_weights_have_left_all_proportion_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="weights have grown from .* this pair has diverged"):
        run = train(wild(1e9), tmp_path / "run", device="cpu", progress="none")
    assert run.step == 24
    assert "smaller step size" in run.diverged
    assert status(tmp_path / "run")["state"] == "diverged"
    assert status(tmp_path / "run")["message"] == run.diverged
    assert steps(tmp_path / "run")[-1] == 24
    with pytest.warns(UserWarning, match="this pair has diverged"):
        found = ensemble(wild(1e9), tmp_path / "many", (0, 1), device="cpu", progress="none")
    assert found.diverged == {0: 24, 1: 24}
    calm = train(wild(1e-2), tmp_path / "calm", device="cpu", progress="none")
    assert (calm.diverged, status(tmp_path / "calm")["state"]) == ("", "finished")


# -- values that cannot be -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, None, [0], float("nan")])
def test_a_seed_that_is_none(seed: Any, tmp_path: Path, go: Any) -> None:
    def many() -> Any:
        return ensemble(CONFIGURATIONS["plain"](), tmp_path / "b", (0, seed), progress="none")

    for call in (lambda: go(tmp_path / "a", seed=seed), many):
        with pytest.raises(RecipeError, match="it must be a whole number, 0 or larger") as caught:
            call()
        assert f"seed={seed!r}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [10**10, 10**15])
def test_a_batch_beyond_all_memory_is_refused_at_once(batch: int, tmp_path: Path, go: Any) -> None:
    with pytest.raises(RecipeError, match=f"batch={batch} needs at least .* GiB") as caught:
        go(tmp_path, batch=batch)
    assert "\n" not in str(caught.value)
    assert go(tmp_path).step == 24


# -- file systems of other kinds, and full disks ---------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_training_without_locks_says_so(
    number: int, tmp_path: Path, go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="a file system without locks"):
        assert go(tmp_path).step == 24


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path, go: Any) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(RecordError, match="cannot be written"):
        go(tmp_path / "run")
    assert not (tmp_path / "made").exists()


def test_sheets_behind_a_link_are_not_deleted(tmp_path: Path, go: Any) -> None:
    go(tmp_path / "run", steps=12)
    shutil.move(tmp_path / "run" / "samples", tmp_path / "pictures")
    (tmp_path / "run" / "samples").symlink_to(tmp_path / "pictures")
    (tmp_path / "pictures" / "step_00000099.npy").write_bytes(b"mine")
    assert go(tmp_path / "run").step == 24
    assert (tmp_path / "pictures" / "step_00000099.npy").read_bytes() == b"mine"
    assert (tmp_path / "pictures" / "step_00000024.npy").exists()


@pytest.mark.parametrize(
    "what", ["metrics.jsonl", "step_00000006.safetensors", "step_00000008.npy"]
)
def test_a_full_disk_names_the_file_and_the_run_goes_on_later(
    what: str, tmp_path: Path, go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, row = os.fsync, Record.log

    def fsync(handle: int) -> None:
        if what in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(Record, "log", lambda record, values: row(record, values))
        with pytest.raises(UnwritableError, match="No space left on device") as caught:
            go(tmp_path / "run")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    go(tmp_path / "whole")
    assert go(tmp_path / "run").step == 24
    assert differences(picture(tmp_path / "whole"), picture(tmp_path / "run")) == []
