"""What the run directories of a comparison say, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from equilibrist.certificates import as_number
from equilibrist.compare._facts import (
    CurveFacts,
    FigureFacts,
    QuantityFacts,
    SideFacts,
)
from equilibrist.errors import RecordError
from equilibrist.files.reading import dig
from equilibrist.run.reading import read_json
from equilibrist.run.record import Record
from equilibrist.statistics import estimate, paired

# Equal up to rounding counts as equal.
_SLACK = 1 + 1e-9


@dataclass(frozen=True)
class MemberFigures:
    """One seed's figures by step, and its clock.

    Attributes:
        figures: key to {step: value}; a value is None where it could not be measured.
        clock: (step, seconds of training until then, this member's share of its stack's).
        diverged: the step at which it did, or None.
        together: how many members were trained in its stack.
    """

    figures: dict[str, dict[int, float | None]]
    clock: list[tuple[int, float]]
    diverged: int | None
    together: int

    def seconds(self, step: int) -> float:
        """Seconds until `step`: those of the first row at it or after it."""
        if step == 0:
            return 0.0
        return next((s for at, s in self.clock if at >= step), math.inf)

    @property
    def total(self) -> float:
        """Seconds until the last row."""
        return self.clock[-1][1] if self.clock else 0.0


def member_figures(folder: Path, about: dict[str, QuantityFacts]) -> MemberFigures:
    """One seed's run; figures that are met are described in `about`, by key."""
    record = Record(folder)
    sessions = read_json(folder / "environment.json")
    last = sessions[-1] if isinstance(sessions, list) and sessions else None
    members = dig(last, "members")
    together = max(members, 1) if type(members) is int else 1
    figures: dict[str, dict[int, float | None]] = {}
    for row in record.scores():
        for name, value in (row.get("values") or {}).items():
            key = f"{row['name']} / {name}"
            about.setdefault(
                key,
                {
                    "kind": "score",
                    "score": row["name"],
                    "figure": name,
                    "better": (row.get("better") or {}).get(name),
                    "floor": (row.get("floor") or {}).get(name),
                },
            )
            figures.setdefault(key, {})[row["step"]] = _number(value)
    rows = record.rows()
    for row in rows:
        for player, value in (row.get("loss") or {}).items():
            key = f"loss / {player}"
            about.setdefault(
                key,
                {"kind": "loss", "score": "loss", "figure": player, "better": None, "floor": None},
            )
            figures.setdefault(key, {})[row["step"]] = _number(value)
    status = read_json(folder / "status.json")
    ended = dig(status, "step") if dig(status, "state") == "diverged" else None
    if ended is not None and type(ended) is not int:
        raise RecordError(f"{folder / 'status.json'} is damaged: its step is no whole number")
    clock = [(row["step"], row["seconds"] / together) for row in rows]
    return MemberFigures(figures, clock, ended, together)


def comparison_facts(
    members: Mapping[str, Mapping[int, MemberFigures]],
    about: Mapping[str, QuantityFacts],
    steps: int,
    confidence: float,
) -> tuple[float | None, list[FigureFacts]]:
    """Statistics at equal iterations and at equal compute, and the curves between.

    `members`: solver to seed to member. Equal compute is T, the smallest over solvers of its members'
    (longest) training time; each member's figures are those of its last look at or before T.

    Returns:
        T, None where no member came to its end, and the figures, scores first.
    """
    totals = {
        name: max(m.total for m in seeds.values() if m.diverged is None)
        for name, seeds in members.items()
        if any(m.diverged is None for m in seeds.values())
    }
    limit = min(totals.values()) if totals else None
    keys = sorted(about, key=lambda key: about[key]["kind"] != "score")
    figures: list[FigureFacts] = []
    for key in keys:
        by_steps = {
            name: {s: _at(m, key, steps) for s, m in seeds.items()}
            for name, seeds in members.items()
        }
        by_compute = {
            name: {s: _until(m, key, limit) for s, m in seeds.items()}
            for name, seeds in members.items()
        }
        figures.append(
            {
                "key": key,
                **about[key],
                "iterations": _side(by_steps, confidence),
                "compute": _side(by_compute, confidence),
                "curves": {n: _curve(seeds, key, confidence) for n, seeds in members.items()},
            }
        )
    return limit, figures


Look = tuple[int, float] | None


def _at(one: MemberFigures, key: str, step: int) -> Look:
    if one.diverged is not None:
        return None
    value = one.figures.get(key, {}).get(step)
    return None if value is None else (step, value)


def _until(one: MemberFigures, key: str, limit: float | None) -> Look:
    """(step, value) of the last look within the time."""
    if one.diverged is not None or limit is None:
        return None
    seen = [
        (step, value)
        for step, value in one.figures.get(key, {}).items()
        if one.seconds(step) <= limit * _SLACK
    ]
    step, value = max(seen, default=(0, None), key=lambda look: look[0])
    return None if value is None else (step, value)


def _side(looks: Mapping[str, Mapping[int, Look]], confidence: float) -> dict[str, SideFacts]:
    """Every solver's estimate and its paired difference from the first."""
    values: dict[str, dict[int, float | None]] = {
        name: {seed: look[1] if look else None for seed, look in seeds.items()}
        for name, seeds in looks.items()
    }
    first = next(iter(values))
    side: dict[str, SideFacts] = {}
    for name, own in values.items():
        steps = [look[0] for look in looks[name].values() if look]
        side[name] = {
            **estimate(list(own.values()), confidence).to_json(),
            "values": {str(seed): value for seed, value in own.items()},
            "steps": [min(steps), max(steps)] if steps else None,
            "difference": None
            if name == first
            else paired(own, values[first], confidence).to_json(),
        }
    return side


def _curve(seeds: Mapping[int, MemberFigures], key: str, confidence: float) -> CurveFacts:
    """Means and intervals over training, of the members that had a figure at that step."""
    steps = sorted({step for m in seeds.values() for step in m.figures.get(key, {})})
    curve: CurveFacts = {"steps": [], "seconds": [], "mean": [], "interval": [], "n": []}
    for step in _thinned(steps, 100):
        having = [m for m in seeds.values() if m.figures.get(key, {}).get(step) is not None]
        found = estimate([m.figures[key][step] for m in having], confidence).to_json()
        if found["mean"] is None:
            continue
        curve["steps"].append(step)
        curve["seconds"].append(sum(m.seconds(step) for m in having) / len(having))
        curve["mean"].append(found["mean"])
        curve["interval"].append(found["interval"])
        curve["n"].append(found["n"])
    return curve


def _thinned(steps: Sequence[int], most: int) -> list[int]:
    """Evenly chosen, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _number(value: object) -> float | None:
    number = as_number(value)
    return None if number is None or not math.isfinite(number) else number
