"""Findings about learning rates: what writes them besides the optimiser's own scheduler."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from equilibrist.certificates import Json
from equilibrist.diagnosis._schedulers import Schedulers
from equilibrist.diagnosis._seen import CRITIC, PlayerStep, Side
from equilibrist.findings import Finding

LEAST = 3
JUMP = 1.1  # a factor from which a change is a jump: schedules by hand creep
DROP = 1.5  # a factor from which a change is no schedule's
SAME = 1e-6  # relative: rates, or the factors of two changes, that are one
TURNS = 2  # peaks before a rate goes up and down
SHARE = 0.8  # of the critic's changes that the generator's rate shares
PERIOD = (
    4  # steps of the shortest pattern that is a schedule's: a rule at its threshold goes to and fro
)


@dataclass(frozen=True)
class Change:
    """A change of an optimiser's rate between two of its steps, which are numbered among all optimisers' steps."""

    after: int
    before: int
    old: float
    new: float

    @property
    def factor(self) -> float:
        """new / old, as a logarithm."""
        return math.log(self.new / self.old)


class RateSeries:
    """The rate of one player in one optimiser, step by step: (number among all steps, rate)."""

    def __init__(self, steps: Sequence[tuple[int, float]]) -> None:
        self.rates = [rate for _, rate in steps]
        self.spans = [
            Change(a, b, old, new)
            for (a, old), (b, new) in itertools.pairwise(steps)
            if old > 0 and new > 0
        ]

    @property
    def changes(self) -> list[Change]:
        """Where it is another than at the step before."""
        return [c for c in self.spans if abs(c.factor) > SAME]

    def seen(self) -> str:
        """The rates in words."""
        low, high = min(self.rates), max(self.rates)
        return f"it goes from {self.rates[0]:.3g} to between {low:.3g} and {high:.3g} in {len(self.rates)} steps"

    def evidence(self) -> Json:
        """The rates in numbers."""
        low, high = min(self.rates), max(self.rates)
        return {"first": self.rates[0], "low": low, "high": high, "steps": len(self.rates)}

    def periodic(self) -> bool:
        """Whether one pattern comes again and again, as that of a schedule does."""
        n = len(self.rates)
        return any(
            all(_equal(a, b) for a, b in zip(self.rates, self.rates[period:], strict=False))
            for period in range(PERIOD, n // 2 + 1)
        )


def judge_rates(
    sides: Mapping[str, Side], steps: Sequence[PlayerStep], schedulers: Schedulers | None = None
) -> list[Finding]:
    """Findings from the watched steps: schedulers that write one another's rates, and rules beside them."""
    found: list[Finding] = []
    for side in sides.values():
        found += _never_acts(side, steps, schedulers) if schedulers else []
        found += _scheduled(sides, side, [s for s in steps if s.player == side.role], steps)
    if found:
        return found
    by: dict[str, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for s in steps:
        if s.player and s.rates and not s.schedules:
            by[s.player][s.optimizer].append((s.count, s.rates[0]))
    return ruled({sides[role].name: held for role, held in by.items()}, _name(sides, CRITIC))


def _name(sides: Mapping[str, Side], role: str) -> str:
    return sides[role].name if role in sides else role


def ruled(
    by: Mapping[str, Mapping[int, Sequence[tuple[int, float]]]], critic: str
) -> list[Finding]:
    """Rates that a rule writes besides any scheduler of torch.

    A rate that falls, or that warms up and falls, is a schedule by hand; one that a rule of its own moves up and down
    is its player's affair, and is noted. A rule that moves both players' rates at once, by one factor or to one value,
    lets one player's step follow what was measured of the other.

    Args:
        by: by player and optimiser, (number among all steps, rate) of the steps that no scheduler of torch governs.
        critic: the critic's name.
    """
    series = {
        name: {key: RateSeries(held) for key, held in own.items() if len(held) > LEAST}
        for name, own in by.items()
    }
    for key, mine in series.get(critic, {}).items():
        for name, own in series.items():
            for other_key, other in own.items() if name != critic else ():
                found = _together(critic, mine, name, other, key == other_key)
                if found is not None:
                    return [found]
    return [
        _alone(name, one)
        for name, own in series.items()
        for one in own.values()
        if _turns(one.changes) >= TURNS and not one.periodic()
    ][:1]


def _together(
    critic: str, mine: RateSeries, name: str, other: RateSeries, shared: bool
) -> Finding | None:
    """The finding that one rule writes both rates."""
    where = f"{critic}'s learning rate"
    how = "whose optimiser it shares" if shared else "of another optimiser"
    common = _common(mine, other)
    moved = len(mine.changes)
    if len(common) >= SHARE * moved > 0 and _turns(common) >= TURNS and not mine.periodic():
        up = sum(c.factor > 0 for c in common)
        text = (
            f"A rule writes the {critic}'s learning rate together with the {name}'s, {how}: {mine.seen()}, "
            f"{up} times up and {len(common) - up} times down, by the {name}'s factor at the same moments."
        )
        evidence = mine.evidence() | {"up": up, "down": len(common) - up, "changes": moved}
        return Finding("rate-rewritten", where, text, evidence=evidence)
    if (adopted := _adopted(mine, other)) is not None:
        text = (
            f"Something writes the {name}'s learning rate into the {critic}'s as well, {how}: it begins at "
            f"{adopted[0].old:.3g}, jumps to the {name}'s {adopted[0].new:.3g}, and follows every change from there "
            f"({mine.seen()})."
        )
        evidence = mine.evidence() | {"common": len(adopted), "to": adopted[0].new}
        return Finding("rate-rewritten", where, text, sure="likely", evidence=evidence)
    forced = _forced(mine, other)
    if len(forced) < TURNS:
        return None
    text = (
        f"Something writes the {name}'s learning rate into the {critic}'s as well, {how}: {len(forced)} times both "
        f"jump to {forced[0].new:.3g} at one moment, and each goes back to a rate of its own ({mine.seen()})."
    )
    evidence = mine.evidence() | {"forced": len(forced), "to": forced[0].new}
    return Finding("rate-rewritten", where, text, sure="likely", evidence=evidence)


def _alone(name: str, one: RateSeries) -> Finding:
    up = sum(c.factor > 0 for c in one.changes)
    text = (
        f"The {name}'s learning rate jumps up and down and no scheduler of torch holds its optimiser ({one.seen()}, "
        f"{up} times up and {len(one.changes) - up} times down); a rule of the {name}'s own may do so."
    )
    evidence = one.evidence() | {"up": up, "down": len(one.changes) - up}
    return Finding("rate-rewritten", f"{name}'s learning rate", text, "note", "possible", evidence)


def _turns(changes: Sequence[Change]) -> int:
    """Peaks that a rate comes to and leaves by jumps.

    A schedule by hand that restarts jumps up and creeps down from there; one of the two changes next to a peak may be
    cut short by a limit of the rule.
    """
    least = math.log(JUMP)
    factors = [c.factor for c in changes]
    return sum(
        factors[i - 1] > 0 > factors[i]
        and max(factors[max(i - 2, 0) : i]) > least
        and min(factors[i : i + 2]) < -least
        for i in range(1, len(factors))
    )


def _common(mine: RateSeries, other: RateSeries) -> list[Change]:
    """Changes that the other rate makes by the same factor at the same moment."""
    return max(
        (
            [c for c, d in pairs if abs(c.factor - d.factor) <= 10 * SAME]
            for pairs in _pairs(mine, other)
        ),
        key=len,
    )


def _adopted(mine: RateSeries, other: RateSeries) -> list[Change] | None:
    """Changes of a rate that jumps to another optimiser's at once, and is that one's ever after."""
    for pairs in _pairs(mine, other):
        begun = bool(pairs) and not _equal(pairs[0][0].old, pairs[0][1].old)
        jumps = begun and abs(pairs[0][0].factor) > math.log(DROP)
        follows = all(_equal(c.new, d.new) for c, d in pairs)
        if jumps and follows and sum(abs(d.factor) > SAME for _, d in pairs) > 1:
            return [c for c, _ in pairs]
    return None


def _forced(mine: RateSeries, other: RateSeries) -> list[Change]:
    """Changes by which both rates jump down to one value from two."""

    def one_value(c: Change, d: Change) -> bool:
        least = -math.log(DROP)
        apart = not _equal(c.old, d.old)
        return c.factor < least and d.factor < least and apart and _equal(c.new, d.new)

    return max(([c for c, d in pairs if one_value(c, d)] for pairs in _pairs(mine, other)), key=len)


def _pairs(mine: RateSeries, other: RateSeries) -> Iterable[list[tuple[Change, Change]]]:
    """Every change with what the other rate did meanwhile: a rule's write lies in the spans of two of its steps, and
    which of them is the same for all."""
    found: tuple[list[tuple[Change, Change]], ...] = ([], [])
    place = 0
    for c in mine.changes:
        while place < len(other.spans) and other.spans[place].before <= c.after:
            place += 1
        end = place
        while end < len(other.spans) and other.spans[end].after < c.before:
            end += 1
        over = other.spans[place:end]
        if over:
            found[0].append((c, over[0]))
            found[1].append((c, over[-1]))
    return found


def _equal(a: float, b: float) -> bool:
    return abs(a - b) <= SAME * max(abs(a), abs(b))


# -- schedulers of torch ---------------------------------------------------------------------------


def _never_acts(side: Side, steps: Sequence[PlayerStep], schedulers: Schedulers) -> list[Finding]:
    """Rates that are written between two steps and overwritten by a scheduler before the second."""
    for key in {s.optimizer for s in steps if s.player == side.role}:
        count, last = schedulers.count[key], schedulers.last.get(key)
        if count < LEAST or last is None:
            continue
        text = (
            f"What is written to the {side.name}'s learning rate never acts: {count} times its scheduler "
            f"({last.scheduler}) wrote over it before the optimiser's next step (last {last.instead:.3g} over "
            f"{last.written:.3g})."
        )
        evidence: Json = {
            "overwritten": count,
            "written": last.written,
            "instead": last.instead,
        }
        cure = "write the rate after scheduler.step(), or let one of the two alone write it (a warm-up: LambdaLR)"
        where = f"{side.name}'s learning rate"
        return [Finding("rate-rewritten", where, text, evidence=evidence, cure=cure)]
    return []


def _scheduled(
    sides: Mapping[str, Side], side: Side, mine: Sequence[PlayerStep], steps: Sequence[PlayerStep]
) -> list[Finding]:
    values = [s.rates[0] for s in mine if s.rates]
    if len(set(values)) < 2:
        return []
    where = f"{side.name}'s learning rate"
    seen = f"it goes from {values[0]:.3g} to between {min(values):.3g} and {max(values):.3g} in {len(values)} steps"
    evidence: Json = {"first": values[0], "low": min(values), "high": max(values)}
    against = [s for s in mine if s.overwritten]
    if len(against) >= LEAST:
        text = f"Something else than its scheduler writes the {side.name}'s learning rate as well ({seen})."
        evidence |= {"steps": len(against)}
        return [Finding("rate-rewritten", where, text, "note", "possible", evidence)]
    schedules = max(s.schedules for s in mine)
    others = [s for s in steps if s.player and s.player != side.role]
    if schedules < 2 or not others or any(s.schedules for s in others):
        return []
    other = sides[others[0].player].name
    text = (
        f"{schedules} schedulers write the {side.name}'s learning rate, and none the {other}'s "
        f"({seen}): one of them was made for the other's optimiser."
    )
    return [Finding("rate-rewritten", where, text, sure="likely", evidence=evidence)]
