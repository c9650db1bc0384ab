"""Plants faults in the core mathematics, one at a time, and sees whether the tests notice.

Cosmic Ray's operators give every fault that could be planted; a fixed seed draws some of them. Each is
planted in a copy of the tree, never in the checkout, and the tests that run the line it stands on (by coverage
of every test, measured first) are run, quick ones first, until one fails or `--patience` seconds of tests have passed.
Results are kept: the same command goes on where it was stopped, and `--again` runs survivors again, against the
tests as they are now.

    python benchmarks/mutants.py --count 240 --seed 0

Exit code 1 where fewer than 95% were noticed. Needs the extra `mutants` and a POSIX system (fork).
"""

from __future__ import annotations

import argparse
import ast
import collections
import difflib
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src", "equilibrist")
# What is drawn from, the share of the faults, and the folders whose tests concern it.
AREAS: dict[str, tuple[float, tuple[str, ...], tuple[str, ...]]] = {
    "field": (0.10, ("core/field.py",), ("core", "solvers", "api")),
    "Jacobian": (0.10, ("core/jacobian.py", "core/_graph.py"), ("core", "spectra", "api")),
    "solvers": (0.25, ("solvers/*.py",), ("solvers", "core", "compare", "api")),
    "statistics": (0.25, ("scores/*.py", "spectra/*.py"), ("scores", "spectra", "api")),
    "audit": (0.30, ("checks/**/*.py",), ("checks", "api")),
}
# Faults that change no result, by key, with the argument why: they are not planted.
EQUIVALENT = ROOT / "benchmarks" / "equivalent_faults.json"
ENOUGH = 0.95
MEMORY = 24 * 2**30  # bytes of address space: a fault may ask for any amount


@dataclass(frozen=True)
class Fault:
    """One fault: the `occurrence`-th change by an operator of Cosmic Ray in a file."""

    area: str
    path: str
    line: int
    column: int
    operator: str
    occurrence: int
    place: str  # the line's text, which of the lines of that text it is, and the column: stays where lines move
    turn: int  # which of the place's faults

    @property
    def key(self) -> str:
        return f"{self.path} {self.place} {self.turn}"


# -- what could be planted ------------------------------------------------------------------------


def sites(area: str, path: Path) -> list[Fault]:
    """Every fault of a file that could change a result."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    text = path.read_text(encoding="utf-8")
    tree, idle = get_ast_from_path(path), _idle(text)
    seen: dict[str, int] = collections.Counter()
    names = [""]
    for line in text.splitlines():
        seen[line.strip()] += 1
        names.append(f"{line.strip()} [{seen[line.strip()]}]")
    found = []
    here: dict[tuple[int, int], int] = collections.Counter()
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():  # would need to be told what to put in
            continue
        positions = (
            start for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node)
        )
        for occurrence, (line, column) in enumerate(positions):
            if not any(a <= (line, column) < b for a, b in idle):
                where = path.relative_to(ROOT).as_posix()
                place = f"{names[line]}:{column}"
                here[line, column] += 1
                turn = here[line, column]
                found.append(Fault(area, where, line, column, name, occurrence, place, turn))
    return found


def _idle(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a change changes no result: annotations, which nothing evaluates, `strict=` of a zip of equal lengths, and
    what a dataclass is made with."""
    parts: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(text)):
        parts += [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.keyword) and node.arg == "strict":
            parts.append(node.value)
        if isinstance(node, ast.ClassDef):
            parts += node.decorator_list
    return [
        ((p.lineno, p.col_offset), (p.end_lineno, p.end_col_offset))
        for p in parts
        if isinstance(p, ast.expr) and p.end_lineno and p.end_col_offset
    ]


