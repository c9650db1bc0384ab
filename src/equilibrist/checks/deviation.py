"""Is the pair a Nash equilibrium? Freeze one player, optimise the other, score what it gained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from equilibrist import tree
from equilibrist._draws import Use
from equilibrist._field import VectorField
from equilibrist.checks._bench import Bench, relative_noise
from equilibrist.checks._decide import Interval
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict, both

REFERENCES = (
    "Farnia and Ozdaglar 2020, section 2, problem (5)",
    "Nash equilibrium: Farnia and Ozdaglar 2020, inequalities (2)",
)


@dataclass
class Search:
    """One search: its gains on the selection split, and where it was best."""

    start: int
    perturbation: float
    steps: list[int]
    gains: list[float]
    samples: list[torch.Tensor]
    best: dict[str, torch.Tensor] | None = None
    best_gain: float = 0.0
    best_step: int = 0
    failed: str = ""


def nash(
    bench: Bench, tick: Any = lambda: None, show: Callable[[Any, Any], torch.Tensor] | None = None
) -> tuple[list[Certificate], dict[str, torch.Tensor]]:
    """Certificates "nash/<player>" and "nash", and the generator's samples before, during and after
    its chosen deviation (from `show(players, constants)`).

    For each player: `starts` searches of `steps` steps on minibatches of the first part of the data,
    the other player frozen, each step projected into the feasible set, singular vectors exact at
    every step; the best of all looks on the second part is chosen (staying put is a candidate);
    the third part scores it, by paired differences over common batches.

    REFUTED: the interval's lower end is above the tolerance; the deviation is the witness.
    UNASSESSED: every search failed, half the interval is wider than the tolerance, or the interval
    holds the tolerance while the estimate is above it.
    NOT_REFUTED: otherwise. A search cannot verify.
    """
    settings, tolerance = bench.settings, bench.tolerance()
    sheets: dict[str, torch.Tensor] = {}
    parts = []
    for player in bench.game.players:
        before = bench.losses(player, bench.players, bench.constants, "select")
        searches = [
            _search(bench, player, start, before, tick, show if player == "generator" else None)
            for start in range(settings.starts)
        ]
        parts.append(_certificate(bench, player, searches, tolerance))
        if player == "generator" and show is not None:
            sheets = _sheets(searches)
    return [*parts, both("nash", parts, _overall(parts))], sheets


def gain(bench: Bench, player: str, deviation: dict[str, torch.Tensor], part: str) -> torch.Tensor:
    """Loss before minus loss after the deviation, on every batch of a part's bank, float64."""
    before = bench.losses(player, bench.players, bench.constants, part)
    return before - bench.losses(
        player, {**bench.players, player: deviation}, bench.constants, part
    )


