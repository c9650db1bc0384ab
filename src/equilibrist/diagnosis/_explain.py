"""What each step received, as a sum of declared parts and of what could have got in besides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from equilibrist.diagnosis._calls import FAKE, GENERATOR, REAL, Call
from equilibrist.diagnosis._fit import EXACT, Fit, Problem
from equilibrist.diagnosis._seen import BEFORE, CRITIC, PlayerStep, factor_of

# Parts of a received gradient: declared ones, then what is none.
OWN = "its own loss"
OTHER = "the other player's loss"
AGAINST = "its own loss, the other way"
MIXED = "both losses in one backward pass"
SWAPPED_REAL = "real samples with the label of generated ones"
SWAPPED_FAKE = "generated samples with the label of real ones"
TIES = 1.05  # of residuals that are taken for the same
TERM = "own:"
USED = 0.02  # coefficients below are none
ALIKE = 0.01  # of coefficients that are taken for 1
CANCELS = 0.1  # of a coefficient, from which another part is in it
GUESSES = 6  # calls of a step whose kind the fit decides; of more, by their order


@dataclass
class Explained:
    """One step's received gradient, explained.

    Attributes:
        step: it.
        totals: coefficients by part, summed over calls: REAL, FAKE, a penalty's name, ...
        residual: |unexplained| / |received|.
        plain: residual of the declared parts alone.
        kinds: of the calls, known or found.
        paid: penalties that had a call in this step.
        tangled: whether real and generated parts cannot be told apart here.
        used: places in `step.calls` of those that take part in what was received; of a generator's, those whose part
            is the critic's.
        inferred: whether a coefficient was inferred from the others, because two parts are one column.
    """

    step: PlayerStep
    totals: dict[str, float]
    residual: float
    plain: float
    kinds: list[str] = field(default_factory=list)
    paid: set[str] = field(default_factory=set)
    tangled: bool = False
    used: frozenset[int] = frozenset()
    inferred: bool = False

    def get(self, part: str) -> float:
        """Its coefficient; 0 where it has none."""
        return self.totals.get(part, 0.0)


def explain(step: PlayerStep, known: Sequence[str]) -> Explained | None:
    """The step explained; None where there is nothing to explain.

    Args:
        step: a step of the critic or the generator.
        known: names of the declared penalties.
    """
    if step.problem is None or not step.finite:
        return None
    if any(name.startswith(TERM) for name in step.columns):
        return _of_own_losses(step)
    if not step.calls:
        return None
    if not any(role in (REAL, FAKE, GENERATOR) for _, role in step.columns.values()):
        return None
    return _of_critic(step, known) if step.player == CRITIC else _of_generator(step)


def _of_own_losses(step: PlayerStep) -> Explained:
    assert step.problem is not None
    base = [name for name in step.columns if name.startswith(TERM)]
    first = step.problem.fit(base)
    fit, _ = step.problem.widened(base, ["other", BEFORE])
    totals = {name: fit.coefficients.get(name, 0.0) for name in base}
    for kept, twins in fit.merged.items():  # terms that are one column are declared alike
        for twin in twins:
            sign = 1 if step.problem.cosine(kept, twin) > 0 else -1
            totals[twin] = sign * totals.get(kept, 0.0)
    totals[OTHER] = fit.coefficients.get("other", 0.0)
    totals[BEFORE] = fit.coefficients.get(BEFORE, 0.0)
    inferred = first.residual < EXACT and _left_in(step, base, totals)
    kinds = next(_assignments(step.calls)) if step.player == CRITIC else []
    used = frozenset(range(len(kinds)))
    return Explained(
        step, totals, fit.residual, first.residual, kinds, used=used, inferred=inferred
    )


def _left_in(step: PlayerStep, base: Sequence[str], totals: dict[str, float]) -> bool:
    """Whether the other player's loss is one column with a term of one's own, and was received beside it.

    The fit gives such a term 1 + b r, where the other's loss is r times the term. With b = 1, as of a gradient that was
    not cleared, and 1 for every other term, after a second backward pass, it is the other's loss that is received.
    """
    problem = step.problem
    if problem is None or "other" not in problem.names or step.fresh < 2 or len(base) < 2:
        return False
    if not any(c.kind == FAKE and not c.linked and c.received for c in step.calls):
        return False  # the term may be missing
    for name in base:
        ratio = problem.ratio("other", name) if name in problem.names else 0.0
        rest = [totals[n] for n in base if n != name]
        alone = max(abs(v - 1) for v in rest) < ALIKE
        if ratio and abs(ratio) > USED and alone and abs((totals[name] - 1) / ratio - 1) < ALIKE:
            totals[name], totals[OTHER] = 1.0, 1.0
            return True
    return False


# -- the generator ---------------------------------------------------------------------------------


def _of_generator(step: PlayerStep) -> Explained | None:
    assert step.problem is not None
    linked = [i for i, call in enumerate(step.calls) if call.linked]
    if not linked:
        return None
    base = [f"{i}:{GENERATOR}" for i in linked]
    extras = [f"{i}:{FAKE}" for i in linked] + [BEFORE]
    first = step.problem.fit(base)
    fit, _ = step.problem.widened(base, extras)
    totals = {OWN: 0.0, AGAINST: 0.0, OTHER: 0.0, BEFORE: fit.coefficients.get(BEFORE, 0.0)}
    for name, value in fit.coefficients.items():
        _, role = step.columns[name]
        if role == GENERATOR:
            totals[OWN if value > 0 else AGAINST] += value
        elif role == FAKE:
            totals[OTHER] += value
    against: set[int] = set()  # calls of the critic's loss
    for name, value in fit.coefficients.items():
        place, role = step.columns[name]
        if (role == FAKE and value > USED) or (role == GENERATOR and value < -USED):
            against.add(place)
    by_call: dict[int, dict[str, float]] = {}
    for name, value in fit.coefficients.items():
        place, role = step.columns[name]
        by_call.setdefault(place, {})[role] = value
    totals[MIXED] = max(
        (
            min(abs(held.get(GENERATOR, 0.0)), abs(held.get(FAKE, 0.0)))
            for place, held in by_call.items()
            if place >= 0 and len(step.calls[place].received) < 2
        ),
        default=0.0,
    )
    return Explained(step, totals, fit.residual, first.residual, used=frozenset(against))


# -- the critic ------------------------------------------------------------------------------------


def _of_critic(step: PlayerStep, known: Sequence[str]) -> Explained:
    assert step.problem is not None
    pays = [n for n, (_, role) in step.columns.items() if role in known]
    best: tuple[float, Fit, list[str], list[str]] | None = None
    positive = 0
    apart = any(call.kind == FAKE and not call.linked for call in step.calls)
    for kinds in _assignments(step.calls):
        # Where samples were detached for the critic, those with a way back are the generator's: another column, nearly.
        base = [
            f"{i}:{kind}"
            for i, (kind, call) in enumerate(zip(kinds, step.calls, strict=True))
            if kind in (REAL, FAKE) and not (kind == FAKE and call.linked and apart)
        ] + pays
        fit = step.problem.fit(base)
        # The usual order is tried first; another must be better, or as good with fewer signs turned.
        right = sum(value > 0 for value in fit.coefficients.values())
        better = best is None or fit.residual * TIES + 1e-6 < best[0]
        as_good = best is not None and fit.residual <= best[0] * TIES + 1e-6
        if better or (as_good and right > positive):
            best, positive = (fit.residual, fit, kinds, base), right
        if fit.residual < EXACT and right == len(base):
            break  # no other order can do better
    assert best is not None
    plain, _, kinds, base = best
    fit, _ = step.problem.widened(base, _extras(step, kinds, known))
    totals = {REAL: 0.0, FAKE: 0.0, BEFORE: fit.coefficients.get(BEFORE, 0.0)}
    for name, value in fit.coefficients.items():
        place, role = step.columns[name]
        part = _part(role, kinds[place]) if place >= 0 else BEFORE
        if part == FAKE and value < 0 and step.calls[place].linked:
            # Minus the critic's term of samples with a way back to the generator is the generator's own loss, where
            # the one is a multiple of the other.
            factor = _opposite(step.problem, place)
            part, value = (OTHER, value * factor) if factor else (part, value)
        if part != BEFORE:
            totals[part] = totals.get(part, 0.0) + value
    inferred = plain < EXACT and _cancelled(step, kinds, fit, totals)
    names = {n for n, v in fit.coefficients.items() if abs(v) > USED}
    names |= {twin for n in names for twin in fit.merged.get(n, [])}
    used = frozenset(step.columns[n][0] for n in names)
    paid = {role for name, (_, role) in step.columns.items() if role in known}
    return Explained(
        step,
        totals,
        fit.residual,
        plain,
        kinds,
        paid,
        _tangled(step.problem, fit, step, kinds),
        used,
        inferred,
    )


def _cancelled(step: PlayerStep, kinds: Sequence[str], fit: Fit, totals: dict[str, float]) -> bool:
    """Tells the generator's loss from a missing term, where the one is minus the other.

    Where nobody cleared the critic's gradient after the generator's backward pass, and the generator's loss is a
    multiple r of the critic's term of the same samples, detached, the fit gives the term c + b r: 0 with c = b = 1,
    r = -1. What the loop's own backward pass sent into the scores is c.
    """
    assert step.problem is not None
    linked = [i for i, call in enumerate(step.calls) if call.linked and call.received]
    for i, (kind, call) in enumerate(zip(kinds, step.calls, strict=True)):
        name, slope = f"{i}:{FAKE}", call.slopes.get(FAKE)
        if kind != FAKE or call.linked or slope is None or name not in step.problem.names:
            continue
        sent = sum(factor_of(got.reshape(slope.shape), slope) or 0.0 for got in call.received)
        lost = _coefficient(step.problem, fit, name) - sent
        if not call.received or abs(lost) < CANCELS:
            continue
        for j in linked:
            other = f"{j}:{GENERATOR}"
            ratio = step.problem.ratio(other, name) if other in step.problem.names else 0.0
            if ratio:
                totals[FAKE] -= lost
                totals[OTHER] = totals.get(OTHER, 0.0) + lost / ratio
                return True
    return False


def _coefficient(problem: Problem, fit: Fit, name: str) -> float:
    """A column's coefficient, that of its twin where the two are one column."""
    if name in fit.coefficients:
        return fit.coefficients[name]
    kept = next((k for k, twins in fit.merged.items() if name in twins), None)
    return 0.0 if kept is None else fit.coefficients[kept] * problem.ratio(kept, name)


