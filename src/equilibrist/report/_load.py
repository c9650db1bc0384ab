"""Reads a run directory into plain values, or says in one line what is wrong with which file.

Nothing here judges a run. A part that is absent stays absent (`None` or empty), a part that is
damaged is a `RecordError`, and what a killed process leaves behind (half a last line, half a
picture) is skipped with a note that the report prints.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from equilibrist.errors import RecordError
from equilibrist.files.atomic import json_ready
from equilibrist.files.reading import ROW, open_regular, parse_json, reason
from equilibrist.report._load_audit import load_audit
from equilibrist.report._read import expect, json_object, read_json_if_there, read_sample, short
from equilibrist.report._record import (
    Json,
    RunRecord,
    Sample,
    Series,
    Status,
    as_number,
)

T = TypeVar("T")
Sheets = tuple[list[Sample], Sample | None, Sample | None]
Metrics = tuple[dict[str, dict[str, Series]], int | None, float | None]

_STEP_NAME = re.compile(r"step_(\d{1,12})\.(png|npy|safetensors)")


def load_record(run_directory: Path) -> RunRecord:
    """Reads the run directory.

    Raises `RecordError` where the folder is missing or holds no run. A file that is damaged is left
    out: `notes` say which and why, `damaged` names it.
    """
    if not run_directory.is_dir():
        raise RecordError(f"{run_directory} is not a folder: give a run directory")
    files = ("recipe.json", "environment.json", "metrics.jsonl", "samples", "audit/audit.json")
    if not any((run_directory / name).exists() for name in files):
        raise RecordError(
            f"{run_directory} holds no run: none of {', '.join(files)} is there "
            "(make one with `equilibrist run`)"
        )
    notes: list[str] = []
    damaged: list[str] = []

    def part(name: str, read: Callable[[Path], T], otherwise: T) -> T:
        """One file's part of the record. Where it is damaged the page says so and shows the rest."""
        try:
            return read(run_directory / name)
        except RecordError as error:
            damaged.append(name)
            problem = str(error).removeprefix(f"{run_directory / name}")
            notes.append(f"{name}{problem}. It is left out.")
            return otherwise

    recipe = part("recipe.json", _recipe, None)
    nothing: Metrics = ({}, None, None)
    series, logged, seconds = part("metrics.jsonl", lambda path: _metrics(path, notes), nothing)
    unseen: Sheets = ([], None, None)
    samples, real, mean = part("samples", lambda path: _samples(path, notes), unseen)
    audit = part("audit/audit.json", lambda path: load_audit(path, notes), None)
    unsaved: list[int] = []
    saved = part("checkpoints", lambda path: list(_numbered(path, "safetensors")), unsaved)
    status = part("status.json", _status, None)
    reached = [logged, *(s.step for s in samples), *saved, audit.step if audit else None]
    if status is not None:
        reached.append(status.step)
    return RunRecord(
        name=run_directory.resolve().name,
        recipe=recipe,
        sessions=part("environment.json", _sessions, []),
        series=series,
        samples=samples,
        real=real,
        mean=mean,
        audit=audit,
        status=status,
        last_step=max((step for step in reached if step is not None), default=None),
        seconds=seconds,
        scores=part("scores.jsonl", lambda path: _scores(path, notes), []),
        guard=part("guard.json", _guard, []),
        notes=notes,
        damaged=damaged,
    )


def _recipe(path: Path) -> Json | None:
    value = read_json_if_there(path)
    if value is None:
        return None
    data = json_object(value, path)
    for name in ("recipe", "title", "summary", "device", "dtype"):
        expect(data, name, str, "a text", path)
    for name in ("seed", "steps"):
        expect(data, name, int, "a whole number", path)
    for name in ("settings", "origin", "description"):
        expect(data, name, dict, "an object", path)
    description = data.get("description") or {}
    for name in ("game", "data", "solver"):
        expect(description, name, dict, "an object", path)
    players = expect(description.get("game") or {}, "players", dict, "an object", path) or {}
    for name in players:
        expect(players, name, dict, "an object", path)
    for reference in expect(data, "references", list, "a list", path) or []:
        if not isinstance(reference, dict):
            raise RecordError(f"{path}: 'references' should be a list of objects")
    return data


def _status(path: Path) -> Status | None:
    value = read_json_if_there(path)
    if value is None:
        return None
    data = json_object(value, path)
    return Status(
        state=expect(data, "state", str, "a text", path) or "",
        step=expect(data, "step", int, "a whole number", path),
        message=expect(data, "message", str, "a text", path) or "",
    )


def _guard(path: Path) -> list[Json]:
    value = read_json_if_there(path)
    entries = [] if value is None else value
    if not isinstance(entries, list):
        raise RecordError(f"{path}: should be a list")
    for entry in entries:
        data = json_object(entry, path)
        for name in ("diverged", "back_to"):
            expect(data, name, int, "a whole number", path)
        if as_number(data.get("factor")) is None:
            raise RecordError(f"{path}: 'factor' should be a number")
    return entries