def _search(
    bench: Bench,
    player: str,
    start: int,
    before: torch.Tensor,
    tick: Any,
    show: Callable[[Any, Any], torch.Tensor] | None,
) -> Search:
    settings, game = bench.settings, bench.game
    rule, field = settings.rule(player), VectorField(game)
    size = settings.perturbation if start else 0.0
    here = tree.clone(bench.players[player])
    if size:
        where = Use.DEVIATION.at(player=game.players.index(player), start=start)
        noise = relative_noise(here, size, where.generator(bench.seed))
        here = {k: x + noise[k] for k, x in here.items()}
    constants, state = bench.constants, rule.init(here)
    look = -(-settings.steps // settings.looks)
    found = Search(start, size, [], [], [])
    for step in range(settings.steps + 1):
        at = game.project({**bench.players, player: here})
        here = at[player]
        if player == "critic":  # the generator's moves leave the critic's norms alone
            constants = bench.exact(at, constants)
        if step % look == 0 or step == settings.steps:
            won = float((before - bench.losses(player, at, constants, "select")).mean())
            if won - won != 0:
                found.failed = f"the loss became non-finite at step {step}"
                break
            found.steps.append(step)
            found.gains.append(won)
            if show is not None:
                found.samples.append(show(at, constants))
            if won > found.best_gain:
                found.best, found.best_gain, found.best_step = tree.clone(here), won, step
        if step == settings.steps:
            break
        v, _ = field(at, constants, bench.minibatch(step), only=player)
        with torch.no_grad():
            rule.update(v[player], state, here)
        tick()
    return found


def _certificate(
    bench: Bench, player: str, searches: list[Search], tolerance: Tolerance
) -> Certificate:
    settings, unit = bench.settings, bench.unit
    best = max(searches, key=lambda s: s.best_gain)
    failed = [s.failed for s in searches if s.failed]
    other = "critic" if player == "generator" else "generator"
    evidence: dict[str, Any] = {
        "confidence": settings.confidence,
        "budget": {
            "starts": settings.starts,
            "steps": settings.steps,
            "failed": len(failed),
            "gradients": sum(s.steps[-1] if s.steps else 0 for s in searches),
            "batch": settings.batch,
            "optimizer": repr(settings.rule(player)),
        },
        "curves": [
            {
                "start": s.start,
                "perturbation": s.perturbation,
                "optimizer": repr(settings.rule(player)),
                "steps": s.steps,
                "gain": s.gains,
                "failed": s.failed or None,
            }
            for s in searches
        ],
        "chosen": {"start": best.start, "step": best.best_step},
    }
    before = bench.losses(player, bench.players, bench.constants, "score")
    evidence["loss_before"] = float(before.mean())
    score_batches = len(before)
    if best.best is None:
        measured = Interval(0.0, 0.0, 0.0)
        evidence["loss_after"] = evidence["loss_before"]
    else:
        differences = gain(bench, player, best.best, "score")
        measured = bench.interval(differences)
        evidence["loss_after"] = float((before - differences).mean())
    evidence |= {
        "gain": measured.mean,
        "interval": [measured.low, measured.high],
        "score_batches": score_batches,
    }
    span = f"{settings.confidence:.0%} interval {measured.low:.3g} to {measured.high:.3g}"
    gained = f"{measured.mean:.3g} {unit} ({span})"
    witness = None
    if not math.isfinite(evidence["loss_before"]):
        verdict, summary = (
            Verdict.UNASSESSED,
            f"The {player}'s loss is not finite at the trained pair.",
        )
    elif math.isnan(tolerance.value):
        verdict = Verdict.UNASSESSED
        summary = f"The {player}'s best deviation gains {gained}; not assessed: {tolerance.why}."
    elif measured.low > tolerance.value:
        verdict, witness = Verdict.REFUTED, {player: best.best or {}}
        summary = f"With the {other} frozen, the {player} alone lowers its loss by {gained}."
    elif len(failed) == len(searches):
        verdict, summary = (
            Verdict.UNASSESSED,
            f"Every search for a better {player} failed (non-finite loss): {failed[0]}.",
        )
    elif measured.half_width > tolerance.value or not math.isfinite(measured.half_width):
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {player}'s best deviation gains {gained}: the noise is above the tolerance of "
            f"{tolerance.value:.3g}, so more data are needed to tell."
        )
    elif measured.mean > tolerance.value:
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {player}'s best deviation gains {gained}: the interval holds the tolerance of "
            f"{tolerance.value:.3g}, so more data are needed to tell."
        )
    else:
        verdict = Verdict.NOT_REFUTED
        summary = (
            f"{len(searches) - len(failed)} searches of {settings.steps} steps found no {player} that gains "
            f"more than {tolerance.value:.3g} {unit} against the frozen {other}: the best gains {gained}."
        )
    limits = [
        "a gain is a lower bound: a longer or luckier search may find more",
        f"the interval holds batch-to-batch noise over {score_batches} batches of the score split",
    ]
    if not bench.game.separable:
        limits.append(
            f"losses depend on whole batches ({bench.game.why_not_separable}): batches of "
            f"{settings.batch} were resampled"
        )
    if bench.resampling("score") > 1:
        limits.append(
            "the score split is too small for eight whole batches: they were drawn with "
            "replacement, and the interval widened for it"
        )
    if bench.lag is not None:
        limits.append(
            f"training divided by running estimates of the singular values (effective norms up to {bench.lag:g}); "
            "the audited critic has norms of exactly 1, as `export` writes it"
        )
    if settings.starts == 1:
        limits.append("one start, unperturbed: it cannot leave a stationary point")
    if failed:
        limits.append(f"{len(failed)} of {len(searches)} searches failed: {failed[0]}")
    return Certificate(
        f"nash/{player}",
        verdict,
        summary,
        evidence,
        tolerance,
        bench.scope() | {"player": player},
        tuple(limits),
        REFERENCES,
        player,
        witness,
    )


def _sheets(searches: list[Search]) -> dict[str, torch.Tensor]:
    """The generator's samples before, half-way and at its chosen deviation (or at the end of the
    first search, where none was better)."""
    best = max(searches, key=lambda s: s.best_gain)
    if not best.samples:
        return {}
    last = best.steps.index(best.best_step) if best.best is not None else len(best.steps) - 1
    # Before: the trained pair itself, which is where the unperturbed search begins.
    before = searches[0].samples[0] if searches[0].samples else best.samples[0]
    return {"before": before, "during": best.samples[(last + 1) // 2], "after": best.samples[last]}


def _overall(parts: list[Certificate]) -> str:
    refuted = [part for part in parts if part.verdict is Verdict.REFUTED]
    if refuted:
        most = max(refuted, key=lambda c: c.evidence["gain"])
        return "Not a Nash equilibrium. " + most.summary
    if any(part.verdict is Verdict.UNASSESSED for part in parts):
        return "Cannot tell whether this is a Nash equilibrium: " + next(
            p.summary for p in parts if p.verdict is Verdict.UNASSESSED
        )
    return "No player was found to gain by deviating alone, within the stated budget."
