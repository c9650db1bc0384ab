"""Blind: a part of the input tells real from generated samples that score alike, and the critic does not look there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist.certificates import Json
from equilibrist.checks import Certificate, Interval, Tolerance, Verdict
from equilibrist.checks.context import student
from equilibrist.core.draws import Use
from equilibrist.critics._case import CriticCase
from equilibrist.critics._groups import Array, Group, GroupTest, groups_of, strata_of, tested
from equilibrist.critics._samples import Inputs, joined

CLAIM, STATE = "not-blind", "blind"
LEANS = 0.02  # of the scores' standard deviation: a score that changes less does not depend on it
# The same for a critic that lags: it is not blind to what it has not learnt to use yet.
UNLEARNT = 0.0002
TELLING = 0.05  # of pairs above one half that a part must order among samples of one score
# Of the typical part's spread: what varies less, such as pixels that are nearly constant, is too faint for any critic.
FAINT = 0.05
STRATA = 8  # bins of samples of about one score
ROWS = 1000  # of each kind
TOLERANCE = Tolerance(LEANS, "of the scores' standard deviation", "less is no dependence")
LIMITS = (
    "a part tells by its values or their spread: what only several columns together tell is not seen",
    "a critic that answered best would leave no difference among samples of one score, for its score is a "
    "sufficient statistic",
)
REFERENCES = (
    "Breiman, Random Forests, 2001 (permutation importance)",
    "van Elteren, On the combination of independent two sample tests of Wilcoxon, 1960",
    "Holm, A simple sequentially rejective multiple test procedure, 1979",
)


@dataclass(frozen=True)
class InputPart:
    """One part of the input: what it tells beyond the score, how much the score depends on it, and how much it varies,
    relative to the typical part."""

    group: Group
    test: GroupTest
    leans: Interval
    spread: float = 1.0

    def unseen(self, most: float) -> bool:
        """Whether the critic does not look where there is something to see."""
        seen = self.spread >= FAINT
        return seen and self.leans.high < most and self.test.effect > TELLING


def blind(case: CriticCase, lags: bool) -> Certificate:
    """The certificate; the names of the parts are in its evidence and summary.

    Args:
        case: the critic.
        lags: whether it is near chance and training on separates the samples.
    """
    real, fake = (b.rows(slice(ROWS)) for b in case.held_out)
    both = joined(real, fake)
    groups = groups_of(sample_shape(case, both), case.columns, case.samples.real.names)
    scores = case.scores(case.critic, both)
    kinds = np.arange(len(both)) < len(real)
    rows = by_row(case, both, kinds, strata_of(scores.cpu().numpy(), STRATA))
    tests = tested(*rows, groups)
    spreads = _spreads(rows[0], groups)
    level = 1 - case.of_states
    spread = float(scores.std())
    if not spread > 1e-12 * float(scores.abs().max()):
        summary = (
            "Not assessed: the critic gives every sample the same score, which depends on no part."
        )
        return Certificate(
            CLAIM,
            Verdict.UNASSESSED,
            summary,
            {"blind_to": [], "parts": []},
            TOLERANCE,
            case.scope(),
            LIMITS,
            player="critic",
        )
    found = []
    for k, (group, one) in enumerate(zip(groups, tests, strict=True)):
        telling = one.p < level
        leans = (
            dependence(case, both, scores, group, k)
            if telling
            else Interval(math.nan, 0.0, math.inf)
        )
        found.append(InputPart(group, one, leans, spreads[k]))
    most = UNLEARNT if lags else LEANS
    unseen = [part for part in found if part.test.p < level and part.unseen(most)]
    unseen.sort(key=lambda part: -part.test.effect)
    verdict = Verdict.REFUTED if unseen else Verdict.NOT_REFUTED
    return Certificate(
        CLAIM,
        verdict,
        _summary(unseen, found, level),
        _evidence(case, unseen, found, level),
        TOLERANCE,
        case.scope(),
        LIMITS,
        REFERENCES,
        player="critic",
    )


def dependence(
    case: CriticCase, both: Inputs, scores: torch.Tensor, group: Group, place: int
) -> Interval:
    """How much the critic's scores change when a part is shuffled among all samples: the root of the mean
    square, relative to their standard deviation."""
    rng = Use.CRITIC_COLUMN.at(group=place).generator(case.seed)
    order = torch.from_numpy(rng.permutation(len(both))).to(both.x.device)
    shape = both.x.shape
    lead = 2 if case.judge.pack > 1 else 1
    flat = both.x.reshape(*shape[:lead], -1).clone()
    entries = torch.from_numpy(group.entries).to(flat.device)
    flat[..., entries] = flat[order][..., entries]
    moved = case.scores(case.critic, Inputs(flat.reshape(shape), both.y))
    change, spread = (moved - scores).square(), float(scores.std())
    found = student(change, case.of_states)
    return Interval(*(math.sqrt(max(v, 0.0)) / spread for v in (found.mean, found.low, found.high)))


def _spreads(rows: Array, groups: list[Group]) -> list[float]:
    """The root mean square spread of each part's entries, relative to the median of all that vary."""
    entries = rows.std(axis=0)
    sizes = [float(np.sqrt(np.mean(entries[group.entries] ** 2))) for group in groups]
    varying = [s for s in sizes if s > 0]
    typical = float(np.median(varying)) if varying else 1.0
    return [s / typical for s in sizes]