def _sessions(path: Path) -> list[Json]:
    value = read_json_if_there(path)
    if value is None:
        return []
    sessions = value if isinstance(value, list) else [value]
    if not all(isinstance(session, dict) for session in sessions):
        raise RecordError(f"{path}: should hold a list of objects, one for each session")
    return sessions


# --- metrics ----------------------------------------------------------------------------------


def _metrics(path: Path, notes: list[str]) -> Metrics:
    """Series by quantity and player, the last logged step, and the seconds spent."""
    # A resumed run logs some steps a second time: the later line is the one that training kept.
    rows: dict[int, Json] = {}
    bad: list[str] = []
    for number, line, last in _filled(path):
        try:
            row = parse_json(line)
        except ValueError:
            if last:
                notes.append(
                    f"The last line of metrics.jsonl (line {number}) is incomplete, as a run that "
                    "was killed or is still writing leaves it. It was ignored."
                )
                break
            bad.append(f"{path.name}, line {number}: damaged, not JSON")
            continue
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**53:
            bad.append(f"{path.name}, line {number}: no usable 'step' in {short(line.decode())}")
            continue
        rows[step] = row
    _tell(bad, notes)
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for step in sorted(rows):
        for quantity, player, value in _numbers(rows[step]):
            steps, values = found.setdefault(quantity, {}).setdefault(player, ([], []))
            steps.append(step)
            values.append(value)
    series = {
        quantity: {player: Series(np.array(s), np.array(v)) for player, (s, v) in players.items()}
        for quantity, players in found.items()
    }
    newest = max(rows) if rows else None
    spent = as_number(rows[newest].get("seconds")) if newest is not None else None
    return series, newest, spent


def _scores(path: Path, notes: list[str]) -> list[Json]:
    """Rows of scores.jsonl: a step, a name, values. A last line cut short does not count."""
    rows: list[Json] = []
    bad: list[str] = []
    for number, line, last in _filled(path):
        try:
            row = json_ready(parse_json(line))
            step = row["step"]
            if type(step) is not int or not 0 <= step < 2**53 or not isinstance(row["name"], str):
                raise ValueError("no step or name")
            for key in ("values", "floor", "better"):
                if not isinstance(row.get(key) or {}, dict):
                    raise ValueError(f"{key} is no object")
        except (ValueError, KeyError, TypeError):
            if last and not line.endswith(b"\n"):  # nothing but a newline ends a whole line
                notes.append(f"The last line of {path.name}, line {number}, is cut short.")
                break
            bad.append(f"{path.name}, line {number}: damaged, no row of a score")
            continue
        rows.append(row)
    _tell(bad, notes)
    return rows


def _tell(bad: list[str], notes: list[str]) -> None:
    if bad:
        others = f", and so are {len(bad) - 1} other lines" if len(bad) > 1 else ""
        notes.append(f"{bad[0]}. It is left out{others}.")


def _filled(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(number, line, whether it is the last) of the lines that are not empty, one by one."""
    before: tuple[int, bytes] | None = None
    try:
        with open_regular(path) as file:
            number = 0
            while line := file.readline(ROW + 1):
                number += 1
                if len(line) > ROW:
                    raise RecordError(f"{path}, line {number}: damaged, more than {ROW} bytes")
                if line.strip():
                    if before is not None:
                        yield *before, False
                    before = number, line
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({reason(error)})") from None
    if before is not None:
        yield *before, True


def _numbers(row: Json) -> Iterator[tuple[str, str, float]]:
    """(quantity, player, value); a null stands for a number that was not finite."""
    for quantity, value in row.items():
        if quantity in ("step", "seconds"):
            continue
        for player, item in value.items() if isinstance(value, dict) else [("", value)]:
            number = math.nan if item is None else as_number(item)
            if number is not None:
                yield quantity, str(player), number


# --- samples ----------------------------------------------------------------------------------


def _numbered(folder: Path, *kinds: str) -> dict[int, Path]:
    """Files named step_N.kind by their step, in order of time."""
    found: dict[int, Path] = {}
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            match = _STEP_NAME.fullmatch(path.name)
            if match and match[2] in kinds:
                found[int(match[1])] = path
    except OSError as error:
        raise RecordError(f"{folder}: cannot be read ({reason(error)})") from None
    return dict(sorted(found.items()))


def _samples(folder: Path, notes: list[str]) -> tuple[list[Sample], Sample | None, Sample | None]:
    """Samples over time, the real ones, and those of a mixture's mean network."""
    samples = [
        sample
        for step, path in _numbered(folder, "png", "npy").items()
        if (sample := read_sample(path, step, notes))
    ]
    found: dict[str, Sample | None] = {}
    for stem in ("real", "mean"):
        for path in (folder / f"{stem}.png", folder / f"{stem}.npy"):
            if found.get(stem) is None and os.path.lexists(path):
                found[stem] = read_sample(path, None, notes)
    return samples, found.get("real"), found.get("mean")
