"""Signs of a fault that plain facts show by themselves, in words: what was measured, and which causes fit it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equilibrist.checks.facts import Facts, Loss

# A fact is called a sign of a fault beyond these. Measured on faulty and healthy pairs: docs/audit.md.
SATURATED = 0.1  # of its value at equality: a critic's loss below this
HALF = 0.6  # the same, of one that separates all and has not won
EXPLODED = 5.0  # times the value at equality: a loss above this
SEPARATED = 0.99  # share of pairs that a critic orders rightly
TOLD = 0.98  # the same, for certain, with a loss below `HALF`
RIGHTLY = 0.95  # the same, of a critic whose loss is nevertheless poor
REVERSED, REVERSED_ALL = 0.4, 0.05
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

SWAPPED = " (is its loss of the wrong sign, or are real and generated swapped?)"


def signs(f: Facts) -> Iterator[str]:
    """Each with its number, most telling first."""
    if f.constant is not None:
        yield (
            f"The critic gives every sample the same score ({f.constant:.3g}, real and generated alike): its output "
            "does not depend on the sample, so that the generator has no gradient from it. That is so at some "
            "equilibria; is it so here by a fault (dead units, a softmax over one column, weights at zero)?"
        )
    for player in f.untouched if f.constant is None else ():
        yield (
            f"The {player}'s weights look exactly as freshly initialised ones: it seems that no step was ever "
            "taken with it (is its optimiser built on these parameters, stepped, and its learning rate above 0?)."
        )
    if f.uphill is not None and f.uphill < MAXIMUM:
        yield (
            f"The generator stands near a maximum of its own loss, {f.losses['generator'].value:.3g} {f.unit}: steps "
            f"up its gradient raise the loss by {f.uphill:.0%} of what as many steps down lower it by (is its loss "
            "minimised with the wrong sign?)."
        )
    yield from _of_ranges(f)
    yield from _of_copies(f)
    yield from _of_scores(f)
    if f.diversity < COLLAPSED:
        yield (
            f"Generated samples are not diverse: they lie {f.diversity:.2g} times as far apart as real ones"
            f"{'' if f.images else f' (values in {f.generated}, real ones in {f.real})'}."
        )
    for layer in f.starved:
        yield (
            f"Hardly anything reaches the {layer.player}'s batch norm {layer.layer!r}: the variance of its input is "
            f"{layer.variance:.2g} (eps {layer.eps:.2g}), so what it passes on is amplified "
            f"{(layer.variance + layer.eps) ** -0.5:.0f} times (is the latent scaled down, or a layer before it dead?)."
        )


def _of_ranges(f: Facts) -> Iterator[str]:
    spans = f"generated values lie in {f.generated}, real ones in {f.real}"
    apart, ratio = f.apart
    if not f.images:
        if apart > ELSEWHERE and not SMALL <= ratio <= LARGE:
            yield (
                f"Generated samples lie elsewhere than real ones: {spans}; their means are {apart:.2g} real standard "
                f"deviations apart, and their spread is {ratio:.2g} times the real one's (are both normalised alike?)."
            )
        return
    if f.ends is not None and f.ends[0] < -0.5 and _in_unit(f) and f.outside > OUTSIDE:
        yield (
            f"Real and generated samples differ in range: {spans}, and the generator's output ends at "
            f"{f.ends[0]:.3g} and {f.ends[1]:.3g} whatever its weights are ({f.outside:.0%} of generated entries are "
            "beyond; are both normalised alike?)."
        )
    elif f.outside > OUTSIDE and _far(apart, ratio):
        yield (
            f"Real and generated samples differ in range: {spans} ({f.outside:.0%} of generated entries are beyond; "
            "are both normalised alike?)."
        )
    elif f.unreached > UNREACHED and ratio < NARROW:
        yield (
            f"Real and generated samples differ in range: {spans} ({f.unreached:.0%} of real entries are out of the "
            "generator's reach; are both normalised alike?)."
        )


def _far(apart: float, ratio: float) -> bool:
    """Whether location or scale of all entries differ, and not just what overshoots the ends of the range."""
    return apart > 2.5 or ratio > WIDE or (apart > 1 and ratio > 1.6)


def _in_unit(f: Facts) -> bool:
    return f.real.low >= -0.02 and f.real.high <= 1.02


def _of_copies(f: Facts) -> Iterator[str]:
    c = f.copies
    if c is None or c.generated * c.samples < 5 or c.generated < COPIED * c.rows / c.size:
        return
    if c.generated < 4 * c.real:
        return
    yield (
        f"{c.generated:.0%} of generated samples are copies of real ones (of {c.rows:,} among the data's {c.size:,}); "
        f"of held-out real samples {c.real:.0%} are."
    )


def _of_scores(f: Facts) -> Iterator[str]:
    share, low, high = f.separation
    if math.isnan(share):
        yield "The critic's scores are not finite."
        return
    critic, wrong = f.losses["critic"], False
    if high < REVERSED:
        wrong = share < REVERSED_ALL
        asks = wrong and "critic" not in f.untouched
        yield (
            f"The critic has it the wrong way round: it scores generated samples above held-out real ones in "
            f"{1 - share:.1%} of pairs{SWAPPED if asks else ''}."
        )
    if not wrong:
        yield from _of_sizes(f)
    poor = share >= RIGHTLY and f.silent is not None and _above(critic, f.silent)
    if poor:
        yield (
            f"The critic orders {share:.1%} of pairs rightly, yet its loss is {critic.value:.3g} {f.unit}, above the "
            f"{f.silent:.3g} of a critic that says nothing: was it trained on this loss?"
        )
    if f.unbounded:
        yield (
            "Nothing bounds the critic's slope in this game (no gradient penalty, weight clipping or spectral norm): "
            "its loss has no least value then and measures no distance (was it trained with a bound that the audit is "
            "not told of?)."
        )
    equal = critic.at_equality
    if share >= SEPARATED and equal and critic.value < SATURATED * equal:
        yield (
            f"The critic tells real from generated in {share:.1%} of pairs, and its loss is {critic.value:.2g} "
            f"{f.unit} ({equal:.3g} at equality): it has won, and the generator does not follow (a critic that "
            "learns too fast, or a generator that is not trained on this loss)."
        )
    elif low >= TOLD and critic.value < (HALF * equal if equal else 0):
        yield f"The critic tells real from generated in {share:.1%} of pairs."
    yield from _of_gradient(f)


def _of_gradient(f: Facts) -> Iterator[str]:
    """The generator's gradient, where the critic separates nearly all pairs."""
    loss = f.losses["generator"]
    content = loss.at_equality is not None and loss.value <= loss.at_equality + f.tolerance
    if f.pull is not None and f.pull < VANISHED:
        yield (
            "The generator's gradient vanishes against this critic: at the scores of generated samples its loss "
            f"changes {f.pull:.2g} times as fast with the score as at equality."
        )
    elif f.slope is not None and f.slope < f.tolerance and not content:
        yield (
            "The generator's gradient vanishes against this critic: to first order a move of 1% lowers its loss, "
            f"{loss.value:.3g} {f.unit}, by {f.slope:.2g} (is its output saturated?)."
        )


def _above(critic: Loss, silent: float) -> bool:
    return math.isfinite(critic.value) and critic.value > silent + 0.05 * max(abs(silent), 0.1)


def _of_sizes(f: Facts) -> Iterator[str]:
    """Losses far beyond their values at equality, in units that have a scale of their own."""
    for player in ("critic", "generator"):
        loss = f.losses[player]
        if not loss.at_equality or not math.isfinite(loss.value):
            continue
        if loss.value > EXPLODED * abs(loss.at_equality) and loss.value > 20:
            yield (
                f"The {player}'s loss is {loss.value:.3g} {f.unit} ({loss.at_equality:.3g} at equality): the "
                "critic's scores have exploded (step size too large?)."
            )
            return