def _opposite(problem: Problem, place: int) -> float:
    """c where the critic's term of a call is c times the generator's; 0 where they are not one column."""
    one, other = f"{place}:{FAKE}", f"{place}:{GENERATOR}"
    return problem.ratio(one, other) if one in problem.names and other in problem.names else 0.0


def _part(role: str, kind: str) -> str:
    if role == GENERATOR:
        return OTHER
    if role in (REAL, FAKE) and role != kind:
        return SWAPPED_REAL if kind == REAL else SWAPPED_FAKE
    return role


def _extras(step: PlayerStep, kinds: Sequence[str], known: Sequence[str]) -> list[str]:
    """What may have got in besides: the other player's loss, what was there before, other labels, other penalties."""
    apart = any(k == FAKE and not c.linked for k, c in zip(kinds, step.calls, strict=True))
    found = [f"{i}:{GENERATOR}" for i, call in enumerate(step.calls) if call.linked] + [BEFORE]
    for i, (kind, call) in enumerate(zip(kinds, step.calls, strict=True)):
        if kind == REAL:
            found.append(f"{i}:{FAKE}")
        elif kind == FAKE and not (call.linked and apart):
            found.append(f"{i}:{REAL}")
        elif kind == FAKE:
            found.append(f"{i}:{FAKE}")
    roles = {REAL, FAKE, GENERATOR, BEFORE, *known}
    return found + [n for n, (_, role) in step.columns.items() if role not in roles]


