"""The run directory: who may write to it, what goes on and what is refused, what it says."""

import json
import os
from pathlib import Path

import pytest
import torch
from killing import CONFIGURATIONS, differences, picture, recipe

from equilibrist import RecipeError, RecordError
from equilibrist.files.atomic import PART
from equilibrist.optimizers import SGD
from equilibrist.run import environment, load, train
from equilibrist.run.record import Record
from equilibrist.solvers import Simultaneous


def refused(call, *words: str) -> str:
    with pytest.raises(RecordError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def manifest(directory: Path):
    return json.loads((directory / "recipe.json").read_text())


def sessions(directory: Path):
    return json.loads((directory / "environment.json").read_text())


def everything(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()
    }


# -- one writer --------------------------------------------------------------------------------------


def test_one_writer_at_a_time(tmp_path, go, at_step):
    seen = []
    at_step(
        {3: lambda: seen.append(refused(lambda: go(tmp_path), str(tmp_path), "another process"))}
    )
    go(tmp_path)
    assert len(seen) == 1
    with Record(tmp_path).lock():
        before = everything(tmp_path)
        refused(lambda: go(tmp_path, steps=30), "another process")
        assert everything(tmp_path) == before
    assert go(tmp_path).step == 24


def test_reading_needs_no_lock(tmp_path, go):
    go(tmp_path)
    with Record(tmp_path).lock():
        assert load(tmp_path, CONFIGURATIONS["plain"](), device="cpu").step == 24


# -- going on ------------------------------------------------------------------------------------------


def named(directory, settings=None, seed=0, name="mine", **k):
    return train(
        CONFIGURATIONS["plain"](**k),
        directory,
        name=name,
        settings=settings,
        seed=seed,
        device="cpu",
        progress="none",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"dim": 5, "lr": 0.1}}, ("settings dim is 4, not 5",)),
        ({"settings": {"dim": 4, "lr": 0.2}}, ("settings lr is 0.1, not 0.2",)),
        ({"settings": {"dim": 4}}, ("settings lr is 0.1, not null",)),
        ({"seed": 3}, ("seed is 0, not 3",)),
        ({"name": "yours"}, ('recipe is "mine", not "yours"',)),
        ({"batch": 17}, ("batch", "16", "17")),
        ({"dtype": torch.float64}, ('dtype is "float32", not "float64"',)),
    ],
)
def test_another_run_is_refused(change, words, tmp_path):
    same = {"settings": {"dim": 4, "lr": 0.1}}
    if change.get("dtype"):  # `plain` fixes everything else
        named(tmp_path, **same)
        other = recipe(Simultaneous(SGD(0.05)), dtype=torch.float64)
        refused(
            lambda: train(other, tmp_path, name="mine", **same, device="cpu", progress="none"),
            *words,
        )
        return
    named(tmp_path, **same)
    before = everything(tmp_path)
    refused(
        lambda: named(tmp_path, **{**same, **change}), str(tmp_path), "holds another run", *words
    )
    assert everything(tmp_path) == before
    named(tmp_path, **same)


def test_a_setting_that_was_not_there(tmp_path):
    named(tmp_path, {"dim": 4})
    refused(lambda: named(tmp_path, {"dim": 4, "label": None}), "label")


def test_more_steps_by_a_setting(tmp_path):
    """As the command does it: --set steps=... is one of the settings."""
    assert named(tmp_path, {"steps": 8}, steps=8).step == 8
    assert named(tmp_path, {"steps": 16}, steps=16).step == 16
    assert manifest(tmp_path)["settings"] == {"steps": 16}


def test_fewer_steps_than_done(tmp_path, go):
    go(tmp_path)
    refused(lambda: go(tmp_path, steps=12), "24", "12")
    assert go(tmp_path).step == 24


def test_what_is_refused_changes_nothing(tmp_path, go):
    go(tmp_path)
    before = picture(tmp_path)
    refused(lambda: go(tmp_path, steps=12), "24", "12")
    assert differences(before, picture(tmp_path)) == []


