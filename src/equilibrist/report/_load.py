"""Reads a run directory into plain values, or says in one line what is wrong with which file.

Nothing here judges a run. A part that is absent stays absent (`None` or empty), a part that is
damaged is a `RecordError`, and what a killed process leaves behind (half a last line, half a
picture) is skipped with a note that the report prints.
"""

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from equilibrist._errors import RecordError
from equilibrist._files import finite

FORMAT = 1
Json = dict[str, Any]
T = TypeVar("T")

_STEP_NAME = re.compile(r"step_(\d{1,12})\.(png|npy|safetensors)")
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_SIDES = ("", "/generator", "/critic")
_NOT_FINITE = {"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}


class Verdict(StrEnum):
    """What a check found out about its claim."""

    VERIFIED = "VERIFIED"
    REFUTED = "REFUTED"
    NOT_REFUTED = "NOT_REFUTED"
    UNASSESSED = "UNASSESSED"


@dataclass(frozen=True)
class Sample:
    """One picture (`png`, with its size in pixels) or one cloud of points (`points`, [n, 2])."""

    name: str
    step: int | None
    png: bytes | None = None
    width: int = 0
    height: int = 0
    points: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Series:
    """One logged number over training; values may be infinite or NaN."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """How much a claim may fail by and still count as holding."""

    value: float | None
    unit: str
    why: str


@dataclass(frozen=True)
class Curve:
    """One start of a search: the gain found so far at each optimisation step."""

    start: int
    steps: NDArray[np.float64]
    gain: NDArray[np.float64]
    perturbation: float | None = None
    optimizer: str = ""


@dataclass(frozen=True)
class Certificate:
    """One audited claim, as recorded."""

    claim: str
    player: str | None
    verdict: Verdict
    summary: str
    evidence: Json
    tolerance: Tolerance | None
    scope: Json
    limits: list[str]
    references: list[str]
    witness: str | None
    curves: list[Curve] = field(default_factory=list)
    samples: dict[str, Sample] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """A number of the evidence, or None where it is absent or no number."""
        return as_number(self.evidence.get(name))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The evidence's interval where both ends are there."""
        ends = self.evidence.get("interval")
        if not isinstance(ends, list) or len(ends) != 2:
            return None
        low, high = as_number(ends[0]), as_number(ends[1])
        return None if low is None or high is None else (low, high)

    @property
    def chosen(self) -> tuple[int, float | None] | None:
        """The start that was chosen and the optimisation step at which it was taken."""
        chosen = self.evidence.get("chosen")
        if not isinstance(chosen, dict) or not isinstance(chosen.get("start"), int):
            return None
        return chosen["start"], as_number(chosen.get("step"))

    @property
    def unit(self) -> str:
        """The unit of the claim's numbers ("" where none is recorded)."""
        unit = self.evidence.get("unit")
        if isinstance(unit, str) and unit:
            return unit
        return self.tolerance.unit if self.tolerance else ""


@dataclass(frozen=True)
class Audit:
    """The audit of one checkpoint."""

    step: int | None
    seconds: float | None
    checkpoint: str | None
    sha256: str | None
    settings: Json
    dtype: Json
    certificates: list[Certificate]


@dataclass(frozen=True)
class Status:
    """How training last stood: `state` is running, interrupted, diverged or finished."""

    state: str
    step: int | None
    message: str


@dataclass(frozen=True)
class Record:
    """Everything that a report may use from one run directory."""

    name: str
    recipe: Json | None
    sessions: list[Json]
    series: dict[str, dict[str, Series]]
    samples: list[Sample]
    real: Sample | None
    audit: Audit | None
    status: Status | None
    last_step: int | None
    seconds: float | None
    notes: list[str]
    scores: list[Json] = field(default_factory=list)

    def text(self, *path: str) -> str | None:
        """A text of the recipe, found along `path`; None where it is absent or empty."""
        value = dig(self.recipe, *path)
        return value if isinstance(value, str) and value else None

    def integer(self, *path: str) -> int | None:
        """A whole number of the recipe, found along `path`; None where it is absent."""
        value = dig(self.recipe, *path)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def diverged(self) -> bool:
        """Whether training met numbers that are not finite and did not recover."""
        said = self.status is not None and self.status.state == "diverged"
        return said or self.first_broken is not None

    @property
    def first_broken(self) -> tuple[str, str, int] | None:
        """(quantity, player, step) from which on a loss or norm never again was a finite number.

        None where the last logged values are finite: one bad step that training survived shows
        in the chart but is no divergence.
        """
        found: list[tuple[str, str, int]] = []
        for quantity in ("loss", "grad_norm"):
            for player, series in self.series.get(quantity, {}).items():
                bad = ~np.isfinite(series.values)
                if bad.size and bad[-1]:
                    sound = np.flatnonzero(~bad)
                    first = int(sound[-1]) + 1 if sound.size else 0
                    found.append((quantity, player, int(series.steps[first])))
        return min(found, key=lambda item: item[2], default=None)


def dig(value: Any, *path: str) -> Any:
    """Follows keys into nested objects; None as soon as one is missing."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def as_number(value: Any) -> float | None:
    """A float from a JSON number or from a text such as "NaN" or "-inf"; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:  # a whole number beyond the largest float
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and value.strip().lower() in _NOT_FINITE:
        return float(value)
    return None


def load(run_directory: Path) -> Record:
    """Reads the run directory.

    Raises `RecordError` where the folder is missing, holds no run, or holds a damaged file.
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
    recipe = _recipe(run_directory / "recipe.json")
    series, logged, seconds = _metrics(run_directory / "metrics.jsonl", notes)
    samples, real = _samples(run_directory / "samples", notes)
    audit = _audit(run_directory / "audit" / "audit.json", notes)
    saved = list(_numbered(run_directory / "checkpoints", "safetensors"))
    status = _status(run_directory / "status.json")
    reached = [logged, *(s.step for s in samples), *saved, audit.step if audit else None]
    if status is not None:
        reached.append(status.step)
    return Record(
        name=run_directory.resolve().name,
        recipe=recipe,
        sessions=_sessions(run_directory / "environment.json"),
        series=series,
        samples=samples,
        real=real,
        audit=audit,
        status=status,
        last_step=max((step for step in reached if step is not None), default=None),
        seconds=seconds,
        notes=notes,
        scores=_scores(run_directory / "scores.jsonl", notes),
    )


# --- JSON -------------------------------------------------------------------------------------


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read(path: Path) -> Any:
    """The file's JSON value, or None where there is no such file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return _parse(raw)
    except ValueError as error:
        raise RecordError(f"{path}: damaged, not JSON ({_short(error)})") from None


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _expect(data: Json, name: str, kind: type[T], words: str, path: Path) -> T | None:
    """`data[name]` where it has the kind that the format says; None where it is absent or null."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecordError(f"{path}: '{name}' should be {words}, found {_short(repr(value))}")
    return value


def _object(value: Any, path: Path) -> Json:
    if not isinstance(value, dict):
        raise RecordError(f"{path}: should hold a JSON object, found {_short(repr(value))}")
    written = value.get("format", FORMAT)
    if written != FORMAT:
        raise RecordError(
            f"{path}: written in format {_short(written)}, this version reads format {FORMAT}"
        )
    return value


def _recipe(path: Path) -> Json | None:
    value = _read(path)
    if value is None:
        return None
    data = _object(value, path)
    for name in ("recipe", "title", "summary", "device", "dtype"):
        _expect(data, name, str, "a text", path)
    for name in ("seed", "steps"):
        _expect(data, name, int, "a whole number", path)
    for name in ("settings", "origin", "description"):
        _expect(data, name, dict, "an object", path)
    description = data.get("description") or {}
    for name in ("game", "data", "solver"):
        _expect(description, name, dict, "an object", path)
    players = _expect(description.get("game") or {}, "players", dict, "an object", path) or {}
    for name in players:
        _expect(players, name, dict, "an object", path)
    for reference in _expect(data, "references", list, "a list", path) or []:
        if not isinstance(reference, dict):
            raise RecordError(f"{path}: 'references' should be a list of objects")
    return data


def _status(path: Path) -> Status | None:
    value = _read(path)
    if value is None:
        return None
    data = _object(value, path)
    return Status(
        state=_expect(data, "state", str, "a text", path) or "",
        step=_expect(data, "step", int, "a whole number", path),
        message=_expect(data, "message", str, "a text", path) or "",
    )


def _sessions(path: Path) -> list[Json]:
    value = _read(path)
    if value is None:
        return []
    sessions = value if isinstance(value, list) else [value]
    if not all(isinstance(session, dict) for session in sessions):
        raise RecordError(f"{path}: should hold a list of objects, one for each session")
    return sessions


# --- metrics ----------------------------------------------------------------------------------


def _metrics(
    path: Path, notes: list[str]
) -> tuple[dict[str, dict[str, Series]], int | None, float | None]:
    """Series by quantity and player, the last logged step, and the seconds spent."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}, None, None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    # A resumed run logs some steps a second time: the later line is the one that training kept.
    rows: dict[int, Json] = {}
    for position, (number, line) in enumerate(filled):
        try:
            row = _parse(line)
        except ValueError:
            if position == len(filled) - 1:
                notes.append(
                    f"The last line of metrics.jsonl (line {number}) is incomplete, as a run that "
                    "was killed or is still writing leaves it. It was ignored."
                )
                break
            raise RecordError(f"{path}, line {number}: damaged, not JSON") from None
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**53:
            raise RecordError(f"{path}, line {number}: no usable 'step' in {_short(line.decode())}")
        rows[step] = row
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
    last = max(rows, default=None)
    spent = as_number(rows[last].get("seconds")) if last is not None else None
    return series, last, spent


def _scores(path: Path, notes: list[str]) -> list[Json]:
    """Rows of scores.jsonl: a step, a name, values. A last line cut short does not count."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    rows: list[Json] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = finite(_parse(line))
            step = row["step"]
            if type(step) is not int or not 0 <= step < 2**53 or not isinstance(row["name"], str):
                raise ValueError("no step or name")
            for key in ("values", "floor", "better"):
                if not isinstance(row.get(key) or {}, dict):
                    raise ValueError(f"{key} is no object")
        except (ValueError, KeyError, TypeError):
            if number == len(lines):  # nothing but a newline ends a whole line
                notes.append(f"The last line of {path.name}, line {number}, is cut short.")
                break
            raise RecordError(f"{path}, line {number}: damaged, no row of a score") from None
        rows.append(row)
    return rows


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
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            match = _STEP_NAME.fullmatch(path.name)
            if match and match[2] in kinds:
                found[int(match[1])] = path
    return dict(sorted(found.items()))


def _samples(folder: Path, notes: list[str]) -> tuple[list[Sample], Sample | None]:
    samples = [
        sample
        for step, path in _numbered(folder, "png", "npy").items()
        if (sample := read_sample(path, step, notes))
    ]
    real = None
    for name in ("real.png", "real.npy"):
        if real is None and (folder / name).is_file():
            real = read_sample(folder / name, None, notes)
    return samples, real


def read_sample(path: Path, step: int | None, notes: list[str]) -> Sample | None:
    """The picture or the points in `path`; None, with a note, where they cannot be shown."""
    try:
        if path.suffix == ".npy":
            points = np.load(path, allow_pickle=False)
            if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "fiu":
                notes.append(f"{path.name} holds an array of shape {points.shape}, not points.")
                return None
            return Sample(path.name, step, points=points.astype(np.float64))
        raw = path.read_bytes()
    except (OSError, ValueError, EOFError):
        notes.append(f"{path.name} cannot be read and is not shown.")
        return None
    if not raw.startswith(_PNG_START) or not raw.rstrip(b"\0").endswith(_PNG_END):
        notes.append(f"{path.name} is not a whole PNG picture and is not shown.")
        return None
    width, height = struct.unpack(">II", raw[16:24])
    return Sample(path.name, step, png=raw, width=width, height=height)


# --- audit ------------------------------------------------------------------------------------


def _audit(path: Path, notes: list[str]) -> Audit | None:
    value = _read(path)
    if value is None:
        return None
    data = _object(value, path)
    certificates = _expect(data, "certificates", list, "a list", path) or []
    return Audit(
        step=_expect(data, "step", int, "a whole number", path),
        seconds=as_number(data.get("seconds")),
        checkpoint=_expect(data, "checkpoint", str, "a text", path),
        sha256=_expect(data, "sha256", str, "a text", path),
        settings=_expect(data, "settings", dict, "an object", path) or {},
        dtype=_expect(data, "dtype", dict, "an object", path) or {},
        # The whole before its sides, equilibrium before rest: the order in which a reader asks.
        certificates=sorted((_certificate(item, path, notes) for item in certificates), key=_rank),
    )


def _rank(certificate: Certificate) -> int:
    order = [f"{kind}{player}" for kind in ("nash", "stationary") for player in _SIDES]
    return order.index(certificate.claim) if certificate.claim in order else len(order)


def _certificate(data: Any, path: Path, notes: list[str]) -> Certificate:
    if not isinstance(data, dict):
        raise RecordError(f"{path}: 'certificates' should be a list of objects")
    claim = _expect(data, "claim", str, "a text", path)
    if not claim:
        raise RecordError(f"{path}: a certificate has no 'claim'")
    try:
        verdict = Verdict(str(data.get("verdict")))
    except ValueError:
        raise RecordError(
            f"{path}: '{_short(claim)}' has the verdict {_short(repr(data.get('verdict')))}, "
            f"which is none of {', '.join(Verdict)}"
        ) from None
    evidence = _expect(data, "evidence", dict, "an object", path) or {}
    return Certificate(
        claim=claim,
        player=_expect(data, "player", str, "a text", path),
        verdict=verdict,
        summary=_expect(data, "summary", str, "a text", path) or "",
        evidence=evidence,
        tolerance=_tolerance(_expect(data, "tolerance", dict, "an object", path)),
        scope=_expect(data, "scope", dict, "an object", path) or {},
        limits=[str(item) for item in _expect(data, "limits", list, "a list", path) or []],
        references=[str(item) for item in _expect(data, "references", list, "a list", path) or []],
        witness=_expect(data, "witness", str, "a text", path),
        curves=_curves(_expect(evidence, "curves", list, "a list", path) or [], path),
        samples=_audit_samples(_expect(evidence, "samples", dict, "an object", path), path, notes),
    )


def _tolerance(data: Json | None) -> Tolerance | None:
    if data is None:
        return None
    value = as_number(data.get("value"))
    return Tolerance(value, str(data.get("unit") or ""), str(data.get("why") or ""))


def _curves(items: list[Any], path: Path) -> list[Curve]:
    curves = []
    for position, item in enumerate(items):
        steps = item.get("steps") if isinstance(item, dict) else None
        gain = item.get("gain") if isinstance(item, dict) else None
        if not isinstance(steps, list) or not isinstance(gain, list) or len(steps) != len(gain):
            raise RecordError(f"{path}: curve {position} needs 'steps' and 'gain' of equal length")
        start = item.get("start")
        curves.append(
            Curve(
                start=start if isinstance(start, int) else position,
                steps=_array(steps),
                gain=_array(gain),
                perturbation=as_number(item.get("perturbation")),
                optimizer=str(item.get("optimizer") or ""),
            )
        )
    return curves


def _array(values: list[Any]) -> NDArray[np.float64]:
    numbers = [as_number(value) for value in values]
    return np.array([math.nan if number is None else number for number in numbers], dtype=float)


def _audit_samples(data: Json | None, path: Path, notes: list[str]) -> dict[str, Sample]:
    samples = {}
    for when, name in (data or {}).items():
        if name is None:
            continue
        # A record that was handed on must not make the report embed files from elsewhere.
        if not isinstance(name, str) or name != Path(name).name or "\\" in name or "\0" in name:
            raise RecordError(f"{path}: {_short(repr(name))} is not the name of a file beside it")
        sample = read_sample(path.parent / name, None, notes)
        if sample:
            samples[when] = sample
    return samples