def _tangled(problem: Problem, fit: Fit, step: PlayerStep, kinds: Sequence[str]) -> bool:
    """Whether a real and a generated part were one column."""
    for kept, others in fit.merged.items():
        for other in others:
            pair = {step.columns[kept][1], step.columns[other][1]}
            if pair == {REAL, FAKE}:
                return True
    return False


def _assignments(calls: Sequence[Call]) -> Iterator[list[str]]:
    """Kinds that the calls may have, the usual order first."""
    given = [call.kind for call in calls]
    apart = any(call.kind == FAKE and not call.linked for call in calls)
    several = sum(not call.kind and not call.linked and not call.penalties for call in calls) > 1
    options: list[list[str]] = []
    turn = 0
    for call, kind in zip(calls, given, strict=True):
        if kind:
            options.append([kind])
        elif call.linked:
            options.append([FAKE, ""] if call.penalties else [FAKE])
        elif call.penalties:
            options.append([REAL, "", FAKE])
        elif apart:
            options.append([REAL, FAKE] if several else [REAL])
        else:
            # Without a trace of the generator: real, generated, real, ...
            first = REAL if turn % 2 == 0 else FAKE
            options.append([first, FAKE if first == REAL else REAL])
            turn += 1
    free = [i for i, o in enumerate(options) if len(o) > 1]
    for i in free[GUESSES:]:
        options[i] = options[i][:1]
    for choice in itertools.product(*options):
        yield list(choice)
