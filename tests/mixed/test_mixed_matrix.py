"""Matrix games: the linear program against closed forms and other libraries, the gap against its definition."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equilibrist.errors import GameError, RequirementError
from equilibrist.mixed import matrix
from equilibrist.mixed.matrix import (
    LAWS,
    MatrixGame,
    from_gambit,
    from_nashpy,
    to_gambit,
    to_nashpy,
)

F64 = torch.float64
NASHPY = "nashpy is not installed: pip install nashpy"
GAMBIT = "pygambit is not installed: pip install pygambit"


def tensor(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=F64)


def simplex(*shape: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.dirichlet(np.ones(shape[-1]), shape[:-1]))


def check_optimal(game: MatrixGame, tolerance: float = 1e-9) -> None:
    """KKT: feasible, both guarantees equal the value, nothing is played that is worse."""
    solution = game.solve()
    x, y, v, scale = solution.x, solution.y, solution.value, game.spread or 1.0
    for p in (x, y):
        assert float(p.min()) >= 0
        assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    rows, columns = game.payoff @ y, game.payoff.T @ x
    assert float(columns.max()) <= v + tolerance * scale  # x pays at most v
    assert float(rows.min()) >= v - tolerance * scale  # y gets at least v
    assert float((x * (rows - v)).abs().max()) <= tolerance * scale
    assert float((y * (columns - v)).abs().max()) <= tolerance * scale
    assert -1e-15 * scale <= float(game.gap(x, y)) <= tolerance * scale


def test_matching_pennies() -> None:
    game = MatrixGame.matching_pennies()
    solution = game.solve()
    assert solution.value == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(solution.x, tensor([0.5, 0.5]), rtol=0, atol=1e-12)
    torch.testing.assert_close(solution.y, tensor([0.5, 0.5]), rtol=0, atol=1e-12)
    assert float(game.payoff[0, 0]) == 1  # x pays where the pennies match


def test_rock_paper_scissors() -> None:
    game = MatrixGame.rock_paper_scissors()
    solution = game.solve()
    assert solution.value == pytest.approx(0, abs=1e-12)
    for p in (solution.x, solution.y):
        torch.testing.assert_close(p, torch.full((3,), 1 / 3, dtype=F64), rtol=0, atol=1e-12)
    # Paper (1) beats rock (0): x with rock pays where y has paper.
    assert game.payoff[0, 1] == 1


@pytest.mark.parametrize("seed", range(12))
def test_two_by_two(seed: int) -> None:
    """Without a saddle point: v = (a d - b c) / (a + d - b - c), x_1 = (d - c) / (...), y_1 = (d - b) / (...)."""
    rng = np.random.default_rng(seed)
    (a, b), (c, d) = M = rng.normal(size=(2, 2))
    solution = MatrixGame(torch.from_numpy(M)).solve()
    lower, upper = M.min(0).max(), M.max(1).min()
    if lower == upper:  # a saddle point in pure strategies
        assert solution.value == pytest.approx(lower, abs=1e-12)
        return
    whole = a + d - b - c
    assert solution.value == pytest.approx((a * d - b * c) / whole, abs=1e-12)
    assert float(solution.x[0]) == pytest.approx((d - c) / whole, abs=1e-12)
    assert float(solution.y[0]) == pytest.approx((d - b) / whole, abs=1e-12)


def test_two_by_two_has_both_kinds() -> None:
    kinds = set()
    for seed in range(12):
        M = np.random.default_rng(seed).normal(size=(2, 2))
        kinds.add(bool(M.min(0).max() == M.max(1).min()))
    assert kinds == {True, False}


def test_diagonal_game() -> None:
    """M = diag(d), d > 0: v = 1 / sum 1/d, both play v / d."""
    d = tensor([1.0, 2.0, 4.0, 0.5])
    solution = MatrixGame(torch.diag(d)).solve()
    v = 1 / float((1 / d).sum())
    assert solution.value == pytest.approx(v, abs=1e-12)
    torch.testing.assert_close(solution.x, v / d, rtol=0, atol=1e-11)
    torch.testing.assert_close(solution.y, v / d, rtol=0, atol=1e-11)


def test_the_minimiser_is_x() -> None:
    """A row that is smaller everywhere is x's; a column that is larger everywhere is y's."""
    solution = MatrixGame(tensor([[3.0, 5.0], [1.0, 2.0]])).solve()
    assert solution.x.tolist() == [0, 1]
    assert solution.y.tolist() == [0, 1]
    assert solution.value == 2


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 1), (7, 7), (3, 20), (20, 3), (40, 40)])
def test_optimality_of_random_games(law: str, shape: tuple[int, int]) -> None:
    if law == "skew":
        shape = (shape[0], shape[0])
    for seed in range(3):
        check_optimal(MatrixGame.random(*shape, seed=seed, law=law))


@pytest.mark.parametrize(
    "M",
    [
        torch.zeros(4, 6, dtype=F64),
        torch.full((3, 2), -7.0, dtype=F64),
        tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]),  # equal rows
        torch.eye(5, dtype=F64).repeat(2, 3),  # every strategy several times
        1e6 * MatrixGame.random(6, 6, seed=1).payoff,
        1e-6 * MatrixGame.random(6, 6, seed=1).payoff,
        1e3 + 1e-3 * MatrixGame.random(6, 6, seed=1).payoff,
    ],
)
def test_degenerate_and_badly_scaled_games(M: Tensor) -> None:
    check_optimal(MatrixGame(M))


def test_value_of_a_skew_game_is_zero_and_scales() -> None:
    game = MatrixGame.random(9, 9, seed=4, law="skew")
    assert game.value() == pytest.approx(0, abs=1e-10)
    moved = MatrixGame(3 * MatrixGame.random(4, 6, seed=2).payoff + 5)
    assert moved.value() == pytest.approx(
        3 * MatrixGame.random(4, 6, seed=2).value() + 5, abs=1e-10
    )


def test_swapping_the_players() -> None:
    game = MatrixGame.random(5, 8, seed=3)
    assert MatrixGame(-game.payoff.T).value() == pytest.approx(-game.value(), abs=1e-10)


def test_gap_is_the_best_deviation() -> None:
    game = MatrixGame.random(4, 6, seed=0)
    x, y = simplex(4, seed=1), simplex(6, seed=2)
    M = game.payoff.numpy()
    paid = sum(
        x[i].item() * M[i, j] * y[j].item() for i, j in itertools.product(range(4), range(6))
    )
    best_x = min(sum(M[i, j] * y[j].item() for j in range(6)) for i in range(4))
    best_y = max(sum(M[i, j] * x[i].item() for i in range(4)) for j in range(6))
    own_x, own_y = game.exploitability(x, y)
    assert float(own_x) == pytest.approx(paid - best_x, abs=1e-14)
    assert float(own_y) == pytest.approx(best_y - paid, abs=1e-14)
    assert float(game.gap(x, y)) == pytest.approx(best_y - best_x, abs=1e-14)


def test_gap_of_batches() -> None:
    game = MatrixGame.random(4, 6, seed=0)
    x, y = simplex(3, 5, 4, seed=1), simplex(3, 5, 6, seed=2)
    gaps, (own_x, own_y) = game.gap(x, y), game.exploitability(x, y)
    assert gaps.shape == (3, 5)
    assert float(gaps.min()) > 0
    torch.testing.assert_close(own_x + own_y, gaps, rtol=0, atol=1e-14)
    for i, j in itertools.product(range(3), range(5)):
        assert float(gaps[i, j]) == pytest.approx(float(game.gap(x[i, j], y[i, j])), abs=1e-14)


def test_only_one_of_them_can_gain() -> None:
    """x optimal, y not: the gap is a positive number, and y gains nothing beyond the value."""
    game = MatrixGame.rock_paper_scissors()
    third = torch.full((3,), 1 / 3, dtype=F64)
    own_x, own_y = game.exploitability(third, tensor([1.0, 0.0, 0.0]))
    assert float(own_x) == pytest.approx(1, abs=1e-15)
    assert float(own_y) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (tensor([0.5, 0.5, 0.0]), "2 probabilities"),
        (tensor([0.7, 0.7]), "sum to 1"),
        (tensor([1.5, -0.5]), "at least 0"),
        (tensor([float("nan"), 1.0]), "no mixed strategy"),
        (tensor(1.0), "2 probabilities"),
    ],
)
def test_strategies_are_checked(x: Tensor, words: str) -> None:
    game = MatrixGame.matching_pennies()
    with pytest.raises(ValueError, match=words):
        game.gap(x, tensor([0.5, 0.5]))


def test_float32() -> None:
    game = MatrixGame(MatrixGame.random(6, 5, seed=0).payoff.float())
    solution = game.solve()
    assert game.payoff.dtype == solution.x.dtype == torch.float32
    assert abs(float(game.gap(solution.x, solution.y))) < 1e-6


@pytest.mark.parametrize(
    ("payoff", "words"),
    [
        (np.zeros((2, 0)), "at least one entry"),
        (np.zeros(3), r"shape \[3\]"),
        (np.zeros((2, 2, 2)), r"shape \[2, 2, 2\]"),
        (np.array([[1.0, np.nan]]), r"payoff \(0, 1\) is nan"),
        (torch.tensor([[1.0], [-torch.inf]]), r"payoff \(1, 0\) is -inf"),
        (np.array([[1j]]), "real numbers"),
        (np.array([["a"]]), "real numbers"),
        ([[1.0, 2.0], [3.0]], "real numbers"),
        (np.array([[1e308, -1e308]]), "scale them"),
    ],
)
def test_payoffs_are_checked(payoff: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        MatrixGame(payoff)
    assert "\n" not in str(caught.value)


def test_payoffs_are_copied_and_counted() -> None:
    M = np.array([[1, 2, 3], [4, 5, 6]])
    game = MatrixGame(M)  # type: ignore[arg-type]
    M[0, 0] = 100
    assert game.payoff.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (game.n, game.m, game.spread, game.payoff.dtype) == (2, 3, 5, F64)


def test_laws() -> None:
    big = {law: MatrixGame.random(200, 200, seed=7, law=law).payoff for law in LAWS}
    assert -1 < float(big["uniform"].min()) < -0.99
    assert 0.99 < float(big["uniform"].max()) < 1
    assert set(big["sign"].unique().tolist()) == {-1, 1}
    assert float(big["normal"].std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(big["skew"], -big["skew"].T)
    assert float(big["skew"].std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(big["normal"], MatrixGame.random(200, 200, seed=7, law="normal").payoff)
    assert not torch.equal(big["normal"], MatrixGame.random(200, 200, seed=8, law="normal").payoff)
    with pytest.raises(ValueError, match="did you mean uniform"):
        MatrixGame.random(2, 2, law="unifrom")
    with pytest.raises(ValueError, match="as many of both"):
        MatrixGame.random(2, 3, law="skew")
    with pytest.raises(ValueError, match="at least one strategy"):
        MatrixGame.random(0, 3)


def test_solver_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.optimize

    class Failed:
        x, message = None, "time\nlimit."

    monkeypatch.setattr(scipy.optimize, "linprog", lambda *_, **__: Failed)
    with pytest.raises(GameError, match=r"2 x 2 game was not solved \(time limit\)"):
        MatrixGame.matching_pennies().solve()


def test_a_wrong_solution_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.optimize

    class Wrong:
        x, message = np.array([1.0, 0.0, 0.0]), "optimal"

        class ineqlin:  # noqa: N801
            marginals = np.array([-1.0, 0.0])

    monkeypatch.setattr(scipy.optimize, "linprog", lambda *_, **__: Wrong)
    with pytest.raises(GameError, match="left a gap"):
        MatrixGame.matching_pennies().solve()


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(matrix.importlib, "import_module", absent)
    for convert, name in ((to_nashpy, "nashpy"), (to_gambit, "pygambit")):
        with pytest.raises(RequirementError, match=f"pip install {name}"):
            convert(MatrixGame.matching_pennies())


@pytest.mark.parametrize("seed", range(5))
def test_nashpy(seed: int) -> None:
    pytest.importorskip("nashpy", reason=NASHPY)
    game = MatrixGame.random(4, 5, seed=seed)
    theirs = to_nashpy(game)
    x, y = theirs.linear_program()
    solution = game.solve()
    assert float(theirs[x, y][1]) == pytest.approx(solution.value, abs=1e-7)
    torch.testing.assert_close(torch.from_numpy(np.asarray(x)), solution.x, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.from_numpy(np.asarray(y)), solution.y, rtol=0, atol=1e-6)
    assert torch.equal(from_nashpy(theirs).payoff, game.payoff)


def test_nashpy_is_checked() -> None:
    nashpy = pytest.importorskip("nashpy", reason=NASHPY)
    # One argument: zero-sum, the row player gets A and our x pays -A.
    assert from_nashpy(nashpy.Game(np.array([[1, 2], [3, 4]]))).payoff.tolist() == [
        [-1, -2],
        [-3, -4],
    ]
    with pytest.raises(GameError, match="subtract 5 from one player's") as caught:
        from_nashpy(nashpy.Game(np.array([[1, 2], [3, 4]]), np.array([[4, 3], [2, 1]])))
    assert "\n" not in str(caught.value)
    with pytest.raises(GameError, match=r"payoffs 1 and 2 at strategies \(0, 0\); only zero-sum"):
        from_nashpy(nashpy.Game(np.array([[1, 2], [3, 4]]), np.array([[2, -2], [-3, -4]])))
    with pytest.raises(GameError, match="not ndarray"):
        from_nashpy(np.eye(2))


@pytest.mark.parametrize("seed", range(5))
def test_gambit(seed: int) -> None:
    gambit = pytest.importorskip("pygambit", reason=GAMBIT)
    game = MatrixGame.random(3, 4, seed=seed)
    theirs = to_gambit(game)
    (found,) = gambit.nash.lp_solve(theirs, rational=True).equilibria
    first, second = (list(found[player]) for player in theirs.players)
    solution = game.solve()
    x = tensor([float(Fraction(str(p[1]))) for p in first])
    y = tensor([float(Fraction(str(p[1]))) for p in second])
    torch.testing.assert_close(x, solution.x, rtol=0, atol=1e-9)
    torch.testing.assert_close(y, solution.y, rtol=0, atol=1e-9)
    assert torch.equal(from_gambit(theirs).payoff, game.payoff)


def test_gambit_is_checked() -> None:
    gambit = pytest.importorskip("pygambit", reason=GAMBIT)
    with pytest.raises(GameError, match=r"the Gambit game is not zero-sum: .*subtract 5"):
        from_gambit(gambit.Game.from_arrays([[1, 2], [3, 4]], [[4, 3], [2, 1]]))
    with pytest.raises(GameError, match=r"not zero-sum: .*only zero-sum"):
        from_gambit(gambit.Game.from_arrays([[1, 2], [3, 4]], [[4, 3], [2, 8]]))
    with pytest.raises(GameError, match="has 3 player"):
        from_gambit(gambit.Game.new_table([2, 2, 2]))
    with pytest.raises(GameError, match="not list"):
        from_gambit([[1, 2]])


def test_gambit_in_extensive_form() -> None:
    """x chooses first and is seen: y has four strategies, and wins matching pennies."""
    gambit = pytest.importorskip("pygambit", reason=GAMBIT)
    tree = gambit.Game.new_tree(players=["x", "y"])
    tree.append_move(tree.root, "x", ["H", "T"])
    for node in list(tree.root.children):
        tree.append_move(node, "y", ["h", "t"])

    def outcome(pays: int) -> Any:
        try:  # pygambit 16.7 wants a label first
            return tree.add_outcome(f"outcome {len(tree.outcomes)}", [-pays, pays])
        except TypeError:
            return tree.add_outcome([-pays, pays])

    leaves = [leaf for node in tree.root.children for leaf in node.children]
    for leaf, pays in zip(leaves, [1, -1, -1, 1], strict=True):
        tree.set_outcome(leaf, outcome(pays))
    game = from_gambit(tree)
    assert (game.n, game.m) == (2, 4)
    assert game.value() == pytest.approx(1, abs=1e-12)
