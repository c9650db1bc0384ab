"""What a practitioner looks at before any verdict: losses, separation, diversity, ranges; and the signs of a fault
that they show by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist._draws import Draw
from equilibrist.checks._bench import Bench
from equilibrist.checks._objective import Objective
from equilibrist.checks._search import Relative
from equilibrist.formulations import ScoreFormulation

ROWS, FEW_ROWS = 2000, 400  # samples of each kind at most
UPHILL_STEPS, UPHILL_STEP = 30, 0.01

# A fact is called a sign of a fault beyond these. Measured on faulty and healthy pairs: docs/audit.md.
SATURATED = 0.1  # of its value at equality: a critic's loss below this
EXPLODED = 5.0  # times the value at equality: a loss above this
SEPARATED = 0.99  # share of pairs that a critic orders rightly
REVERSED = 0.4
COLLAPSED = 0.3  # distances between generated samples, relative to those between real ones
OUTSIDE = 0.02  # of generated entries beyond the range of real ones
UNREACHED = 0.02  # of real entries beyond the range of generated ones
MAXIMUM = 0.4  # what the generator's loss rises by uphill, over what it falls by downhill
STARVED = 20.0  # times eps: the variance that a batch norm divides by


@dataclass(frozen=True)
class Loss:
    """A player's loss, penalties included, and the formulation's value where critic and generator are at equality:
    generated samples have the data's law and the critic answers best (None where that is not one number)."""

    value: float
    at_equality: float | None


@dataclass(frozen=True)
class Range:
    """The least and the largest entry, and the 1% and 99% quantiles."""

    low: float
    high: float
    q01: float
    q99: float

    def __str__(self) -> str:
        """ "0 to 1": an end that is a millionth of the other is zero to the eye."""
        least = 1e-6 * max(abs(self.low), abs(self.high))
        low, high = (0.0 if abs(end) < least else end for end in (self.low, self.high))
        return f"{low:.3g} to {high:.3g}"


@dataclass(frozen=True)
class Starved:
    """A layer of batch norm, the median variance of its input over channels, and its eps."""

    player: str
    layer: str
    variance: float
    eps: float


@dataclass(frozen=True)
class Facts:
    """Plain facts on held-out real samples and generated ones.

    Attributes:
        unit: of the losses.
        losses: by player.
        separation: the share of (real, generated) pairs in which the critic scores the real sample higher (half
            counts for a tie), with a 95% interval: 0.5 is chance.
        diversity: mean distance between two generated samples over that between two real ones.
        real, generated: their ranges; `outside` is the share of generated entries beyond the range of real ones,
            `unreached` that of real entries beyond the range of generated ones (each by more than 5% of it).
        untouched: players whose weights are exactly as torch's layers initialise them.
        starved: layers of batch norm whose input hardly varies.
        uphill: see `_uphill`; None where it was not measured.
        samples: how many of each kind.
        images: whether they are images, whose values have a range by construction; that generated points lie elsewhere
            than real ones is what training is for.
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
    samples: int = 0
    images: bool = True

    @property
    def signs(self) -> tuple[str, ...]:
        """Signs of a fault, most telling first, each with its number; empty where there are none."""
        return tuple(_signs(self))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The facts in three sentences: losses, separation, samples."""
        return (self._of_losses(), self._of_separation(), self._of_samples())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"signs": list(self.signs), "sentences": list(self.sentences)}

    def _of_losses(self) -> str:
        parts = []
        for player, loss in self.losses.items():
            beside = "" if loss.at_equality is None else f" ({loss.at_equality:.3g} at equality)"
            parts.append(f"{player} {loss.value:.3g}{beside}")
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


def facts(
    bench: Bench, tick: Callable[[float], Any] = lambda gradients: None, deep: bool = True
) -> Facts | None:
    """The facts of a GAN with sampled data, from held-out (score) batches; None for other games.

    With `deep`, `uphill` is measured where the critic separates nearly all pairs, at 60 minibatch gradients.
    """
    if not bench.sampled or not hasattr(bench.game, "generate"):
        return None
    draws = _held_out(bench, deep)
    real, fake, real_scores, fake_scores = _samples(bench, draws)
    losses = {
        player: Loss(float(bench.losses_on(player, *bench.wide, draws).mean()), reference)
        for player, reference in _at_equality(bench).items()
    }
    tick(_evaluations(bench, draws))
    ranges = _range(real), _range(fake)
    share = separation(real_scores, fake_scores)
    return Facts(
        unit=bench.unit,
        losses=losses,
        separation=share,
        diversity=_spread(fake, bench.seed) / max(_spread(real, bench.seed), 1e-300),
        real=ranges[0],
        generated=ranges[1],
        outside=_beyond(fake, ranges[0]),
        unreached=_beyond(real, ranges[1]),
        untouched=tuple(
            player
            for player in bench.game.players
            if untouched(bench.game.modules[player], bench.players[player])
        ),
        starved=tuple(
            layer
            for player in bench.game.players
            for layer in starved(bench.game.modules[player], bench.constants[player], player)
        ),
        uphill=_uphill(bench, tick) if deep and share[0] >= SEPARATED else None,
        samples=len(real),
        images=bench.data.kind == "images",
    )


