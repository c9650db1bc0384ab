"""The contract: every solver on every game, broken solvers and games caught, exclusions true."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch

from equilibrist import contract, tree
from equilibrist.contract import Arena, CheckOutcome, arena, check_game, check_solver, require
from equilibrist.core.field import VectorField
from equilibrist.errors import GameError
from equilibrist.games import Analytic, Point, Quadratic, bilinear, false_attractor
from equilibrist.games.truth import sizes_of
from equilibrist.optimizers import SGD
from equilibrist.solvers import Proximal, Simultaneous, Step

F64 = torch.float64


@cache
def table() -> dict[tuple[str, str], contract.Cell]:
    return {(cell.solver, cell.game): cell for cell in contract.cells()}


@pytest.mark.parametrize("game", contract.GAMES)
@pytest.mark.parametrize("solver", contract.SOLVERS)
def test_cell(solver: str, game: str) -> None:
    outcomes = table()[solver, game].run()
    require(outcomes)
    assert [o.check for o in outcomes] == list(contract.CHECKS)
    assert all(o.seen for o in outcomes)


NAMED = [(key, c) for key, cell in table().items() for c in cell.excluded if c != "*"]


@pytest.mark.parametrize(("key", "check"), NAMED)
def test_named_exclusions_are_true(key: tuple[str, str], check: str) -> None:
    """What the table leaves out by name would not pass: no exclusion is stale."""
    cell = table()[key]
    (outcome,) = check_solver(cell.subject, cell.arena, only=[check])
    assert outcome.status != "passed", f"{key} passes {check}: {outcome.seen}"


def test_whole_cells_are_left_out_for_a_reason_that_holds() -> None:
    left = {key: cell for key, cell in table().items() if "*" in cell.excluded}
    assert {key[0] for key in left} == {"proximal", "follow the ridge", "follow the ridge, damped"}
    for (solver, game), cell in left.items():
        players, constants = cell.arena.start(0)
        if solver == "proximal":
            assert isinstance(cell.subject, Proximal)
            named = {"generator": players[cell.arena.game.players[0]]}
            named["critic"] = players[cell.arena.game.players[1]]
            with pytest.raises(GameError, match="needs a GAN"):
                cell.subject.step(
                    VectorField(cell.arena.game),
                    named,
                    constants,
                    cell.subject.init(named),
                    cell.arena.draws(0, 0),
                )
        else:
            truth: Any = cell.arena.game
            J = truth.jacobian(truth.points()[0].players)
            sizes = list(sizes_of(players).values())
            assert float(J[sizes[0] :, sizes[0] :].abs().max()) == 0, game


def test_every_solver_of_the_library_has_a_row() -> None:
    from equilibrist import solvers

    offered = {
        value
        for value in (getattr(solvers, name) for name in solvers.__all__)
        if hasattr(value, "step") and value is not solvers.Solver and not inspect.isabstract(value)
    }
    assert {type(cell.subject) for cell in table().values()} == offered


@pytest.mark.parametrize("game", [g for g in contract.GAMES if not g.startswith("sampled")])
def test_games(game: str) -> None:
    build, _ = contract.GAMES[game]
    outcomes = check_game(build())
    require(outcomes)
    assert {o.check for o in outcomes if o.status == "passed"} >= {"pure", "stationary", "jacobian"}


def test_sampled_games_are_pure() -> None:
    for game in ("sampled W2GAN", "sampled vanilla GAN"):
        require(check_game(contract.GAMES[game][0](), only=["pure", "only", "projection"]))


# -- broken solvers ------------------------------------------------------------------------------


def failed(outcomes: tuple[CheckOutcome, ...]) -> set[str]:
    return {o.check for o in outcomes if o.status == "failed"}


@dataclass(frozen=True)
class WrongMap(Simultaneous):
    def linear_map(self, jacobian: Any, sizes: Any) -> Any:
        return super().linear_map(jacobian, sizes) * (1 + 1e-5)


@dataclass(frozen=True)
class Remembers(Simultaneous):
    """Keeps the step's number beside the state: a resumed run starts it anew."""

    seen: list[int] = field(default_factory=list)

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        taken = super().step(field, players, constants, state, draws)
        self.seen.append(1)
        return taken._replace(players=tree.scale(1 - 1e-3 * len(self.seen), taken.players))


