"""Which rows of the data each number of each check depends on: no row both chooses and scores.

A check is run on data, and again with the rows of one part moved a little. What then differs, to the
bit, was computed from those rows. Draws are addressed, so nothing else changes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import Affine, Parabola, points

from equilibrist import GAN, SGD, tree
from equilibrist.checks import Certificate, Settings
from equilibrist.checks.context import PARTS, AuditContext
from equilibrist.checks.registry import REGISTRY
from equilibrist.core.draws import Address, Batch, Use
from equilibrist.formulations import Relativistic
from equilibrist.games import Mixture

DATA = np.random.default_rng(1).standard_normal((600, 1))
SETTINGS = Settings(
    batch=32,
    steps=40,
    looks=4,
    starts=2,
    batches=8,
    look_batches=4,
    groups=4,
    group_batches=2,
    linear_batches=2,
    absolute=1e-4,
    perturbation=0.05,
    move=0.1,
    local_products=64,
    prox_lambdas=(0.01, 0.1),
    prox_starts=1,
    prox_steps=4,
    prox_track=1,
    inner_steps=4,
    prox_trials=2,
    experiment_steps=4,
    optimizers={"generator": SGD(lr=0.05), "critic": SGD(lr=0.05)},
)

# Of the gradient at the pair itself, where nothing is chosen: read from all rows.
OF_ALL_ROWS = {"residual", "interval", "noise_floor", "gradient_norm", "signal_to_noise"}
NO_SCORE = {"self-tests"}  # are the derivatives right? on rows of the part to optimise
# Intervals that are not of sampled values: lambdas between trials, bounds by random probes.
OTHER_INTERVALS = {
    ("lambda-search", "interval"),
    ("lambda-search", "interval_proposition_2"),
    ("stable", "departure_interval"),
}


def players_of(name: str) -> tuple[Any, Any, Any]:
    """A game in which the generator's loss depends on real rows too, away from its equilibria."""
    lone = GAN(
        lambda: Affine(0.5, [0.3]),
        lambda: Parabola(1.0, 0.5),
        Relativistic(saturating=True),
        latent=1,
    )
    if name == "one network each":
        return lone, *lone.init(0)
    game = Mixture(lone, 2)
    start = game.init(0)
    apart = tree.map(
        lambda x: x * torch.tensor([1.0, 1.2], dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1)),
        start.players,
    )
    return game, apart, start.constants


@functools.cache
def certificates(check: str, game: str, moved: str) -> dict[str, Certificate]:
    """The check's certificates on the data, with the rows of the part `moved` ("" for none) shifted."""
    values = DATA
    if moved:
        rows = bench_of(game, DATA).parts[moved].all().numpy()
        values = DATA + 1e-7 * np.isin(DATA, rows)
    context = bench_of(game, values)
    context.origin = tree.map(lambda x: x + 0.5, context.players)
    context.origin_name = "elsewhere"
    found = REGISTRY[check].run(context, lambda gradients=1.0: None, None)
    return {c.claim: c for c in found.certificates}


def bench_of(game: str, values: np.ndarray[Any, Any]) -> AuditContext:
    made, players, constants = players_of(game)
    return AuditContext(made, players, constants, points(values), SETTINGS, seed=0)


def flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf of nested values by its path."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flat(part, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from flat(part, (*path, str(i)))
    else:
        yield path, value