def test_recipe_json(tmp_path, go):
    go(tmp_path, "spectral norm, Adam", seed=7)
    held = manifest(tmp_path)
    assert held["format"] == 1
    assert (held["seed"], held["steps"], held["dtype"], held["device"]) == (7, 24, "float32", "cpu")
    assert held["origin"] == {"kind": "python"}
    assert held["description"]["game"]["spectral_norm"] is True
    assert held["description"]["game"]["players"]["critic"]["parameters"] == 2 * 12 + 12 + 12 + 1
    assert held["description"]["data"]["kind"] == "points"
    assert "Adam(lr=0.01" in held["description"]["solver"]["text"]


def test_files_of_a_run(tmp_path, go):
    go(tmp_path, "images, spectral norm")
    names = {n for n in picture(tmp_path) if not n.startswith("checkpoints")}
    assert names == {
        "recipe.json",
        "metrics.jsonl",
        "status.json",
        "samples/.equilibrist",
        "samples/real.png",
        "samples/step_00000000.png",
        "samples/step_00000008.png",
        "samples/step_00000016.png",
        "samples/step_00000024.png",
    }
    steps = [int(p.stem[5:]) for p in sorted((tmp_path / "checkpoints").glob("step_*"))]
    assert steps == [12, 18, 24]
    assert [row["step"] for row in Record(tmp_path).rows()] == [4, 8, 12, 16, 20, 24]
    assert all(
        set(row) == {"step", "seconds", "loss", "grad_norm"} for row in Record(tmp_path).rows()
    )


@pytest.mark.parametrize("made", [[], ["checkpoints"], ["checkpoints", "samples"]])
def test_a_process_killed_before_the_folders_were_marked_leaves_no_trace(made, tmp_path, go):
    """Killed after recipe.json and some folders, or inside of the writing of a mark."""
    go(tmp_path / "undisturbed")
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "recipe.json").write_bytes((tmp_path / "undisturbed/recipe.json").read_bytes())
    for name in made:
        (killed / name).mkdir()
        (killed / name / ".abc.equilibrist.part").write_bytes(b"{")
    go(killed)
    undisturbed = set(picture(tmp_path / "undisturbed"))
    assert {"checkpoints/.equilibrist", "samples/.equilibrist"} <= undisturbed
    assert set(picture(killed)) == undisturbed


def test_defaults_of_the_records(tmp_path, go):
    go(tmp_path, steps=400, every=(0, 0, 0))
    assert [row["step"] for row in Record(tmp_path).rows()] == list(range(2, 401, 2))
    assert len(list((tmp_path / "samples").glob("step_*"))) == 9
    assert sorted(int(p.stem[5:]) for p in (tmp_path / "checkpoints").glob("step_*")) == [
        360,
        380,
        400,
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": -1},
        {"batch": 0},
        {"keep": 0},
        {"every": (-1, 1, 1)},
        {"every": (1, 1, -2)},
    ],
)
def test_recipes_that_cannot_be(wrong):
    with pytest.raises(RecipeError, match="in the recipe: it must"):
        CONFIGURATIONS["plain"](**wrong)


# -- other folders -------------------------------------------------------------------------------------


def test_foreign_folder(tmp_path, go):
    (tmp_path / "thesis.tex").write_text("all my work")
    refused(lambda: go(tmp_path), str(tmp_path), "holds other files")
    assert (tmp_path / "thesis.tex").read_text() == "all my work"
    assert not (tmp_path / "recipe.json").exists()


