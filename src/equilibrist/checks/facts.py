"""What a practitioner looks at before any verdict: losses, separation, diversity, ranges; and what they show by
themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.checks._initial import as_initialised
from equilibrist.checks._level import at_equality, pull, silent, unbounded
from equilibrist.checks._objective import Objective
from equilibrist.checks._sample_measures import (
    Range,
    constant_score,
    distance_apart,
    diversity_of,
    range_of,
    separation,
    share_beyond,
    share_of_copies,
)
from equilibrist.checks._search import Relative
from equilibrist.checks._signs import SEPARATED, STARVED, signs
from equilibrist.checks.context import AuditContext, Tick, no_tick, norm_of, rows_in, source_rows
from equilibrist.core.draws import Batch, Draw
from equilibrist.findings import Finding, ordered
from equilibrist.games.compatibility import reach

ROWS, FEW_ROWS = 2000, 400  # samples of each kind at most
UPHILL_STEPS, UPHILL_STEP = 30, 0.01
COPY_ROWS, COPY_SAMPLES = 4096, 512  # of the data, of generated ones, where copies are looked for


@dataclass(frozen=True)
class Loss:
    """A player's loss, penalties included, and the formulation's value where critic and generator are at equality:
    generated samples have the data's law and the critic answers best (None where that is not one number); `interval`
    is that of the value."""

    value: float
    at_equality: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Starved:
    """A layer of batch norm, the median variance of its input over channels, and its eps."""

    player: str
    layer: str
    variance: float
    eps: float


@dataclass(frozen=True)
class Copies:
    """Of `samples` generated samples and as many held-out real ones, the shares that coincide with one of `rows` rows
    of the data that were not held out; `size` is the number of rows in all."""

    generated: float
    real: float
    samples: int
    rows: int
    size: int


@dataclass(frozen=True)
class Facts:
    """Plain facts on held-out real samples and generated ones.

    Attributes:
        unit: of the losses.
        losses: by player.
        separation: the share of (real, generated) pairs in which the critic scores the real sample higher (half
            counts for a tie), with an interval of the audit's confidence: 0.5 is chance.
        diversity: mean distance between two generated samples over that between two real ones.
        real, generated: their ranges; `outside` is the share of generated entries beyond the range of real ones,
            `unreached` that of real entries beyond the range of generated ones (each by more than 5% of it).
        untouched: players whose weights are exactly as torch's layers initialise them.
        starved: layers of batch norm whose input hardly varies.
        uphill, slope: see `_uphill` and `_slope`; None where they were not measured.
        tolerance: the gain that the audit calls nothing, where `slope` was measured.
        samples: how many of each kind.
        images: whether they are images, whose values have a range by construction; that generated points lie elsewhere
            than real ones is what training is for.
        apart: of points, the distance between the means of both kinds in real standard deviations, and generated
            standard deviations over real ones (root mean squares over coordinates); of images, the same of all entries.
        ends: where the generator's output ends whatever its weights are (-1 and 1 of a tanh); None where nowhere.
        constant: the critic's score where it gives every sample the same one, else None.
        silent: the critic's loss, penalties included, where it says nothing: that of the best constant.
        pull: the mean slope of the generator's loss in the score, at those of generated samples, over the slope at
            equality; None where that is not one number.
        unbounded: whether the loss is Wasserstein's and nothing in the game bounds the critic's slope.
        copies: None where the law of the data is infinite.
        diversity_interval: of the ratio; None where it was not measured.
        confidence: of all intervals.
        penalised: whether the critic pays a penalty.
    """

    unit: str
    losses: dict[str, Loss]
    separation: tuple[float, float, float]
    diversity: float
    real: Range
    generated: Range
    outside: float
    unreached: float
    untouched: tuple[str, ...] = ()
    starved: tuple[Starved, ...] = ()
    uphill: float | None = None
    slope: float | None = None
    tolerance: float = 0.0
    samples: int = 0
    images: bool = True
    apart: tuple[float, float] = (0.0, 1.0)
    ends: tuple[float, float] | None = None
    constant: float | None = None
    silent: float | None = None
    pull: float | None = None
    unbounded: bool = False
    copies: Copies | None = None
    diversity_interval: tuple[float, float] | None = None
    confidence: float = 0.95
    penalised: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the facts show by themselves, what to act on first in front; empty where there is nothing."""
        return ordered(signs(self))

    @property
    def signs(self) -> tuple[str, ...]:
        """The findings' texts."""
        return tuple(f.text for f in self.findings)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The facts in three sentences: losses, separation, samples."""
        return (self._of_losses(), self._of_separation(), self._of_samples())

    def to_json(self) -> Json:
        """Plain values."""
        return asdict(self) | {"signs": list(self.signs), "sentences": list(self.sentences)}

    def _of_losses(self) -> str:
        parts = []
        for player, loss in self.losses.items():
            reference = "" if loss.at_equality is None else f" ({loss.at_equality:.3g} at equality)"
            parts.append(f"{player} {loss.value:.3g}{reference}")
        return f"Losses in {self.unit}: {', '.join(parts)}."

    def _of_separation(self) -> str:
        share, low, high = self.separation
        return (
            f"The critic scores a held-out real sample above a generated one in {share:.1%} of pairs "
            f"({low:.1%} to {high:.1%}; 50% is chance)."
        )

    def _of_samples(self) -> str:
        return (
            f"Generated samples lie {self.diversity:.2g} times as far apart as real ones; their values range from "
            f"{self.generated}, real ones from {self.real}."
        )


def facts(context: AuditContext, tick: Tick = no_tick, deep: bool = True) -> Facts | None:
    """The facts of a GAN with sampled data, from held-out (score) batches; None for other games.

    With `deep`, `uphill` is measured where the critic separates nearly all pairs, at 60 minibatch gradients; `slope` is
    there in any case, at one.
    """
    if _silent(context):
        return None
    draws = _held_out(context, deep)
    real, fake, real_scores, fake_scores = _samples(context, draws)
    losses = {
        player: _loss(context, player, draws, reference)
        for player, reference in at_equality(context).items()
    }
    images = context.data.kind == "images"
    ends = reach(context.game, *context.wide, draws[0]) if images else None
    tick(_evaluations(context, draws))
    ranges = range_of(real), range_of(fake)
    share = separation(real_scores, fake_scores, context.settings.confidence)
    won = share[0] >= SEPARATED
    diversity, between = diversity_of(real, fake, context.settings.confidence, context.seed)
    return Facts(
        unit=context.unit,
        losses=losses,
        separation=share,
        diversity=diversity,
        real=ranges[0],
        generated=ranges[1],
        outside=share_beyond(fake, ranges[0]),
        unreached=share_beyond(real, ranges[1]),
        untouched=tuple(
            player
            for player in context.game.players
            if as_initialised(context.game.modules[player], context.players[player])
        ),
        starved=tuple(
            layer
            for player in context.game.players
            for layer in starved(context.game.modules[player], context.constants[player], player)
        ),
        uphill=_uphill(context, tick) if deep and won else None,
        slope=_slope(context, tick) if won else None,
        tolerance=context.tolerance().value if won else 0.0,
        samples=len(real),
        images=images,
        apart=distance_apart(real, fake, images),
        ends=ends,
        constant=constant_score(torch.cat([real_scores, fake_scores])),
        silent=silent(context, losses["critic"].at_equality),
        unbounded=unbounded(context),
        pull=pull(context, fake_scores),
        copies=_copies(context, real, fake, 1.0 if deep else 0.25),
        diversity_interval=between,
        confidence=context.settings.confidence,
        penalised=bool(getattr(context.game, "penalties", ())),
    )


def planned_gradients(context: AuditContext, deep: bool = True) -> float:
    """Planned minibatch gradients."""
    if _silent(context):
        return 0.0
    return _evaluations(context, _held_out(context, deep)) + deep * (2 * UPHILL_STEPS + 1) + 1


def _silent(context: AuditContext) -> bool:
    """Whether the game shows no samples or no scores."""
    game: Any = context.game
    return not context.sampled or not hasattr(game, "fakes") or bool(game.lacks("samples", "score"))


def _held_out(context: AuditContext, deep: bool) -> list[Draw]:
    """The first batches of the score split, with no more than `ROWS` samples where there are several."""
    bank, most = context.bank("score"), ROWS if deep else FEW_ROWS
    seen = np.cumsum([rows_in(draw) for draw in bank])
    return bank[: int(np.searchsorted(seen, most)) + 1]


def _evaluations(context: AuditContext, draws: Sequence[Draw]) -> float:
    """What three passes over these draws cost, and two of the generator over the first, in minibatch gradients."""
    first = draws[:1] if context.data.kind == "images" else []
    return sum(rows_in(draw) for draw in (*draws, *first)) / context.settings.batch


def _samples(context: AuditContext, draws: Sequence[Draw]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Held-out real and generated samples [n, ...] in float64, and the critic's scores [n] of both, on the CPU."""
    players, constants = context.wide
    game = context.game
    kept: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for draw in draws:
            real, fake = (f(players, constants, draw) for f in (game.reals, game.fakes))
            judges = [game.critic_of(players, constants, draw, h) for h in range(game.heads)]
            scores = [
                torch.stack([judge.by_sample(x) for judge in judges]).mean(0) for x in (real, fake)
            ]
            kept.append(tuple(x.double().cpu() for x in (real, fake, *scores)))
    real, fake, real_scores, fake_scores = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return real, fake, real_scores, fake_scores


