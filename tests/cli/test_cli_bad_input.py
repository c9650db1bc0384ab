"""Bad input: one line on stderr that names the culprit, the documented exit code, no traceback."""

import json
import os
import shutil
from pathlib import Path

import pytest

DIGITS = ["steps=4", "dim=4", "latent=4", "batch=16"]
POINTS = ["steps=4", "width=4", "depth=1", "latent=2", "batch=16"]
AUDIT = [
    "steps=4",
    "starts=2",
    "groups=3",
    "group_batches=2",
    "looks=2",
    "batches=4",
    "look_batches=2",
]


def words_of(*texts: str) -> list[str]:
    return [word for text in texts for word in text.split()]


def sets(pairs, *changes):
    chosen = {pair.partition("=")[0]: pair for pair in (*pairs, *changes)}
    return [word for pair in chosen.values() for word in ("--set", pair)]


def run_points(*changes, more=""):
    return [
        "run",
        "eight-gaussians",
        *sets(POINTS, *changes),
        *words_of("--progress none --dir new", more),
    ]


def run_digits(*changes, recipe="digits-sngan", more=""):
    return ["run", recipe, *sets(DIGITS, *changes), *words_of("--progress none --dir new", more)]


def audit(*changes, more=""):
    return ["audit", "points", *sets(AUDIT, *changes), *words_of("--progress none", more)]


def damaged(name: str, content: str):
    def prepare() -> None:
        Path("points", name).write_text(content)

    prepare.__name__ = f"{name} = {content!r}"
    return prepare


def changed(name: str, **values):
    """Replaces entries of a JSON file of the run; None takes one out."""

    def prepare() -> None:
        path = Path("points", name)
        held = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({k: v for k, v in held.items() if v is not None}))

    prepare.__name__ = f"{name} with {values}"
    return prepare


def no_checkpoints() -> None:
    shutil.rmtree("points/checkpoints")


def bad_checkpoints() -> None:
    for path in Path("points/checkpoints").glob("step_*"):
        path.write_bytes(path.read_bytes()[:-7])


