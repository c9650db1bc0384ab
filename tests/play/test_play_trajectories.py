"""Trajectories are the solvers' own steps; rates and ends are what they should be."""

import math

import numpy as np
import pytest
import torch

from equilibrist import Quadratic, RecipeError, VectorField
from equilibrist.errors import GameError
from equilibrist.games import Dirac, Planar, bilinear, false_attractor
from equilibrist.optimizers import SGD, Adam
from equilibrist.play import boards
from equilibrist.play.page import play_html
from equilibrist.play.played import play
from equilibrist.play.trajectories import (
    DIVERGED,
    NEAR,
    NONE,
    Table,
    halton_starts,
    rate,
    starts_near,
)
from equilibrist.solvers import (
    Alternating,
    Consensus,
    Extragradient,
    Lookahead,
    Optimistic,
    Simultaneous,
    SymplecticAdjustment,
)

H = SGD(0.1)
STARTS = np.array([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.1]])


def test_gradient_steps_by_hand():
    walk = Table(bilinear()).walk(Simultaneous(H), STARTS, 7, 1e6)
    expected = [STARTS]
    for _ in range(7):
        x, y = expected[-1].T
        expected.append(np.stack([x - 0.1 * y, y + 0.1 * x], axis=1))
    assert walk.path == pytest.approx(np.stack(expected), abs=1e-14)
    assert (walk.late == walk.path[5]).all()
    assert (walk.last == walk.path[7]).all()
    assert (walk.left == -1).all()


def test_a_nonlinear_game_of_numbers_by_hand():
    """The Dirac-GAN's parameters have no dimension at all."""

    def slope(t):
        return 1 / (1 + np.exp(t))

    walk = Table(Dirac("vanilla", gamma=0.3)).walk(Extragradient(H), STARTS, 5, 1e6)
    z = STARTS.T
    for _ in range(5):

        def v(z):
            t = z[0] * z[1]
            return np.stack([slope(t) * z[1], -slope(t) * z[0] + 0.3 * z[1]])

        z = z - 0.1 * v(z - 0.1 * v(z))
    assert walk.last == pytest.approx(z.T, abs=1e-14)


@pytest.mark.parametrize(
    "solver",
    [
        Alternating(optimizer=H, leader="x", follower="y"),
        Consensus(H, gamma=0.7),
        Optimistic(Adam(0.05)),
        SymplecticAdjustment(H, align=True),
        Lookahead(Simultaneous(H), period=3),
    ],
    ids=str,
)
def test_stacked_members_are_single_runs(solver):
    game = false_attractor()
    walk = Table(game).walk(solver, STARTS, 9, 1e6)
    for k, start in enumerate(STARTS):
        players = {
            p: {"value": torch.tensor([s], dtype=torch.float64)}
            for p, s in zip("xy", start, strict=True)
        }
        state, field = solver.init(players), VectorField(game)
        for step in range(9):
            players, _, state, _ = solver.step(field, players, {"x": {}, "y": {}}, state, Nothing())
            here = [float(players[p]["value"]) for p in "xy"]
            assert walk.path[step + 1, k] == pytest.approx(here, abs=1e-13)


class Nothing:
    def batch(self, index=0):
        return {}


def test_what_leaves_is_held_and_harms_nobody():
    table = Table(Quadratic(*(torch.full((1, 1), v, dtype=torch.float64) for v in (-1, 0, 1))))
    starts = np.array([[1.0, 1.0], [0.0, 1.0]])
    walk = table.walk(Simultaneous(SGD(1.0)), starts, 8, 20.0)
    assert walk.left.tolist() == [5, -1]  # 2, 4, 8, 16, 32
    assert walk.path[:, 0, 0].tolist() == [1, 2, 4, 8, 16, 16, 16, 16, 16]
    assert walk.last[1].tolist() == [0, 0]
    assert table.outcomes(walk, 0.01).tolist() == [DIVERGED, 0]


def test_ends():
    table = Table(bilinear())
    away = table.walk(Simultaneous(SGD(0.01)), np.array([[1e-3, 0.0]]), 20, 10.0)
    # Near the point, but on its way out of it.
    assert table.outcomes(away, 0.01).tolist() == [NONE]
    near = table.walk(Consensus(H, gamma=1.0), np.array([[1e-3, 0.0]]), 20, 10.0)
    assert table.outcomes(near, 0.01).tolist() == [0]


@pytest.mark.parametrize("h", [0.05, 0.3])
def test_rates_are_the_closed_forms(h):
    """SCIENCE: bilinear, sqrt(1 + h^2), 1, sqrt(1 - h^2 + h^4), sqrt((1 - h g)^2 + h^2)."""
    table, rule = Table(bilinear()), SGD(h)
    for solver, expected in (
        (Simultaneous(rule), math.sqrt(1 + h**2)),
        (Alternating(optimizer=rule, leader="x", follower="y"), 1.0),
        (Extragradient(rule), math.sqrt(1 - h**2 + h**4)),
        (Consensus(rule, gamma=0.5), math.sqrt((1 - 0.5 * h) ** 2 + h**2)),
    ):
        walk = table.walk(solver, starts_near(table, 0), 100, 1e9)
        found = rate(table, solver, 0, walk.path)
        assert found.predicted == pytest.approx(expected, abs=1e-12)
        assert found.observed == pytest.approx(expected, abs=1e-5)


