"""Second derivatives of a game at one point, and what they say: J, a player's Hessian, densities, convergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.exact import Exact
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Game, Players
from equilibrist.core.jacobian import HessianOperator, JacobianOperator
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.errors import GameError, did_you_mean
from equilibrist.games import GAN
from equilibrist.solvers import Solver
from equilibrist.spectra.arrays import MEMORY, Array, Complex
from equilibrist.spectra.density import SpectralDensity, density
from equilibrist.spectra.eigenvalues import Eigenvalues, eigenvalues
from equilibrist.spectra.products import product_with
from equilibrist.validation import at_least

ASYMMETRY = 1e-5  # of |w^T A u - u^T A w|, relative to |w| |A u|: above float32's rounding


class Convergence(NamedTuple):
    """How a method's steps behave near a stationary pair.

    Attributes:
        values: eigenvalues of one step, largest modulus first; of a method with a memory [n + m], m numbers of
            state.
        radius: the largest modulus: the factor by which the distance shrinks, or grows, per step in the end.
        converges: radius < 1. Where J has a null space the radius is 1: nothing moves along it.
    """

    values: Complex
    radius: float
    converges: bool


@dataclass(frozen=True)
class Jacobian:
    """J = dv/dx at one point, v the gradients of own losses.

    Attributes:
        matrix: [n, n], float64, on the players' device: players in turn, their entries in the order of
            `equilibrist.tree.flatten`.
        spans: where each player's entries stand.
    """

    matrix: Tensor
    spans: dict[str, slice]

    def block(self, row: str, column: str) -> Tensor:
        """The derivative of `row`'s gradient by `column`'s parameters [n_row, n_column] (a view).

        Raises:
            GameError: a player that the game does not have.
        """
        return self.matrix[self._span(row), self._span(column)]

    @cached_property
    def eigenvalues(self) -> Eigenvalues:
        """All eigenvalues, and what they say of gradient steps.

        Raises:
            GameError: a matrix that is not finite.
        """
        return eigenvalues(self.matrix)

    def _span(self, player: str) -> slice:
        if player not in self.spans:
            raise GameError(
                f"the Jacobian has no player {player!r}{did_you_mean(player, self.spans)}: its players are "
                f"{', '.join(self.spans)}"
            )
        return self.spans[player]


def jacobian(
    game: Game,
    players: Players,
    constants: Constants | None = None,
    draw: Draw | Sequence[Draw] | None = None,
) -> Jacobian:
    """The Jacobian of a game's field at a point: exact, dense, in float64.

    Singular vectors of spectrally normalised weights follow the weights, so that J is the derivative of the
    normalised game.

    Args:
        game: any game.
        players: the point.
        constants: those of the game; None takes a GAN's own (`GAN.init`), and none for other games.
        draw: what the losses are evaluated on (`GAN.draw`, or `equilibrist.draw_of_rows` for rows of your
            own); of several draws, J is the mean. None for games that draw nothing.

    Raises:
        GameError: a player without parameters, a GAN without a draw, or more parameters than a matrix of
            1.5 GB has columns.

    Examples:
        >>> from equilibrist.games import bilinear
        >>> game = bilinear()
        >>> found = jacobian(game, game.equilibrium())
        >>> found.matrix
        tensor([[ 0.,  1.],
                [-1.,  0.]], dtype=torch.float64)
        >>> found.block("x", "y").item()
        1.0
        >>> found.eigenvalues.values.imag
        array([-1.,  1.])
    """
    field, players, constants, draws = _at(game, players, constants, draw)
    operator = JacobianOperator(field, players, constants, draws)
    size = 8.0 * operator.shape[0] ** 2
    if size > MEMORY:
        raise GameError(
            f"J of {operator.shape[0]:,} parameters would take {size / 1e9:.1f} GB: multiply with it instead "
            "(JacobianOperator), or take its outermost eigenvalues (spectra.spectrum_at)"
        )
    return Jacobian(operator.dense(), {p: operator.block(p, p)[0] for p in operator.players})


def hessian(
    game: Game,
    players: Players,
    player: str,
    constants: Constants | None = None,
    draw: Draw | Sequence[Draw] | None = None,
) -> HessianOperator:
    """The Hessian of one player's own loss in its own parameters, in float64: `H @ u` on vectors [n].

    The diagonal block of the Jacobian, without the matrix: for `lanczos_density`, and for players of any size.

    Args:
        game, players, constants, draw: as `jacobian` takes them.
        player: whose.

    Raises:
        GameError: as `jacobian`, and for a player that the game does not have.

    Examples:
        >>> import torch
        >>> from equilibrist.games import hidden_minimax
        >>> game = hidden_minimax()
        >>> hessian(game, game.equilibrium(), "x") @ torch.ones(1, dtype=torch.float64)
        tensor([-6.], dtype=torch.float64)
    """
    if player not in game.players:
        raise GameError(
            f"{type(game).__name__} has no player {player!r}{did_you_mean(player, game.players)}: its players "
            f"are {', '.join(game.players)}"
        )
    field, players, constants, draws = _at(game, players, constants, draw)
    return HessianOperator(field, players, constants, draws, player)


@usual_errors
def lanczos_density(
    operator: Any, *, steps: int = 30, probes: int = 8, seed: int = 0
) -> SpectralDensity:
    """The spectral density of a symmetric operator, by stochastic Lanczos quadrature.

    Takes `steps` products from each of `probes` random vectors, and two more to see that it is symmetric.

    Args:
        operator: `hessian(...)`, a tensor or array [n, n], a scipy LinearOperator, or anything with a `shape`
            and products `operator @ u` on float64 arrays [n].
        steps: Lanczos steps from each probe: the resolution.
        probes: random vectors; the density's error falls as 1 / sqrt(n probes).
        seed: of the probes.

    Raises:
        GameError: an operator that is not square, not symmetric or not finite.
        ValueError: steps or probes below 1, a negative seed.

    Reference: Golub and Welsch 1969; Ghorbani, Krishnan and Xiao 2019, section 2.

    Examples:
        >>> import numpy as np
        >>> found = lanczos_density(np.diag(np.repeat([1.0, 5.0], [300, 100])))
        >>> abs(found.below(3.0) - 0.75) < 0.02
        True
    """
    at_least("lanczos_density", 1, steps=steps, probes=probes)
    at_least("lanczos_density", 0, seed=seed)
    shape = tuple(getattr(operator, "shape", ()))
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise GameError(
            f"lanczos_density needs an operator [n, n], not one of shape {list(shape)}: give a square matrix, or "
            "spectra.hessian(game, players, player)"
        )
    ours = isinstance(operator, Tensor | HessianOperator | JacobianOperator)
    product = product_with(operator) if ours else operator.__matmul__
    u, w = np.random.default_rng([seed, 1]).standard_normal((2, shape[0]))
    image, other = product(u), product(w)
    if not np.isfinite([image, other]).all():
        raise GameError(
            "lanczos_density: products with the operator are not finite: look at its entries, or at the losses "
            "and gradients at this point"
        )
    if abs(w @ image - u @ other) > ASYMMETRY * np.linalg.norm(w) * np.linalg.norm(image):
        raise GameError(
            "lanczos_density: the operator is not symmetric (w^T A u differs from u^T A w): take its symmetric "
            "part (A + A^T) / 2, or the Hessian of one player"
        )
    return density(product, shape[0], steps, probes, np.random.default_rng(seed))


def local_convergence(
    solver: Solver,
    jacobian: Jacobian | Tensor | Array,
    sizes: Mapping[str, int] | None = None,
) -> Convergence:
    """The eigenvalues of a method's iteration near a stationary pair, and whether it converges there.

    They are those of the solver's `linear_map`: exact where the field is J x + c, and what decides near a
    stationary pair of any smooth game. That of `Unrolled` is for zero-sum games.

    Args:
        solver: as for training, with plain SGD.
        jacobian: J [n, n] in the sign of own losses: `spectra.jacobian(game, players)`, or an array.
        sizes: each player's number of parameters, in order. A `Jacobian` knows them, an array does not.

    Raises:
        GameError: a solver without a linear map, or one that this J or these players do not suit.

    Examples:
        >>> import numpy as np
        >>> from equilibrist.optimizers import SGD
        >>> from equilibrist.solvers import Consensus, Simultaneous
        >>> J, sizes = np.array([[0.0, 1.0], [-1.0, 0.0]]), {"x": 1, "y": 1}
        >>> for solver in (Simultaneous(SGD(0.5)), Consensus(SGD(0.5), gamma=1.0)):
        ...     print(local_convergence(solver, J, sizes).converges)
        False
        True
    """
    if isinstance(solver, type):
        raise GameError(f"{solver.__name__} is a class: give a solver, {solver.__name__}(SGD(0.1))")
    if not hasattr(solver, "linear_map"):
        raise GameError(
            f"{type(solver).__name__} has no linear map, so nothing is known beforehand: step it "
            "(equilibrist.iterate), or ask for the solver inside of it"
        )
    if isinstance(jacobian, Jacobian):
        sizes = {player: span.stop - span.start for player, span in jacobian.spans.items()}
        jacobian = jacobian.matrix
    J = torch.as_tensor(jacobian, dtype=torch.float64)
    if J.ndim != 2 or J.shape[0] != J.shape[1] or not J.isfinite().all():
        raise GameError(
            f"local_convergence: J must be a finite matrix [n, n], not one of shape {list(J.shape)}"
        )
    if sizes is None or sum(sizes.values()) != len(J):
        raise GameError(
            f"local_convergence: say which rows of J belong to which player, sizes={{'generator': ..., 'critic': "
            f"...}}, {len(J)} in all"
        )
    try:
        # What the solver itself asks of the players' names.
        solver.init({player: {"x": J.new_zeros(size)} for player, size in sizes.items()})
        values = torch.linalg.eigvals(solver.linear_map(J, sizes)).cpu().numpy()
    except ValueError as error:
        raise GameError(str(error)) from None
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise GameError("a block of the Jacobian is singular there") from None
    values = values[np.argsort(-np.abs(values), kind="stable")]
    radius = float(np.abs(values[0]))
    return Convergence(values, radius, radius < 1)


def _at(
    game: Game,
    players: Players,
    constants: Constants | None,
    draw: Draw | Sequence[Draw] | None,
) -> tuple[VectorField, Players, Constants, list[Draw]]:
    """The field whose derivatives are exact, and the point and the draws in float64."""
    for player in game.players:
        if player not in players:
            raise GameError(
                f"players holds no {player!r}: give the parameters of {', '.join(game.players)}"
            )
    if isinstance(game, GAN):
        if draw is None:
            raise GameError(
                "the losses of a GAN are means over samples: give draw=game.draw(rng, data, batch), or rows of "
                "your own by draw=equilibrist.draw_of_rows(game, samples, latents)"
            )
        start = game.init()
        for player, part in start.players.items():
            if part.keys() != players[player].keys():
                raise GameError(
                    f"the {player}'s parameters are {', '.join(part)}, not {', '.join(players[player]) or 'none'}: "
                    "take them from game.init() or game.read(generator, critic)"
                )
        constants = start.constants if constants is None else constants
    draws = [draw or {}] if draw is None or isinstance(draw, dict) else list(draw)
    if not draws:
        raise GameError(
            "draw is empty: give one draw at least, or None for a game that draws nothing"
        )
    anchor = tree.leaves(players)[0].device
    held = constants or {player: {} for player in game.players}
    wide, fixed = (tree.to(part, device=anchor, dtype=torch.float64) for part in (players, held))
    seen = [tree.to(one, device=anchor, dtype=torch.float64) for one in draws]
    return VectorField(Exact(game)), wide, game.refresh(wide, fixed, seen[0], exact=True), seen
