"""What a solver says of itself: every setting that matters, in the words of records and pages."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from equilibrist import solvers
from equilibrist.langevin import SGLD, RMSPropSGLD
from equilibrist.optimizers import SGD, Adam
from equilibrist.schedules import Cosine, Piecewise
from equilibrist.solvers import (
    Alternating,
    AnchoredExtragradient,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Implicit,
    Lookahead,
    MirrorGAN,
    MirrorProxGAN,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    SymplecticAdjustment,
    Unrolled,
)

A, B = SGD(0.125), Adam(0.25)
COLD, WARM = RMSPropSGLD(0.1, 0.2), SGLD(0.3, 0.4)
FALLING, RISING = Cosine(5), Piecewise(((0, 0.5), (10, 1.0)))

SAID: list[tuple[Any, str]] = [
    (Alternating(1, A), f"Alternating: 1 critic step per generator step; {A}"),
    (Alternating(2, A), f"Alternating: 2 critic steps per generator step; {A}"),
    (
        Alternating(3, A, {"x": B}, leader="x", follower="y"),
        f"Alternating: 3 y steps per x step; y: {A}, x: {B}",
    ),
    (Simultaneous(A), f"Simultaneous: {A}"),
    (Simultaneous(A, {"critic": B}), f"Simultaneous: {A}, critic: {B}"),
    (Competitive(A), f"Competitive: eta 0.125, 10 iterations, tolerance 1e-06; {A}"),
    (
        Competitive(A, eta=0.5, iterations=3, tolerance=0.25),
        f"Competitive: eta 0.5, 3 iterations, tolerance 0.25; {A}",
    ),
    (Consensus(A, gamma=0.5), f"Consensus: gamma 0.5; {A}"),
    (
        Consensus(A, gamma=0.5, batches=2),
        f"Consensus: gamma 0.5, two independent minibatches; {A}",
    ),
    (Extragradient(A), f"Extragradient: {A}"),
    (Extragradient(A, fresh=True), f"Extragradient: fresh minibatch at the look-ahead; {A}"),
    (Extragradient(A, explore=4.0), f"Extragradient: explore 4; {A}"),
    (
        Extragradient(A, fresh=True, explore=RISING),
        f"Extragradient: fresh minibatch at the look-ahead; explore by {RISING}; {A}",
    ),
    (AnchoredExtragradient(A), f"AnchoredExtragradient: {A}"),
    (
        AnchoredExtragradient(A, restart=50),
        f"AnchoredExtragradient: anchor moved every 50 steps; {A}",
    ),
    (PastExtragradient(A), f"PastExtragradient: {A}"),
    (FollowTheRidge(A), f"FollowTheRidge: {A}"),
    (Implicit(A), f"Implicit: {A}"),
    (
        Lookahead(Simultaneous(A), 6, 0.25),
        f"Simultaneous: {A}; lookahead every 6 steps, alpha 0.25",
    ),
    (Optimistic(A), f"Optimistic: {A}"),
    (Optimistic(A, strength=0.5), f"Optimistic: strength 0.5; {A}"),
    (
        Proximal(7, 0.25, optimizer=A),
        f"Proximal training: 7 inner critic steps, lambda 0.25; {A}",
    ),
    (
        Proximal(7, 0.25, optimizer=A, fresh=True, reset=False),
        f"Proximal training: 7 inner critic steps, lambda 0.25, fresh minibatches, moments kept; {A}",
    ),
    (SymplecticAdjustment(A, strength=0.5), f"SymplecticAdjustment: lambda 0.5; {A}"),
    (
        SymplecticAdjustment(A, strength=0.5, align=True),
        f"SymplecticAdjustment: lambda 0.5, aligned; {A}",
    ),
    (Unrolled(A, unroll=3, rate=0.5), f"Unrolled: 3 steps of 0.5 unrolled; {A}"),
    (
        MirrorGAN(WARM, inner=3, beta=0.5),
        f"Mirror-GAN: 3 inner steps, beta 0.5 (particles: pairing random); {WARM}",
    ),
    (
        MirrorProxGAN(WARM, {"critic": COLD}, 3, 0.5, 1.5, FALLING, RISING, "all"),
        f"Mirror-Prox-GAN: 3 times 1.5^t inner steps, beta 0.5, step size by {FALLING}, noise by {RISING} "
        f"(particles: pairing all); {WARM}, critic: {COLD}",
    ),
]


@pytest.mark.parametrize(
    ("solver", "words"), SAID, ids=[type(solver).__name__ for solver, _ in SAID]
)
def test_a_solver_says_what_it_is_made_of(solver: Any, words: str) -> None:
    assert str(solver) == words


SOLVERS = [
    value
    for value in (getattr(solvers, name) for name in solvers.__all__)
    if dataclasses.is_dataclass(value) and not inspect.isabstract(value)
]


@pytest.mark.parametrize("kind", SOLVERS)
def test_a_setting_cannot_be_changed_and_a_misspelt_one_not_added(kind: Any) -> None:
    solver = kind(Simultaneous(A)) if kind in (Averaged, Lookahead) else kind()
    for name in (dataclasses.fields(solver)[0].name, "misspelt"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(solver, name, 1)
    assert solver == dataclasses.replace(solver)
    assert repr(solver).startswith(f"{kind.__name__}(")


def test_another_rule_of_one_player_is_named() -> None:
    both = str(Proximal(2, 0.25, optimizer=A, optimizers={"critic": B, "generator": B}))
    assert both.endswith(f"; {B}")
    assert str(A) not in both
    for own, other in ((A, B), (B, A)):
        said = str(Proximal(2, 0.25, optimizer=own, optimizers={"critic": other}))
        assert said.endswith(f"critic: {other}, generator: {own}")
    assert str(A) in said
    assert str(B) in said
