"""Findings that plain facts show by themselves: what was measured, and what to change first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from equilibrist.certificates import Json
from equilibrist.findings import Finding
from equilibrist.statistics import exact_interval

if TYPE_CHECKING:
    from equilibrist.checks.facts import Facts, Loss

# A fact is called a sign of a fault beyond these. Measured on faulty and healthy pairs: docs/audit.md.
SATURATED = 0.1  # of its value at equality: a critic's loss below this
HALF = 0.6  # the same, of one that separates all and has not won
EXPLODED = 5.0  # times the value at equality: a loss above this
SEPARATED = 0.99  # share of pairs that a critic orders rightly
TOLD = 0.98  # the same, for certain, with a loss below `HALF`
RIGHTLY = 0.95  # the same, of a critic whose loss is nevertheless poor
REVERSED, REVERSED_MOST, REVERSED_ALL = 0.4, 0.3, 0.05
COLLAPSED = 0.3  # distances between generated samples, relative to those between real ones
OUTSIDE = 0.02  # of generated entries beyond the range of real ones
UNREACHED = 0.02  # of real entries beyond the range of generated ones
NARROW, WIDE = 0.1, 3.0  # of the real entries' standard deviation: the generated ones'
MAXIMUM = 0.4  # what the generator's loss rises by uphill, over what it falls by downhill
VANISHED = 0.02  # of its slope in the score at equality: the generator's loss's slope
STARVED = 20.0  # times eps: the variance that a batch norm divides by
ELSEWHERE, SMALL, LARGE = (
    3.0,
    0.2,
    5.0,
)  # real standard deviations: means apart; spreads of generated points
COPIED = 0.5  # of generated samples

SAMPLES = "real and generated samples"  # where a finding about both kinds is


def signs(f: Facts) -> Iterator[Finding]:
    """Each with its numbers."""
    if f.constant is not None:
        yield Finding(
            "constant-score",
            "critic",
            f"The critic gives every sample the same score ({f.constant:.3g}, real and generated alike): its output "
            "does not depend on the sample, so that the generator has no gradient from it.",
            # Where samples are as diverse as real ones it may be an equilibrium.
            "fault" if f.diversity < COLLAPSED else "warning",
            "likely",
            {"value": f.constant, "samples": 2 * f.samples},
        )
    for player in f.untouched if f.constant is None else ():
        yield Finding(
            "never-stepped",
            player,
            f"The {player}'s weights look exactly as freshly initialised ones: it seems that no step was ever "
            "taken with it.",
            sure="likely",
            cure="see that its optimiser is built on these parameters, is stepped, and has a learning rate above 0 "
            "(equilibrist.check_wiring looks)",
        )
    if f.uphill is not None and f.uphill < MAXIMUM:
        yield Finding(
            "wrong-sign",
            "generator",
            f"The generator stands near a maximum of its own loss, {f.losses['generator'].value:.3g} {f.unit}: steps "
            f"up its gradient raise the loss by {f.uphill:.0%} of what as many steps down lower it by.",
            sure="likely",
            evidence={"value": f.uphill, "bound": MAXIMUM},
        )
    yield from _of_ranges(f)
    yield from _of_copies(f)
    yield from _of_scores(f)
    if f.diversity < COLLAPSED:
        yield Finding(
            "collapsed",
            "generator",
            f"Generated samples are not diverse: they lie {f.diversity:.2g} times as far apart as real ones"
            f"{'' if f.images else f' (values in {f.generated}, real ones in {f.real})'}.",
            sure="likely",
            evidence=_measured(f, f.diversity, f.diversity_interval, bound=COLLAPSED),
        )
    for layer in f.starved:
        yield Finding(
            "starved-layer",
            f"{layer.player}: {layer.layer}",
            f"Hardly anything reaches the {layer.player}'s batch norm {layer.layer!r}: the variance of its input is "
            f"{layer.variance:.2g} (eps {layer.eps:.2g}), so what it passes on is amplified "
            f"{(layer.variance + layer.eps) ** -0.5:.0f} times.",
            sure="likely",
            evidence={"value": layer.variance, "eps": layer.eps},
        )


def _measured(
    f: Facts, value: float, interval: tuple[float, float] | None, **more: float | None
) -> Json:
    """A value, its interval where there is one, and the confidence of that."""
    ends = {"interval": list(interval), "confidence": f.confidence} if interval else {}
    return {"value": value, **ends, "samples": f.samples, **more}


def _ordered(f: Facts, **more: float | None) -> Json:
    """The share of pairs that the critic orders rightly, as evidence."""
    share, *ends = f.separation
    return _measured(f, share, (ends[0], ends[1]), **more)


def _of_ranges(f: Facts) -> Iterator[Finding]:
    spans = f"generated values lie in {f.generated}, real ones in {f.real}"
    apart, ratio = f.apart
    evidence: Json = {
        "real": [f.real.low, f.real.high],
        "generated": [f.generated.low, f.generated.high],
        "means_apart": apart,
        "spreads": ratio,
    }
    if not f.images:
        if apart > ELSEWHERE and not SMALL <= ratio <= LARGE:
            yield Finding(
                "normalization-mismatch",
                SAMPLES,
                f"Generated samples lie elsewhere than real ones: {spans}; their means are {apart:.2g} real standard "
                f"deviations apart, and their spread is {ratio:.2g} times the real one's.",
                sure="possible",
                evidence=evidence,
                cure="see that both are normalised alike: rescale both, or neither",
            )
        return
    why, sure, key = "", "likely", "outside"
    if f.ends is not None and f.ends[0] < -0.5 and _in_unit(f) and f.outside > OUTSIDE:
        why = (
            f", and the generator's output ends at {f.ends[0]:.3g} and {f.ends[1]:.3g} whatever its weights are "
            f"({f.outside:.0%} of generated entries are beyond)"
        )
        sure = "certain"
    elif f.outside > OUTSIDE and _far(apart, ratio):
        why = f" ({f.outside:.0%} of generated entries are beyond)"
    elif f.unreached > UNREACHED and ratio < NARROW:
        why, key = (
            f" ({f.unreached:.0%} of real entries are out of the generator's reach)",
            "unreached",
        )
    if why:
        text = f"Real and generated samples differ in range: {spans}{why}."
        evidence |= {"value": getattr(f, key), "samples": f.samples}
        yield Finding("range-mismatch", SAMPLES, text, sure=sure, evidence=evidence)


def _far(apart: float, ratio: float) -> bool:
    """Whether location or scale of all entries differ, and not just what overshoots the ends of the range."""
    return apart > 2.5 or ratio > WIDE or (apart > 1 and ratio > 1.6)


def _in_unit(f: Facts) -> bool:
    return f.real.low >= -0.02 and f.real.high <= 1.02


def _of_copies(f: Facts) -> Iterator[Finding]:
    c = f.copies
    if c is None or c.generated * c.samples < 5 or c.generated < COPIED * c.rows / c.size:
        return
    if c.generated < 4 * c.real:
        return
    ends = exact_interval(round(c.generated * c.samples), c.samples, f.confidence)
    yield Finding(
        "copied-samples",
        "generator",
        f"{c.generated:.0%} of generated samples are copies of real ones (of {c.rows:,} among the data's {c.size:,}); "
        f"of held-out real samples {c.real:.0%} are.",
        evidence=_measured(f, c.generated, ends, of_held_out_real=c.real),
    )


def _of_scores(f: Facts) -> Iterator[Finding]:
    share, low, high = f.separation
    if math.isnan(share):
        yield Finding("not-finite", "critic", "The critic's scores are not finite.")
        return
    critic, wrong = f.losses["critic"], high < REVERSED and share < REVERSED_ALL
    if high < REVERSED:
        yield _reversed(f, wrong and "critic" not in f.untouched)
    if not wrong:
        yield from _of_sizes(f)
    if share >= RIGHTLY and f.silent is not None and _above(critic, f.silent):
        yield Finding(
            "wrong-loss",
            "critic",
            f"The critic orders {share:.1%} of pairs rightly, yet its loss is {critic.value:.3g} {f.unit}, above the "
            f"{f.silent:.3g} of a critic that says nothing.",
            sure="likely",
            evidence=_ordered(f, loss=critic.value, loss_of_silence=f.silent),
            cure="see that it was trained on this loss: declare the loss that the loop minimises, or correct the loop",
        )
    if f.unbounded:
        yield Finding(
            "unbounded-critic",
            "critic",
            "Nothing bounds the critic's slope in this game (no gradient penalty, weight clipping or spectral norm): "
            "its loss has no least value then and measures no distance.",
            "warning",
        )
    yield from _saturated(f, low)


def _reversed(f: Facts, all_of_them: bool) -> Finding:
    """A critic that scores generated samples higher: the wrong sign, or one that the generator has overtaken."""
    text = (
        "The critic has it the wrong way round: it scores generated samples above held-out real ones in "
        f"{1 - f.separation[0]:.1%} of pairs."
    )
    if not all_of_them:
        # Players that go round one another pass through the first of these.
        level = "warning" if f.separation[2] < REVERSED_MOST else "note"
        return Finding("lagging", "critic", text, level, "possible", _ordered(f))
    cure = "see whether its loss has the wrong sign, or real and generated samples are swapped"
    return Finding("wrong-sign", "critic", text, sure="likely", evidence=_ordered(f), cure=cure)


def _saturated(f: Facts, low: float) -> Iterator[Finding]:
    """A critic that separates nearly all pairs, and a generator without a gradient: one finding."""
    critic, share = f.losses["critic"], f.separation[0]
    equal, texts, level, sure = critic.at_equality, [], "fault", "likely"
    if share >= SEPARATED and equal and critic.value < SATURATED * equal:
        texts.append(
            f"The critic tells real from generated in {share:.1%} of pairs, and its loss is {critic.value:.2g} "
            f"{f.unit} ({equal:.3g} at equality): it has won, and the generator does not follow (a critic that learns "
            "too fast, or a generator that is not trained on this loss)."
        )
    elif low >= TOLD and critic.value < (HALF * equal if equal else 0):
        texts.append(f"The critic tells real from generated in {share:.1%} of pairs.")
        # Without a scale of the loss this is what a Wasserstein critic does early on.
        level, sure = "warning" if equal else "note", "possible"
    gradient = _of_gradient(f)
    if gradient:
        texts.append(gradient)
        level, sure = "fault", "likely"
    if texts:
        more = {"loss": critic.value, "loss_at_equality": equal, "pull": f.pull, "slope": f.slope}
        yield Finding("saturated", "critic", " ".join(texts), level, sure, _ordered(f, **more))


def _of_gradient(f: Facts) -> str:
    """The generator's gradient, where the critic separates nearly all pairs; "" where it has one."""
    loss = f.losses["generator"]
    content = loss.at_equality is not None and loss.value <= loss.at_equality + f.tolerance
    if f.pull is not None and f.pull < VANISHED:
        return (
            "The generator's gradient vanishes against this critic: at the scores of generated samples its loss "
            f"changes {f.pull:.2g} times as fast with the score as at equality."
        )
    if f.slope is not None and f.slope < f.tolerance and not content:
        return (
            "The generator's gradient vanishes against this critic: to first order a move of 1% lowers its loss, "
            f"{loss.value:.3g} {f.unit}, by {f.slope:.2g} (its own output may be saturated too)."
        )
    return ""


def _above(critic: Loss, silent: float) -> bool:
    return math.isfinite(critic.value) and critic.value > silent + 0.05 * max(abs(silent), 0.1)


def _of_sizes(f: Facts) -> Iterator[Finding]:
    """Losses far beyond their values at equality, in units that have a scale of their own."""
    for player in ("critic", "generator"):
        loss = f.losses[player]
        if not loss.at_equality or not math.isfinite(loss.value):
            continue
        if loss.value > EXPLODED * abs(loss.at_equality) and loss.value > 20:
            yield Finding(
                "step-too-large",
                player,
                f"The {player}'s loss is {loss.value:.3g} {f.unit} ({loss.at_equality:.3g} at equality): the "
                "critic's scores have exploded.",
                sure="likely",
                evidence=_measured(f, loss.value, loss.interval, at_equality=loss.at_equality),
            )
            return