def _copies(context: AuditContext, real: Tensor, fake: Tensor, share: float) -> Copies | None:
    """Exact copies of rows of the data among generated samples and, for comparison, held-out real ones."""
    parts = [context.parts[name] for name in ("optimise", "select")]
    sizes = [part.size for part in parts]
    if context.data.size is None or None in sizes:
        return None
    if not tree.all_finite(real, fake):
        return None
    rng = np.random.default_rng(context.seed)
    whole, most = sum(size or 0 for size in sizes), int(share * COPY_ROWS)
    kept = []
    for part, size in zip(parts, sizes, strict=True):
        count = -(-(size or 0) * min(most, whole) // whole)
        rows = torch.from_numpy(rng.permutation(size or 0)[:count].copy())
        kept.append(source_rows(part, rows.to(context.device)).double().cpu().flatten(1))
    known = torch.cat(kept)
    shares, some = [], int(share * COPY_SAMPLES)
    for x in (fake, real):
        rows = torch.from_numpy(rng.permutation(len(x))[:some].copy())
        shares.append(share_of_copies(x[rows].flatten(1), known))
    return Copies(shares[0], shares[1], min(len(fake), some), len(known), context.data.size)


def _loss(
    context: AuditContext, player: str, draws: Sequence[Draw], reference: float | None
) -> Loss:
    """A player's loss on these batches, with its interval over them where there are several."""
    values = context.losses_on(player, *context.wide, draws)
    ends = context.interval(values).ends if len(values) > 1 else None
    return Loss(float(values.mean()), reference, None if ends is None else (ends[0], ends[1]))


def starved(module: nn.Module, constants: Mapping[str, Tensor], player: str) -> tuple[Starved, ...]:
    """Layers of batch norm whose input hardly varies: the running variance is within `STARVED` times eps."""
    found = []
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        prefix = f"{name}." if name else ""
        variance = constants.get(f"{prefix}running_var")
        batches = constants.get(f"{prefix}num_batches_tracked")
        if variance is None or batches is None or int(batches) < 20:
            continue
        typical = float(variance.double().median())
        if typical < STARVED * layer.eps:
            found.append(Starved(player, name, typical, layer.eps))
    return tuple(found)


def _slope(context: AuditContext, tick: Tick) -> float:
    """What the generator gains, to first order, by a move of its weights by a hundredth of their norm: at most
    that."""
    objective = Objective(context, "generator", tick)
    gradient = objective.gradient(*objective.at(objective.start), 0, Batch.FACT)
    size = float(tree.flatten(gradient).double().norm())
    return 0.01 * norm_of(context, "generator") * size


def _uphill(context: AuditContext, tick: Tick) -> float | None:
    """What the generator's loss rises by in 30 steps up its gradient, over what it falls by in 30 steps down.

    Losses are steeper where they are high, so that this is well above 1 for a generator that training took down; one
    that training took up stands where its loss rises no further. None where the way down gains little.
    """
    objective = Objective(context, "generator", tick)
    changes = {}
    for sign in (1.0, -1.0):
        rule = Relative(UPHILL_STEP, objective.scales, objective.field.coupled["generator"])
        params = tree.clone(objective.start)
        state = rule.init(params)
        for step in range(UPHILL_STEPS):
            players, constants = objective.at(params)
            v = objective.gradient(players, constants, 1 + step, Batch.FACT)
            params = tree.clone(players["generator"])
            with torch.no_grad():
                rule.update(tree.scale(sign, v), state, params)
        changes[sign] = objective.probe(params)
    gain, rise = changes[1.0], -changes[-1.0]
    return max(rise, 0.0) / gain if gain > 5 * context.tolerance().value else None
