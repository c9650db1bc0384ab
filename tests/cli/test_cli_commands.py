"""Every command does what its help says."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from equilibrist import resolve
from equilibrist.checks import CHECKS
from equilibrist.core.draws import Batches
from equilibrist.run import load

DIGITS = ["--set", "steps=4", "--set", "dim=4", "--set", "latent=4", "--set", "batch=16"]
POINTS = [
    "--set",
    "steps=4",
    "--set",
    "width=4",
    "--set",
    "depth=1",
    "--set",
    "latent=2",
    "--set",
    "batch=16",
]
AUDIT = [
    "--set",
    "steps=4",
    "--set",
    "starts=2",
    "--set",
    "groups=3",
    "--set",
    "group_batches=2",
    "--set",
    "looks=2",
    "--set",
    "batches=4",
    "--set",
    "look_batches=2",
    "--progress",
    "none",
]
QUIET = ["--progress", "none"]
CLAIMS = [
    "self-tests",
    "stationary/generator",
    "stationary/critic",
    "stationary",
    "stable",
    "local-nash/generator",
    "local-nash/critic",
    "local-nash",
    "local-minimax",
    "proximal",
    "nash/generator",
    "nash/critic",
    "nash",
]


def subject(directory: Path):
    held = json.loads((directory / "recipe.json").read_text())
    return load(directory, resolve(held["recipe"], held["settings"]).build(), device="cpu")


def with_verdict(directory: Path, monkeypatch, **verdicts: str) -> None:
    """Makes the next audits answer so."""
    from equilibrist import checks

    real = checks.audit

    def audit(run, **k):
        from dataclasses import replace

        answer = real(run, **k)
        made = tuple(
            replace(c, verdict=checks.Verdict(verdicts.get(c.claim.replace("/", "_"), c.verdict)))
            for c in answer.certificates
        )
        return replace(answer, certificates=made)

    monkeypatch.setattr(checks, "audit", audit)


# -- run -----------------------------------------------------------------------------------------------


def test_run(here, well):
    answer = well("run", "eight-gaussians", *POINTS, *QUIET)
    directory = here / "runs" / "eight-gaussians"
    assert answer.out.splitlines() == [
        "Trained to step 4 in runs/eight-gaussians",
        "Report: runs/eight-gaussians/report.html",
        "Next: equilibrist audit runs/eight-gaussians",
    ]
    held = json.loads((directory / "recipe.json").read_text())
    assert held["recipe"] == "eight-gaussians"
    assert held["origin"] == {"kind": "builtin"}
    assert held["settings"]["width"] == 4
    assert held["settings"]["lr"] == 1e-4
    assert "<html" in (directory / "report.html").read_text()
    assert "Trained to step 4" in well("run", "eight-gaussians", *POINTS, *QUIET).out
    assert len(json.loads((directory / "environment.json").read_text())) == 2


def test_run_with_seed_dir_threads_and_audit(tmp_path, well):
    before = torch.get_num_threads()
    try:
        answer = well(
            "run",
            "eight-gaussians",
            *POINTS,
            *QUIET,
            "--seed",
            5,
            "--dir",
            tmp_path / "a" / "b",
            "--threads",
            1,
            "--device",
            "cpu",
            "--tensorboard",
        )
    finally:
        torch.set_num_threads(before)
    assert "Next:" in answer.out
    assert json.loads((tmp_path / "a" / "b" / "recipe.json").read_text())["seed"] == 5
    assert list((tmp_path / "a" / "b" / "tensorboard").iterdir())


def test_run_with_audit(tmp_path, well, monkeypatch):
    from equilibrist import checks

    seen = []

    def answer(run, **k):
        seen.append((run.step, k))
        return SimpleNamespace(details="as it is")

    monkeypatch.setattr(checks, "audit", answer)
    answer = well("run", "eight-gaussians", *POINTS, *QUIET, "--dir", tmp_path / "r", "--audit")
    given = {"checks": CHECKS, "progress": "none", "iterate": "auto", "gradients": None}
    assert seen == [(4, given)]
    assert "as it is" in answer.out
    assert "Next:" not in answer.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number, tmp_path, cli, monkeypatch):
    real = Batches.at

    def at(batches, step):
        if step == 1:
            signal.raise_signal(number)
        return real(batches, step)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "at", at)
        answer = cli("run", "eight-gaussians", *POINTS, *QUIET, "--dir", tmp_path / "r")
    assert (answer.code, answer.err) == (130, "")
    assert "Stopped and saved at step 2. Run the same command again to go on." in answer.out
    assert (tmp_path / "r" / "checkpoints" / "step_00000002.safetensors").exists()
    assert (tmp_path / "r" / "report.html").exists()
    again = cli("run", "eight-gaussians", *POINTS, *QUIET, "--dir", tmp_path / "r")
    assert (again.code, again.err) == (0, "")


def test_interrupted_twice(tmp_path, cli, monkeypatch):
    def at(batches, step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Batches, "at", at)
    answer = cli("run", "eight-gaussians", *POINTS, *QUIET, "--dir", tmp_path / "r")
    assert answer.code == 130
    assert answer.err == (
        f"equilibrist: error: interrupted at once; {tmp_path / 'r'} goes on from its last checkpoint "
        "when it is run again\n"
    )


def test_diverged(tmp_path, cli):
    words = ["run", "eight-gaussians", *POINTS, "--set", "lr=1e30", *QUIET, "--dir", tmp_path / "r"]
    first, second = cli(*words), cli(*words)
    assert first.code == second.code == 4
    assert first.err == second.err
    assert len(first.err.splitlines()) == 1
    assert "not finite" in first.err
    status = json.loads((tmp_path / "r" / "status.json").read_text())
    assert status["state"] == "diverged"
    assert status["message"] in first.err


def test_a_guard_says_what_it_changes(tmp_path, cli):
    words = ["run", "eight-gaussians", *POINTS, "--set", "lr=1e30", *QUIET, "--dir", tmp_path / "r"]
    answer = cli(*words, "--guard")
    assert answer.code == 4  # a thirtieth of 1e30 is no better
    *changes, last = answer.err.splitlines()
    assert len(changes) == 5
    assert "with 0.5 of the step sizes" in changes[0]
    assert "with 0.03125 of the step sizes" in changes[4]
    assert "not finite" in last
    assert len(json.loads((tmp_path / "r" / "guard.json").read_text())) == 5


def test_more_steps(tmp_path, cli):
    where = ["--dir", tmp_path / "r", *QUIET]
    assert cli("run", "eight-gaussians", *POINTS, *where).code == 0
    answer = cli("run", "eight-gaussians", "--set", "steps=8", *POINTS[2:], *where)
    assert (answer.code, answer.err) == (0, "")


# -- audit -----------------------------------------------------------------------------------------------


def test_audit(points, well):
    answer = well("audit", points, *AUDIT)
    lines = answer.out.splitlines()
    assert lines[0]  # where the pair stands comes first
    rows = [line.split()[0] for line in lines if line.partition(" ")[0] in CLAIMS]
    assert rows == CLAIMS
    assert lines[-1].startswith("Report:")
    held = json.loads((points / "audit" / "audit.json").read_text())
    assert held["step"] == 4
    assert held["settings"]["starts"] == 2
    shown = [line.split()[:2] for line in lines if " " in line]
    assert all([row["claim"], row["verdict"]] in shown for row in held["certificates"])
    assert held["checkpoint"] == "step_00000004.safetensors"


def test_audit_of_one_check_and_an_older_step(points, well):
    well("audit", points, *AUDIT, "--check", "stationary", "--step", 3)
    held = json.loads((points / "audit" / "audit.json").read_text())
    assert held["step"] == 3
    assert [row["claim"] for row in held["certificates"]] == CLAIMS[1:4]


@pytest.mark.parametrize(
    ("verdict", "claim", "code"),
    [
        ("VERIFIED", "nash", 0),
        ("NOT_REFUTED", "nash", 0),
        ("REFUTED", "nash", 5),
        ("UNASSESSED", "nash", 5),
        ("VERIFIED", "nash=verified", 0),
        ("NOT_REFUTED", "nash=verified", 5),
        ("REFUTED", "nash=verified", 5),
    ],
)
def test_require(verdict, claim, code, points, cli, monkeypatch):
    with_verdict(points, monkeypatch, nash=verdict)
    answer = cli("audit", points, *AUDIT, "--check", "nash", "--require", claim)
    assert answer.code == code
    if code:
        assert answer.err.startswith(f"equilibrist: error: nash is {verdict}: ")
        assert len(answer.err.splitlines()) == 1
    assert (points / "audit" / "audit.json").exists()


def test_require_several(points, cli, monkeypatch):
    with_verdict(points, monkeypatch, nash="REFUTED", nash_critic="NOT_REFUTED")
    words = ["audit", points, *AUDIT, "--check", "nash"]
    assert cli(*words, "--require", "nash/critic").code == 0
    answer = cli(*words, "--require", "nash/critic", "--require", "nash")
    assert answer.code == 5
    assert "nash is REFUTED" in answer.err


def test_require_a_claim_that_the_audit_lacks(points, cli):
    """Refused before the audit is paid for."""
    before = (points / "audit" / "audit.json").read_bytes()
    answer = cli("audit", points, *AUDIT, "--check", "stationary", "--require", "nash")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "equilibrist: error: --require nash: there is no such claim; choose from stationary, "
        "stationary/generator, stationary/critic\n"
    )
    assert (points / "audit" / "audit.json").read_bytes() == before


# -- report, sample, export --------------------------------------------------------------------------------


def test_report(points, well):
    (points / "report.html").unlink()
    lines = well("report", points).out.splitlines()
    assert lines[-1] == f"Report: {points / 'report.html'}"
    assert all(line.startswith(("fault: ", "warning: ")) for line in lines[:-1])  # what was found
    assert (points / "report.html").exists()
    assert json.loads((points / "report.json").read_text())["last_step"] == 4


def test_sample_array(points, well, tmp_path):
    out = tmp_path / "a.npy"
    assert well("sample", points, "-n", 7, "--out", out).out == f"7 samples of shape [2]: {out}\n"
    values = np.load(out)
    assert values.dtype == np.float32
    assert np.array_equal(values, subject(points).samples(7).numpy())
    first = out.read_bytes()
    well("sample", points, "-n", 7, "--out", out)
    assert out.read_bytes() == first
    well("sample", points, "-n", 7, "--out", out, "--index", 1)
    assert out.read_bytes() != first
    well("sample", points, "-n", 7, "--out", out, "--step", 3)
    assert np.array_equal(
        np.load(out), load(points, subject(points).recipe, step=3, device="cpu").samples(7)
    )


def test_sample_default_name(points, well, here):
    well("sample", points)
    assert np.load(here / "samples.npy").shape == (64, 2)


def test_sample_sheet(digits, well, tmp_path):
    from PIL import Image

    well("sample", digits, "-n", 9, "-o", tmp_path / "a.b.png")
    with Image.open(tmp_path / "a.b.png") as picture:
        assert picture.mode == "L"
    well("sample", digits, "-o", tmp_path / "a.npy")
    assert np.load(tmp_path / "a.npy").shape == (64, 1, 8, 8)


def test_export(digits, well, tmp_path):
    answer = well("export", digits, "--out", tmp_path / "weights")
    assert answer.out.splitlines() == [
        str(tmp_path / "weights" / f"{player}.safetensors") for player in ("generator", "critic")
    ]
    run = subject(digits)
    from equilibrist.networks import DigitsCritic, DigitsGenerator

    generator, critic = DigitsGenerator(4, 4), DigitsCritic(4)
    generator.load_state_dict(load_file(tmp_path / "weights" / "generator.safetensors"))
    critic.load_state_dict(load_file(tmp_path / "weights" / "critic.safetensors"))
    latent = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    game = run.recipe.game
    fake = game.generate(run.players, run.constants, latent)
    with torch.no_grad():
        assert torch.equal(generator(latent), fake)
        exact = game.refresh(run.players, run.constants, {}, exact=True)
        scores = game.critic(run.players, exact)(fake)
        assert torch.equal(critic(fake).flatten(), scores)
        for name in game.normalised:
            matrix = critic.state_dict()[name].double().flatten(1)
            assert torch.linalg.matrix_norm(matrix, 2) == pytest.approx(1.0, abs=1e-6)
        # Spectral normalisation is in them: the raw weights give other scores.
        raw = DigitsCritic(4)
        raw.load_state_dict({**critic.state_dict(), **run.players["critic"]})
        assert not torch.allclose(raw(fake).flatten(), scores)


def test_export_default_folder_and_step(points, well):
    well("export", points)
    newest = load_file(points / "export" / "generator.safetensors")
    well("export", points, "--step", 3)
    older = load_file(points / "export" / "generator.safetensors")
    assert newest.keys() == older.keys()
    assert any(not torch.equal(newest[k], older[k]) for k in newest)


# -- list, info ----------------------------------------------------------------------------------------


def test_list(well):
    rows = json.loads(well("list", "--json").out)
    assert {"digits-sngan", "eight-gaussians", "mnist-sngan"} <= rows.keys()
    lines = well("list").out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == list(rows)
    assert all(rows.values())


def test_info_of_a_recipe(well):
    held = json.loads(well("info", "eight-gaussians", "--json").out)
    assert held["recipe"] == "eight-gaussians"
    assert held["settings"]["method"] == "alternating"
    text = well("info", "eight-gaussians").out
    for word in (*held["settings"], "simultaneous | alternating", "int", "float"):
        assert word in text


def test_info_of_a_run(points, well, here):
    held = json.loads(well("info", points, "--json").out)
    assert held["settings"]["width"] == 4
    assert held["status"]["state"] == "finished"
    assert list(held["audit"]) == CLAIMS
    text = well("info", points).out
    for word in ("finished at step 4 of 4", "MixtureGenerator", "eight Gaussians", "nash/critic: "):
        assert word in text
    well("run", "eight-gaussians", *POINTS, *QUIET, "--dir", here / "fresh")
    assert (
        f"not audited yet: equilibrist audit {here / 'fresh'}" in well("info", here / "fresh").out
    )


# -- a recipe in a file --------------------------------------------------------------------------------

FILE = """
from pathlib import Path
Path(__file__).with_name("executed").touch()
from equilibrist_recipes.mixtures import eight_gaussians

