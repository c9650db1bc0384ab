"""Solvers by name: what text means, and what is refused."""

import dataclasses

import pytest

from equilibrist.errors import RecipeError
from equilibrist.langevin import SGLD, RMSPropSGLD
from equilibrist.optimizers import SGD, Adam
from equilibrist.schedules import Clipped
from equilibrist.solvers import (
    Alternating,
    AnchoredExtragradient,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
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
from equilibrist.solvers.named import NAMES, options, solver_from_text

RULE, FAST = Adam(2e-3, 0.0, 0.9), SGD(0.5)
TWO = {"critic": FAST}
OWN = Alternating(3, RULE, TWO)

MEANT = {
    "recipe": OWN,
    "alternating": Alternating(1, RULE, TWO),
    "alternating:critic_steps=5": Alternating(5, RULE, TWO),
    "simultaneous": Simultaneous(RULE, TWO),
    "consensus": Consensus(RULE, TWO),
    "consensus:gamma=0.1,batches=2": Consensus(RULE, TWO, 0.1, 2),
    "extragradient:fresh=true": Extragradient(RULE, TWO, fresh=True),
    "extragradient:explore=4": Extragradient(RULE, TWO, explore=4.0),
    "anchored:lr=0.1,restart=50": AnchoredExtragradient(SGD(0.1), {"critic": SGD(0.1)}, 50),
    "past-extragradient": PastExtragradient(RULE, TWO),
    "optimistic:strength=0.5": Optimistic(RULE, TWO, 0.5),
    "symplectic:align=yes": SymplecticAdjustment(RULE, TWO, align=True),
    "competitive:eta=0.1,iterations=3": Competitive(RULE, TWO, 0.1, 3),
    "competitive:eta=none": Competitive(RULE, TWO),
    "mirror:noise=0.01,inner=3,pairing=mean": MirrorGAN(
        RMSPropSGLD(2e-3, 0.01), {"critic": SGLD(0.5, 0.01)}, 3, pairing="mean"
    ),
    "mirror-prox:lr=0.3": MirrorProxGAN(RMSPropSGLD(0.3), {"critic": SGLD(0.3)}),
    "lookahead:period=7,alpha=0.25": Lookahead(OWN, 7, 0.25),
    "ridge:leader=critic,follower=generator": FollowTheRidge(RULE, TWO, "critic", "generator"),
    "unrolled:unroll=2,rate=0.2": Unrolled(RULE, TWO, 2, 0.2),
    "proximal:steps=20,lam=0.1,reset=false": Proximal(20, 0.1, RULE, TWO, reset=False),
    "simultaneous:lr=0.3": Simultaneous(Adam(0.3, 0.0, 0.9), {"critic": SGD(0.3)}),
    "simultaneous: lr.critic = 0.3 ": Simultaneous(RULE, {"critic": SGD(0.3)}),
    "recipe:lr=0.3,lr.generator=0.4": Alternating(
        3, Adam(0.3, 0.0, 0.9), {"critic": SGD(0.3), "generator": Adam(0.4, 0.0, 0.9)}
    ),
    "lookahead:lr=0.3": Lookahead(Alternating(3, Adam(0.3, 0.0, 0.9), {"critic": SGD(0.3)})),
}


@pytest.mark.parametrize("text", MEANT)
def test_meaning(text):
    assert solver_from_text(text, OWN) == MEANT[text]


def test_every_name_is_meant():
    assert {text.partition(":")[0] for text in MEANT} == {"recipe", *NAMES}


def test_averages_stay_around():
    own = Averaged(OWN, 0.9, ("generator", "critic"))
    assert solver_from_text("consensus", own) == dataclasses.replace(
        own, solver=Consensus(RULE, TWO)
    )
    assert solver_from_text("lookahead", own) == dataclasses.replace(own, solver=Lookahead(OWN))
    assert solver_from_text("recipe", own) == own


@pytest.mark.parametrize(
    ("text", "alone", "within"),
    [
        ("average=none", {}, {}),
        ("average=uniform", {"kind": "uniform"}, {"kind": "uniform"}),
        (
            "average=tail,average.start=5",
            {"kind": "tail", "start": 5},
            {"kind": "tail", "start": 5},
        ),
        # Left open: as the recipe's own has it.
        ("average=exponential", {"decay": 0.999}, {"decay": 0.9}),
        ("average.decay=0.5,average=exponential", {"decay": 0.5}, {"decay": 0.5}),
    ],
)
def test_averages_asked_for(text, alone, within):
    both = ("generator", "critic")
    own = Averaged(OWN, 0.9, both)
    for name, solver in (
        ("extragradient", Extragradient(RULE, TWO)),
        ("recipe", OWN),
        ("lookahead", Lookahead(OWN)),
    ):
        made, inside = (
            solver_from_text(f"{name}:{text}", OWN),
            solver_from_text(f"{name}:{text}", own),
        )
        if not alone:
            assert made == inside == solver
            continue
        assert made == Averaged(solver, **alone)
        assert inside == Averaged(solver, players=both, **within)
    assert solver_from_text(f"consensus:gamma=2,{text},lr=0.5", own) in (
        Averaged(fast := Consensus(Adam(0.5, 0.0, 0.9), TWO, 2.0), players=both, **within),
        fast,
    )


def test_a_tail_keeps_its_start():
    own = Averaged(OWN, kind="tail", start=7)
    assert solver_from_text("recipe:average=tail", own) == own
    assert solver_from_text("recipe:average=tail,average.start=9", own).start == 9
    assert solver_from_text("recipe:average=uniform", own) == Averaged(OWN, kind="uniform")


def test_rules_of_what_is_around():
    assert solver_from_text("optimistic", Lookahead(OWN)) == Optimistic(RULE, TWO)
    slow = Clipped(Adam(0.01), 0.5)
    assert solver_from_text("simultaneous:lr=1", Simultaneous(slow)) == Simultaneous(
        Clipped(Adam(1.0), 0.5)
    )
    assert solver_from_text("competitive", Simultaneous(slow)) == Competitive(slow, eta=0.01)


def test_options_are_hyperparameters_alone():
    assert list(options("consensus")) == ["gamma", "batches"]
    assert list(options("lookahead")) == ["period", "alpha"]
    assert options("recipe") == {}
    # A weight by member is nothing that text can give.
    assert options("consensus")["gamma"] is float


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "there is no solver ''"),
        ("consensu", "did you mean consensus"),
        ("consensus:gama=1", "did you mean gamma"),
        ("consensus:gamma", "NAME:key=value"),
        ("consensus:gamma=", "NAME:key=value"),
        ("consensus:gamma=1,", "NAME:key=value"),
        ("consensus:gamma=1,gamma=2", "given twice"),
        ("consensus:gamma=ten", "not a finite number"),
        ("consensus:gamma=inf", "not a finite number"),
        ("consensus:gamma=-1", "negative"),
        ("consensus:batches=3", "1 (biased, cheaper) or 2"),
        ("symplectic:align=2", "true or false"),
        ("alternating:critic_steps=1.5", "whole number"),
        ("proximal:steps=0", "at least 1"),
        ("proximal:lam=0", "positive"),
        ("simultaneous:lr=-1", "must lie in"),
        ("simultaneous:lr.judge=1", "names no player"),
        ("recipe:average=mean", "not exponential or uniform or tail or none"),
        ("recipe:avrage=uniform", "did you mean average"),
        ("recipe:average=tail", "start is needed"),
        ("recipe:average=tail,average.start=1.5", "whole number"),
        ("recipe:average=uniform,average.start=5", "average.start needs average=tail"),
        ("recipe:average.decay=0.5", "average.decay needs average=exponential"),
        ("recipe:average=none,average.decay=0.5", "average.decay needs average=exponential"),
        ("recipe:average=exponential,average.decay=1", "must lie in [0, 1)"),
        ("simultaneous:optimizer=1", "it has lr"),
        ("recipe:gamma=1", "it has lr"),
        ("ridge:leader=judge", "generator, critic"),
        ("ridge:leader=critic", "both the critic"),
    ],
)
def test_refused(text, word):
    with pytest.raises(RecipeError) as caught:
        solver_from_text(text, OWN)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


class _Foreign:
    def init(self, players):
        return {}

    def step(self, *args):
        raise NotImplementedError


def test_a_solver_without_rules():
    assert isinstance(solver_from_text("recipe", _Foreign()), _Foreign)
    for text in ("consensus", "recipe:lr=1"):
        with pytest.raises(RecipeError, match="_Foreign has no update rules"):
            solver_from_text(text, _Foreign())
