"""One lambda: is there a generator that gains although the critic may answer?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._decide import Interval, decide
from equilibrist.checks.certificate import Json, Verdict
from equilibrist.checks.context import AuditContext
from equilibrist.checks.proximal.inner import Part, Prox, Solved, solve_well, starts_around

REEVALUATED = 3  # how many deviations of a trial are evaluated again at most


def json_number(x: float) -> float | str:
    """For JSON, which has no infinity."""
    return x if math.isfinite(x) else "inf"


def most_reevaluations(context: AuditContext) -> int:
    """How many deviations of a trial are evaluated again at most: fewer within a budget, one within a small one."""
    settings = context.settings
    if not settings.gradients:
        return REEVALUATED
    return 1 if settings.inner_steps < 20 else REEVALUATED - 1


@dataclass(frozen=True)
class Deviation:
    """A generator, alone or half of the time its mirror image at the trained one.

    Where the two together gain, one of them does. What is of odd order in the move, most of the noise, cancels in
    their mean.
    """

    generator: Part
    mirror: Part | None = None
    promise: float = 0.0  # what its search might still have gained

    @property
    def sides(self) -> list[Part]:
        """The generators of which it is made."""
        return [self.generator] if self.mirror is None else [self.generator, self.mirror]


@dataclass
class Trial:
    """What the searches at one lambda found.

    Attributes:
        lam: lambda.
        regret: V(G*, D*) - V_prox(G, D*) at the deviation found: what r(lambda) is at least (Proposition 2).
        slack: V_prox(G*, D*) - V(G*, D*): what the critic gains within reach, the generator at rest.
        gain: V_prox(G*, D*) - V_prox(G, D*), the generator's side of Definition 1: regret plus slack. Its lower end
            is lowered by `left`, its upper end raised by `rest`.
        deviation: what was found, None where staying put was best.
        critic: the critic that answers it.
        gap: V_prox(G, D*) exceeds what that critic reaches by at most that much; None: unknown.
        left: what the answers to the deviation may still gain (a bound, or by their solver's model); `rest`: the answer
            to the trained generator.
        reached: what several answers to that generator reached on the selection split.
        searched: gains of every search's iterates on the selection split, staying put left out.
        false_improvements: deviations that seemed to gain until the critic answered with more steps.
        settled: whether every search stopped because nothing was left to gain.
        failed: why the search counts as failed; "" where it does not.
        verdict: on "no generator gains more than the tolerance".
    """

    lam: float
    regret: Interval
    slack: Interval
    gain: Interval
    deviation: Deviation | None
    critic: Part
    gap: float | None
    left: float = 0.0
    rest: float = 0.0
    reached: dict[str, float] = field(default_factory=dict)
    searched: list[float] = field(default_factory=list)
    false_improvements: int = 0
    settled: bool = True
    failed: str = ""
    verdict: Verdict = Verdict.UNASSESSED

    @property
    def generator(self) -> Part | None:
        """The generator found, None where staying put was best."""
        return None if self.deviation is None else self.deviation.generator

    def row(self) -> Json:
        """Plain values."""
        return {
            "lambda": json_number(self.lam),
            "verdict": self.verdict.value.lower().replace("_", " "),
            "regret": self.regret.mean,
            "regret_interval": self.regret.ends,
            "gain": self.gain.mean,
            "gain_interval": self.gain.ends,
            "slack_within_reach": self.slack.mean,
            "slack_interval": self.slack.ends,
            "inner_gap_bound": self.gap,
            "inner_left": self.left,
            "inner_left_at_rest": self.rest,
            "inner_values": self.reached,
            "searched": self.searched,
            "flattered": self.false_improvements,
            "settled": self.settled,
            "stayed": self.deviation is None,
            "mirrored": self.deviation is not None and self.deviation.mirror is not None,
            "failed": self.failed,
        }


def trial(
    context: AuditContext, prox: Prox, lam: float, tolerance: float, also: list[Part] | None = None
) -> Trial:
    """The searches at `lam`: `prox_starts` of them, and from the generators `also`.

    On the optimise part each search descends; on the selection part the best of its iterates, of `also` and of
    staying put is chosen, on samples each also with its mirror image; on the score part paired differences are taken.

    Inner searches that stop short flatter some generators: the best one is evaluated again with four times
    the inner steps and from a fresh start (or with a bound of the inner problem), until the best one has been.
    """
    stay = prox.trained["generator"]
    at_rest = resting(context, prox, lam)
    base = prox.measure(stay, at_rest.answer.critic, lam, "select")
    found = [Deviation(prox.feasible(g)) for g in also or []]
    starts = starts_around(context, stay, context.settings.prox_starts)
    settled = True
    for start in starts + [d.generator for d in found[: 1 if context.sampled else None]]:
        search = prox.descend(start, lam)
        found += [Deviation(g, promise=search.left) for g in search.iterates]
        settled = settled and (search.settled or search.left <= tolerance)
    if context.sampled:
        found += [mirrored(prox, d) for d in found]
    seen: dict[int, Tensor] = {}
    for g in (g for d in found for g in d.sides):
        if id(g) not in seen:
            seen[id(g)] = base - prox.measure(g, prox.solve(g, lam).critic, lam, "select")
    gained = [torch.stack([seen[id(g)] for g in d.sides]).mean(0) for d in found]
    looks = [context.interval(gains, "select") for gains in gained]
    chosen, solved, looked, sound = _reevaluated(context, prox, lam, base, found, looks)
    failed = _failure([look.mean for look in looks], tolerance)
    if not failed and chosen is not None and not max(s.shortfall for s in solved) <= tolerance:
        failed = (
            "every search for the critic's answer ended below where it began (a step size too large for this "
            "lambda?)"
        )
    deviation = None if chosen is None else found[chosen]
    if deviation is not None and deviation.mirror is not None and solved[0].best > solved[1].best:
        # The witness is the side that gains more.
        deviation = Deviation(deviation.mirror, deviation.generator, deviation.promise)
        solved = solved[::-1]
    result = scored(context, prox, lam, deviation, (at_rest, solved))
    result.searched, result.failed, result.settled = [x.mean for x in looks], failed, settled
    result.false_improvements = sum(a.mean > 0 >= b for a, b in zip(looks, looked, strict=True))
    result.verdict = verdict_of(result, tolerance)
    # A deviation that looks better than the one chosen, and was not evaluated again, leaves it open.
    if result.verdict is Verdict.NOT_REFUTED and any(looked[k] > tolerance for k in sound):
        result.verdict = Verdict.UNASSESSED
    return result


def _reevaluated(
    context: AuditContext,
    prox: Prox,
    lam: float,
    base: Tensor,
    found: list[Deviation],
    looks: list[Interval],
) -> tuple[int | None, list[Solved], list[float], list[int]]:
    """The deviation that holds out best against good answers, these, all gains as they are known now, and the
    deviations that were not evaluated again. The least noisy ones come first."""
    sound = [k for k, look in enumerate(looks) if math.isfinite(look.mean)]
    worth = [_worth(look) for look in looks]
    looked = [look.mean for look in looks]
    chosen, solved = None, []
    for _ in range(most_reevaluations(context)):
        best = max((k for k in sound if looked[k] > 0), key=lambda k: worth[k], default=None)
        if best is None or (chosen is not None and not worth[best] > 0):
            break
        again = [solve_well(prox, g, lam) for g in found[best].sides]
        answers = [s.answer.critic for s in again]
        gain = context.interval(
            base - prox_values(prox, found[best], answers, lam, "select"), "select"
        )
        looked[best], worth[best] = gain.mean, _worth(gain)
        sound.remove(best)
        if looked[best] > 0 and (chosen is None or worth[best] > worth[chosen]):
            chosen, solved = best, again
        if chosen is not None and all(worth[k] <= worth[chosen] for k in sound):
            break
    return chosen, solved, looked, sound


def _worth(gain: Interval) -> float:
    """By what deviations are compared: the lower end, where there is one."""
    return gain.low if math.isfinite(gain.low) else gain.mean


def _failure(gains: list[float], tolerance: float) -> str:
    finite = [gain for gain in gains if math.isfinite(gain)]
    if not finite:
        return "every search ended at a value that is not finite"
    if max(finite) < -tolerance:
        return f"every search ended above where it began, the best by {-max(finite):.3g}"
    return ""


def scored(
    context: AuditContext,
    prox: Prox,
    lam: float,
    chosen: Deviation | None,
    answers: tuple[Solved, list[Solved]] | None = None,
) -> Trial:
    """The deviation (None: the trained generator) at `lam` on the score part, the critic answering as well as it can.
    `answers`: to the trained generator and to the deviation's sides, where they are known."""
    stay = prox.trained["generator"]
    at_rest = resting(context, prox, lam) if answers is None else answers[0]
    held = prox.measure(stay, prox.trained["critic"], math.inf, "score")
    before = prox.measure(stay, at_rest.answer.critic, lam, "score")
    solved, after = [at_rest], before
    if chosen is not None:
        solved = [solve_well(prox, g, lam) for g in chosen.sides] if answers is None else answers[1]
        after = prox_values(prox, chosen, [s.answer.critic for s in solved], lam, "score")
    gaps = [s.answer.gap for s in solved]
    left, rest = sum(s.left for s in solved) / len(solved), at_rest.left
    if chosen is None:
        left = rest = 0.0
    return Trial(
        lam,
        _widened(context.interval(held - after), left, 0.0),
        context.interval(before - held),
        _widened(context.interval(before - after), left, rest),
        None if chosen is None else _copied(chosen),
        solved[0].answer.critic,
        None if any(gap is None for gap in gaps) else sum(g or 0.0 for g in gaps) / len(gaps),
        left,
        rest,
        solved[0].reached,
    )


def resting(context: AuditContext, prox: Prox, lam: float) -> Solved:
    """The answer to the trained generator, found as those to the deviations are: what the samples that it was fitted
    to add, and held-out samples take away, is then the same in both and cancels in the gain. On samples the trained
    critic itself, fitted to others, is therefore no candidate."""
    return solve_well(prox, prox.trained["generator"], lam, staying=not context.sampled)


def prox_values(
    prox: Prox, deviation: Deviation, critics: list[Part], lam: float, part: str
) -> Tensor:
    """V - lam |D~ - D|^2 on every batch of a part's bank, the mean over the deviation's sides."""
    sides = zip(deviation.sides, critics, strict=True)
    return torch.stack([prox.measure(g, critic, lam, part) for g, critic in sides]).mean(0)


def mirrored(prox: Prox, deviation: Deviation) -> Deviation:
    """The deviation with its mirror image."""
    opposite = on_ray(prox, deviation.generator, -1.0)
    return Deviation(deviation.generator, opposite, deviation.promise)


def _copied(deviation: Deviation) -> Deviation:
    one, two = deviation.generator, deviation.mirror
    return Deviation(tree.clone(one), None if two is None else tree.clone(two), deviation.promise)


def _widened(interval: Interval, left: float, rest: float) -> Interval:
    """The interval with its ends moved out by what the answers to the deviation, and to the trained generator, miss:
    V_prox from below makes the first gain too large, and the second too small."""
    return Interval(interval.mean, interval.low - left, interval.high + rest)


def verdict_of(found: Trial, tolerance: float) -> Verdict:
    """On "no generator gains more than the tolerance"."""
    if found.failed:
        return Verdict.UNASSESSED
    gain, noise = found.gain, found.gain.high - found.gain.mean
    return decide(gain, tolerance, finished=found.settled, noise=noise).verdict


def hints(prox: Prox, deviation: Deviation | None) -> list[Part]:
    """Further starts: the last deviation that gained, and half of it."""
    if deviation is None:
        return []
    return [deviation.generator, on_ray(prox, deviation.generator, 0.5)]


def on_ray(prox: Prox, generator: Part, share: float) -> Part:
    """The feasible generator nearest to G* + share (G - G*)."""
    stay = prox.trained["generator"]
    with torch.no_grad():
        return prox.feasible({k: x + share * (generator[k] - x) for k, x in stay.items()})
