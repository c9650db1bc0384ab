"""The examples run, end to end, as their docstrings and docs/own_loop.md say."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fences import blocks, to_run
from PIL import Image

from equilibrist.cli import main
from equilibrist.interop import Watch

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
OWN_LOOP = (ROOT / "docs/own_loop.md").read_text(encoding="utf-8")
MARK = "# equilibrist"


def test_own_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{EXAMPLES / 'own_recipe.py'}:rings"
    assert main(["run", name, "--set", "steps=20", "--progress", "none"]) == 0
    where = "runs/own_recipe-rings"
    small = ["--gradients", "400", "--progress", "none"]
    assert main(["audit", where, *small]) == 3
    assert f"add --recipe {name}" in capsys.readouterr().err
    assert main(["audit", where, "--recipe", name, *small]) == 0
    assert "nash/generator" in capsys.readouterr().out
    assert (tmp_path / where / "report.html").exists()


def executed(
    path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[dict[str, Any], str]:
    """What a script leaves behind, and what it printed."""
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        left = runpy.run_path(str(path), run_name="__main__")
    return left, printed.getvalue()


# -- a plain script and its five lines -----------------------------------------------------------


def test_a_plain_script_is_audited_by_five_lines_and_unmoved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (EXAMPLES / "plain_loop.py").read_text(encoding="utf-8")
    docstring, code = source.split('"""', 2)[1:]
    lines = code.splitlines(keepends=True)
    bare = [line for line in lines if not line.rstrip().endswith(MARK)]
    assert 0 < len(lines) - len(bare) <= 5
    assert "equilibrist" not in "".join(bare), "the rest knows nothing of us"
    assert MARK in docstring
    plain = tmp_path / "plain.py"
    plain.write_text("".join(bare), encoding="utf-8")

    # The same five lines, at a budget that a test can pay.
    monkeypatch.setitem(Watch.__init__.__kwdefaults__, "gradients", 240)
    monkeypatch.setitem(Watch.__init__.__kwdefaults__, "settings", {"looks": 2})
    few = ("--steps", "12", "--every", "6", "--batch", "32")
    watched, said = executed(EXAMPLES / "plain_loop.py", monkeypatch, *few)
    state = torch.get_rng_state()
    alone, said_alone = executed(plain, monkeypatch, *few)

    assert [step for step, _ in watched["watch"].audits] == [6, 12]
    assert "watch" not in alone
    assert torch.equal(state, torch.get_rng_state())
    for name in ("net_g", "net_d"):
        for key, value in watched[name].state_dict().items():
            assert torch.equal(value, alone[name].state_dict()[key]), (name, key)
    for name in ("optimizer_g", "optimizer_d"):
        ours, theirs = (left[name].state_dict()["state"] for left in (watched, alone))
        for index, moments in ours.items():
            assert all(torch.equal(t, theirs[index][key]) for key, t in moments.items())
    assert said.startswith(said_alone), "the script's own lines, then the audits"
    assert said_alone.count("loss D") == 2
    assert len(re.findall(r"^nash +\w+ ", said.removeprefix(said_alone), re.M)) == 2


@pytest.mark.parametrize(
    ("solver", "critic_steps", "generator_steps"),
    [("alternating", 12, 6), ("simultaneous", 6, 6)],
)
def test_a_solver_drops_into_a_plain_loop(
    monkeypatch: pytest.MonkeyPatch, solver: str, critic_steps: int, generator_steps: int
) -> None:
    few = ("--solver", solver, "--steps", "6", "--gradients", "240")
    left, said = executed(EXAMPLES / "drop_in_solver.py", monkeypatch, *few)
    assert left["play"].steps == 6
    for name, steps in (("adam_c", critic_steps), ("adam_g", generator_steps)):
        taken = {float(moments["step"]) for moments in left[name].state.values()}
        assert taken == {float(steps)}, "torch.optim made the steps"
        assert left[name].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.999**6)
    assert re.search(r"^nash +[A-Z_]+ ", said, re.M)
    norms = [p for p in left["critic"].parameters() if p.ndim == 2]
    effective = left["game"].load(*left["game"].read(left["generator"], left["critic"]))["critic"]
    for raw, weight in zip(norms, (p for p in effective.parameters() if p.ndim == 2), strict=True):
        assert float(torch.linalg.matrix_norm(weight.detach(), 2)) == pytest.approx(1, abs=1e-5)
        assert raw.shape == weight.shape


