"""What an audit of a critic alone writes: audit.json, witnesses, the page; and the command that makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from critic_cases import audited, gaussians, linear
from safetensors.torch import load_file
from torch import nn

from equilibrist.certificates import STATES
from equilibrist.checks import Certificate
from equilibrist.cli import main
from equilibrist.critics import CLAIMS, LoneCritic
from equilibrist.errors import RecordError
from equilibrist.report import write_report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    real, fake = gaussians()
    folder = tmp_path_factory.mktemp("critic") / "audit"
    names = ["age", "height", "<income>"]
    found = audited(linear([0.01, 0.01, 0.01]), real, fake, "vanilla", columns=names, out=folder)
    return found, folder


def test_all_claims_are_there_and_have_words(made: tuple[Any, Path]) -> None:
    found, _ = made
    assert set(found) == set(CLAIMS)
    assert set(STATES) < set(CLAIMS)
    assert str(found).startswith(found.place)
    assert "best-response" in repr(found)
    assert "<income>" not in found._repr_html_()


def test_certificates_open_again(made: tuple[Any, Path]) -> None:
    found, folder = made
    rows = json.loads((folder / "audit.json").read_text())["certificates"]
    for row in rows:
        again = Certificate.from_row(row, witness=None)
        assert again.verdict is found[again.claim].verdict
        assert again.summary == found[again.claim].summary
        assert again.interval == pytest.approx(found[again.claim].interval)


def test_a_witness_is_a_critic_that_does_better(made: tuple[Any, Path]) -> None:
    """The file loads into the user's module, whose loss on all samples is lower by about the gain."""
    found, folder = made
    better = nn.Linear(3, 1).double()
    better.load_state_dict(load_file(folder / "best-response.safetensors"))
    real, fake = gaussians()

    def loss(critic: nn.Module) -> float:
        up = nn.functional.softplus
        with torch.no_grad():
            return float(up(-critic(real)).mean() + up(critic(fake)).mean())

    gain = loss(linear([0.01, 0.01, 0.01])) - loss(better)
    assert gain == pytest.approx(found["best-response"].evidence["gain"], abs=0.1)


def test_the_page(made: tuple[Any, Path]) -> None:
    found, folder = made
    page = (folder / "report.html").read_text(encoding="utf-8")
    first = found.place.split(". ")[0]
    assert first.split(":")[0] in page
    assert "lagging" in page[page.index("<title>") : page.index("</title>")]
    for said in ("Has the critic fallen behind?", "Pairs that it orders", "age", "The critic</h2>"):
        assert said in page, said
    assert "<income>" not in page
    assert "Nash equilibrium” is no failure" not in page
    written = (folder / "report.html").read_bytes()
    assert write_report(folder).read_bytes() == written


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text("mine")
    real, fake = gaussians()
    with pytest.raises(RecordError, match=r"audit\.json"):
        audited(linear([0.0, 0.0, 0.0]), real, fake, "vanilla", out=tmp_path)
    assert (tmp_path / "audit.json").read_text() == "mine"


FILE = """
import torch
from torch import nn
from equilibrist.critics import LoneCritic

def critic():
    torch.manual_seed(0)
    return LoneCritic(nn.Linear(2, 1), torch.randn(300, 2), torch.randn(300, 2) + 1.5, "hinge", gradients=200)
"""


def test_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(FILE)
    given = ["audit", "own.py:critic", "--out", "found", "--progress", "none"]
    assert main([*given, "--require", "not-saturated=verified"]) == 0
    assert "not-lagging" in capsys.readouterr().out
    assert Path("found/report.html").is_file()
    assert main([*given, "--require", "best-response"]) == 5
    capsys.readouterr()
    assert main([*given, "--require", "not-saturatd"]) == 2
    assert "did you mean not-saturated" in capsys.readouterr().err
    assert main([*given, "--set", "starts=2"]) == 2
    assert "no such setting; it has batch" in capsys.readouterr().err


def test_a_description_holds_every_argument() -> None:
    import inspect
    from dataclasses import fields

    from equilibrist.critics import audit_critic

    own = {f.name for f in fields(LoneCritic)}
    taken = set(inspect.signature(audit_critic).parameters)
    assert taken - own == {"seed", "progress", "out", "batch", "confidence"}
    assert own < taken