@dataclass(frozen=True)
class Aliases(Simultaneous):
    """Its state is the players' own memory."""

    def init(self, players: Any) -> Any:
        return {"rules": super().init(players), "last": tree.clone(players)}

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        taken = super().step(field, players, constants, state["rules"], draws)
        pull = tree.axpy(-1.0, state["last"], taken.players)
        moved = tree.axpy(0.1, pull, taken.players)
        for a, b in zip(tree.leaves(taken.players), tree.leaves(moved), strict=True):
            a.copy_(b)
        return taken._replace(state={"rules": taken.state, "last": taken.players})


@dataclass(frozen=True)
class Drifts(Simultaneous):
    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        taken = super().step(field, players, constants, state, draws)
        return taken._replace(players=tree.map(lambda x: x + 1e-3, taken.players))


@dataclass(frozen=True)
class MixesMembers(Simultaneous):
    """Divides by the norm of all members together."""

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        v, losses = field(players, constants, draws.batch())
        shrunk = tree.scale(1 / (1 + float(tree.norm(v))), v)
        moved = self.move(field, shrunk, state, players)
        return Step(moved, constants, state, {"loss": losses, "grad_norm": field.norms(v)})


@dataclass(frozen=True)
class AveragesTooLate(Simultaneous):
    """Averages each machine's own J^T v, not the product with the averaged v."""

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        alone = VectorField(field.game, stacked=field.stacked)
        here = alone.linearize(players, constants, draws.batch())
        own = here.pullback(here.v)
        if field.reduce is not None:
            own = tree.fill(own, field.reduce(tree.leaves(own)))
        v, losses = field(players, constants, draws.batch())
        moved = self.move(field, tree.axpy(0.3, own, v), state, players)
        return Step(moved, constants, state, {"loss": losses, "grad_norm": field.norms(v)})


@dataclass(frozen=True)
class Graph(Simultaneous):
    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        taken = super().step(field, players, constants, state, draws)
        info = {
            **taken.info,
            "loss": {p: x.requires_grad_() for p, x in taken.info["loss"].items()},
        }
        return taken._replace(info=info)


def test_broken_solvers_are_caught() -> None:
    game = bilinear()
    h = SGD(0.2)
    assert failed(check_solver(WrongMap(h), game)) == {"linear map", "factor"}
    assert "replay" in failed(check_solver(Remembers(h), game))
    assert "replay" in failed(check_solver(Aliases(h), game))
    assert "still" in failed(check_solver(Drifts(h), game))
    assert failed(check_solver(MixesMembers(h), game, only=["stacked", "still"])) == {"stacked"}
    assert failed(check_solver(Graph(h), game, only=["values"])) == {"values"}
    place = contract.GAMES["sampled vanilla GAN"][0]()
    assert failed(check_solver(AveragesTooLate(h), place)) == {"two ranks"}
    with pytest.raises(AssertionError, match=r"linear map: failed \(the step differs"):
        require(check_solver(WrongMap(h), game))


def test_a_class_that_can_change_is_caught() -> None:
    class Loose:
        def init(self, players: Any) -> Any:
            return {}

    @dataclass
    class Changing:
        h: float = 0.1

    for solver, said in ((Loose(), "no dataclass"), (Changing(), "not frozen")):
        (outcome,) = check_solver(solver, bilinear(), only=["frozen"])  # type: ignore[arg-type]
        assert outcome.status == "failed"
        assert said in outcome.seen


