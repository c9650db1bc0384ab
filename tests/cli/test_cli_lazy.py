"""Help is quick, because it needs no torch."""

import os
import subprocess
import sys

import pytest

COMMANDS = ["run", "audit", "report", "sample", "export", "list", "info"]

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy", "scipy", "matplotlib", "sklearn", "PIL", "safetensors"):
            raise ImportError("needs " + name)
sys.meta_path.insert(0, Block())
from equilibrist.cli import main
codes = []
for words in {calls!r}:
    codes.append(main(words))
print("codes", codes)
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_help_needs_no_torch():
    calls = [
        ["--help"],
        ["-h"],
        *([c, "--help"] for c in COMMANDS),
        ["list"],
        ["list", "--json"],
        ["info", "digits-sngan"],
        ["info", "mnist-wgan-gp", "--json"],
    ]
    done = python(BLOCK.format(calls=calls))
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"codes {[0] * len(calls)}"
    for command in COMMANDS:
        assert command in done.stdout


def test_the_block_blocks():
    done = python(
        BLOCK.format(calls=[["sample", "/"]]).replace(
            "from equilibrist.cli", "import torch\nfrom x"
        )
    )
    assert "needs torch" in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"]])
def test_wrong_names_need_no_torch(words):
    done = python(
        BLOCK.format(calls=[["run", "digits-sgan"], ["info", "nothing"], ["nothing"], words])
    )
    assert done.stdout.splitlines()[-1] == "codes [2, 2, 2, 0]"
    assert len(done.stderr.splitlines()) == 3


def test_help_is_quick():
    """In processor time, which other work on the machine does not lengthen; torch alone takes over a second."""
    code = "from equilibrist.cli import main; main(['--help'])"
    best = 9.0
    for _ in range(3):
        before = os.times()
        assert python(code).returncode == 0
        after = os.times()
        best = min(
            best,
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system,
        )
    assert best < 0.7


def test_help_says_what_it_should():
    done = python("from equilibrist.cli import main; main(['--help'])")
    text = " ".join(done.stdout.split())
    for word in (*COMMANDS, "Exit codes: 0 done", "130 interrupted", "First steps"):
        assert word in text
    done = python("from equilibrist.cli import main; main(['audit', '--help'])")
    for word in (
        "--require",
        "--check",
        "--set",
        "--step",
        "--recipe",
        "--device",
        "--data-root",
        "--threads",
    ):
        assert word in done.stdout