def test_foreign_folder_is_left_as_it_was(tmp_path, go):
    (tmp_path / "thesis.tex").write_text("all my work")
    refused(lambda: go(tmp_path), str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_empty_folder_and_missing_parents(tmp_path, go):
    (tmp_path / "empty").mkdir()
    assert go(tmp_path / "empty").step == 24
    assert go(tmp_path / "a" / "b" / "c").step == 24


def test_file_in_place_of_the_folder(tmp_path, go):
    (tmp_path / "file").write_text("x")
    refused(lambda: go(tmp_path / "file"), str(tmp_path / "file"), "is a file")
    refused(lambda: go(tmp_path / "file" / "below"), str(tmp_path / "file"))
    refused(lambda: load(tmp_path / "file", CONFIGURATIONS["plain"]()), "is a file")
    assert (tmp_path / "file").read_text() == "x"


def test_folder_that_cannot_be_made(go):
    refused(lambda: go(Path("/proc/nowhere")), "/proc/nowhere", "cannot be written")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path, go):
    tmp_path.chmod(0o555)
    try:
        refused(lambda: go(tmp_path), str(tmp_path), "cannot be written")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"format": 2}', "\0\0", '{"format": 1'])
def test_recipe_json_is_damaged(content, tmp_path, go):
    go(tmp_path)
    (tmp_path / "recipe.json").write_text(content)
    refused(lambda: go(tmp_path), "recipe.json")
    refused(lambda: load(tmp_path, CONFIGURATIONS["plain"]()), "recipe.json")
    assert (tmp_path / "recipe.json").read_text() == content


def test_metrics_are_damaged(tmp_path, go):
    go(tmp_path)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    refused(lambda: go(tmp_path, steps=30), "metrics.jsonl", "line 2")
    path.write_text("\n".join(lines) + "\n" + lines[-1][:9])  # cut short by a crash: forgotten
    go(tmp_path)
    assert path.read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", "{}\n"),
        ("metrics.jsonl", "3\n"),
        ("environment.json", "{}"),
        ("environment.json", "[{}]"),
        ("environment.json", '"x"'),
    ],
)
def test_files_of_another_form(name, content, tmp_path, go):
    go(tmp_path)
    (tmp_path / name).write_text(content)
    refused(lambda: go(tmp_path, steps=30), name)


def test_environment_is_damaged(tmp_path, go):
    go(tmp_path)
    (tmp_path / "environment.json").write_text("[{")
    refused(lambda: go(tmp_path), "environment.json", "remove it")
    (tmp_path / "environment.json").unlink()
    go(tmp_path)
    assert len(sessions(tmp_path)) == 1


def test_leftovers_are_removed(tmp_path, go):
    go(tmp_path)
    parts = [
        tmp_path / f".recipe.json.abc{PART}",
        tmp_path / "checkpoints" / f".step_00000030.safetensors.x{PART}",
        tmp_path / "samples" / f".step_00000030.npy.y{PART}",
    ]
    for part in parts:
        part.write_bytes(b"half")
    (tmp_path / "notes.part").write_text("a user's own")
    (tmp_path / ".notes.part").write_text("a user's own")
    go(tmp_path)
    assert [p.exists() for p in parts] == [False] * 3
    assert (tmp_path / "notes.part").exists()
    assert (tmp_path / ".notes.part").exists()


# -- sessions ------------------------------------------------------------------------------------------


def test_one_entry_a_session(tmp_path, go, stop_at):
    stop_at(5, 15)
    for count, since in enumerate((0, 5, 15, 24), 1):
        go(tmp_path)
        entries = sessions(tmp_path)
        assert len(entries) == count
        assert entries[-1]["from_step"] == since
    entry = entries[0]
    assert entry["versions"]["torch"] == torch.__version__
    assert entry["threads"] == torch.get_num_threads()
    assert set(entry) == {
        "started",
        "from_step",
        "command",
        "versions",
        "machine",
        "threads",
        "git",
        "steps",
    }


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("torch", "1.0", "torch: .*, now 1.0"),
        ("threads", 99, "threads: .*, now 99"),
        ("processor", "abacus", "processor: .*, now abacus"),
        ("device", "A100", "device: cpu, now A100"),
    ],
)
def test_another_environment(key, value, words, tmp_path, go, monkeypatch):
    go(tmp_path, steps=8)
    real = environment.environment

    def changed(*a, **k):
        entry = real(*a, **k)
        place = {"torch": entry["versions"], "threads": entry}.get(key, entry["machine"])
        assert key in place
        place[key] = value
        return entry

    monkeypatch.setattr(environment, "environment", changed)
    with pytest.warns(UserWarning, match=f"different environment .*{words}.*bit-identical") as seen:
        assert go(tmp_path).step == 24
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)


def test_status_of_a_run_that_goes_on(tmp_path, go, at_step):
    seen = []
    at_step({7: lambda: seen.append(json.loads((tmp_path / "status.json").read_text()))})
    go(tmp_path)
    newest = {"checkpoint": "step_00000006.safetensors"}
    assert seen == [{"state": "running", "step": 6, "message": "", **newest}]
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "state": "finished",
        "step": 24,
        "message": "",
        "checkpoint": "step_00000024.safetensors",
    }