# (call, exit code, what the line must say, preparation); the folder holds a run `points`, one on
# `digits`, a file `file`, a folder `folder` that is not empty, and a folder `folder.npy`.
ROWS = [
    # names
    (["runn"], 2, ["runn", "Did you mean 'run'"]),
    (["run"], 2, ["Missing argument"]),
    (["run", "digits-sgan"], 2, ["'digits-sgan'", "did you mean digits-sngan"]),
    (["run", "eight gaussians"], 2, ["'eight gaussians'", "did you mean eight-gaussians"]),
    (["run", ""], 2, ["no recipe ''"]),
    (["run", "absent.py:f"], 2, ["absent.py does not exist"]),
    (["run", "file"], 2, ["no recipe 'file'"]),
    (["run", "file:f"], 2, ["file is not a Python file"]),
    (["run", "recipes.py"], 2, ["recipes.py", "file.py:function"]),
    (["run", "recipes.py:mein"], 2, ["'mein'", "did you mean mine?"]),
    (["run", "recipes.py:wrong"], 2, ["recipes.py:wrong returns int"]),
    (["run", "broken.py:f"], 2, ["broken.py fails on import", "ZeroDivisionError"]),
    (["info", "nowhere"], 2, ["'nowhere'"]),
    (["info", "digits-sngann"], 2, ["did you mean digits-sngan"]),
    (["info"], 2, ["RECIPE|RUN"]),
    (["list", "extra"], 2, ["extra"]),
    (["list", "--jason"], 2, ["--jason", "--json"]),
    # --set
    (run_digits("dimm=4"), 2, ["'dimm'", "did you mean dim?"]),
    (run_digits(more="--set dim"), 2, ["--set dim", "key=value"]),
    (run_digits(more="--set =3"), 2, ["--set =3", "key=value"]),
    (run_digits(more="--set dim=8"), 2, ["--set dim", "twice"]),
    (run_digits("dim="), 2, ["dim=", "whole number"]),
    (run_digits("dim=4.5"), 2, ["dim=4.5", "whole number"]),
    (run_digits("steps=1e3"), 2, ["steps=1e3", "whole number"]),
    (run_digits("steps=nan"), 2, ["steps=nan", "whole number"]),
    (run_digits("steps=0"), 2, ["steps=0", "at least 1"]),
    (run_digits("steps=-3"), 2, ["steps=-3", "at least 1"]),
    (run_digits("batch=0"), 2, ["batch=0", "at least 1"]),
    (run_digits("batch=-8"), 2, ["batch=-8", "at least 1"]),
    (run_digits("batch=1798"), 2, ["batch=1798", "1797", "digits"]),
    (run_digits("critic_steps=0"), 2, ["critic_steps", "at least 1"]),
    (run_digits("lr=nan"), 2, ["lr=nan", "finite number"]),
    (run_digits("lr=inf"), 2, ["lr=inf", "finite number"]),
    (run_digits("lr=-1"), 2, ["lr", "-1.0"]),
    (run_digits("lr=fast"), 2, ["lr=fast", "finite number"]),
    (run_digits("beta1=2"), 2, ["beta1", "2.0"]),
    (run_digits("saturating=maybe"), 2, ["saturating=maybe", "true or false"]),
    (run_digits("penalty=nan", recipe="digits-wgan-gp"), 2, ["penalty=nan", "finite number"]),
    (run_points("method=simultanous"), 2, ["method=simultanous", "did you mean simultaneous?"]),
    (run_points("latent=0"), 2, ["latent"]),
    (run_points("latent=-1"), 2, ["latent"]),
    (run_points("sigma=nan"), 2, ["sigma=nan", "finite number"]),
    (run_points("lr=1e30"), 4, ["step 1", "generator", "not finite"]),
    # options
    (run_digits(more="--seed -1"), 2, ["--seed", "0"]),
    (run_digits(more="--seed one"), 2, ["--seed", "integer"]),
    (run_digits(more="--threads -1"), 2, ["--threads"]),
    (run_digits(more="--progress loud"), 2, ["--progress loud", "bar, lines"]),
    (run_digits(more="--no-such-option"), 2, ["--no-such-option"]),
    (run_digits(more="spare"), 2, ["spare"]),
    # data
    (["run", "mnist-sngan", "--data-root", "nodata"], 3, ["nodata", "no such folder"]),
    (["run", "mnist-sngan", "--data-root", "file"], 3, ["file", "not a folder"]),
    (
        ["run", "mnist-sngan", "--data-root", "folder"],
        3,
        ["folder", "train-images-idx3-ubyte", "not found"],
    ),
    # run directories
    (run_points(more="--dir file"), 3, ["file is a file", "--dir"]),
    (run_points(more="--dir file/below"), 3, ["file", "--dir"]),
    (run_points(more="--dir folder"), 3, ["folder holds other files", "--dir"]),
    (
        run_points(more="--dir digits"),
        3,
        ["digits holds another run", "eight-gaussians", "digits-sngan"],
    ),
    (run_points(more="--dir points --seed 9"), 3, ["points holds another run", "seed is 0, not 9"]),
    (
        run_points("width=5", more="--dir points"),
        3,
        ["points holds another run", "width is 4, not 5"],
    ),
    (run_points(more="--dir points"), 3, ["recipe.json"], damaged("recipe.json", "{")),
    (["audit", "nowhere"], 3, ["nowhere is not a run directory"]),
    (["audit", "file"], 3, ["file is a file"]),
    (["audit", "folder"], 3, ["folder is not a run directory"]),
    (["report", "nowhere"], 3, ["nowhere"]),
    (["report", "folder"], 3, ["folder holds no run"]),
    (["info", "folder"], 3, ["folder is not a run directory"]),
    (["sample", "nowhere"], 3, ["nowhere"]),
    (["export", "nowhere"], 3, ["nowhere"]),
    (["audit", "points"], 3, ["no checkpoint yet"], no_checkpoints),
    (["sample", "points"], 3, ["no checkpoint yet"], no_checkpoints),
    (["export", "points"], 3, ["no checkpoint yet"], no_checkpoints),
    (["sample", "points"], 3, ["recipe.json"], damaged("recipe.json", "[1]")),
    (["info", "points"], 3, ["recipe.json"], damaged("recipe.json", "\0")),
    (["info", "points"], 3, ["recipe.json", "format"], changed("recipe.json", format=2)),
    (["sample", "points"], 2, ["no recipe 'gone'"], changed("recipe.json", recipe="gone")),
    (["sample", "points", "--step", "77"], 3, ["step_00000077", "does not exist"]),
    (["sample", "points", "--step", "soon"], 2, ["--step", "integer"]),
    # audit
    (audit("startz=3"), 2, ["--set startz: an audit has no such", "(did you mean starts?)"]),
    (audit("dim=3"), 2, ["--set dim: an audit has no such setting; it has", "starts"]),
    (audit("starts=0"), 2, ["starts=0", "at least 1"]),
    (audit("starts=1.5"), 2, ["starts=1.5", "whole number"]),
    (audit("groups=2"), 2, ["groups=2", "at least 3"]),
    (audit("confidence=nan"), 2, ["confidence=nan", "finite number"]),
    (audit("tolerance=inf"), 2, ["tolerance=inf", "finite number"]),
    (audit(more="--check nas"), 2, ["'nas'", "did you mean nash?"]),
    (audit(more="--require nosh"), 2, ["--require nosh", "no such claim (did you mean nash?)"]),
    (audit(more="--check stationary --require nosh"), 2, ["--require nosh", "stationary/critic"]),
    (audit(more="--check stationary --require nash"), 2, ["--require nash", "no such claim"]),
    (audit(more="--check nash --require nash=proved"), 2, ["nash=proved", "only '=verified'"]),
    (audit(more="--require nash="), 2, ["--require nash=", "=verified"]),
    # output
    (["sample", "points", "--out", "no/a.npy"], 3, ["no/a.npy", "does not exist"]),
    (["sample", "points", "--out", "a.txt"], 2, ["a.txt", ".png or .npy"]),
    (["sample", "points", "--out", "a"], 2, ["--out a", ".png or .npy"]),
    (["sample", "points", "--out", "a.png"], 3, ["a.png", "points, not images"]),
    (["sample", "points", "-n", "0"], 2, ["--number"]),
    (["sample", "points", "--index", "-1"], 2, ["--index"]),
    (["export", "points", "--out", "file"], 3, ["file is a file, not a folder"]),
    (["sample", "points", "--out", "folder.npy"], 2, ["error: --out folder.npy", "folder"]),
    # devices
    (run_digits(more="--device qpu"), 2, ["--device qpu", "try 'auto' or 'cpu'"]),
    (["sample", "points", "--device", "qpu"], 2, ["--device qpu", "try 'auto' or 'cpu'"]),
    # settings that no network, penalty, optimizer or data can be made of
    (run_digits("dim=0"), 2, ["recipe digits-sngan fails on its settings"]),
    (run_digits("dim=-2"), 2, ["recipe digits-sngan fails on its settings"]),
    (run_points("width=-1"), 2, ["recipe eight-gaussians fails on its settings", "[2, -1, 2]"]),
    (run_points("width=0"), 2, ["recipe eight-gaussians fails on its settings", "[2, 0, 2]"]),
    (run_points("depth=-1"), 2, ["depth"]),
    (
        run_digits("penalty=-1", recipe="digits-wgan-gp"),
        2,
        ["recipe digits-wgan-gp fails on its settings", "GradientPenalty.weight", "-1.0"],
    ),
    (run_points("sigma=-1"), 3, ["eight-gaussians: sigma is -1.0"]),
    (run_points("lr=1e39"), 2, ["lr"]),
    (run_digits(more="--device meta"), 2, ["meta"]),
    (audit("optimizers=Adam"), 2, ["optimizers"]),
    # records that are damaged in other ways
    (["info", "points"], 3, ["points/status.json"], damaged("status.json", "{")),
    (["info", "points"], 3, ["points/status.json"], damaged("status.json", "[]")),
    (["info", "points"], 3, ["points/audit/audit.json"], damaged("audit/audit.json", "{")),
    (["info", "points"], 3, ["points/audit/audit.json"], damaged("audit/audit.json", "{}")),
    (["info", "points"], 3, ["points/audit/audit.json"], damaged("audit/audit.json", "[]")),
    (["info", "points"], 3, ["points/recipe.json"], changed("recipe.json", description={})),
    (["info", "points"], 3, ["recipe.json"], changed("recipe.json", description=None)),
    (["info", "points"], 3, ["recipe.json"], changed("recipe.json", seed=None)),
    (["sample", "points"], 3, ["recipe.json"], changed("recipe.json", settings=None)),
    (["sample", "points"], 3, ["recipe.json"], changed("recipe.json", recipe=None)),
    (["sample", "points"], 3, ["recipe.json"], changed("recipe.json", seed="x")),
    (["sample", "points"], 3, ["recipe.json"], changed("recipe.json", origin="x")),
    (["run", "recipes.py:key"], 2, ["recipes.py:key"]),
    (["run", "recipes.py:zero"], 2, ["recipes.py:zero"]),
    (["run", "leaving.py:f"], 2, ["leaving.py fails on import"]),
    (
        ["sample", "points"],
        3,
        ["none of the 3 checkpoints in points/checkpoints", "step_00000004.safetensors is damaged"],
        bad_checkpoints,
    ),
    # what an audit cannot work with
    (audit("confidence=2"), 2, ["confidence"]),
    (audit("confidence=0"), 2, ["confidence"]),
    (audit("confidence=-1"), 2, ["confidence"]),
    (audit("tolerance=-1"), 2, ["tolerance"]),
    (audit("move=0"), 2, ["move"]),
    (audit("move=-1"), 2, ["move"]),
    (audit("perturbation=-1"), 2, ["perturbation"]),
    (audit("batches=1"), 2, ["batches"]),
    (audit(more="--recipe absent.py:f"), 2, ["--recipe"]),
]


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained["eight-gaussians"], "points")
    os.symlink(trained["digits-sngan"], "digits")
    Path("file").write_text("a file")
    Path("folder").mkdir()
    Path("folder/thesis.tex").write_text("all my work")
    Path("folder.npy").mkdir()
    Path("broken.py").write_text("1 / 0")
    Path("leaving.py").write_text("import sys; sys.exit(0)")
    Path("recipes.py").write_text(
        "def mine(): ...\ndef wrong(): return 3\ndef key(): return {}['a']\ndef zero(): return 1 / 0\n"
    )
    return tmp_path