@pytest.mark.parametrize("package", ["lightning", "accelerate"])
def test_other_loops(package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    script = EXAMPLES / f"{package}_loop.py"
    few = ["--epochs", "2", "--every", "20", "--gradients", "240"]
    done = subprocess.run(
        [sys.executable, str(script), *few], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # 28 batches an epoch.
    assert re.findall(r"^After (\d+) batches", done.stdout, re.M) == ["20", "40"]
    assert len(re.findall(r"^nash/critic +[A-Z_]+ ", done.stdout, re.M)) == 2
    if package == "lightning":
        logged = next(tmp_path.glob("lightning_logs/**/metrics.csv")).read_text().splitlines()
        names = logged[0].split(",")
        rows = [dict(zip(names, line.split(","), strict=True)) for line in logged[1:]]
        audited = {row["step"]: row for row in rows if row["audit/nash/generator"]}
        assert set(audited) == {"20", "40"}
        assert float(audited["20"]["audit/nash/generator"]) > 0


# -- the notebook ----------------------------------------------------------------------------------


NOTEBOOK = json.loads((EXAMPLES / "audit_a_gan.ipynb").read_text(encoding="utf-8"))


def test_the_notebook_is_one() -> None:
    """The keys that nbformat 4.5 requires, and no more."""
    assert set(NOTEBOOK) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["language"] == "python"
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]{1,64}", name) for name in ids)
    for cell in NOTEBOOK["cells"]:
        required = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            required |= {"execution_count", "outputs"}
        assert set(cell) == required
        assert cell["cell_type"] in ("code", "markdown")
        for output in cell.get("outputs", []):
            kind = output["output_type"]
            assert kind in ("stream", "execute_result"), "no error and no warning"
            if kind == "stream":
                assert set(output) == {"output_type", "name", "text"}
                assert output["name"] == "stdout"
            else:
                assert set(output) == {"output_type", "execution_count", "data", "metadata"}
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "in order"


def stored(name: str) -> str:
    """The text that a cell printed when it was run."""
    cell = next(cell for cell in NOTEBOOK["cells"] if cell["id"] == name)
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def test_the_notebook_holds_pictures_and_the_audit() -> None:
    pictures = [
        "".join(output["data"]["image/png"])
        for cell in NOTEBOOK["cells"]
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert sizes == [(800, 100), (800, 100), (800, 200)]
    assert re.search(r"^nash/generator +REFUTED ", stored("audit"), re.M)
    by_hand, audited = (
        float(x) for x in re.findall(r"(?:a gain of|audited:) (\S+)", stored("replay"))
    )
    assert by_hand == pytest.approx(audited, abs=0.02)
    for link in re.findall(r"\]\((\.\./[^)#]+)\)", json.dumps(NOTEBOOK)):
        assert (EXAMPLES / link).exists(), link


def test_the_notebook_runs() -> None:
    """Its code cells in order, at a small budget, without Jupyter; what it prints has the stored form."""
    space: dict[str, Any] = {}
    said: dict[str, str] = {}
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        if cell["id"] == "imports":
            for long, short in (("steps = 4000", "steps = 40"), ("= 2400", "= 300")):
                assert long in source
                source = source.replace(long, short)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(source, cell["id"], "exec"), space)
        said[cell["id"]] = printed.getvalue()
    assert space["step"] == 40
    assert space["audit"].settings.steps < 100
    assert space["sheet"](space["after"][:32]).size == (800, 100)
    for name in ("audit", "table", "replay"):
        # Claims where there are any, else the first word: numbers and verdicts are those of a longer training.
        claims, now = (
            re.findall(r"^(?:stationary|nash)\S*", text, re.M)
            or re.findall(r"[a-z/]{4,}", text)[:1]
            for text in (stored(name), said[name])
        )
        assert claims == now
    gains = [float(x) for x in re.findall(r"(?:a gain of|audited:) (\S+)", said["replay"])]
    if space["witness"] is not None:
        assert gains[0] == pytest.approx(gains[1], abs=0.02)
    assert space["witness"] is not None, "a generator after forty steps can still gain"


# -- docs/own_loop.md ----------------------------------------------------------------------------


def test_the_page_runs() -> None:
    """Its Python blocks, one after the other."""
    first, *rest = to_run("docs/own_loop.md")
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(first, space)
        assert [at for at, _ in space["watch"].audits] == [40, 80]
        assert sum(bool(re.search(r"# \d$", line)) for line in first.splitlines()) == 5
        for block in rest:
            exec(block, space)
    assert len(rest) == 3
    assert set(space["taken"].info["loss"]) == {"generator", "critic"}
    assert "audit.details" in printed.getvalue()
    assert space["play"].steps == len(space["loader"])


def test_what_the_page_quotes_is_in_the_examples() -> None:
    quoted = [block for block in blocks("docs/own_loop.md") if block.reason]
    assert len(quoted) == 2
    for block, package in zip(quoted, ("lightning", "accelerate"), strict=True):
        text = (EXAMPLES / f"{package}_loop.py").read_text(encoding="utf-8")
        assert block.reason == f"lines of examples/{package}_loop.py"
        for line in block.text.splitlines():
            assert f" {line.strip()}\n" in text, line
    for link in re.findall(r"\]\(([^)#]+)\)", OWN_LOOP):
        if not link.startswith("http"):
            assert (ROOT / "docs" / link).exists(), link


def test_the_formulations_that_the_page_names_are_real() -> None:
    import equilibrist.formulations as formulations
    from equilibrist.penalties import GradientPenalty
    from equilibrist.projections import WeightClipping

    names = {
        **vars(formulations),
        "GradientPenalty": GradientPenalty,
        "WeightClipping": WeightClipping,
    }
    table = re.search(r"\| your loop \|.*?\n\n", OWN_LOOP, re.S)
    assert table is not None
    calls = re.findall(r"`(?:\w+=)?\[?(\w+\([^`]*?\))\]?`", table[0].split("\n", 2)[2])
    calls = [call for call in calls if call[0].isupper() and "label" not in call]
    assert len(calls) >= 8
    for call in calls:
        eval(call, dict(names))


# -- docs/mixed.md -------------------------------------------------------------------------------


def test_the_page_on_mixed_strategies_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks, one after the other; fewer steps of the first."""
    monkeypatch.chdir(tmp_path)
    first, *rest = to_run("docs/mixed.md")
    assert len(rest) == 2
    assert "steps=200" in first
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in (first.replace("steps=200", "steps=3"), *rest):
            exec(block, space)
    said = printed.getvalue()
    assert "torch.Size([1000, 2])" in said
    assert said.count("An epsilon-Nash equilibrium in mixed strategies") == 2
    assert said.count("No epsilon-Nash equilibrium") == 1
