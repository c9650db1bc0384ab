"""Mirror methods on matrix games: one step by hand, guarantees at every recorded time, rates, survival."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from equilibrist.core.draws import Stream, generator
from equilibrist.mixed.matrix import LAWS, MatrixGame
from equilibrist.mixed.mirror import MirrorDescent, MirrorProx, OptimisticMirror, record_times

F64 = torch.float64
METHODS: list[Any] = [
    MirrorDescent(),
    MirrorDescent(anytime=True),
    MirrorProx(),
    OptimisticMirror(),
]
Array = NDArray[np.float64]


def update(p: Array, exponent: Array) -> Array:
    q = p * np.exp(exponent)
    return q / q.sum()


def by_hand(
    method: Any, M: Array, eta: float, steps: int, x: Array, y: Array, noises: Array | None = None
) -> list[tuple[Array, Array, Array, Array]]:
    """(average x, average y, x, y) after 1, 2, ... steps, with plain weights."""
    n = len(x)
    first_x, first_y = x, y
    total_x, total_y = np.zeros_like(x), np.zeros_like(y)
    before_x, before_y = np.zeros_like(x), np.zeros_like(y)
    all_x, all_y = np.zeros_like(x), np.zeros_like(y)
    found = []
    k = 0

    def see(x: Array, y: Array) -> tuple[Array, Array]:
        nonlocal k
        e = np.zeros(len(x) + len(y)) if noises is None else noises[k]
        k += 1
        return M @ y + e[:n], M.T @ x + e[n:]

    for t in range(1, steps + 1):
        if isinstance(method, MirrorProx):
            gx, gy = see(x, y)
            hx, hy = update(x, -eta * gx), update(y, eta * gy)
            total_x, total_y = total_x + hx, total_y + hy
            gx, gy = see(hx, hy)
            x, y = update(x, -eta * gx), update(y, eta * gy)
        else:
            total_x, total_y = total_x + x, total_y + y
            gx, gy = see(x, y)
            if isinstance(method, OptimisticMirror):
                x, y = (
                    update(x, -eta * (2 * gx - before_x)),
                    update(y, eta * (2 * gy - before_y)),
                )
                before_x, before_y = gx, gy
            elif method.anytime:
                all_x, all_y = all_x + gx, all_y + gy
                rate = eta / math.sqrt(t + 1)
                x, y = update(first_x, -rate * all_x), update(first_y, rate * all_y)
            else:
                x, y = update(x, -eta * gx), update(y, eta * gy)
        found.append((total_x / t, total_y / t, x, y))
    return found


def close(ours: Tensor, theirs: Array, tolerance: float = 1e-14) -> None:
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("given", [True, False])
def test_steps_equal_those_by_hand(method: Any, given: bool) -> None:
    game = MatrixGame.random(4, 6, seed=1)
    rng = np.random.default_rng(0)
    x, y = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(6))
    if not given:
        x, y = np.full(4, 1 / 4), np.full(6, 1 / 6)
    start = (torch.from_numpy(x), torch.from_numpy(y)) if given else None
    theirs = by_hand(method, game.payoff.numpy(), method.step(game, 5), 5, x, y)
    trace = method.run(game, 5, start=start, record=[1, 2, 3, 4, 5])
    for k, expected in enumerate(theirs):
        ours = (trace.average_x, trace.average_y, trace.last_x, trace.last_y)
        for mine, his in zip(ours, expected, strict=True):
            close(mine[k], his)
        average, last = expected[:2], expected[2:]
        for gaps, pair in ((trace.gap_average, average), (trace.gap_last, last)):
            M = game.payoff.numpy()
            gap = (M.T @ pair[0]).max() - (M @ pair[1]).min()
            assert float(gaps[k]) == pytest.approx(gap, abs=1e-14)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_noisy_steps_equal_those_by_hand(method: Any) -> None:
    """The noise is e_x, e_y of one generator, evaluation by evaluation, times its standard deviation."""
    game, steps, s = MatrixGame.random(4, 6, seed=1), 4, 0.3
    count = steps * (2 if isinstance(method, MirrorProx) else 1)
    noises = s * generator(5, Stream.NOISE).standard_normal((count, 10))
    x, y = np.full(4, 1 / 4), np.full(6, 1 / 6)
    eta = method.step(game, steps, s)
    theirs = by_hand(method, game.payoff.numpy(), eta, steps, x, y, noises)
    trace = method.run(game, steps, noise=s, seed=5, record=range(1, steps + 1))
    for k, expected in enumerate(theirs):
        close(trace.average_x[k], expected[0])
        close(trace.last_y[k], expected[3])
    other = method.run(game, steps, noise=s, seed=6, record=1)
    assert not torch.allclose(other.last_x[-1], trace.last_x[-1])


def test_first_average_is_the_start() -> None:
    game = MatrixGame.random(3, 5, seed=2)
    for method in (MirrorDescent(), OptimisticMirror()):
        trace = method.run(game, 4, record=[1])
        close(trace.average_x[0], np.full(3, 1 / 3))
        close(trace.average_y[0], np.full(5, 1 / 5))
    assert not torch.allclose(
        MirrorProx().run(game, 4, record=[1]).average_x[0], torch.full((3,), 1 / 3, dtype=F64)
    )


@pytest.mark.parametrize("noise", [0.0, 0.4])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_many_games_are_the_same_as_one_each(method: Any, noise: float) -> None:
    games = [MatrixGame.random(5, 3, seed=k) for k in range(3)]
    many = method.run_many(games, 60, noise=noise, record=[7, 60])
    assert many.gap_average.shape == many.gap_last.shape == many.bound.shape == (2, 3)
    assert many.average_x.shape == (2, 3, 5)
    one = method.run(games[0], 60, noise=noise, record=[7, 60])
    torch.testing.assert_close(many.average_x[:, 0], one.average_x, rtol=0, atol=1e-13)
    torch.testing.assert_close(many.gap_last[:, 0], one.gap_last, rtol=0, atol=1e-13)
    assert float(many.eta[0]) == float(one.eta)
    if not noise:
        last = method.run(games[2], 60, record=[7, 60])
        torch.testing.assert_close(many.last_y[:, 2], last.last_y, rtol=0, atol=1e-13)


def test_noise_of_games_and_of_evaluations_is_independent() -> None:
    game = MatrixGame(torch.zeros(50, 50, dtype=F64))
    trace = MirrorDescent(eta=1e-3).run_many([game, game], 1000, noise=1.0, record=1)
    moved = trace.last_x[-1].log() - trace.last_x[-1].log().mean(-1, keepdim=True)
    # 1,000 errors of standard deviation 1e-3 add up to one of sqrt(1000) 1e-3.
    assert float(moved.std()) == pytest.approx(math.sqrt(1000) * 1e-3, rel=0.25)
    assert abs(float(torch.corrcoef(moved)[0, 1])) < 0.5


def test_noise_does_not_depend_on_the_horizon() -> None:
    """At a given step, the first iterations of a longer run are a shorter run."""
    game = MatrixGame.random(300, 200, seed=0)  # blocks of 65 iterations
    long = MirrorDescent(eta=0.1).run(game, 200, noise=0.5, record=[70, 200])
    short = MirrorDescent(eta=0.1).run(game, 70, noise=0.5, record=[70])
    torch.testing.assert_close(long.average_x[0], short.average_x[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_guarantees_hold_at_every_recorded_time(method: Any, law: str) -> None:
    games = [MatrixGame.random(8, 8, seed=k, law=law) for k in range(12)]
    trace = method.run_many(games, 400, record=60)
    assert bool((trace.gap_average <= trace.bound * (1 + 1e-12)).all())
    assert bool((trace.gap_average >= -1e-14).all())
    # Ten times as strong a guarantee would be broken: it says something.
    assert float((trace.gap_average / trace.bound).max()) > 0.1


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0])
def test_guarantees_hold_for_other_steps(scale: float) -> None:
    """Up to 2/R for mirror-prox, up to 1/R for the optimistic method, any for mirror descent."""
    games = [MatrixGame.random(6, 9, seed=k, law="sign") for k in range(10)]
    for method in (
        MirrorProx(eta=scale * 2 / 2),
        OptimisticMirror(eta=scale / 2),
        MirrorDescent(eta=scale),
        MirrorDescent(eta=scale, anytime=True),
    ):
        trace = method.run_many(games, 300, record=40)
        assert bool(trace.bound.isfinite().all())
        assert bool((trace.gap_average <= trace.bound * (1 + 1e-12)).all())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_guarantees_from_another_start(method: Any) -> None:
    """ln n + ln m becomes -min ln x_1 - min ln y_1, at the same step."""
    game = MatrixGame.random(6, 5, seed=4)
    x = torch.tensor([0.9, 0.02, 0.02, 0.02, 0.02, 0.02], dtype=F64)
    y = torch.tensor([0.01, 0.01, 0.01, 0.01, 0.96], dtype=F64)
    trace, uniform = (method.run(game, 300, start=start) for start in ((x, y), None))
    more = -math.log(0.02) - math.log(0.01) - math.log(30)
    rate = trace.times.double() ** (0.5 if getattr(method, "anytime", False) else 1.0)
    torch.testing.assert_close(trace.bound - uniform.bound, more / (uniform.eta * rate))
    assert bool((trace.gap_average <= trace.bound).all())


@pytest.mark.parametrize("s", [0.3, 2.0])
@pytest.mark.parametrize("method", METHODS[:3], ids=str)
def test_noisy_guarantees_hold_in_the_mean(method: Any, s: float) -> None:
    game = MatrixGame.random(6, 6, seed=3)
    trace = method.run_many([game] * 60, 200, noise=s, record=20)
    assert bool((trace.gap_average.mean(1) <= trace.bound[:, 0]).all())


def test_stated_steps_and_bounds() -> None:
    game = MatrixGame.random(7, 4, seed=5)
    R, L, T = game.spread, math.log(28), 250
    assert MirrorDescent().step(game, T) == pytest.approx(2 * math.sqrt(L / T) / R, rel=1e-14)
    assert MirrorDescent().bound(game, T) == pytest.approx(R * math.sqrt(L / T), rel=1e-14)
    assert MirrorProx().step(game, T) == pytest.approx(2 / R, rel=1e-14)
    assert MirrorProx().bound(game, T) == pytest.approx(L * R / (2 * T), rel=1e-14)
    assert MirrorProx().bound(game, T, at=50) == pytest.approx(L * R / 100, rel=1e-14)
    anytime = MirrorDescent(anytime=True)
    assert anytime.bound(game, T, at=9) == pytest.approx(R * math.sqrt(2 * L / 9), rel=1e-14)
    # Noisy mirror-prox: of order T^(-1/2) once T is large, 1/R before.
    prox = MirrorProx()
    assert prox.step(game, 4 * 10**6, 1.0) == pytest.approx(prox.step(game, 10**6, 1.0) / 2)
    assert prox.step(game, 1, 0.01) == 1 / R
    assert prox.bound(game, 4 * 10**8, 1.0) == pytest.approx(prox.bound(game, 10**8, 1.0) / 2)
    # No guarantee above the limits.
    assert MirrorProx(eta=2.01 / R).bound(game, T) == math.inf
    assert MirrorProx(eta=1.01 / R).bound(game, T, noise=0.1) == math.inf
    assert OptimisticMirror(eta=1.01 / R).bound(game, T) == math.inf
    assert OptimisticMirror().bound(game, T, noise=0.1) == math.inf
    assert OptimisticMirror().step(game, T) == pytest.approx(1 / (4 * R), rel=1e-14)
    for t in (0, T + 1):
        with pytest.raises(ValueError, match="no average after"):
            MirrorProx().bound(game, T, at=t)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_stated_step_is_the_best_for_its_bound(method: Any) -> None:
    if isinstance(method, OptimisticMirror):
        return  # its step is chosen for the last iterate
    game, T = MatrixGame.random(7, 4, seed=5), 300
    for s in (0.0, 1.0):
        eta, best = method.step(game, T, s), method.bound(game, T, s)
        for factor in (0.9, 1.1):
            kind = {"anytime": True} if getattr(method, "anytime", False) else {}
            assert type(method)(eta=factor * eta, **kind).bound(game, T, s) > best


def test_last_iterates() -> None:
    """Rock-paper-scissors from off the centre: mirror descent spirals out, the two others come in."""
    game = MatrixGame.rock_paper_scissors()
    start = (torch.tensor([0.5, 0.3, 0.2], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64))
    third = torch.full((3,), 1 / 3, dtype=F64)
    spiral = MirrorDescent(eta=0.1).run(game, 2000, start=start, record=[1, 2000])
    assert float(spiral.gap_last[-1]) > 2 * float(spiral.gap_last[0])
    for method in (MirrorProx(), OptimisticMirror(eta=0.5)):
        trace = method.run(game, 4000, start=start, record=[1, 4000])
        assert float(trace.gap_last[-1]) < 1e-9
        torch.testing.assert_close(trace.last_x[-1], third, rtol=0, atol=1e-9)
    slow = OptimisticMirror().run(game, 4000, start=start, record=[1000, 2000, 4000]).gap_last
    assert float(slow[2]) < 1e-4
    # Linear convergence: the factor of 2,000 iterations is the square of that of 1,000.
    assert float(slow[2] / slow[1]) < 0.3 * float(slow[1] / slow[0])


@pytest.mark.parametrize("method", [MirrorProx(), OptimisticMirror(eta=1 / 3)], ids=str)
def test_last_iterate_reaches_the_linear_program(method: Any) -> None:
    game = MatrixGame(torch.tensor([[2.0, -1.0, 0.0], [-1.0, 1.0, 0.5]], dtype=F64))
    solution = game.solve()
    trace = method.run(game, 6000, record=1)
    torch.testing.assert_close(trace.last_x[-1], solution.x, rtol=0, atol=1e-8)
    torch.testing.assert_close(trace.last_y[-1], solution.y, rtol=0, atol=1e-8)


def slopes(method: Any, noise: float = 0.0, repeats: int = 1) -> Array:
    times = (100, 300, 1000, 3000)
    games = [MatrixGame.random(10, 10, seed=k) for k in range(8)]
    batch = [game for game in games for _ in range(repeats)]
    gaps = []
    for T in times:
        gap = method.run_many(batch, T, noise=noise, seed=T, record=1).gap_average[-1]
        gaps.append(gap.reshape(8, repeats).mean(1).numpy())
    return np.polyfit(np.log(times), np.log(np.array(gaps)), 1)[0]


def test_rates() -> None:
    """`equilibrist papers run hsieh-theory --size small` makes the whole table, up to T = 10^5."""
    assert slopes(MirrorDescent()).mean() == pytest.approx(-0.5, abs=0.12)
    assert slopes(MirrorProx()).mean() == pytest.approx(-1, abs=0.12)
    assert slopes(MirrorProx(), noise=1.0, repeats=4).mean() == pytest.approx(-0.5, abs=0.15)
    assert slopes(OptimisticMirror()).mean() < -0.85


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("name", [MirrorDescent, MirrorProx, OptimisticMirror])
def test_huge_steps_survive(name: Any, dtype: torch.dtype, noise: float) -> None:
    game = MatrixGame(MatrixGame.random(30, 20, seed=0).payoff.to(dtype))
    trace = name(eta=1e6).run(game, 2000, noise=noise, record=30)
    for p in (trace.average_x, trace.average_y, trace.last_x, trace.last_y):
        assert bool(p.isfinite().all())
        torch.testing.assert_close(p.sum(-1), torch.ones_like(p[:, 0]), rtol=0, atol=1e-5)
    assert float((trace.last_x == 0).double().mean()) > 0.5  # weights did underflow
    assert bool(trace.gap_average.isfinite().all())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_five_thousand_strategies(method: Any) -> None:
    rng = np.random.default_rng(0)
    game = MatrixGame(torch.from_numpy(rng.uniform(-1, 1, (5000, 400)).astype(np.float32)))
    trace = method.run(game, 12, record=[1, 12])
    assert bool((trace.gap_average <= trace.bound).all())
    assert float(trace.average_x[-1].sum()) == pytest.approx(1, abs=1e-4)
    assert float(trace.gap_average[-1]) < float(trace.gap_average[0])


@pytest.mark.parametrize(("dtype", "left"), [(F64, 1e-13), (torch.float32, 1e-5)])
def test_digits_are_kept(dtype: torch.dtype, left: float) -> None:
    """The value, 2/3, is far from the middle of the payoffs: log-weights that grew with t would lose their digits.
    Averages in float32 would lose theirs over 20,000 sums."""
    payoff = torch.tensor([[0.0, 1.0, -20.0], [2.0, 0.0, -20.0]], dtype=dtype)
    trace = MirrorProx().run(MatrixGame(payoff), 20000, record=1)
    assert float(trace.gap_last[-1]) < left
    exact = MatrixGame(payoff.double()).gap(
        trace.average_x[-1].double(), trace.average_y[-1].double()
    )
    assert float(exact) == pytest.approx(3.408e-4, rel=0.002)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_zeros_of_the_start_stay(method: Any) -> None:
    game = MatrixGame.random(4, 4, seed=1)
    x = torch.tensor([0.5, 0.0, 0.5, 0.0], dtype=F64)
    y = torch.tensor([0.0, 0.2, 0.4, 0.4], dtype=F64)
    trace = method.run(game, 50, start=(x, y), noise=0.1)
    assert bool((trace.last_x[:, x == 0] == 0).all())
    assert bool((trace.average_y[:, y == 0] == 0).all())
    assert bool((trace.last_x[:, x > 0] > 0).all())
    assert bool(trace.gap_average.isfinite().all())
    assert bool((trace.bound == math.inf).all())  # what the start excludes may be the best answer


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_trivial_games(method: Any) -> None:
    for game in (MatrixGame(torch.full((3, 4), 2.0, dtype=F64)), MatrixGame(torch.ones(1, 1))):
        trace = method.run(game, 20)
        assert float(trace.gap_average.abs().max()) < 1e-6
        assert bool(trace.last_x.isfinite().all())


def test_constants_and_units_do_not_matter() -> None:
    """M -> 1000 M + 5 with the stated steps: the same points."""
    game = MatrixGame.random(6, 4, seed=8)
    moved = MatrixGame(1000 * game.payoff + 5)
    for method in METHODS:
        one, other = method.run(game, 100), method.run(moved, 100)
        torch.testing.assert_close(one.average_x, other.average_x, rtol=0, atol=1e-11)
        torch.testing.assert_close(1000 * one.gap_last, other.gap_last, rtol=1e-8, atol=1e-9)


def test_record_times() -> None:
    assert record_times(1) == [1]
    assert record_times(100, 1) == [100]
    assert record_times(1000, 4) == [1, 10, 100, 1000]
    assert record_times(50, [2, 50]) == [2, 50]
    default = record_times(10**5)
    assert default[0] == 1
    assert default[-1] == 10**5
    assert 40 < len(default) <= 51
    for bad in ([], [0], [3, 3], [5, 2], [51], 0):
        with pytest.raises(ValueError, match="record needs"):
            record_times(50, bad)


def test_trace_tells_what_was_done() -> None:
    game = MatrixGame.random(3, 3, seed=0)
    trace = MirrorProx().run(game, 10, noise=0.5)
    assert trace.method.startswith("mirror-prox, stated step 0.")
    assert trace.method.endswith("noise 0.5")
    assert (
        MirrorDescent(eta=0.25).run(game, 10).method
        == "mirror descent, given step 0.25, exact payoffs"
    )
    assert "steps 1/sqrt(t) times 0.25" in MirrorDescent(0.25, anytime=True).run(game, 10).method
    assert trace.times.tolist() == record_times(10)
    assert trace.steps == 10


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    MirrorProx().run(MatrixGame.matching_pennies(), 100, progress="lines")
    assert "mirror-prox 100/100" in capsys.readouterr().err
    MirrorProx().run(MatrixGame.matching_pennies(), 100)
    assert capsys.readouterr().err == ""


def test_arguments_are_checked() -> None:
    game, half = MatrixGame.matching_pennies(), torch.tensor([0.5, 0.5], dtype=F64)
    for eta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite step above 0"):
            MirrorProx(eta=eta)
    with pytest.raises(ValueError, match="at least one iteration"):
        MirrorProx().run(game, 0)
    for noise in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise is a standard deviation"):
            MirrorProx().run(game, 5, noise=noise)
    with pytest.raises(ValueError, match="overflow within 10 iterations"):
        MirrorDescent(eta=1e307).run(game, 10)
    with pytest.raises(ValueError, match="start x must have 2 probabilities"):
        MirrorDescent().run(game, 5, start=(torch.ones(3) / 3, half))
    with pytest.raises(ValueError, match="start y is no mixed strategy"):
        MirrorDescent().run(game, 5, start=(half, half * 2))
    with pytest.raises(ValueError, match=r"start x must have shape \[2\] or \[1, 2\]"):
        MirrorDescent().run(game, 5, start=(half.expand(3, 2), half))
    with pytest.raises(ValueError, match="all of one shape"):
        MirrorDescent().run_many([game, MatrixGame.rock_paper_scissors()], 5)
    with pytest.raises(ValueError, match="at least one game"):
        MirrorDescent().run_many([], 5)