def work(bench: Bench, deep: bool = True) -> float:
    """Planned minibatch gradients."""
    if not bench.sampled or not hasattr(bench.game, "generate"):
        return 0.0
    return _evaluations(bench, _held_out(bench, deep)) + deep * (2 * UPHILL_STEPS + 1)


def _held_out(bench: Bench, deep: bool) -> list[Draw]:
    """The first batches of the score split, with no more than `ROWS` samples where there are several."""
    draws, count, most = [], 0, ROWS if deep else FEW_ROWS
    for draw in bench.bank("score"):
        draws.append(draw)
        count += len(draw["real"])
        if count >= most:
            break
    return draws


def _evaluations(bench: Bench, draws: Sequence[Draw]) -> float:
    """What three passes over these draws cost, in minibatch gradients."""
    return sum(len(draw["real"]) for draw in draws) / bench.settings.batch


def _samples(bench: Bench, draws: Sequence[Draw]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Held-out real and generated samples [n, ...] in float64, and the critic's scores [n] of both, on the CPU."""
    players, constants = bench.wide
    game = bench.game
    kept: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for draw in draws:
            condition = draw.get("condition")
            fake = game.generate(players, constants, draw["latent"], condition)
            scores = [
                torch.stack(
                    [game.critic(players, constants, condition, h)(x) for h in range(game.heads)]
                ).mean(0)
                for x in (draw["real"], fake)
            ]
            kept.append(tuple(x.double().cpu() for x in (draw["real"], fake, *scores)))
    real, fake, real_scores, fake_scores = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return real, fake, real_scores, fake_scores


def separation(real: Tensor, fake: Tensor) -> tuple[float, float, float]:
    """P(score of a real sample > score of a generated one) + P(equal) / 2, with DeLong's 95% interval.

    DeLong, DeLong and Clarke-Pearson 1988: the variance is that of the placements of either kind. NaN where a score
    is not finite.
    """
    if not bool(torch.isfinite(real).all() and torch.isfinite(fake).all()):
        return math.nan, math.nan, math.nan
    from scipy.stats import rankdata

    x, y = real.numpy(), fake.numpy()
    m, n = len(x), len(y)
    together = rankdata(np.concatenate([x, y]))
    of_real = (together[:m] - rankdata(x)) / n  # share of generated ones below each real sample
    of_fake = 1 - (together[m:] - rankdata(y)) / m
    share = float(of_real.mean())
    width = 1.96 * math.sqrt(of_real.var(ddof=1) / m + of_fake.var(ddof=1) / n) if m > 1 < n else 1
    return share, max(share - width, 0.0), min(share + width, 1.0)


def _at_equality(bench: Bench) -> dict[str, float | None]:
    """Each player's loss against the best constant critic: what it is where generated samples have the data's law."""
    game = bench.game
    nothing: dict[str, float | None] = dict.fromkeys(game.players)
    formulation = game.formulation
    if not isinstance(formulation, ScoreFormulation) or game.auxiliary:
        return nothing
    from scipy.optimize import minimize_scalar

    def critic_loss(c: float) -> float:
        score = torch.full((1,), c, dtype=torch.float64)
        return float(formulation.critic_loss(score, score))

    ends = (1e-9, 1 - 1e-9) if getattr(formulation, "probabilities", False) else (-20.0, 20.0)
    best = minimize_scalar(critic_loss, bounds=ends, method="bounded", options={"xatol": 1e-9})
    if not math.isfinite(best.fun):
        return nothing
    score = torch.full((1,), float(best.x), dtype=torch.float64)
    generator = float(formulation.generator_loss(score))
    flat = abs(critic_loss(float(best.x) + 0.1 * (ends[1] - ends[0]) / 40) - best.fun) < 1e-12
    # A loss that does not fix the critic's level (WGAN) has no value of its own for the generator.
    return {
        "generator": None if flat and abs(generator) > 1e-12 else round(generator, 9),
        "critic": round(float(best.fun), 9),
    }


def _range(x: Tensor) -> Range:
    flat = x.flatten()
    if len(flat) > 10**6:
        flat = flat[:: -(-len(flat) // 10**6)]
    q = torch.quantile(flat, torch.tensor([0.01, 0.99], dtype=flat.dtype))
    return Range(float(x.min()), float(x.max()), float(q[0]), float(q[1]))


def _beyond(x: Tensor, range_: Range) -> float:
    """The share of entries that lie beyond a range by more than 5% of its width."""
    margin = 0.05 * (range_.high - range_.low)
    return float(((x < range_.low - margin) | (x > range_.high + margin)).double().mean())


def _spread(x: Tensor, seed: int) -> float:
    """Mean Euclidean distance between two samples, over up to 500 of them."""
    flat = x.flatten(1)
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.permutation(len(flat))[:500].copy())
    return float(torch.pdist(flat[rows]).mean()) if len(rows) > 1 else math.nan


def untouched(module: nn.Module, params: dict[str, Tensor]) -> bool:
    """Whether weights are as torch's own layers initialise them: every linear and convolutional weight uniform in
    +-1/sqrt(fan in) and filling that interval, every norm's scale 1 and shift 0.

    Training moves some entry out of the interval, or a norm's scale off 1; a few steps that are tiny beside the
    interval may not. False where no such layer is found: other initialisations leave no such trace.
    """
    evidence = 0
    params = {name: value.detach() for name, value in params.items()}
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        weight, bias = params.get(f"{prefix}weight"), params.get(f"{prefix}bias")
        if weight is None:
            continue
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            n = weight.numel()
            fan_in = nn.init._calculate_fan_in_and_fan_out(weight)[0]
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            largest = float(weight.abs().max())
            if n < 64:
                continue
            if not bound * (1 - 20 / n) <= largest <= bound * (1 + 1e-6):
                return False
            # The standard deviation of a uniform sample, to five of its own standard errors.
            spread = float(weight.double().square().mean()) / (bound**2 / 3)
            if abs(spread - 1) > 5 * math.sqrt(0.8 / n):
                return False
            evidence += 1
        elif bias is not None and weight.ndim == 1 and not _identity(weight, bias):
            return False
    return evidence > 0


def _identity(weight: Tensor, bias: Tensor) -> bool:
    """Whether a norm's scale is exactly 1 and its shift exactly 0."""
    return bool((weight == 1).all()) and bool((bias == 0).all())


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


def _uphill(bench: Bench, tick: Callable[[float], Any]) -> float | None:
    """What the generator's loss rises by in 30 steps up its gradient, over what it falls by in 30 steps down.

    Losses are steeper where they are high, so that this is well above 1 for a generator that training took down; one
    that training took up stands where its loss rises no further. None where the way down gains little.
    """
    objective = Objective(bench, "generator", tick)
    changes = {}
    for sign in (1.0, -1.0):
        rule = Relative(UPHILL_STEP, objective.scales, objective.field.coupled["generator"])
        params = tree.clone(objective.start)
        state = rule.init(params)
        for step in range(UPHILL_STEPS):
            players, constants = objective.at(params)
            v = objective.gradient(players, constants, step)
            params = tree.clone(players["generator"])
            with torch.no_grad():
                rule.update(tree.scale(sign, v), state, params)
        changes[sign] = objective.probe(params)
    gain, rise = changes[1.0], -changes[-1.0]
    return max(rise, 0.0) / gain if gain > 10 * bench.tolerance().value else None


# -- signs of a fault ----------------------------------------------------------------------------------


def _signs(f: Facts) -> Iterator[str]:
    for player in f.untouched:
        yield (
            f"The {player}'s weights look exactly as PyTorch initialises them: it seems that no step was ever "
            "taken with it (is its optimiser built on these parameters, stepped, and its learning rate above 0?)."
        )
    if f.uphill is not None and f.uphill < MAXIMUM:
        yield (
            f"The generator stands near a maximum of its own loss, {f.losses['generator'].value:.3g} {f.unit}: steps "
            f"up its gradient raise the loss by {f.uphill:.0%} of what as many steps down lower it by (is its loss "
            "minimised with the wrong sign?)."
        )
    yield from _of_ranges(f)
    yield from _of_scores(f)
    if f.diversity < COLLAPSED:
        yield (
            f"Generated samples are not diverse: they lie {f.diversity:.2g} times as far apart as real ones."
        )
    for layer in f.starved:
        yield (
            f"Hardly anything reaches the {layer.player}'s batch norm {layer.layer!r}: the variance of its input is "
            f"{layer.variance:.2g} (eps {layer.eps:.2g}), so what it passes on is amplified "
            f"{(layer.variance + layer.eps) ** -0.5:.0f} times (is the latent scaled down, or a layer before it dead?)."
        )


def _of_ranges(f: Facts) -> Iterator[str]:
    if not f.images:
        return
    spans = f"generated values lie in {f.generated}, real ones in {f.real}"
    if f.outside > OUTSIDE:
        yield (
            f"Real and generated samples differ in range: {spans} ({f.outside:.0%} of generated entries are beyond; "
            "are both normalised alike?)."
        )
    elif f.unreached > UNREACHED:
        yield (
            f"Real and generated samples differ in range: {spans} ({f.unreached:.0%} of real entries are out of the "
            "generator's reach; are both normalised alike?)."
        )


def _of_scores(f: Facts) -> Iterator[str]:
    share, _, high = f.separation
    if math.isnan(share):
        yield "The critic's scores are not finite."
        return
    critic = f.losses["critic"]
    yield from _of_sizes(f)
    if high < REVERSED:
        yield (
            f"The critic has it the wrong way round: it scores generated samples above held-out real ones in "
            f"{1 - share:.1%} of pairs."
        )
    equal = critic.at_equality
    if share >= SEPARATED and equal and critic.value < SATURATED * equal:
        yield (
            f"The critic tells real from generated in {share:.1%} of pairs, and its loss is {critic.value:.2g} "
            f"{f.unit} ({equal:.3g} at equality): it has won, and the generator does not follow (a critic that "
            "learns too fast, or a generator that is not trained on this loss)."
        )


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