def shown(row) -> str:
    words, _, _, *prepare = row
    kept = [
        w
        for w in words
        if w not in ("--set", "--progress", "none", "--dir", "new", *DIGITS, *POINTS, *AUDIT)
    ]
    return " ".join(kept) + "".join(f" ({step.__name__})" for step in prepare)


def held() -> dict[str, bytes]:
    """Every file here, but for locks."""
    return {
        str(p): p.read_bytes()
        for p in Path().rglob("*")
        if p.is_file() and not p.name.endswith("lock")
    }


@pytest.mark.parametrize("row", ROWS, ids=shown)
def test_bad_input(row, place, cli):
    words, code, mentions, *prepare = row
    for step in prepare:
        step()
    before = held()
    answer = cli(*words)
    assert "Traceback" not in answer.err
    assert answer.code == code, answer.err
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("equilibrist: error: ")
    for word in mentions:
        assert word in lines[0]
    assert Path("file").read_text() == "a file"
    assert [p.name for p in Path("folder").iterdir() if p.name != ".lock"] == ["thesis.tex"]
    # An option or a name that is wrong is noticed before anything is written.
    if code == 2:
        after = {name: text for name, text in held().items() if "__pycache__" not in name}
        assert after == before


def test_data_that_overflow(place, cli):
    """Numpy may warn of it first."""
    answer = cli(*run_points("sigma=1e308"))
    assert answer.code == 2
    *others, last = answer.err.splitlines()
    assert last.startswith("equilibrist: error: ")
    assert "not finite" in last
    assert len(others) <= 1
    assert all(line.startswith("equilibrist: warning: overflow") for line in others)


def test_the_table_is_large_enough():
    assert len(ROWS) >= 130
    assert len({shown(row) for row in ROWS}) == len(ROWS)


def test_a_good_call_among_the_bad_ones(place, cli):
    """That the table does not fail for a reason of its own."""
    assert cli(*run_points()).code == 0
    assert cli(*run_digits(more="--dir other")).code == 0
    assert cli(*audit()).code == 0
    assert cli("sample", "points", "--out", "a.npy").code == 0
    assert cli("info", "points").code == 0