def test_a_wrong_direction_is_caught_by_attraction() -> None:
    """A solver whose claim is of another step: on nonlinear games only attraction can tell."""

    @dataclass(frozen=True)
    class Ascends(Simultaneous):
        def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
            before = tree.clone(players)
            taken = super().step(field, players, constants, state, draws)
            return taken._replace(players=tree.map(lambda b, a: 2 * b - a, before, taken.players))

    place = contract.GAMES["three Nash"][0]()
    assert failed(check_solver(Ascends(SGD(0.02)), place)) == {"attraction"}


# -- broken games --------------------------------------------------------------------------------


class WrongJacobian(Quadratic):
    def jacobian(self, players: Any = None) -> Any:
        return super().jacobian().mT


class WrongKind(Quadratic):
    def points(self) -> tuple[Point, ...]:
        (point,) = super().points()
        return (Point(point.players, "local nash", point.attracts, point.leaders),)


class WrongPlace(Quadratic):
    def points(self) -> tuple[Point, ...]:
        (point,) = super().points()
        moved = tree.map(lambda x: x + 0.1, point.players)
        return (Point(moved, point.kind, point.attracts, point.leaders),)


class NotZeroSum(Quadratic):
    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        found = super().losses(players, constants, draw, only)
        return {**found, "y": found["y"] + 1.0}


class Impure(Quadratic):
    count = 0.0

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        self.count += 1.0
        found = super().losses(players, constants, draw, only)
        return tree.scale(self.count, found)


class Slides(Quadratic):
    def project(self, players: Any) -> Any:
        return tree.scale(0.5, players)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (WrongJacobian, "jacobian"),
        (WrongKind, "kinds"),
        (WrongPlace, "stationary"),
        (NotZeroSum, "pure"),
        (Impure, "pure"),
        (Slides, "projection"),
    ],
)
def test_broken_games_are_caught(broken: Any, check: str) -> None:
    sound = false_attractor()
    game = broken(sound.A, sound.B, sound.C)
    assert check in {o.check for o in check_game(game) if o.status == "failed"}


# -- for third parties ---------------------------------------------------------------------------


class Cubic(Analytic):
    """f = x^3/3 - x + x y - y^2/2: a game of somebody else."""

    players = ("one", "two")
    zero_sum = True
    leader = "one"

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        x, y = players["one"]["x"][0], players["two"]["y"][0]
        f = x**3 / 3 - x + x * y - y**2 / 2
        return {"one": f, "two": -f}

    def points(self) -> tuple[Point, ...]:
        # y = x and x^2 + x - 1 = 0.
        x = torch.tensor([(5**0.5 - 1) / 2], dtype=F64)
        return (
            Point({"one": {"x": x}, "two": {"y": x.clone()}}, "local nash", True, ("one", "two")),
        )


def test_a_game_and_a_solver_of_ones_own() -> None:
    require(check_game(Cubic()))
    outcomes = check_solver(Simultaneous(SGD(0.2)), Cubic())
    require(outcomes)
    status = {o.check: o.status for o in outcomes}
    assert status["attraction"] == status["still"] == status["stacked"] == "passed"
    assert status["linear map"] == status["two ranks"] == "excluded"
    rows = {"mine": contract.SolverRow(lambda h, x, y: Simultaneous(SGD(h)))}
    games = {"cubic": (lambda: arena(Cubic()), 0.1)}
    (cell,) = contract.cells(rows, games)
    assert (cell.solver, cell.game) == ("mine", "cubic")
    require(cell.run())


def test_arenas_that_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="needs data"):
        arena(contract.GAMES["sampled W2GAN"][0]().game)
    zero = torch.zeros(1, 1, dtype=F64)
    slope = Quadratic(zero, zero, zero, torch.ones(1, dtype=F64))
    with pytest.raises(ValueError, match="no points to start near"):
        arena(slope)
    origin = {p: {"value": torch.zeros(1, dtype=F64)} for p in "xy"}
    place = Arena(slope, lambda seed: (origin, {"x": {}, "y": {}}), lambda rng: {})
    seen = {o.check: o for o in check_solver(Simultaneous(SGD(0.1)), place)}
    assert seen["still"].status == "excluded"
    assert "singular" in seen["still"].seen
    assert seen["linear map"].status == "passed"
