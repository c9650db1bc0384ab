"""Section 6.1 of Farnia and Ozdaglar 2020: D fixed, G optimised on V_prox; for comparison section 2, D frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from equilibrist import tree
from equilibrist.checks._decide import Interval, decide
from equilibrist.checks.certificate import Certificate, Json, Tolerance, Verdict
from equilibrist.checks.context import AuditContext, Show, Tick, no_tick
from equilibrist.checks.proximal import inner
from equilibrist.checks.proximal._costs import LEAD, MEASURED, PENALISED, PLAIN, POOL, well_work
from equilibrist.checks.proximal._sampled import SampledProx
from equilibrist.checks.proximal.inner import Part, solve_well

CLAIM = "generator-vs-prox"
REFERENCES = (
    "Farnia and Ozdaglar 2020, section 6.1 and figures 4 and 5",
    "Farnia and Ozdaglar 2020, section 2, problem (5) and figures 1 and 2",
)
LIMITS = (
    "one path of the generator, begun at the trained one: no search over starts",
    "V_prox is reached from below: a fall counts where it survived four times the inner steps and a "
    "fresh start",
    "the paper's figures have 10,000 generator iterations",
)


@dataclass
class _Path:
    """A generator's descent, evaluated on the selection split."""

    steps: list[int] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    sheets: list[torch.Tensor] = field(default_factory=list)
    end: Part = field(default_factory=dict)
    failed: str = ""

    def curve(self) -> Json:
        """Plain values."""
        return {
            "step": self.steps,
            "objective": self.objective,
            "value": self.value,
            "failed": self.failed,
        }


