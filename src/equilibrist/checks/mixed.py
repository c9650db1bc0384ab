"""The epsilon-Nash gap of a mixed profile: what each player gains by its best response to the other's measure."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

import torch

from equilibrist.checks._decide import Interval, decide
from equilibrist.checks._result import Audit
from equilibrist.checks._settings import Settings
from equilibrist.checks.certificate import (
    Certificate,
    Json,
    Tolerance,
    Verdict,
    combined,
    least_settled,
)
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.errors import EquilibristError, GameError
from equilibrist.mixed.matrix import MatrixGame, strategy
from equilibrist.mixed.payoff import NashGap, PayoffGame

CLAIM = "epsilon-nash"
REFERENCES = (
    "Nash 1951 (equilibria in mixed strategies); Glicksberg 1952 (existence on compact sets)",
    "Hsieh, Liu and Cevher 2019 (mixed equilibria of GANs)",
)
_ROUNDING = 1e-12


class MixedGame(Protocol):
    """A zero-sum game whose profiles (nu, mu) have a `NashGap`: `mixed.PayoffGame`, `mixed.MixedW2Gaussian`."""

    def gap(self, nu: Any, mu: Any) -> NashGap: ...


@usual_errors
def audit_mixed(
    game: MixedGame | MatrixGame, nu: Any, mu: Any, epsilon: float = 1e-6, unit: str = "payoff"
) -> Audit:
    """Certificates "epsilon-nash/x", "epsilon-nash/y" and "epsilon-nash" of the profile (nu, mu).

    The payoff is linear in each player's measure, so that no mixture gains more than the best pure response:

        x gains f(nu, mu) - min_x f(x, mu),   y gains max_y f(nu, y) - f(nu, mu).

    VERIFIED: both best responses are exact and neither gains more than epsilon. REFUTED: one gains more; a response
    found by search is enough for that. NOT_REFUTED: a search found none. UNASSESSED: a gain that is not a number.

    Args:
        game: finite (`mixed.MatrixGame`) or continuous; anything with `gap(nu, mu) -> NashGap`.
        nu, mu: the measures of the player that pays (x) and of the one that receives (y).
        epsilon: what is called nothing, in units of the payoff.
        unit: what the payoff is measured in.

    Raises:
        GameError: an epsilon that is not a positive number; measures that are none of this game, or outside of its
            domains.
    """
    if (
        not isinstance(epsilon, float | int)
        or isinstance(epsilon, bool)
        or not 0 < epsilon < math.inf
    ):
        raise GameError(f"epsilon={epsilon!r} must be a positive number: what you call nothing")
    started = time.monotonic()
    try:
        found = _matrix(game, nu, mu) if isinstance(game, MatrixGame) else _continuous(game, nu, mu)
    except EquilibristError:
        raise
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        wording = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GameError(
            f"{type(nu).__name__} and {type(mu).__name__} are no profile of this {type(game).__name__} ({wording}): "
            "probability vectors for a matrix, measures of float64 points for a payoff function"
        ) from error
    tolerance = Tolerance(float(epsilon), unit, "as set")
    scope = {"game": type(game).__name__, "strategies": "mixed", "losses": "V (zero-sum)"}
    parts = [
        _part("x", found.x, found.exact_x, found, tolerance, scope),
        _part("y", found.y, found.exact_y, found, tolerance, scope),
    ]
    whole = combined(CLAIM, parts, _sentence(parts, found, tolerance))
    whole.evidence.update(
        {"epsilon": found.epsilon, "gap": found.total, "value": found.value, "exact": found.exact}
    )
    return Audit(
        (*parts, whole),
        Settings(absolute=float(epsilon)),
        time.monotonic() - started,
        {"what": "a mixed profile"},
        precision="float64",
    )


def _matrix(game: MatrixGame, nu: Any, mu: Any) -> NashGap:
    """In float64, of the profile made to sum to 1: what is missing from it would hide as large a gain."""
    x, y = (torch.as_tensor(part).double() for part in (nu, mu))
    if x.ndim != 1 or y.ndim != 1:
        raise GameError(
            f"one profile at a time: nu has shape {list(x.shape)} and mu {list(y.shape)}, where [{game.n}] and "
            f"[{game.m}] are needed (of a trace's averages take the last, [-1])"
        )
    strategy("x", x, game.n)
    strategy("y", y, game.m)
    x, y = x / x.sum(), y / y.sum()
    M = game.payoff.double()
    rows, columns = M @ y, M.mT @ x
    value = float(x @ rows)
    # Rounding of the products cannot be distinguished from a gain: it counts as one.
    error = 4 * torch.finfo(torch.float64).eps * sum(M.shape) * float(M.abs().max())
    return NashGap(
        value,
        value - float(rows.min()) + error,
        float(columns.max()) - value + error,
        True,
        True,
    )


def _continuous(game: MixedGame, nu: Any, mu: Any) -> NashGap:
    if isinstance(game, PayoffGame):
        for name, measure, domain in (("nu", nu, game.x_domain), ("mu", mu, game.y_domain)):
            points = measure.points[measure.masses > 0]
            if float((domain.nearest(points) - points).abs().max()) > 1e-9 * (
                1 + float(points.abs().max())
            ):
                raise GameError(f"{name} has mass outside of {domain}: take its nearest points")
    return game.gap(nu, mu)


def _part(
    player: str,
    gain: float,
    exact: bool,
    found: NashGap,
    tolerance: Tolerance,
    scope: Json,
) -> Certificate:
    unit, epsilon = tolerance.unit, tolerance.value
    how = "exact best response" if exact else "searched best response: the gain is a lower bound"
    interval = Interval(gain, gain, gain if exact else math.inf)
    verdict = decide(interval, epsilon, exhaustive=exact, noise=0.0).verdict
    if math.isnan(gain):
        wording = f"Not assessed: {player}'s gain is not a number."
    elif gain > epsilon:
        verdict = Verdict.REFUTED  # by an infinite gain too
        wording = (
            f"{player} alone gains {gain:.4g} {unit} by a pure strategy, more than {epsilon:.3g}."
        )
    elif exact and gain < -_ROUNDING * (1 + abs(found.value)) - epsilon:
        verdict = Verdict.UNASSESSED  # a best response cannot lose
        wording = f"Not assessed: {player}'s best response loses {-gain:.3g} {unit}, so it is none."
    elif exact:
        wording = (
            f"{player}'s best response gains {max(gain, 0.0):.3g} {unit}: at most {epsilon:.3g}."
        )
    else:
        wording = (
            f"No strategy that was found gains {player} more than {max(gain, 0.0):.3g} {unit}."
        )
    return Certificate(
        f"{CLAIM}/{player}",
        verdict,
        wording,
        {"gain": gain, "interval": interval.ends, "exact": exact},
        tolerance,
        scope | {"player": player, "how": how},
        () if exact else ("a search may miss the best response",),
        REFERENCES,
        player,
    )


def _sentence(parts: list[Certificate], found: NashGap, tolerance: Tolerance) -> str:
    verdict = least_settled(part.verdict for part in parts)
    epsilon, most = f"{tolerance.value:.3g}", max(found.epsilon, 0.0)
    return {
        Verdict.VERIFIED: "An epsilon-Nash equilibrium in mixed strategies: neither player gains more than "
        f"{epsilon} {tolerance.unit} (the larger gain is {most:.3g}).",
        Verdict.REFUTED: f"No epsilon-Nash equilibrium for epsilon = {epsilon} {tolerance.unit}: a player gains "
        f"{found.epsilon:.4g}.",
        Verdict.UNASSESSED: next((p.summary for p in parts if p.verdict is verdict), ""),
        Verdict.NOT_REFUTED: f"No deviation above {epsilon} {tolerance.unit} was found; epsilon is at least "
        f"{most:.3g}.",
    }[verdict]