def names(paths: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Paths without positions in lists."""
    return {tuple(key for key in path if not key.isdigit()) for path in paths}


def changed(check: str, game: str, moved: str) -> set[tuple[str, ...]]:
    """(claim, *path) of all numbers of the evidence and the witness that the rows of a part change."""
    now, then = certificates(check, game, ""), certificates(check, game, moved)
    assert set(now) == set(then)
    found = set()
    for claim, certificate in now.items():
        a, b = (
            dict(flat({"evidence": c.evidence, "witness": c.witness or {}}))
            for c in (certificate, then[claim])
        )
        assert set(a) == set(b), f"{claim} found something else after moving {moved} by 1e-7"
        found |= {(claim, *path) for path, x in a.items() if x == x and x != b[path]}
    return found


def intervals(check: str, game: str) -> set[tuple[str, ...]]:
    """The paths of the evidence's intervals that have a width and are of sampled values."""
    ends: dict[tuple[str, ...], set[Any]] = {}
    for claim, certificate in certificates(check, game, "").items():
        for path, value in flat(certificate.evidence):
            name = path[-2] if len(path) > 1 else ""
            if "interval" in name and (claim, name) not in OTHER_INTERVALS:
                ends.setdefault((claim, "evidence", *path[:-1]), set()).add(value)
    return names({path for path, values in ends.items() if len(values) == 2})


GAMES = ["one network each", "mixed"]


def by_part(check: str, game: str) -> dict[str, set[tuple[str, ...]]]:
    """What the rows of each part change, but for what is of all rows."""
    return {
        part: {path for path in names(changed(check, game, part)) if not of_all_rows(path)}
        for part in PARTS
    }


def of_all_rows(path: tuple[str, ...]) -> bool:
    return path[0].startswith("stationary/") and path[1] == "evidence" and path[2] in OF_ALL_ROWS


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("check", REGISTRY)
def test_no_row_both_chooses_and_scores(check: str, game: str) -> None:
    by = by_part(check, game)
    scored, chose = by["score"], {path[0] for path in by["select"] if chosen(path)}
    assert not [path for path in scored if chosen(path)], "rows that score also choose"
    # Where the choice itself follows the selection rows without a jump, so does what is scored of it.
    both = {path for path in scored & by["select"] if path[0] not in chose}
    assert not both, "a number depends on rows that chose and on rows that score"
    if check in NO_SCORE:
        assert by["optimise"]
        assert not scored | by["select"]
    wanted = {path for path in intervals(check, game) if not of_all_rows(path)}
    assert wanted <= scored, "an interval that is not of the score's rows"


def chosen(path: tuple[str, ...]) -> bool:
    return path[1] == "witness" or path[-1] == "lambda"


@pytest.mark.parametrize("game", GAMES)
def test_the_gradient_at_the_pair_is_of_all_rows(game: str) -> None:
    by = [names(changed("stationary", game, part)) for part in PARTS]
    read = [{path for path in paths if of_all_rows(path)} for paths in by]
    assert read[0] == read[1] == read[2]
    assert {path[2] for path in read[0]} == OF_ALL_ROWS


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("check", REGISTRY)
def test_deviations_are_searched_for_on_rows_of_their_own(check: str, game: str) -> None:
    """Every witness follows the rows to optimise, to the bit."""
    witnesses = {c.claim for c in certificates(check, game, "").values() if c.witness}
    moved = {path[0] for path in changed(check, game, "optimise") if path[1] == "witness"}
    assert moved == witnesses


def test_these_pairs_give_the_tests_above_something_to_see() -> None:
    """Witnesses and intervals of every check that has any; few choices that follow the selection rows."""
    game = "one network each"
    found = {check: certificates(check, game, "") for check in REGISTRY}
    wanted = set(REGISTRY) - NO_SCORE
    assert {check for check in wanted if by_part(check, game)["score"]} == wanted
    witnesses = {check for check, cs in found.items() if any(c.witness for c in cs.values())}
    assert witnesses >= {"stable", "local", "nash", "lambda-search", "generator-vs-prox", "gaps"}
    assert {check for check in wanted if intervals(check, game)} >= witnesses
    follow = {c for c in wanted if any(chosen(path) for path in by_part(c, game)["select"])}
    assert follow <= {"lambda-search"}  # lambda is where a gain on these rows passes the tolerance


SHARED = {Use.BANK, Use.LINEAR}  # batches that all checks hold in common, by design


def test_no_two_places_draw_at_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all checks of one audit: an address belongs to one line of code."""
    places: dict[Address, set[str]] = {}
    drawn = Address.generator

    def recorded(self: Address, seed: int) -> np.random.Generator:
        frame = sys._getframe(1)
        while frame.f_code.co_name in {"minibatch", "random_direction", "_rng"}:
            assert frame.f_back is not None
            frame = frame.f_back
        place = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
        places.setdefault(self, set()).add(place)
        return drawn(self, seed)

    monkeypatch.setattr(Address, "generator", recorded)
    for check in REGISTRY:
        certificates.__wrapped__(check, "one network each", "")
    assert {a: who for a, who in places.items() if len(who) > 1 and a.use not in SHARED} == {}
    used = {address.use for address in places}
    assert used >= SHARED | {
        Use.SPLIT,
        Use.MINIBATCH,
        Use.DEVIATION,
        Use.DIFFERENCE,
        Use.PROX_CRITIC,
    }
    # The facts beside the verdicts are no check.
    assert {a.words[-1] for a in places if a.use is Use.MINIBATCH} == set(Batch) - {Batch.FACT}


def test_a_minibatch_is_for_something_that_has_a_name() -> None:
    with pytest.raises(ValueError, match="400"):
        bench_of("one network each", DATA).minibatch(0, index=400)
