"""A process that is killed at any moment loses nothing that its last checkpoint held."""

import random
import signal

import pytest
from killing import PHASES, Sabotage, differences, picture, session, torture, undisturbed, unsound

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return undisturbed("spectral norm, Adam", tmp_path_factory.mktemp("undisturbed") / "run")[0]


def resumed(name, directory, reference):
    assert unsound(directory) == []
    assert session(name, directory) == 0
    assert list(directory.rglob("*.part")) == []
    return differences(reference, picture(directory))


@pytest.mark.parametrize("phase", PHASES)
def test_killed_while_a_checkpoint_is_written(phase, reference, tmp_path):
    directory = tmp_path / "run"
    code = session("spectral norm, Adam", directory, sabotage=Sabotage(phase, count=2))
    assert code == -signal.SIGKILL
    names = sorted(p.name for p in (directory / "checkpoints").glob("*step_*"))
    sound = ["step_00000006.safetensors"] + ["step_00000012.safetensors"] * (phase == "renamed")
    assert [n for n in names if not n.endswith(".part")] == sound
    assert any(n.endswith(".part") for n in names) == (phase not in ("settled", "renamed"))
    assert resumed("spectral norm, Adam", directory, reference) == []


@pytest.mark.parametrize(
    "target",
    [
        "recipe.json",
        "status.json",
        "environment.json",
        "real.npy",
        "step_00000008.npy",
    ],
)
def test_killed_while_another_file_is_written(target, reference, tmp_path):
    directory = tmp_path / "run"
    code = session("spectral norm, Adam", directory, sabotage=Sabotage("half", target))
    assert code == -signal.SIGKILL
    assert list(directory.rglob("*.part"))
    assert resumed("spectral norm, Adam", directory, reference) == []


@pytest.mark.parametrize("phase", ["half", "renamed"])
def test_killed_while_metrics_are_rewound(phase, reference, tmp_path):
    directory = tmp_path / "run"
    assert (
        session("spectral norm, Adam", directory, sabotage=Sabotage("begun", count=3))
        == -signal.SIGKILL
    )
    for _ in range(2):  # and again at the first thing that a resumed session does to them
        sabotage = Sabotage(phase, "metrics.jsonl")
        assert session("spectral norm, Adam", directory, sabotage=sabotage) == -signal.SIGKILL
    assert resumed("spectral norm, Adam", directory, reference) == []


@pytest.mark.parametrize("name", ["plain", "momentum, batch norm"])
def test_killed_at_random_moments(name, tmp_path):
    settings = {"steps": 90, "every": (3, 15, 5)}
    reference, seconds = undisturbed(name, tmp_path / "undisturbed", settings)
    rng = random.Random(0)
    kills = 0
    for attempt in range(20):
        tally = torture(
            name,
            tmp_path / f"run-{attempt}",
            reference,
            rng,
            0.7 * seconds,
            settings,
            most=6 - kills,
            phases=0.2,
        )
        assert tally.problems == []
        kills += tally.kills
        if kills >= 6:
            break
        if tally.kills == 0:  # the machine is less busy than it was: strike sooner
            seconds *= 0.7
    assert kills >= 6


def test_the_comparison_notices_what_was_lost(tmp_path):
    """That of a run whose metrics lost a row, and of a checkpoint of another run."""
    reference, _ = undisturbed("plain", tmp_path / "a")
    metrics = tmp_path / "a" / "metrics.jsonl"
    rows = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(rows[:2] + rows[3:]))
    assert unsound(tmp_path / "a") == [
        "step_00000012.safetensors: metrics.jsonl lacks rows before it"
    ]
    assert session("plain", tmp_path / "a") == 0  # a finished run: nothing is trained again
    assert differences(reference, picture(tmp_path / "a")) == ["metrics.jsonl differs"]
