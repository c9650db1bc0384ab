"""What verdicts imply of each other: no set of certificates, however random, leads to a contradiction in words."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import pytest
import torch

from equilibrist.checks._findings import pair_findings
from equilibrist.checks._implications import contradictions, reconcile
from equilibrist.checks._ladder import ladder, place
from equilibrist.checks._measured import remarks_on
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict

V, R, N, U = Verdict.VERIFIED, Verdict.REFUTED, Verdict.NOT_REFUTED, Verdict.UNASSESSED
NATS = Tolerance(0.02, "nats", "set")
PLAYERS = ("generator", "critic")
CLAIMS = (
    *(f"{name}/{player}" for name in ("stationary", "local-nash", "nash") for player in PLAYERS),
    "stationary",
    "local-nash",
    "nash",
    "stable",
    "local-minimax",
    "proximal",
)
CHECKS = ("stationary", "local-nash", "nash", "stable", "local-minimax", "proximal")


def _measured(claim: str, gain: float) -> dict[str, Any]:
    interval = [gain - 0.1, gain + 0.1]
    if claim.startswith("stationary"):
        return {"interval": [7.0, 8.0], "measured": {"gain": gain, "gain_interval": interval}}
    return {"gain": gain, "interval": interval}


def made(
    claim: str, verdict: Verdict, zero_sum: bool = True, by: str | None = None, **evidence: Any
) -> Certificate:
    """A certificate; `by`: whose deviation refutes a claim that is of no player."""
    player = claim.partition("/")[2] or by
    witness = {player: {"w": torch.ones(1)}} if verdict is R and player else None
    losses = "V (zero-sum)" if zero_sum else "own losses"
    return Certificate(
        claim,
        verdict,
        f"{claim} is {verdict.value}.",
        _measured(claim, 0.5) | evidence,
        NATS,
        {"losses": losses},
        player=player,
        witness=witness,
    )


def random_sets(count: int) -> list[list[Certificate]]:
    rng = random.Random(0)
    found = []
    for _ in range(count):
        left_out = {name for name in CHECKS if rng.random() < 0.2}
        claims = [c for c in CLAIMS if c.partition("/")[0] not in left_out]
        zero_sum = rng.random() < 0.5
        certificates = []
        for claim in claims:
            verdict = rng.choice((V, R, N, U))
            extra: dict[str, Any] = {}
            if claim in ("local-minimax", "proximal") and verdict is R:
                extra = {"by": rng.choice(PLAYERS)}
            elif claim == "proximal":
                low = rng.choice((0.0, 0.3, float("inf")))
                extra = {"lambda_star": [low, low * 1.2], "infinite": low == float("inf")}
            if claim == "stable":
                extra = {"q": rng.choice((0.1, 5.0, float("inf"), None))}
            certificates.append(made(claim, verdict, zero_sum, **extra))
        found.append(certificates)
    return found


def broken_laws(
    by: dict[str, Verdict], zero_sum: bool, witnessed: set[str], led: bool
) -> list[str]:
    """The table of implications, written a second time as plain conditions."""
    is_ = lambda claim, *verdicts: by.get(claim) in verdicts  # noqa: E731
    found = []
    for p in PLAYERS:
        if is_(f"stationary/{p}", R) and is_(f"nash/{p}", V):
            found.append(f"{p} moves, yet Nash is verified")
        if is_(f"stationary/{p}", R) and is_(f"local-nash/{p}", V, N):
            found.append(f"{p} moves, yet local Nash")
        if (
            is_(f"stationary/{p}", R)
            and f"stationary/{p}" in witnessed
            and is_(f"local-nash/{p}", V, N, U)
        ):
            found.append(f"{p} moves by a witness, yet local Nash is not refuted")
        if is_(f"local-nash/{p}", R) and is_(f"nash/{p}", V, N, U):
            found.append(f"{p} gains locally, yet Nash is not refuted")
        for whole in ("stationary", "local-nash", "nash"):
            if is_(f"{whole}/{p}", R) and is_(whole, V, N, U):
                found.append(f"{whole} hides {p}")
            if is_(f"{whole}/{p}", U, N) and is_(whole, V):
                found.append(f"{whole} verified without {p}")
    if is_("local-nash/critic", R) and (is_("local-minimax", V, N, U) or is_("proximal", V, N, U)):
        found.append("the critic gains, yet minimax or proximal")
    if is_("local-minimax", R) and is_("proximal", V, N, U):
        found.append("proximal without minimax")
    if any(is_(f"stationary/{p}", R) for p in PLAYERS) and (
        is_("local-minimax", V, N) or is_("proximal", V, N)
    ):
        found.append("a player moves, yet second order decides")
    if zero_sum and led and is_("local-minimax", R) and is_("local-nash/generator", V, N, U):
        found.append("not minimax, yet local Nash")
    return found


def test_thousands_of_random_audits_are_reconciled_without_a_contradiction() -> None:
    changed = 0
    for certificates in random_sets(4000):
        result = reconcile(certificates)
        assert [c.claim for c in result] == [c.claim for c in certificates]
        assert contradictions(result) == ()
        assert reconcile(result) == result
        changed += any(
            a.verdict is not b.verdict for a, b in zip(certificates, result, strict=True)
        )
        zero_sum = any("zero" in c.scope["losses"] for c in certificates if c.player)
        by = {c.claim: c.verdict for c in result}
        witnessed = {c.claim for c in result if c.witness is not None}
        led = any(c.claim == "local-minimax" and c.player == "generator" for c in result)
        assert broken_laws(by, zero_sum, witnessed, led) == [], certificates
        for c in result:
            if "/" in c.claim and c.witness is not None:
                assert set(c.witness) == {c.player}, c
    assert changed > 1000


def test_no_refutation_is_ever_taken_back_and_none_is_invented() -> None:
    for certificates in random_sets(1000):
        for before, after in zip(certificates, reconcile(certificates), strict=True):
            if before.verdict is R and before.claim not in ("stationary", "local-nash", "nash"):
                assert after.verdict is R
            if after.verdict is V:
                assert before.verdict is V or before.claim in ("stationary", "local-nash", "nash")
            if after.verdict is R and before.verdict is not R and after.player:
                assert after.evidence["implied_by"] in {c.claim for c in certificates}
                assert after.evidence["own_verdict"] == before.verdict.value


# Phrases of the headline and the advice that may not stand beside each other or beside a verdict.
EXCLUSIVE = (
    ("A Nash equilibrium.", "Not a Nash"),
    ("A Nash equilibrium.", "no equilibrium yet"),
    ("as far as the searches reach", "Not a Nash"),
    ("as far as the searches reach", "not at rest"),
    ("a local Nash equilibrium", "already gains"),
    ("a local Nash equilibrium", "not at rest"),
    ("no small move", "already gains"),
    ("no small move", "not at rest"),
    ("lambda-proximal up to", "neither minimax nor proximal"),
    ("lambda-proximal up to", "proximal for no lambda"),
    ("lambda-proximal up to", "not at rest"),
    ("comes back", "leaves it"),
    ("comes back", "circles"),
    ("local minimax (Stackelberg) point", "not minimax"),
    ("local minimax (Stackelberg) point", "neither minimax"),
)


def test_headline_findings_and_measurements_of_random_audits_never_contradict_themselves() -> None:
    for certificates in random_sets(4000):
        found = [f.advice for f in pair_findings(certificates)]
        text = " ".join([place(certificates), *found, *remarks_on(certificates)])
        for one, other in EXCLUSIVE:
            assert not (one in text and other in text), text


def test_the_ladder_shows_reconciled_verdicts() -> None:
    for certificates in random_sets(500):
        by = {c.claim: c.verdict for c in reconcile(certificates)}
        for rung in ladder(certificates):
            assert rung.verdict is by.get(rung.claim)


def test_a_witness_of_motion_refutes_local_nash_and_nash_of_that_player_alone() -> None:
    found = {
        c.claim: c
        for c in reconcile(
            [
                made("stationary/generator", R, **_measured("stationary", 0.575)),
                made("stationary/critic", N),
                made("local-nash/generator", N, gain=0.001),
                made("local-nash/critic", N),
                made("nash/generator", U),
                made("nash/critic", N),
                made("nash", U),
            ]
        )
    }
    for claim in ("local-nash/generator", "nash/generator", "nash"):
        assert found[claim].verdict is R, claim
    assert found["local-nash/critic"].verdict is N
    assert found["nash/critic"].verdict is N
    assert found["nash/generator"].evidence["gain"] == 0.575
    assert found["nash/generator"].evidence["interval"] == pytest.approx([0.475, 0.675])
    assert found["local-nash/generator"].evidence["own_gain"] == 0.001
    assert found["nash/generator"].witness == found["stationary/generator"].witness


def test_a_promise_without_a_witness_withholds_and_does_not_refute() -> None:
    promise = Certificate("stationary/critic", R, "promised.", {}, NATS, player="critic")
    local, nash = reconcile([promise, made("local-nash/critic", V), made("nash/critic", N)])[1:]
    assert local.verdict is U
    assert nash.verdict is N


@pytest.mark.parametrize("zero_sum", [True, False])
def test_a_gain_after_the_answer_refutes_local_nash_only_where_the_loss_is_the_value(
    zero_sum: bool,
) -> None:
    premise = made("local-minimax", R, zero_sum, "generator")
    after = {p: {"w": torch.full((1,), 2.0)} for p in PLAYERS}
    result = reconcile(
        [dataclasses.replace(premise, witness=after), made("local-nash/generator", N, zero_sum)]
    )
    assert result[1].verdict is (R if zero_sum else N)
    # The generator's own move is the witness, not the critic's answer to it.
    assert result[1].witness == ({"generator": after["generator"]} if zero_sum else None)


def test_a_critic_that_does_not_answer_best_says_nothing_of_the_generator() -> None:
    own = made("local-minimax", R, by="critic")
    for premises in ([own], [made("local-nash/critic", R), made("local-minimax", N)]):
        *others, generator = reconcile([*premises, made("local-nash/generator", N)])
        assert others[-1].verdict is R
        assert others[-1].player == "critic"
        assert generator.verdict is N


def test_a_refuted_nash_says_nothing_of_the_rungs_below() -> None:
    below = [made(c, V) for c in ("local-nash/critic", "local-minimax", "proximal", "stationary")]
    result = reconcile([made("nash/critic", R), *below])
    assert [c.verdict for c in result[1:]] == [V, V, V, V]


def test_every_row_of_the_table_is_needed() -> None:
    """Each row by itself changes some pair of verdicts."""
    from equilibrist.checks import _implications as table

    for row in table.IMPLICATIONS:
        claims = [
            (row.premise.replace("{player}", p), row.consequence.replace("{player}", p))
            for p in PLAYERS
        ]
        assert any(
            reconcile([made(a, R, by="generator"), made(b, v)])[1].verdict is not v
            for (a, b), v in itertools.product(claims, (V, N, U))
        ), row