def mine(steps: int = 4, width: int = 4):
    \"\"\"My own.\"\"\"
    return eight_gaussians(steps, width=width, depth=1, latent=2, batch=16)
"""


@pytest.fixture
def own(here, well):
    (here / "own.py").write_text(FILE)
    well("run", "own.py:mine", *QUIET)
    (here / "executed").unlink()
    return here / "runs" / "own-mine"


def test_own_recipe(own, here, well):
    held = json.loads((own / "recipe.json").read_text())
    assert held["recipe"] == "own.py:mine"
    assert held["origin"]["kind"] == "file"
    assert "My own." in well("info", "own.py:mine").out


@pytest.mark.parametrize("command", [["audit"], ["sample"], ["export"]])
def test_own_recipe_is_not_executed_unasked(command, own, here, cli):
    answer = cli(*command, own)
    assert answer.code == 3
    assert answer.err == (
        f"equilibrist: error: {own} was made by code of your own, which is not run unasked: "
        "add --recipe own.py:mine\n"
    )
    assert not (here / "executed").exists()


@pytest.mark.parametrize("command", [["report"], ["info"], ["info", "--json"]])
def test_commands_that_need_no_code(command, own, here, well):
    well(*command, own)
    assert not (here / "executed").exists()


def test_own_recipe_named(own, here, well, cli):
    well("audit", own, *AUDIT, "--recipe", "own.py:mine")
    assert (here / "executed").exists()
    well("sample", own, "--recipe", "own.py:mine")
    well("export", own, "--recipe", "own.py:mine")
    (here / "own.py").write_text(FILE + "\n# another comment\n")
    answer = cli("sample", own, "--recipe", "own.py:mine")
    assert answer.code == 0
    assert answer.err == f"equilibrist: warning: own.py:mine has changed since {own} was trained\n"


def test_builtin_name_in_the_record_of_a_file_is_not_trusted(own, here, cli):
    """A record that names code is only a text."""
    held = json.loads((own / "recipe.json").read_text())
    held["recipe"] = str(here / "own.py") + ":mine"
    held["origin"] = {"kind": "builtin"}
    (own / "recipe.json").write_text(json.dumps(held))
    answer = cli("sample", own)
    assert not (here / "executed").exists()
    assert answer.code in (2, 3)


# -- the installed command -----------------------------------------------------------------------------


def test_as_a_program(tmp_path):
    def program(*words):
        code = (
            "import sys; from equilibrist.cli import script; sys.argv[0] = 'equilibrist'; script()"
        )
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = program("run", "eight-gaussians", *POINTS, "--dir", tmp_path / "r")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"Trained to step 4 in {tmp_path / 'r'}"
    assert "Eight Gaussians 4/4" in done.stderr
    bad = program("run", "eight-gaussian")
    assert bad.returncode == 2
    assert bad.stderr.startswith(
        "equilibrist: error: there is no recipe 'eight-gaussian' (did you mean"
    )
    assert len(bad.stderr.splitlines()) == 1


def test_a_reader_that_leaves(tmp_path):
    code = "from equilibrist.cli import script; import sys; sys.argv[1:] = ['list']; script()"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" | true',
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