def experiment(
    context: AuditContext, tick: Tick = no_tick, show: Show | None = None
) -> tuple[list[Certificate], dict[str, torch.Tensor]]:
    """Certificate "generator-vs-prox" and sheets of samples before, during and after.

    With D the trained critic throughout, `experiment_steps` steps of the generator's rule go down
    V_prox(G, D) at lambda = `prox_lambda`, each against the critic that `inner_steps` steps find, begun at the
    trained weights each time. The control is section 2's: as many steps down V(G, D), D frozen. The
    evidence has V_prox and V along the way, on the selection part; the score part gives what each objective
    fell by, by paired differences, V_prox with four times the inner steps and fresh starts.

    REFUTED: V_prox fell by more than the tolerance: the pair is no lambda-proximal equilibrium.
    NOT_REFUTED: it held. UNASSESSED: noise, a non-finite value, or an objective that rose by more than the
    tolerance, for then the generator's search failed.
    """
    reason = inner.why_not(context)
    if not reason and not context.sampled:
        reason = "the experiment is of generators trained on samples; the profile answers for exact games"
    if reason := reason or inner.why_not_judged(context):
        return [inner.unfit(context, CLAIM, reason)], {}
    tolerance = context.tolerance()
    lam = context.settings.prox_lambda
    prox = SampledProx(context, tick)
    held = _walk(context, prox, lam, show)
    frozen = _walk(context, prox, math.inf, show)
    certificate = _certificate(context, prox, lam, held, frozen, tolerance)
    sheets: dict[str, torch.Tensor] = {}
    for path, prefix in ((held, ""), (frozen, "frozen-")):
        if path.sheets:
            sheets[f"{CLAIM}:{prefix}before"] = path.sheets[0]
            sheets[f"{CLAIM}:{prefix}during"] = path.sheets[len(path.sheets) // 2]
            sheets[f"{CLAIM}:{prefix}after"] = path.sheets[-1]
    return [certificate], sheets


def _walk(context: AuditContext, prox: SampledProx, lam: float, show: Show | None) -> _Path:
    settings = context.settings
    rule = settings.rule("generator")
    here, path = tree.clone(context.players["generator"]), _Path()
    state = rule.init(here)
    stride = -(-settings.experiment_steps // settings.looks)
    trained = context.players["critic"]
    for k in range(settings.experiment_steps + 1):
        critic = prox.follow(here, lam, begin=k * settings.inner_steps).critic
        if not tree.all_finite(here, critic):
            path.failed = f"a player became non-finite at step {k}"
            break
        if k % stride == 0 or k == settings.experiment_steps:
            value = prox.measure(here, trained, math.inf, "select").mean()
            objective = value
            if lam < math.inf:
                objective = prox.measure(here, critic, lam, "select").mean()
            if not math.isfinite(float(objective + value)):
                path.failed = f"the objective became non-finite at step {k}"
                break
            path.steps.append(k)
            path.objective.append(float(objective))
            path.value.append(float(value))
            path.end = tree.clone(here)
            if show is not None:
                at = {"generator": here, "critic": trained}
                path.sheets.append(show(at, context.constants))
        if k < settings.experiment_steps:
            here = prox.lead(here, critic, state, rule, k)
    return path


def _certificate(
    context: AuditContext,
    prox: SampledProx,
    lam: float,
    held: _Path,
    frozen: _Path,
    tolerance: Tolerance,
) -> Certificate:
    fall, reached = _fall(context, prox, held, lam)
    control, _ = _fall(context, prox, frozen, math.inf)
    settings, unit = context.settings, context.unit
    span = fall.in_words(unit)
    verdict = decide(fall, tolerance.value).verdict
    if held.failed:
        verdict, text = Verdict.UNASSESSED, f"Not assessed: {held.failed}."
    elif fall.high < -tolerance.value:
        # Not a small gain but a failed search: the generator's steps were to lower V_prox.
        verdict = Verdict.UNASSESSED
        text = f"The search failed: V_prox rose by {-fall.mean:.3g} {unit} under the generator's steps."
    elif verdict is Verdict.REFUTED:
        text = f"Optimising the generator lowers V_prox at lambda = {lam:g} by {span}."
    elif verdict is Verdict.NOT_REFUTED:
        text = (
            f"V_prox at lambda = {lam:g} holds: {settings.experiment_steps} steps of the generator lower it by "
            f"{span}, the tolerance is {tolerance.value:.3g}."
        )
    else:
        text = f"V_prox at lambda = {lam:g} falls by {span}: the noise hides whether it holds."
    if math.isfinite(control.mean):
        text += f" With D frozen the same number of steps takes {control.mean:.3g} off V."
    evidence = {
        "lambda": lam,
        "fall": fall.mean,
        "interval": fall.ends,
        "frozen_fall": control.mean,
        "frozen_interval": control.ends,
        "inner_values_at_the_end": reached,
        "curves": {"proximal": held.curve(), "frozen": frozen.curve()},
        "generator_steps": settings.experiment_steps,
        "inner_steps": settings.inner_steps,
        "unit": unit,
        "confidence": settings.confidence,
    }
    return Certificate(
        CLAIM,
        verdict,
        text,
        evidence,
        tolerance,
        inner.scope(context) | {"player": "generator"},
        LIMITS,
        REFERENCES,
        "generator",
        {"generator": held.end} if verdict is Verdict.REFUTED else None,
    )


def _fall(
    context: AuditContext, prox: SampledProx, path: _Path, lam: float
) -> tuple[Interval, dict[str, float]]:
    """What the objective fell by along a path, on the score part, and what the answers reached at its end."""
    if not path.end:
        return Interval.at(math.nan), {}
    stay = context.players["generator"]
    first, last = (solve_well(prox, g, lam) for g in (stay, path.end))
    before = prox.measure(stay, first.answer.critic, lam, "score")
    after = prox.measure(path.end, last.answer.critic, lam, "score")
    fallen = context.interval(before - after)
    # An answer to the last generator that falls short of V_prox makes the fall too large.
    return Interval(fallen.mean, fallen.low - last.left, fallen.high), last.reached


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    if inner.why_not(context) or not context.sampled:
        return 1.0
    s = context.settings
    if s.gradients:
        # A walk against an answer: steps that must be made shorter may take several times as many.
        step = 1.5 * s.inner_steps * PENALISED + 2 * PLAIN + 2 * LEAD
        ends = 2 * well_work(context) + (4 * s.batches + 8 * s.look_batches) * MEASURED
        looks = 3 * (s.looks + 1) * s.look_batches * MEASURED
        return POOL * PLAIN + (s.experiment_steps + 1) * step + looks + ends
    walk = (s.experiment_steps + 1) * s.inner_steps * PENALISED
    looks = 3 * (s.looks + 1) * s.look_batches * MEASURED
    ends = 18 * s.inner_steps * PENALISED + (4 * s.batches + 8 * s.look_batches) * MEASURED
    return POOL * PLAIN + walk + 2 * LEAD * s.experiment_steps + looks + ends
