"""V_prox(G, D) = max over D~ of V(G, D~) - lambda |D~ - D|^2, its inner maximum by search.

What the searches of this folder ask of a context; `_exact.py` answers for games without draws, `_sampled.py`
for GANs on samples. Every maximum by search lies below V_prox, so that a generator's gain is over-estimated:
`Answer.gap` bounds by how much, or is None where no bound is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from equilibrist.checks.certificate import Certificate, Json, not_assessed
from equilibrist.checks.context import AuditContext, Tick, relative_noise
from equilibrist.core.draws import Use
from equilibrist.games import SampledGame

Part = dict[str, Tensor]

STAYING = "the trained critic"
USUAL, MORE = "usual", "four times the steps"

REFERENCES = (
    "Farnia and Ozdaglar 2020, section 4: equations 11 and 15, Propositions 2 to 4",
    "Farnia and Ozdaglar 2020, section 6.1",
)


@dataclass(frozen=True)
class Answer:
    """The critic D~ that answers a generator.

    Attributes:
        critic: its parameters.
        gap: V_prox exceeds what this critic reaches by at most that much; None where no bound is known.
        residual: exact games: |projected gradient| of the inner problem. On samples: what the critic may
            still gain by the solver's own model, in V's unit. None where it was not computed.
        steps: what the solver spent.
        settled: whether it stopped because nothing was left to gain.
    """

    critic: Part
    gap: float | None = None
    residual: float | None = None
    steps: int = 0
    settled: bool = False


@dataclass(frozen=True)
class Search:
    """A search for a deviating generator.

    Attributes:
        iterates: generators that it passed, the last one at the end.
        left: what V_prox may still fall by, by the search's own model.
        settled: whether it stopped because nothing was left.
    """

    iterates: list[Part]
    left: float = 0.0
    settled: bool = True


class Prox(Protocol):
    """V_prox of the pair under audit. `lam` is lambda of equation 11, 0 and infinity included."""

    def solve(
        self, generator: Part, lam: float, effort: int = 1, fresh: int = 0, warm: Part | None = None
    ) -> Answer:
        """The critic's answer, starting at the trained critic (at a perturbed copy of it, number `fresh`, where that
        is positive; at `warm` where one is given), with `effort` times the inner steps."""
        ...

    def measure(self, generator: Part, critic: Part, lam: float, part: str) -> Tensor:
        """V(G, D~) - lam |D~ - D|^2 on every batch of a part's bank, float64 [batches]."""
        ...

    def descend(
        self, start: Part, lam: float, within: float = math.inf, share: float = 1.0
    ) -> Search:
        """A search for a generator of least V_prox, no further than `within` from the trained one; what counts as
        nothing is smaller by `share` squared."""
        ...

    def feasible(self, generator: Part) -> Part:
        """The nearest feasible generator."""
        ...

    @property
    def trained(self) -> dict[str, Part]:
        """The pair."""
        ...


@dataclass
class Solved:
    """The best of several answers to one generator, and what each reached on the selection split.

    `left`: by how much V_prox may exceed what the best one reaches: its bound, or what a solver that settled
    says is left. Where none settled, what four times the steps added is what as many more might.
    """

    answer: Answer
    reached: dict[str, float] = field(default_factory=dict)
    left: float = 0.0

    @property
    def best(self) -> float:
        """The most that was reached; not a number where nothing finite was."""
        sound = [value for value in self.reached.values() if math.isfinite(value)]
        return max(sound, default=math.nan)

    @property
    def shortfall(self) -> float:
        """By how much every search for an answer ended below the trained critic itself, where all began: above
        noise, the searches failed, and V_prox is unknown. Infinite where no search ended at a finite value."""
        staying = self.reached.get(STAYING)
        if staying is None:
            return 0.0
        others = [v for k, v in self.reached.items() if k != STAYING and math.isfinite(v)]
        return staying - max(others, default=-math.inf)


def why_not(context: AuditContext) -> str:
    """Why V_prox is not defined for this context's game; "" where it is."""
    game: Any = context.game
    if set(game.players) != {"generator", "critic"}:
        return f"the game's players are {' and '.join(game.players)}, not a generator and a critic"
    if not isinstance(game, SampledGame):
        if context.sampled or not hasattr(game, "sobolev_distance"):
            return f"{type(game).__name__} does not give sobolev_distance, E_P |grad D~ - grad D|^2"
        return ""
    if missing := game.lacks("samples", "score"):
        return f"the game shows no {missing}: give AdversarialGame {missing}=function"
    if game.heads > 1:
        return "the critic is several: the semi-norm of equation 15 is of one"
    if not game.samplewise:
        return "the critic's scores depend on the whole batch, so grad_x D of one sample is not defined"
    return ""