def test_a_rate_needs_a_linear_map():
    table = Table(bilinear())
    solver = Lookahead(Simultaneous(H))
    path = table.walk(solver, starts_near(table, 0), 40, 1e9).path
    assert path.shape == (41, NEAR, 2)
    found = rate(table, solver, 0, path)
    assert found.predicted is None
    assert found.why == "Lookahead has no linear map"
    assert found.observed is not None
    assert rate(table, Simultaneous(Adam()), 0, path).why.startswith("linear_map is that of")
    still = np.repeat(path[:1], 3, axis=0)
    assert rate(table, Simultaneous(H), 0, still).observed is None


def test_the_field_is_v():
    table = Table(false_attractor())
    v = table.field(STARTS)
    x, y = STARTS.T
    assert v == pytest.approx(np.stack([6 * x + 4 * y, -4 * x - 2 * y], axis=1), abs=1e-14)


def test_a_picture_needs_two_parameters():
    with pytest.raises(GameError, match="Quadratic has 4 parameters: pictures are of games with"):
        Table(bilinear(2))
    with pytest.raises(GameError, match="no init"):
        Table(Planar(lambda x, y: x * y))


def test_starts_are_spread():
    starts = halton_starts((-1.0, 1.0, 0.0, 10.0), 8)
    assert len(np.unique(starts, axis=0)) == 8
    assert (np.abs(starts[:, 0]) <= 0.8).all()
    assert ((starts[:, 1] >= 1) & (starts[:, 1] <= 9)).all()
    assert (halton_starts((-1.0, 1.0, 0.0, 10.0), 3) == starts[:3]).all()


def test_play_fills_in_what_is_not_said():
    played = play(
        "bilinear", ["consensus", "consensus:gamma=2,lr=0.05"], steps=30, starts="1,0;0,1"
    )
    one, two = played.shown
    assert (one.name, two.name) == ("consensus:gamma=0.5", "consensus:gamma=2,lr=0.05")
    assert two.solver == Consensus(SGD(0.05), gamma=2.0)
    assert one.solver == Consensus(SGD(played.lr), gamma=0.5)
    assert played.starts.tolist() == [[1, 0], [0, 1]]
    assert (one.paths[0] == two.paths[0]).all()
    assert len(played.rows()) == 2


def test_leaders_are_the_games_own():
    played = play("three-nash", ["ridge", "alternating"], steps=3, basins=False)
    for shown in played.shown:
        assert (shown.solver.leader, shown.solver.follower) == ("y", "x")


def test_basins_are_where_starts_end():
    """f = x^2/2 ... of false-attractor: everything ends at the origin; of the bilinear game nothing does."""
    played = play("false-attractor", ["simultaneous"], basins=True, steps=400)
    assert played.shown[0].basins is not None
    assert (played.shown[0].basins == 0).all()
    played = play("bilinear", ["simultaneous"], basins=True, steps=30)
    assert (played.shown[0].basins == NONE).all()


def test_basins_lie_where_the_picture_draws_them(tmp_path):
    """Two attractors of x' = x - x^3: rows run upwards in y, columns to the right in x."""
    source = tmp_path / "wells.py"
    source.write_text(
        "from equilibrist.games import Planar\n"
        "def wells():\n"
        "    return Planar(lambda x, y: x**4 / 4 - x**2 / 2 - (y - 0.5) ** 2, 'x',\n"
        "                  ((-1.0, 0.5), (1.0, 0.5), (0.0, 0.5)))\n"
    )
    played = play(f"{source}:wells", ["simultaneous"], basins=True, steps=150)
    basins = played.shown[0].basins
    assert basins is not None
    assert (basins[:, :30] == 0).all()
    assert (basins[:, 30:] == 1).all()
    assert [p.kind for p in played.table.points] == [
        "local nash",
        "local nash",
        "saddle of the dynamics",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"name": "bilinaer"}, "no game 'bilinaer' (did you mean bilinear?)"),
        ({"solvers": ["consesus"]}, "no solver 'consesus' (did you mean consensus?)"),
        ({"solvers": ["consensus:gama=1"]}, "has no 'gama' (did you mean gamma?)"),
        ({"solvers": ["consensus:gamma=-1"]}, "must not be negative"),
        ({"solvers": ["proximal"]}, "these games have none"),
        ({"solvers": ["ridge:leader=critic,follower=generator"]}, "leader=critic names no player"),
        ({"solvers": ["simultaneous"] * 13}, "at most 12"),
        ({"settings": {"scael": "2"}}, "no such option (did you mean scale?)"),
        ({"settings": {"scale": "two"}}, "bilinear: scale=two is not a finite number"),
        ({"name": "dirac", "settings": {"gamma": "-1"}}, "must not be negative"),
        ({"lr": 0.0}, "a step size must be positive"),
        ({"lr": math.nan}, "a step size must be positive"),
        ({"steps": 0}, "between 1 and 100,000"),
        ({"starts": 0}, "between 1 and 12"),
        ({"starts": "1,0;x"}, "write a number, or places"),
        ({"starts": "1,nan"}, "write a number, or places"),
        ({"window": (1, 1, 0, 1)}, "write four numbers"),
        ({"window": (0, 1, 0)}, "write four numbers"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RecipeError) as error:
        play(**{"steps": 2, **call})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_board_plays():
    for name, board in boards.BOARDS.items():
        played = play(name, steps=2, starts=2, basins=False)
        assert len(played.shown) == len(board.solvers)
        assert board.line in play_html(played).replace("&gt;", ">").replace("&lt;", "<")
