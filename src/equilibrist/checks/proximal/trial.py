"""One lambda: is there a generator that gains although the critic may answer?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from equilibrist import tree
from equilibrist.checks._bench import Bench
from equilibrist.checks._decide import Interval
from equilibrist.checks.proximal.inner import Part, Prox, Solved, solve_well, starts_around

CLOSER = 3  # at most so many generators of a trial are looked at again


@dataclass
class Trial:
    """What the searches at one lambda found.

    Attributes:
        lam: lambda.
        regret: V(G*, D*) - V_prox(G, D*) at the generator found: what r(lambda) is at least (Proposition 2).
        slack: V_prox(G*, D*) - V(G*, D*): what the critic gains within reach, the generator at rest.
        gain: V_prox(G*, D*) - V_prox(G, D*), the generator's side of Definition 1: regret plus slack.
        generator: the generator found, None where staying put was best.
        critic: the critic that answers it.
        gap: V_prox(G, D*) exceeds what that critic reaches by at most that much; None: unknown.
        reached: what several answers to that generator reached on the selection split.
        searched: gains of every search's iterates on the selection split, staying put left out.
        flattered: generators that seemed to gain until the critic answered with more steps.
        failed: why the search counts as failed; "" where it does not.
        verdict: "refuted", "not refuted" or "unassessed".
    """

    lam: float
    regret: Interval
    slack: Interval
    gain: Interval
    generator: Part | None
    critic: Part
    gap: float | None
    reached: dict[str, float] = field(default_factory=dict)
    searched: list[float] = field(default_factory=list)
    flattered: int = 0
    failed: str = ""
    verdict: str = "unassessed"

    def row(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "lambda": self.lam if math.isfinite(self.lam) else "inf",
            "verdict": self.verdict,
            "regret": self.regret.mean,
            "regret_interval": [self.regret.low, self.regret.high],
            "gain": self.gain.mean,
            "gain_interval": [self.gain.low, self.gain.high],
            "slack_within_reach": self.slack.mean,
            "slack_interval": [self.slack.low, self.slack.high],
            "inner_gap_bound": self.gap,
            "inner_values": self.reached,
            "searched": self.searched,
            "flattered": self.flattered,
            "stayed": self.generator is None,
            "failed": self.failed,
        }


def trial(
    bench: Bench, prox: Prox, lam: float, tolerance: float, also: list[Part] | None = None
) -> Trial:
    """The searches at `lam`: `prox_starts` of them, and from the generators `also`.

    On the optimise part each search descends; on the selection part the best of its iterates, of `also` and of
    staying put is chosen; on the score part paired differences are taken.

    Inner searches that stop short flatter some generators: whichever looks best is looked at again with four times
    the inner steps and from a fresh start (or with a bound of the inner problem), until the best one has been.
    """
    also = also or []
    stay = prox.trained["generator"]
    settings = bench.settings
    at_rest = solve_well(prox, stay, lam)
    base = at_rest.best
    begun = starts_around(bench, stay, settings.prox_starts)
    found: list[Part] = [prox.feasible(g) for g in also]
    for start in begun + also[: 1 if bench.sampled else None]:
        found += prox.descend(start, lam)
    gains = []
    for generator in found:
        there = prox.measure(generator, prox.solve(generator, lam).critic, lam, "select").mean()
        gains.append(base - float(there))
    sound = [k for k, gain in enumerate(gains) if math.isfinite(gain)]
    chosen, looked = None, list(gains)
    solved = at_rest
    for _ in range(CLOSER):
        best = max(sound, key=lambda k: looked[k], default=None)
        if best is None or not looked[best] > 0:
            break
        again = solve_well(prox, found[best], lam)
        looked[best] = base - again.best
        sound.remove(best)
        if looked[best] > 0 and (chosen is None or looked[best] > looked[chosen]):
            chosen, solved = best, again
        if chosen is not None and all(looked[k] <= looked[chosen] for k in sound):
            break
    failed = ""
    finite = [gain for gain in gains if math.isfinite(gain)]
    if not finite:
        failed = "every search ended at a value that is not finite"
    elif max(finite) < -tolerance:
        failed = f"every search ended above where it began, the best by {-max(finite):.3g}"
    if not failed and chosen is not None and not solved.shortfall <= tolerance:
        failed = (
            "every search for the critic's answer ended below where it began (a step size too large for this "
            "lambda?)"
        )
    result = scored(bench, prox, lam, None if chosen is None else found[chosen], (at_rest, solved))
    result.searched, result.failed = gains, failed
    result.flattered = sum(a > 0 >= b for a, b in zip(gains, looked, strict=True))
    result.verdict = _verdict(result, tolerance)
    # A generator that looks better than the one chosen, and was not looked at again, leaves it open.
    if result.verdict == "not refuted" and any(looked[k] > tolerance for k in sound):
        result.verdict = "unassessed"
    return result


def scored(
    bench: Bench,
    prox: Prox,
    lam: float,
    chosen: Part | None,
    answers: tuple[Solved, Solved] | None = None,
) -> Trial:
    """The generator (None: the trained one) at `lam` on the score part, the critic answering as well as it can.
    `answers`: to the trained generator and to this one, where they are known."""
    stay = prox.trained["generator"]
    at_rest = solve_well(prox, stay, lam) if answers is None else answers[0]
    value = prox.measure(stay, prox.trained["critic"], math.inf, "score")
    before = prox.measure(stay, at_rest.answer.critic, lam, "score")
    generator, solved, after = chosen, at_rest, before
    if generator is not None:
        solved = solve_well(prox, generator, lam) if answers is None else answers[1]
        after = prox.measure(generator, solved.answer.critic, lam, "score")
    gap = solved.answer.gap
    return Trial(
        lam,
        _less(bench.interval(value - after), gap or 0.0),
        bench.interval(before - value),
        _less(bench.interval(before - after), gap or 0.0),
        tree.clone(generator) if generator is not None else None,
        solved.answer.critic,
        gap,
        solved.reached,
    )


def _less(interval: Interval, gap: float) -> Interval:
    """The interval with its lower end lowered by what V_prox may exceed the inner value by."""
    return Interval(interval.mean, interval.low - gap, interval.high)


def _verdict(found: Trial, tolerance: float) -> str:
    gain = found.gain
    if not all(map(math.isfinite, (gain.mean, gain.low, gain.high, tolerance))) or found.failed:
        return "unassessed"
    if gain.low > tolerance:
        return "refuted"
    if gain.mean <= tolerance and gain.high - gain.mean <= tolerance:
        return "not refuted"
    return "unassessed"


def on_ray(prox: Prox, generator: Part, share: float) -> Part:
    """The feasible generator nearest to G* + share (G - G*)."""
    stay = prox.trained["generator"]
    with torch.no_grad():
        return prox.feasible({k: x + share * (generator[k] - x) for k, x in stay.items()})