def why_not_judged(context: AuditContext) -> str:
    """Why V_prox cannot be assessed here: it is not defined, or there is no tolerance; "" where it can."""
    tolerance = context.tolerance()
    none = f"there is no tolerance: {tolerance.why}" if math.isnan(tolerance.value) else ""
    return why_not(context) or none


def unfit(context: AuditContext, claim: str, reason: str) -> Certificate:
    """UNASSESSED: the check does not apply."""
    return not_assessed(claim, reason, scope=scope(context), references=REFERENCES)


def prox_of(context: AuditContext, tick: Tick) -> Prox:
    """The solver for this context (`why_not` must be "")."""
    from equilibrist.checks.proximal._exact import ExactProx
    from equilibrist.checks.proximal._sampled import SampledProx

    return SampledProx(context, tick) if context.sampled else ExactProx(context, tick)


def solve_well(prox: Prox, generator: Part, lam: float, staying: bool = True) -> Solved:
    """The answer that reaches most on the selection split: of the usual steps from the trained critic, of four
    times as many, of as many from a perturbed critic, and (if `staying`) of the trained critic itself,
    which pays no penalty. Where an answer carries a bound, that one."""
    first = prox.solve(generator, lam)
    reached = {USUAL: _mean(prox, generator, first, lam)}
    if lam == math.inf or first.gap is not None:
        return Solved(first, reached, first.gap or 0.0)
    # A solver that stopped by itself would stop there again.
    tried = {MORE: first if first.settled else prox.solve(generator, lam, effort=4)}
    tried["fresh start 1"] = prox.solve(generator, lam, effort=4, fresh=1)
    if staying:
        tried[STAYING] = Answer(prox.trained["critic"])
    best, most = first, reached[USUAL] if math.isfinite(reached[USUAL]) else -math.inf
    for name, answer in tried.items():
        if answer is first:
            reached[name] = reached[USUAL]
            continue
        reached[name] = _mean(prox, generator, answer, lam)
        if reached[name] > most:
            best, most = answer, reached[name]
    return Solved(best, reached, _left([first, *tried.values()], reached))


def _left(tried: list[Answer], reached: dict[str, float]) -> float:
    # The best of them on held-out samples falls short of V_prox by no more than any of the others.
    reported = [a.residual for a in tried if a.residual is not None and a.settled]
    if reported:
        return min(reported)
    added = reached[MORE] - reached[USUAL]
    return max(added, 0.0) if math.isfinite(added) else math.inf


def _mean(prox: Prox, generator: Part, answer: Answer, lam: float) -> float:
    return float(prox.measure(generator, answer.critic, lam, "select").mean())


def starts_around(context: AuditContext, generator: Part, count: int) -> list[Part]:
    """`count` perturbed copies of a generator. On samples the first is the generator itself, where noise leads
    the search off; without noise a stationary point would hold it, so there every copy is perturbed, each
    ten times as far as the one before."""
    found = []
    for k in range(count):
        size = context.settings.perturbation * (1.0 if context.sampled else 10.0**k)
        if context.sampled and k == 0:
            found.append({name: x.clone() for name, x in generator.items()})
            continue
        rng = Use.PROX_GENERATOR.at(start=k).generator(context.seed)
        noise = relative_noise(generator, size, rng)
        found.append({name: x + noise[name] for name, x in generator.items()})
    return found


def perturbed_critic(context: AuditContext, critic: Part, fresh: int, size: float) -> Part:
    """Perturbed copy number `fresh` of a critic."""
    rng = Use.PROX_CRITIC.at(start=fresh).generator(context.seed)
    noise = relative_noise(critic, size, rng)
    return {name: x + noise[name] for name, x in critic.items()}


def scope(context: AuditContext) -> Json:
    """What the certificates of this folder are about: the zero-sum V, and the critics that may answer."""
    own: Json = context.scope()
    game: Any = context.game
    if not game.zero_sum:
        own["losses"] = "V = -(the critic's own loss), zero-sum"
        own["penalties"] = "part of V" if getattr(game, "penalties", ()) else "none"
    named = getattr(game, "critic_class", None)
    if named is not None:
        own["critic_class"] = str(named)
    own["lambda"] = "that of equation 11: V(G, D~) - lambda E_P |grad D~ - grad D|^2"
    return own
