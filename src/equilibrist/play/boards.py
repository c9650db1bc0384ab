"""The games that `equilibrist play` knows. Nothing here imports torch before a game is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from equilibrist.errors import EquilibristError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from equilibrist.games.truth import Known

# With two parameters, one a player, so many iterations solve exactly.
_EXACT = {"competitive": {"iterations": "2"}, "ridge": {"iterations": "1"}}


def _with(gamma: float) -> dict[str, dict[str, str]]:
    return {"consensus": {"gamma": f"{gamma:g}"}, **_EXACT}


# Four numbers: the least and largest first coordinate, the least and largest second one.
Window = tuple[float, float, float, float]


def _bilinear(scale: float = 1.0) -> Known:
    """f = scale x y: the origin is the only equilibrium; gradient steps spiral away from it."""
    return _quadratic(0.0, scale, 0.0)


def _quadratic(a: float = 0.2, b: float = 1.0, c: float = 0.2) -> Known:
    """f = a x²/2 + b x y - c y²/2: Nash at the origin for a, c >= 0, rotation of strength b."""
    import torch

    from equilibrist.games import Quadratic

    return Quadratic(*(torch.full((1, 1), value, dtype=torch.float64) for value in (a, b, c)))


def _dirac(
    loss: Literal["vanilla", "non-saturating", "wgan"] = "vanilla", gamma: float = 0.0
) -> Known:
    """Dirac-GAN: data at 0, generator at theta, critic D(x) = psi x; gamma > 0 is the R1 penalty."""
    from equilibrist.games import Dirac

    return Dirac(loss, gamma)


def _false_attractor() -> Known:
    """f = 3x² + y² + 4xy, y maximises: most methods converge to a point that is no equilibrium."""
    from equilibrist.games import false_attractor

    return false_attractor()


def _hidden_minimax() -> Known:
    """f = -3x² - y² + 4xy, y maximises: the origin is minimax, not Nash; gradient steps leave it."""
    from equilibrist.games import hidden_minimax

    return hidden_minimax()


def _three_nash() -> Known:
    """Nine stationary points: three local Nash, one attractor that is none, five saddles."""
    from equilibrist.games import three_nash

    return three_nash()


def _curved_ridge() -> Known:
    """A curved ridge: gradient steps circle around the origin, a local minimax point; ridge goes there."""
    from equilibrist.games import curved_ridge

    return curved_ridge()


@dataclass(frozen=True)
class Board:
    """How a game is shown by default.

    Attributes:
        make: builds the game; its typed keyword parameters are the game's options.
        window: the part of the plane.
        lr, steps: of every solver.
        solvers: texts as given after --solver.
        options: a solver's own defaults on this game (name to its options).
        basins: whether basins are drawn.
    """

    make: Callable[..., Any]
    window: Window = (-2.0, 2.0, -2.0, 2.0)
    lr: float = 0.1
    steps: int = 300
    solvers: tuple[str, ...] = ("simultaneous", "consensus", "extragradient")
    options: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _with(0.5))
    basins: bool = False

    @property
    def line(self) -> str:
        """One line about the game."""
        return (self.make.__doc__ or "no description").strip().splitlines()[0]


BOARDS: dict[str, Board] = {
    "bilinear": Board(_bilinear, lr=0.15, steps=200),
    "quadratic": Board(_quadratic),
    "dirac": Board(_dirac, lr=0.3, steps=200),
    "false-attractor": Board(
        _false_attractor,
        lr=0.02,
        solvers=("simultaneous", "consensus", "ridge"),
        options=_with(0.1),
    ),
    "hidden-minimax": Board(
        _hidden_minimax,
        lr=0.02,
        solvers=("simultaneous", "consensus", "ridge"),
        options=_with(1.0),
    ),
    "three-nash": Board(
        _three_nash,
        window=(-20.0, 20.0, -20.0, 20.0),
        lr=0.02,
        steps=800,
        solvers=("simultaneous", "consensus", "ridge"),
        options=_with(0.1),
        basins=True,
    ),
    "curved-ridge": Board(
        _curved_ridge,
        window=(-10.0, 10.0, -10.0, 10.0),
        lr=0.02,
        steps=800,
        solvers=("simultaneous", "consensus", "ridge"),
        options=_with(0.1),
        basins=True,
    ),
}


def board(name: str) -> Board:
    """The board of this name, or of a function in a file of the user's (file.py:function).

    Raises:
        RecipeError: an unknown name, with the closest one.
    """
    if name in BOARDS:
        return BOARDS[name]
    if ":" in name or name.endswith(".py"):
        from equilibrist.recipe_lookup import from_file

        return Board(from_file(name)[0])
    raise RecipeError(
        f"there is no game {name!r}{did_you_mean(name, BOARDS)}; `equilibrist play` lists them all, "
        "and your own is named as file.py:function"
    )


def build(name: str, chosen: Board, settings: Mapping[str, str]) -> tuple[Known, dict[str, Any]]:
    """(the game, all its options).

    Raises:
        RecipeError: options that it does not have or refuses, or a game that is no two-parameter game with
            a truth.
    """
    from equilibrist.arguments import convert, parameters

    known = parameters(chosen.make)
    values = {k: p.default for k, p in known.items() if p.default is not p.empty}
    for key, text in settings.items():
        if key not in known:
            raise RecipeError(
                f"--set {key}: the game {name} has no such option{did_you_mean(key, known)}; it has "
                f"{', '.join(known) or 'none'}"
            )
        values[key] = convert(text, known[key].annotation, f"{name}: {key}")
    if missing := [key for key in known if key not in values]:
        raise RecipeError(
            f"the game {name} needs a value for {missing[0]}: add --set {missing[0]}=..."
        )
    try:
        game = chosen.make(**values)
    except EquilibristError:
        raise
    except Exception as error:
        raise RecipeError(f"the game {name} fails on its options: {_first(error)}") from error
    from equilibrist.games.truth import Known

    if not isinstance(game, Known):
        raise RecipeError(
            f"the game {name} is a {type(game).__name__}, which carries no truth: it needs points() and "
            "jacobian(players), as equilibrist.games.Analytic has"
        )
    return game, values


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
