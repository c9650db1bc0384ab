"""Diagnose the zoo: what a tool says of every case, kept as it comes, and the confusion matrix of it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from equilibrist.diagnosis import Finding, Loop
from equilibrist.diagnosis import diagnose as own
from equilibrist.errors import RecipeError, RecordError, did_you_mean
from equilibrist.files.atomic import write_atomically
from equilibrist.progress import showing
from equilibrist.zoo._case import CASES, HALVES, Case, isolated
from equilibrist.zoo._matrix import CaseRecord, Matrix

Tool = Callable[[Loop, int], Iterable[object]]
CHECKED = ("diagnosis", "critics", "zoo")  # whose code decides what our own tool says
SEEDS, SEEDS_OF_PRACTICE = (0,), (0, 1, 2)


def run(
    cases: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] | None = None,
    half: str = "",
    out: str | Path | None = None,
    diagnose: Tool | None = None,
    jobs: int = 1,
    progress: str = "auto",
) -> Matrix:
    """Let a tool name what is wrong with each case, and count how often it is right.

    Args:
        cases: names of cases; all of them if left out.
        seeds: of each case; if left out 0 for faulty loops and their twins, and 0, 1, 2 for loops of usual practice.
        half: "development" or "held-back"; both if left out.
        out: a file of JSON lines, one for each case and seed. What it holds already, by the same tool of the same
            code, is not computed again.
        diagnose: another tool: given a loop that has not been stepped and how many rounds to train it, it returns what
            it found, most important first: names of `diagnosis.VOCABULARY`, or findings. An empty list says healthy.
            With several jobs it must be a function of a module.
        jobs: processes. With 1 everything runs in this one.
        progress: "auto", "bar", "lines" or "none".

    Returns:
        The matrix, with rates, their exact 95% intervals, and the misses.

    Raises:
        RecipeError: a case or a half that there is not.
        RecordError: `out` is no record of the zoo.
    """
    chosen = _chosen(cases, half)
    path = None if out is None else Path(out)
    key = _key(diagnose)
    kept = _read(path) if path else {}
    records: dict[tuple[str, int], CaseRecord] = {}
    todo: list[tuple[Case, int]] = []
    for case, seed in _trials(chosen, seeds):
        if (old := kept.get((case.name, seed))) and old.tool == key:
            records[case.name, seed] = old
        else:
            todo.append((case, seed))
    with showing(progress, "cases", len(todo)) as bar:
        for count, record in enumerate(_results(todo, diagnose, key, jobs)):
            kept[record.case, record.seed] = records[record.case, record.seed] = record
            if path:
                _write(path, kept.values())
            bar.update(count + 1, {})
    return Matrix(tuple(records[case.name, seed] for case, seed in _trials(chosen, seeds)))


def diagnose_case(case: Case, seed: int, diagnose: Tool | None = None, key: str = "") -> CaseRecord:
    """What a tool says of one case; where it fails, its error is the record's.

    Args:
        case: the case.
        seed: of the loop and of all that is drawn while it is trained.
        diagnose: as in `run`.
        key: what stands for the tool in the record.

    Returns:
        The record.
    """
    begun = time.perf_counter()
    found: list[dict[str, object]] = []
    error = ""
    with warnings.catch_warnings(), isolated(seed):
        warnings.simplefilter("ignore")  # faulty loops are warned about, and meant to be
        try:
            answer = (
                _own(case, seed) if diagnose is None else diagnose(case.make(seed), case.rounds)
            )
            found = [_plain(finding) for finding in answer]
        except Exception as problem:  # whatever the tool does, the other cases go on
            error = f"{type(problem).__name__}: {problem}".splitlines()[0][:300]
    seconds = round(time.perf_counter() - begun, 2)
    return CaseRecord(case.name, seed, case.fault, case.half, found, error, seconds, key)


def _own(case: Case, seed: int) -> tuple[Finding, ...]:
    """Everything that `diagnosis` knows of a loop: its rounds, and whether it resumes."""
    loop = case.make(seed)
    fresh = None if loop.save is None else functools.partial(case.make, seed)
    return own(loop, case.rounds, fresh=fresh, seed=seed, progress="none").findings


def _plain(finding: Any) -> dict[str, Any]:
    if isinstance(finding, str):
        return {"name": finding, "level": "fault"}
    if isinstance(finding, Mapping):
        return dict(finding)
    return {
        "name": finding.name,
        "level": finding.level,
        "sure": finding.sure,
        "where": finding.where,
        "text": finding.text,
    }


def _chosen(cases: Sequence[str] | None, half: str) -> list[Case]:
    if half and half not in HALVES:
        raise RecipeError(f"there is no half {half!r}: choose from {', '.join(HALVES)}")
    names = [cases] if isinstance(cases, str) else list(CASES if cases is None else cases)
    for name in names:
        if name not in CASES:
            raise RecipeError(
                f"the zoo has no {name!r}{did_you_mean(name, CASES)}: see equilibrist zoo"
            )
    return [CASES[name] for name in names if half in ("", CASES[name].half)]


def _trials(cases: Sequence[Case], seeds: Sequence[int] | None) -> Iterator[tuple[Case, int]]:
    for case in cases:
        usual = SEEDS if case.twin else SEEDS_OF_PRACTICE
        for seed in usual if seeds is None else seeds:
            yield case, seed


def _results(
    todo: Sequence[tuple[Case, int]], diagnose: Tool | None, key: str, jobs: int
) -> Iterator[CaseRecord]:
    if jobs <= 1:
        yield from (diagnose_case(case, seed, diagnose, key) for case, seed in todo)
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_one_thread)
    with pool:
        futures: list[Future[CaseRecord]] = [
            pool.submit(_in_a_process, case.name, seed, diagnose, key) for case, seed in todo
        ]
        try:
            yield from (future.result() for future in as_completed(futures))
        except (
            BaseException
        ):  # interrupted: what is written stays, what has not begun does not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_a_process(name: str, seed: int, diagnose: Tool | None, key: str) -> CaseRecord:
    return diagnose_case(CASES[name], seed, diagnose, key)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _key(diagnose: Tool | None) -> str:
    """What says that a record is of this tool as it is now."""
    if diagnose is not None:
        return f"{diagnose.__module__}.{getattr(diagnose, '__qualname__', repr(diagnose))}"
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for folder in CHECKED:
        for source in sorted((package / folder).rglob("*.py")):
            digest.update(source.read_bytes())
    return f"equilibrist {digest.hexdigest()[:16]}"


def _read(path: Path) -> dict[tuple[str, int], CaseRecord]:
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [CaseRecord(**json.loads(line)) for line in lines if line]
    except (OSError, ValueError, TypeError):
        raise RecordError(f"{path} is no record of the zoo: choose another file") from None
    return {(record.case, record.seed): record for record in records}


def _write(path: Path, records: Iterable[CaseRecord]) -> None:
    os.makedirs(path.parent, exist_ok=True)
    lines = [json.dumps(record.describe(), ensure_ascii=False) for record in records]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