def sample_shape(case: CriticCase, both: Inputs) -> list[int]:
    """Shape of one sample; of packs that of one of their rows."""
    return list(both.x.shape[2 if case.judge.pack > 1 else 1 :])


def by_row(
    case: CriticCase, both: Inputs, kinds: NDArray[np.bool_], strata: NDArray[np.int64]
) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64]]:
    """Flattened rows, their kinds and strata; of packs each row."""
    pack = case.judge.pack
    rows = case.judge.spread(both.x).flatten(1).double().cpu().numpy()
    return rows, np.repeat(kinds, pack), np.repeat(strata, pack)


def _summary(unseen: list[InputPart], found: list[InputPart], level: float) -> str:
    if not unseen:
        telling = sum(part.test.p < level for part in found)
        rest = (
            f"{telling} of {len(found)} parts of the input tell more than its score says, and its score depends on "
            "each of them noticeably or they tell little"
            if telling
            else f"none of {len(found)} parts of the input tells real from generated among samples of one score"
        )
        return f"Not blind, as far as the tests see: {rest}."
    names = "; ".join(part.group.name for part in unseen[:5])
    more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
    first = unseen[0]
    size = first.leans
    moves = f"changes by {size.mean:.2g} of its standard deviation (at most {size.high:.2g})"
    return (
        f"The critic is blind to {names}{more}: its score {moves if size.high > 1e-6 else 'does not change'} when "
        f"{first.group.name} is shuffled among samples, which tells real from generated in "
        f"{0.5 + first.test.effect:.0%} of pairs of one score."
    )


def _evidence(
    case: CriticCase, unseen: list[InputPart], found: list[InputPart], level: float
) -> Json:
    measured = [part for part in found if math.isfinite(part.leans.mean)]
    least = unseen[:1] or sorted(measured, key=lambda part: part.leans.mean)[:1]
    return {
        "blind_to": [part.group.name for part in unseen],
        **({"depends": least[0].leans.mean, "interval": least[0].leans.ends} if least else {}),
        "confidence": case.of_states,
        "unit": TOLERANCE.unit,
        "level": level,
        "parts": [
            {
                "name": part.group.name,
                "tells_beyond_score": part.test.effect,
                "p": part.test.p,
                "depends": part.leans.mean if part in measured else None,
                "depends_at_most": part.leans.high if part in measured else None,
            }
            for part in sorted(found, key=lambda part: part.test.p)[:30]
        ],
    }
