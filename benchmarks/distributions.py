"""Builds wheel and sdist into dist/, and tries each as its users will.

python benchmarks/distributions.py            # make dist
python benchmarks/distributions.py --only sdist

Each is installed, under constraints.txt, into an empty environment in a temporary folder. There, outside of the
source tree, the command shows its help, trains for 20 steps and audits the pair.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PATTERNS = {"wheel": "*.whl", "sdist": "*.tar.gz"}

CHECKS = ("self-tests", "stationary", "nash")


def build() -> None:
    """Both, into an empty dist/."""
    shutil.rmtree(DIST, ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(DIST)]
    subprocess.run(command, cwd=ROOT, check=True)


def try_out(archive: Path) -> None:
    """Install `archive` into an empty environment and use it; RuntimeError where it is not what runs."""
    with tempfile.TemporaryDirectory(prefix="equilibrist-dist-") as name:
        folder = Path(name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

        def run(*command: str) -> str:
            print("+", *command, flush=True)
            done = subprocess.run(
                command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, check=True
            )
            return done.stdout

        run(sys.executable, "-m", "venv", "venv")
        python, equilibrist = (str(folder / "venv/bin" / n) for n in ("python", "equilibrist"))
        quiet = ("--quiet", "--disable-pip-version-check")
        run(
            python,
            "-m",
            "pip",
            "install",
            *quiet,
            "-c",
            str(ROOT / "constraints.txt"),
            str(archive),
        )
        place = run(python, "-c", "import equilibrist; print(equilibrist.__file__)").strip()
        if not Path(place).is_relative_to(folder / "venv"):
            raise RuntimeError(f"{place} was imported, not what was installed")
        if "spectrum" not in run(equilibrist, "--help"):
            raise RuntimeError("the help does not name the commands")
        run(equilibrist, "list")
        calm = ("--threads", "1", "--progress", "none")
        run(equilibrist, "run", "digits-sngan", "--set", "steps=20", "--dir", "run", *calm)
        checks = [word for name in CHECKS for word in ("--check", name)]
        run(equilibrist, "audit", "run", *checks, "--set", "steps=20", *calm)
        audit = json.loads((folder / "run/audit/audit.json").read_text(encoding="utf-8"))
        claims = {c["claim"]: c["verdict"] for c in audit["certificates"]}
        if claims.get("self-tests") != "VERIFIED" or not claims.keys() >= {*CHECKS}:
            raise RuntimeError(f"the audit says {claims}")
        if (folder / "run/report.html").stat().st_size < 20_000:
            raise RuntimeError("the report is no page")
    print(f"{archive.name}: installed, trained, audited and reported")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PATTERNS, help="try this one alone")
    chosen = parser.parse_args().only
    build()
    for kind, pattern in PATTERNS.items():
        if chosen in (None, kind):
            (archive,) = DIST.glob(pattern)
            try_out(archive)


if __name__ == "__main__":
    main()
