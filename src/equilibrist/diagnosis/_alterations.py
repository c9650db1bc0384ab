"""Whether real and generated samples are scaled or augmented in different ways before the critic sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import normalize

from equilibrist.certificates import Json
from equilibrist.diagnosis._calls import FAKE, REAL, Call
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import fingerprints
from equilibrist.findings import Finding

ROWS = 1_000
LEAST = 32  # rows of each kind
LEVEL = 1e-6  # of the tests on distributions
SAME = 0.9  # share of rows that are the generator's own, of samples that are shown as they are
WHOLE = 0.3  # share of rows shown as they are, above which samples are not altered (some alterations spare some rows)
NEARER = 0.7  # the same, below which samples are rows of the data with a small alteration
FARTHER = 1.05  # ratio of distances to the data, from which samples were altered
ALIKE = 0.6  # of what held-out rows are short of being a row of the data
FACTOR = 0.25  # of scales, and of shifts relative to the spread, that are not the same


@dataclass
class Change:
    """What happens to samples of one kind before the critic sees them.

    Attributes:
        how: "nothing", "rescaled", "altered" or "unclear".
        scale, shift: of what is rescaled.
        size: of the alteration, relative to the samples' spread, or to the distance of held-out ones from the data.
        by_row: whether each sample has mean 0 and one spread.
        evidence: the numbers.
    """

    how: str
    scale: float = 1.0
    shift: float = 0.0
    size: float = 0.0
    by_row: bool = False
    evidence: Json = field(default_factory=dict)

    def words(self) -> str:
        """It in words."""
        if self.how == "rescaled":
            return f"scaled by {self.scale:.2f} and shifted by {self.shift:.2f}"
        if self.by_row:
            return "standardised one by one"
        return "altered" if self.how == "altered" else "shown as they are"


def judge_alterations(
    recorder: Recorder,
    shown: dict[str, list[Call]],
    rows: dict[str, Tensor],
    real: Tensor | None,
    train: Tensor | None,
) -> list[Finding]:
    """The finding that one kind is altered on its way to the critic and the other is not, or otherwise.

    Args:
        recorder: what was seen.
        shown: calls of the critic on samples of each kind.
        rows: their samples.
        real, train: real samples that nobody altered.

    Returns:
        The finding, or nothing.
    """
    reference = _reference(real, train, rows[REAL])
    if reference is None:
        return []
    spread = max(float(reference[0].std()), 1e-9)
    one = _of_real(rows[REAL], reference, train)
    other = _of_generated(recorder, shown[FAKE], rows[FAKE])
    if "unclear" in (one.how, other.how) or one.how == other.how != "rescaled":
        return []
    both = one.how == other.how == "rescaled"
    apart = (
        abs(one.scale / other.scale - 1) > FACTOR or abs(one.shift - other.shift) > FACTOR * spread
    )
    if both and not apart:
        return []
    if "altered" in (one.how, other.how) and "rescaled" in (one.how, other.how):
        return []  # what is changed in both, each in its own way, cannot be compared
    name = (
        "augmentation-mismatch"
        if "altered" in (one.how, other.how) and not (one.by_row or other.by_row)
        else "normalization-mismatch"
    )
    size = (
        f" (real: {one.size:.2f} times the distance of held-out ones to the data)"
        if one.size
        else ""
    )
    return [
        Finding(
            name,
            "real and generated samples",
            f"On the way to the critic real samples are {one.words()}, generated ones are {other.words()}{size}.",
            sure="likely",
            evidence={"real": one.evidence, "generated": other.evidence},
        )
    ]


def _of_real(rows: Tensor, reference: tuple[Tensor, Tensor], train: Tensor | None) -> Change:
    """What was done to real samples, against those that nobody altered."""
    members = _share_in(rows, train)
    evidence: Json = {"rows_of_the_data": members}
    if members > 0.5:
        return Change("nothing", evidence=evidence)
    scale, shift = _against(rows, reference[0])
    p, ratio = _farther(rows, *reference)
    evidence |= {"scale": scale, "shift": shift, "p": p, "distance": ratio}
    spread = float(reference[0].std())
    if abs(scale - 1) > FACTOR or abs(shift) > FACTOR * spread:
        _, undone = _farther((rows - shift) / scale, *reference)
        if undone < FARTHER + 0.1:
            return Change("rescaled", scale, shift, evidence=evidence)
    # Rows that the critic is trained on lie on the data; altered a little, they lie near their own originals.
    near = train is not None and members < 0.05 and (ratio < NEARER or _descends(rows, *reference))
    if not near and not (p < LEVEL and ratio > FARTHER and members < WHOLE):
        # Rows that are not the data's may be fresh ones, or hardly altered.
        return Change("unclear", evidence=evidence)
    return Change("altered", size=ratio, by_row=_standardized(rows), evidence=evidence)


def _descends(rows: Tensor, data: Tensor, compare: Tensor) -> bool:
    """Whether rows are rows of the data, each scaled by a factor of its own or with some entries replaced.

    Held-out rows say how well rows match that are not the data's.
    """
    x, base, other = (t.flatten(1) for t in (_some(rows), data, compare[:200]))
    if x.shape[1] < 3:
        return False
    unit = normalize(base, dim=1)

    def along(t: Tensor) -> Tensor:
        return (normalize(t, dim=1) @ unit.T).amax(1)

    def equal(t: Tensor) -> Tensor:
        return torch.stack([(row == base).float().mean(1).max() for row in t])

    for likeness in (along, equal):
        others = float(likeness(other).quantile(0.9))
        if float(likeness(x).median()) > others + ALIKE * max(1 - others, 1e-3):
            return True
    return False


def _of_generated(recorder: Recorder, calls: Sequence[Call], rows: Tensor) -> Change:
    """What was done to generated samples, against the generator's output."""
    scale, shift, rest = _of_source(calls)
    made = _share_made(recorder, rows)
    evidence: Json = {"scale": scale, "shift": shift, "altered": rest, "as_made": made}
    if made > SAME:
        return Change("nothing", evidence=evidence)
    if made > WHOLE or (rest < 0.02 and abs(scale - 1) < 0.02 and abs(shift) < 0.02):
        return Change(
            "unclear", evidence=evidence
        )  # samples that an alteration leaves nearly as they are
    if rest < 0.02:
        return Change("rescaled", scale, shift, evidence=evidence)
    return Change("altered", by_row=_standardized(rows), evidence=evidence)