def drawn(count: int, seed: int, areas: list[str]) -> list[Fault]:
    """`count` faults: places by chance, each area with its share, then one of the faults of each place.

    Chance is a hash of the seed and the place: a change of the code elsewhere leaves the other faults as drawn.
    """
    found = []
    total = sum(AREAS[area][0] for area in areas)
    for area in areas:
        share, patterns, _ = AREAS[area]
        places = collections.defaultdict(list)
        for pattern in patterns:
            for path in sorted((ROOT / PACKAGE).glob(pattern)):
                for fault in sites(area, path):
                    places[f"{seed} {fault.path} {fault.place}"].append(fault)
        chosen = sorted(places, key=_hash)[: round(count * share / total)]
        found += [min(places[place], key=lambda f: _hash(f"{seed} {f.key}")) for place in chosen]
    return sorted(found, key=lambda f: _hash(f"{seed} {f.key}"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# -- the tests --------------------------------------------------------------------------------------


def child(work: Any, log: Path, limit: float) -> int | None:
    """The exit code of `work()` in a forked process, None where it took longer than `limit` seconds."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with log.open("wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        try:
            code = int(work())
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def run_tests(tree: Path, tests: list[str], plugins: list[Any] | None = None) -> int:
    """The exit code of pytest on these tests of the copy. Only in a child: it imports the package."""
    import pytest

    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree / "src")
    sys.path.insert(0, str(tree / "src"))
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return pytest.main([*options, *tests], plugins=plugins or [])


class Witness:
    """A pytest plugin: which test the lines that are run belong to, and how long each test takes."""

    def __init__(self, cover: Any) -> None:
        self.cover = cover
        self.seconds: dict[str, float] = collections.defaultdict(float)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Lines belong to this test from here on."""
        self.cover.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Set-up, call and tear-down of a test."""
        self.seconds[report.nodeid] += report.duration


def covered(tree: Path, file: str, into: Path) -> int:
    """Runs one test file under coverage and writes which lines of the package each of its tests ran."""
    import coverage

    cover = coverage.Coverage(source=[str(tree / PACKAGE)], data_file=None)
    witness = Witness(cover)
    cover.start()
    code = run_tests(tree, [file], [witness])
    cover.stop()
    data = cover.get_data()
    tests = sorted(witness.seconds)
    number = {name: i for i, name in enumerate(tests)}
    lines = {}
    for name in data.measured_files():
        # Lines without a test were run while the package was imported: every test of the file depends on them.
        lines[Path(name).relative_to(tree).as_posix()] = {
            str(line): [number[test] for test in ran if test in number]
            for line, ran in data.contexts_by_lineno(name).items()
        }
    into.write_text(
        json.dumps({"tests": tests, "took": [witness.seconds[t] for t in tests], "lines": lines})
    )
    return code


def _run_with(path: Path, line: int) -> tuple[int, bool]:
    """(a line that a test runs if it runs this one, whether an import runs it): the first line of its body for the
    head of a function, that of its first method for the head of a class."""
    function = False
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            head = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            if methods and head <= line < node.body[0].lineno:
                return methods[0].body[-1].lineno, False
        if isinstance(node, ast.FunctionDef):
            head = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
            if head <= line < node.body[0].lineno:
                return body[0].lineno, False
            function = function or node.body[0].lineno <= line <= (node.end_lineno or 0)
    return line, not function


# -- the campaign -----------------------------------------------------------------------------------


class Campaign:
    """The copy, the map from lines to tests, and the results, all in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree = folder, folder / "tree"
        self.log = folder / "log.txt"
        folder.mkdir(parents=True, exist_ok=True)
        if self.tree.exists():
            shutil.rmtree(self.tree)
        skip = shutil.ignore_patterns("__pycache__", ".*")
        for name in ("src", "tests", "benchmarks", "campaigns", "examples", "docs"):
            shutil.copytree(ROOT / name, self.tree / name, ignore=skip)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, self.tree)
        self.results: dict[str, dict[str, Any]] = self._kept("results.json")
        self.map: dict[str, dict[str, Any]] = self._kept("coverage.json")

    def _kept(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else {}

    def _keep(self, name: str, value: Any) -> None:
        part = self.folder / (name + ".part")
        part.write_text(json.dumps(value, indent=1))
        part.replace(self.folder / name)

    def _digest(self, path: str) -> str:
        return hashlib.sha256((self.tree / path).read_bytes()).hexdigest()

    def measure(self, areas: list[str]) -> None:
        """Which lines every test file runs, and how long it takes: again where the file changed."""
        folders = {folder for area in areas for folder in AREAS[area][2]}
        for folder in sorted(folders):
            for path in sorted((self.tree / "tests" / folder).glob("test_*.py")):
                name = path.relative_to(self.tree).as_posix()
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                if self.map.get(name, {}).get("sha256") == digest:
                    continue
                begun, into = time.monotonic(), self.folder / "lines.json"
                code = child(lambda n=name, i=into: covered(self.tree, n, i), self.log, 1800)
                seconds = time.monotonic() - begun
                if code != 0:
                    sys.exit(f"{name} fails without any fault (see {self.log}): fix it first")
                found = json.loads(into.read_text())
                files = {path: self._digest(path) for path in found["lines"]}
                self.map[name] = found | {"sha256": digest, "seconds": seconds, "files": files}
                self._keep("coverage.json", self.map)
                print(f"{name}: {seconds:.0f} s", flush=True)

    def tests_of(self, fault: Fault, patience: float) -> list[str]:
        """The tests that run the fault's line, quick ones first: those that run a function where its head is at fault.
        Where only an import runs the line, or the file has changed since, tests that import the file, then those that
        run most of it."""
        near = [m for n, m in self.map.items() if n.split("/")[1] in AREAS[fault.area][2]]
        now = self._digest(fault.path)
        same = all(m["files"].get(fault.path, now) == now for m in near)
        line, imported = _run_with(self.tree / fault.path, fault.line)
        found: dict[str, tuple[int, float]] = {}
        for m in near:
            lines = m["lines"].get(fault.path, {})
            # The head of a function is run by what imports it, too, and then tells its defaults.
            both = {*lines.get(str(line), []), *lines.get(str(fault.line), [])}
            exact = sorted(both) if same else []
            first = -(10**9) if imported else 0
            counts = collections.Counter(
                (t for ran in lines.values() for t in ran) if imported or not exact else exact
            )
            for t, count in counts.items():
                found[m["tests"][t]] = (first if t in exact else -count, m["took"][t])
        if not imported and any(not rank for rank, _ in found.values()):
            found = {name: one for name, one in found.items() if not one[0]}
        chosen, total = [], 0.0
        for name in sorted(found, key=lambda name: found[name]):
            if chosen and total + found[name][1] > patience:
                break
            chosen.append(name)
            total += found[name][1]
        return chosen

    def attempt(self, fault: Fault, patience: float) -> dict[str, Any]:
        """Plant it, run the tests, take it out."""
        from cosmic_ray.mutating import apply_mutation
        from cosmic_ray.plugins import get_operator

        path, tests = self.tree / fault.path, self.tests_of(fault, patience)
        before = path.read_bytes()
        text = before.decode()
        limit = 60 + 8 * patience
        begun = time.monotonic()
        try:
            apply_mutation(path, get_operator(fault.operator)(), fault.occurrence)
            after = path.read_text(encoding="utf-8")
            sound = tests and _compiles(after)
            code = child(lambda: run_tests(self.tree, tests), self.log, limit) if sound else 0
        finally:
            path.write_bytes(before)
        outcome = {0: "survived", None: "timed out"}.get(code, "killed")
        if after == text or not _compiles(after):
            outcome = "no fault"
        difference = difflib.unified_diff(text.splitlines(), after.splitlines(), lineterm="", n=0)
        return {
            **asdict(fault),
            "file": hashlib.sha256(before).hexdigest(),
            "outcome": outcome,
            "tests": len(tests),
            "seconds": round(time.monotonic() - begun, 1),
            "diff": list(difference)[3:],
        }

    def run(self, faults: list[Fault], again: bool, patience: float) -> None:
        """Every fault that has no result yet of the same file; with `again`, survivors too."""
        equivalent = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
        for k, fault in enumerate(faults, 1):
            if fault.key in equivalent:
                why = {"outcome": "equivalent", "why": equivalent[fault.key]}
                self.results[fault.key] = asdict(fault) | why | {"file": "", "diff": []}
                continue
            kept = self.results.get(fault.key)
            digest = self._digest(fault.path)
            if kept and kept["file"] == digest and not (again and kept["outcome"] == "survived"):
                continue
            self.results[fault.key] = result = self.attempt(fault, patience)
            self._keep("results.json", self.results)
            took = f"{result['seconds']:.0f} s"
            print(f"{k}/{len(faults)} {result['outcome']} ({took}): {fault.key}", flush=True)


def _compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def report(rows: list[dict[str, Any]]) -> float:
    """Prints the table and the survivors; returns the share that was noticed, of those that change a result."""
    outcomes = ("killed", "timed out", "survived", "equivalent")
    print(f"\n{'':12}{'drawn':>10}" + "".join(f"{o:>12}" for o in outcomes))
    rows = [row for row in rows if row["outcome"] in outcomes]
    for area in [*dict.fromkeys(row["area"] for row in rows), "all"]:
        mine = [row for row in rows if area in ("all", row["area"])]
        counts = [sum(row["outcome"] == o for row in mine) for o in outcomes]
        print(f"{area:12}{len(mine):>10}" + "".join(f"{n:>12}" for n in counts))
    for row in rows:
        if row["outcome"] == "survived":
            print(f"\n{row['path']}:{row['line']} {row['operator'].partition('/')[2]}")
            print("\n".join(f"    {line}" for line in row["diff"]))
    real = [row for row in rows if row["outcome"] != "equivalent"]
    return sum(row["outcome"] != "survived" for row in real) / max(len(real), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=240, help="faults to draw (default: 240)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--areas", nargs="+", choices=AREAS, default=list(AREAS))
    parser.add_argument("--again", action="store_true", help="run survivors again")
    parser.add_argument(
        "--patience",
        type=float,
        default=120.0,
        help="seconds of tests for each fault (default: 120)",
    )
    parser.add_argument("--report", action="store_true", help="only print what is known")
    parser.add_argument("--dir", type=Path, default=ROOT / "runs" / "mutants")
    asked = parser.parse_args()

    os.nice(15)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    # Imported once, before the forks; the package itself never is, for its files change.
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)
    campaign = Campaign(asked.dir.resolve())
    faults = drawn(asked.count, asked.seed, asked.areas)
    if not asked.report:
        campaign.measure(asked.areas)
        campaign.run(faults, asked.again, asked.patience)
    rows = [campaign.results[f.key] for f in faults if f.key in campaign.results]
    noticed = report(rows)
    print(f"\n{noticed:.1%} were noticed of the faults that change a result")
    return int(noticed < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
