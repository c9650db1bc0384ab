"""What a user's loss is when the critic tells nothing apart: the size that its differences are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.games._own_players import called_modules

if TYPE_CHECKING:
    from equilibrist.games.adversarial import AdversarialGame

FARTHEST = 20.0  # scores beyond are not tried
NEAR = 0.05  # how far around zero is looked for a better score than zero
EDGE = 1e-6  # of probabilities


class Chance(NamedTuple):
    """The losses where the critic gives every sample the same score, its slopes in the samples as they are.

    Attributes:
        losses: by player, at the score that costs the critic least (zero where no other is better).
        reach: by player, what its loss changes by, at most, up to the scores at which the critic pays twice that; None
            where the critic's loss does not depend on the score (Wasserstein's), so that nothing gives scores a size.
        level: by player, the loss at the mean of the critic's scores.
    """

    losses: dict[str, float]
    reach: dict[str, float] | None
    level: dict[str, float]


def loss_scale(
    game: AdversarialGame,
    players: Players,
    constants: Constants,
    bank: Sequence[Draw],
    player: str,
) -> float:
    """How large a difference of a player's loss is large.

    A critic that is far too strong makes its own loss tiny, and a share of that would call everything something. So
    the loss is taken where the critic tells nothing apart: every score replaced by the one that then costs it least,
    slopes kept (gradient penalties are what they are). That is log 4 for log losses and 2 for the hinge's. The
    generator's is that loss too, or what it changes by up to the scores at which such a critic pays twice, where that
    is larger. Where no score costs the critic more than another (Wasserstein's losses) it is the distance of the
    player's loss from the one at the mean score, or its standard deviation from sample to sample (that from batch to
    batch, times the root of a batch's size), whichever is larger.

    Of losses that call no critic's module, and of more than two players, it is the size of the player's loss, or that
    deviation.
    """
    with torch.no_grad():
        values = torch.stack([game.losses(players, constants, draw)[player] for draw in bank])
    rows = sum(len(draw[game.structure.names[0]]) for draw in bank) / len(bank)
    spread = float(values.double().std() * rows**0.5) if len(bank) > 1 else 0.0
    mean, found = float(values.double().mean()), chance(game, players, constants, bank[0])
    if found is None:
        return max(abs(mean), spread)
    own = abs(found.losses[player])
    if found.reach is None:
        return max(own, abs(mean - found.level[player]), spread)
    return own if player == "critic" else max(own, found.reach[player])


def losses_at_equality(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw
) -> dict[str, float]:
    """The losses against a critic that tells nothing apart, by player; of none where they call no critic's module, or
    where no score costs the critic more than another."""
    found = chance(game, players, constants, draw)
    if found is None or found.reach is None:
        return {}
    return {p: round(loss, 9) for p, loss in found.losses.items() if abs(loss) > 1e-9}


def chance(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw
) -> Chance | None:
    """None where the losses call no critic that could be silenced: a player of tensors, more than two players."""
    if len(game.players) != 2 or not called_modules(game._pure["critic"].module):
        return None
    seen: list[Tensor] = []
    with _scoring(game, lambda t: seen.append(t.detach()) or t):  # type: ignore[func-returns-value]
        _evaluated(game, players, constants, draw)
    if not seen:
        return None
    flat = torch.cat([t.flatten().double() for t in seen])
    shares = bool(((flat >= 0) & (flat <= 1)).all())
    low, high = (EDGE, 1 - EDGE) if shares else (-FARTHEST, FARTHEST)

    def at(score: float) -> dict[str, float]:
        with _scoring(game, lambda t: t - t.detach() + min(max(score, low), high)):
            return _evaluated(game, players, constants, draw)

    try:
        best = _cheapest(lambda c: at(c)["critic"], low, high)
        losses, level = at(best), at(float(flat.mean()))
        return Chance(losses, _reach(at, best, losses, low, high), level)
    except RuntimeError:  # scores that the losses do not take
        return None


def _cheapest(paid: Callable[[float], float], low: float, high: float) -> float:
    """The score that costs the critic least."""
    zero = min(max(0.0, low), high)
    here, slack = paid(zero), 1e-9 * max(abs(paid(zero)), 1e-9)
    if low < zero < high and min(paid(zero - NEAR), paid(zero + NEAR)) >= here - slack:
        return zero
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(paid, bounds=(low, high), method="bounded", options={"xatol": 1e-3})
    return float(found.x) if found.fun < here - slack else zero


def _reach(
    at: Callable[[float], dict[str, float]],
    best: float,
    losses: dict[str, float],
    low: float,
    high: float,
) -> dict[str, float] | None:
    """See `Chance.reach`."""
    least = losses["critic"]
    if not least > 0:
        return None

    def doubled(far: float) -> bool:
        return max(at(best - far)["critic"], at(best + far)["critic"]) >= 2 * least

    near, far = 0.0, max(high - best, best - low)
    if not doubled(far):
        return None
    for _ in range(10):
        middle = (near + far) / 2
        near, far = (near, middle) if doubled(middle) else (middle, far)
    ends = at(best - near), at(best + near)
    return {p: max(abs(end[p] - loss) for end in ends) for p, loss in losses.items()}


@contextmanager
def _scoring(game: AdversarialGame, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What the critic's modules return, changed."""

    def hook(module: nn.Module, given: object, made: object) -> object:
        return tree_map(
            lambda t: change(t) if isinstance(t, Tensor) and t.is_floating_point() else t, made
        )

    handles = [m.register_forward_hook(hook) for m in called_modules(game._pure["critic"].module)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _evaluated(
    game: AdversarialGame, players: Players, constants: Constants, draw: Draw
) -> dict[str, float]:
    with torch.no_grad():
        return {p: float(loss) for p, loss in game.losses(players, constants, draw).items()}