def _standardized(rows: Tensor) -> bool:
    flat = rows.flatten(1)
    means, spreads = flat.mean(1), flat.std(1)
    same = float(spreads.std()) < 0.05 * float(spreads.mean())
    return flat.shape[1] > 2 and same and float(means.abs().max()) < 0.05 * float(spreads.mean())


def _reference(
    real: Tensor | None, train: Tensor | None, shown: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Two sets of real samples that nobody altered: one to be near to, one to compare with."""
    held = [
        t.detach().to("cpu", torch.float32)
        for t in (train, real)
        if t is not None and t.is_floating_point() and t.shape[1:] == shown.shape[1:]
    ]
    if not held:
        return None
    if len(held) == 1:
        held = [held[0][::2], held[0][1::2]]
    near, compare = (t[torch.randperm(len(t), generator=_rng())][: 2 * ROWS] for t in held)
    return (near, compare[:ROWS]) if min(len(near), len(compare)) >= LEAST else None


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _of_source(calls: Sequence[Call]) -> tuple[float, float, float]:
    """(scale, shift, what is left over) of generated samples as shown, against the generator's output."""
    pairs = [(c.source, c.samples) for c in calls if c.source is not None]
    pairs = [(s, x) for s, x in pairs if s.shape == x.shape and s.is_floating_point()]
    if len(pairs) < len(calls) / 2:
        return 1.0, 0.0, 0.0  # shown as they were made
    source = torch.cat([s.float().flatten() for s, _ in pairs[:8]])
    made = torch.cat([x.float().flatten() for _, x in pairs[:8]])
    spread = source.var()
    if float(spread) < 1e-12:
        return 1.0, 0.0, 0.0
    scale = ((source - source.mean()) * (made - made.mean())).mean() / spread
    shift = made.mean() - scale * source.mean()
    rest = (made - scale * source - shift).std() / spread.sqrt()
    if float(rest) > 0.5:
        return 1.0, 0.0, float(rest)  # another batch, or too much changed to speak of a scale
    return float(scale), float(shift), float(rest)


def _some(rows: Tensor, most: int = 200) -> Tensor:
    """Rows from all rounds alike: an alteration may grow on the way."""
    return rows[:: max(1, len(rows) // most)]


def _share_made(recorder: Recorder, fake: Tensor) -> float:
    marks = fingerprints(_some(fake))
    return sum(m in recorder.generated.rows for m in marks) / len(marks)


def _share_in(rows: Tensor, train: Tensor | None) -> float:
    if train is None or train.shape[1:] != rows.shape[1:]:
        return 0.0
    held = set(fingerprints(train, len(train)))
    marks = fingerprints(_some(rows))
    return sum(m in held for m in marks) / len(marks)


def _against(shown: Tensor, reference: Tensor) -> tuple[float, float]:
    """(scale, shift) between two sets of samples, by their overall means and spreads."""
    x, y = shown.flatten(1), reference.flatten(1)
    scale = float(x.var(0).mean().sqrt() / y.var(0).mean().sqrt().clamp_min(1e-12))
    if abs(scale - 1) <= FACTOR:
        scale = 1.0  # of data far from zero, a scale a little off would be a shift
    return scale, float(x.mean() - scale * y.mean())


def _farther(shown: Tensor, near: Tensor, compare: Tensor) -> tuple[float, float]:
    """Whether samples lie farther from `near` than held-out ones do: (p, ratio of median distances)."""
    x, base, other = shown.flatten(1), near.flatten(1), compare.flatten(1)
    one, two = (torch.cdist(t[:500], base) for t in (x, other))
    d, e = one.amin(1), two.amin(1)
    p = float(stats.mannwhitneyu(d.numpy(), e.numpy(), alternative="greater").pvalue)
    return p, float(d.median() / e.median().clamp_min(1e-12))
