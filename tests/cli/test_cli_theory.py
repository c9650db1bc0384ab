"""`equilibrist theory`: what it prints and writes, and how it refuses."""

import subprocess
import sys

import pytest


def test_help_without_torch():
    code = (
        "import sys\n"
        "from equilibrist.cli import main\n"
        "codes = [main(['theory', '--help']), main(['theory', '--out', 'x.png'])]\n"
        "assert 'torch' not in sys.modules\n"
        "print(codes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[0, 2]"
    assert "the name must end in .html" in done.stderr


def test_theory(here, well):
    answer = well("theory", "--d", 1, "--s", 1.5, "--eta", 0.25, "--out", "t.html")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["closed", "form", "independent"]
    assert all(len(line) <= 100 for line in lines if not line.startswith(("Theorem", "Section")))
    # lambda* = 1.5 / (4 * 0.25 * 0.5) = 3
    (star,) = [line for line in lines if line.startswith("  exact lambda*")]
    assert star.split()[-2:] == ["3", "3"]
    assert "Theorem 2: HOLDS" in lines
    assert "Theorem 1, f-GAN: Neyman: HOLDS ALTHOUGH ITS CONDITION FAILS" in lines
    assert "Theorem 2 without its hypothesis: FAILS (not claimed by the paper)" in lines
    assert lines[-1] == "Pictures: t.html"
    text = (here / "t.html").read_text()
    assert "Do GANs always have Nash equilibria?" in text
    assert 'id="theorem-2"' in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("--s 1", 2, "--s must not be 1"),
        ("--s 0", 2, "--s must lie between 0.25 and 4, not 0"),
        ("--s nan", 2, "--s, --eta and --t must be finite"),
        ("--eta -1", 2, "--eta must lie between 0.01 and 100, not -1"),
        ("--t 0", 2, "--t must lie between 0.01 and 3, not 0"),
        ("--d 0", 2, "--d must lie between 1 and 6, not 0"),
        ("--d 1.5", 2, "Invalid value for '--d'"),
        ("--out x.txt", 2, "the name must end in .html"),
        ("--out .", 2, "this is a folder"),
        ("--out no/x.html", 3, "the folder no does not exist"),
    ],
)
def test_theory_refuses_in_one_line(here, cli, words, code, message):
    answer = cli("theory", *words.split(" "))
    assert answer.code == code
    assert answer.out == ""
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not list(here.glob("*.html"))


def test_numbers_that_disagree_end_in_an_error(here, cli, monkeypatch):
    from equilibrist.theory import _statement, statements

    wrong = _statement.verdict_on(
        "k", "Theorem 0", "c", "a", [_statement.Number("x", 1.0, 2.0, "quadrature")], True, "w"
    )
    monkeypatch.setattr(statements, "statements", lambda setting: (wrong,))
    answer = cli("theory")
    assert answer.code == 3
    assert "Theorem 0: NUMBERS DISAGREE" in answer.out
    assert "closed form and independent number disagree in Theorem 0" in answer.err
    assert (here / "theory.html").exists()
