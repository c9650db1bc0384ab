"""Paired intervals, disjoint parts, banks, common random numbers, determinism."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64, Affine, Gaussian, Linear, Shift, audited, boxed, context, points
from scipy import stats
from torch import nn

from equilibrist import GAN, SGD, Vanilla, tree
from equilibrist.checks import deviation
from equilibrist.checks.context import PARTS, AuditContext, relative_noise, student
from equilibrist.core.draws import Batch

FAST = {
    "steps": 20,
    "looks": 4,
    "batch": 16,
    "batches": 16,
    "look_batches": 8,
    "groups": 4,
    "group_batches": 2,
    "optimizers": {"generator": SGD(lr=0.1), "critic": SGD(lr=0.1)},
}


# -- student -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 7, 64])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_student_against_scipy(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    found = student(torch.from_numpy(values), confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == (
        pytest.approx(values.mean()),
        pytest.approx(low),
        pytest.approx(high),
    )
    assert found.half_width == pytest.approx((high - low) / 2)


def test_student_of_one_value_knows_nothing() -> None:
    found = student(torch.tensor([2.0]), 0.95)
    assert (found.mean, found.low, found.high) == (2.0, -math.inf, math.inf)


def test_student_is_computed_in_float64() -> None:
    values = torch.tensor([1e4 + k / 1024 for k in range(8)], dtype=torch.float32)
    assert student(values, 0.9).mean == pytest.approx(float(values.double().mean()), rel=1e-15)


# -- parts and banks -----------------------------------------------------------------------------


def numbered(n: int) -> Any:
    """Samples that are their own numbers."""
    return points(np.arange(n, dtype=float)[:, None])


def plain() -> GAN:
    return GAN(Shift([0.3]), Linear([0.2]), Vanilla(), latent=1)


def seen(bank: list[dict[str, torch.Tensor]]) -> list[float]:
    return torch.cat([draw["real"] for draw in bank]).flatten().tolist()


@pytest.mark.parametrize("n", [8, 100, 1797])
def test_parts_are_disjoint_and_complete(n: int) -> None:
    b = context(plain(), numbered(n), batches=4, look_batches=4)
    parts = {p: set(b.parts[p].all().flatten().tolist()) for p in PARTS}
    assert sum(len(p) for p in parts.values()) == n
    assert set.union(*parts.values()) == set(range(n))
    assert abs(len(parts["optimise"]) - n / 2) <= 1
    assert abs(len(parts["score"]) - n / 4) <= 1


def test_no_real_sample_is_shared_between_search_selection_and_score() -> None:
    """Every draw that the checks make, through the game itself."""
    drawn: dict[str, set[float]] = {p: set() for p in PARTS}
    b = context(plain(), numbered(300), **FAST)
    for step in range(40):
        for index in (0, 1):
            drawn["optimise"] |= set(b.minibatch(step, index=index)["real"].flatten().tolist())
    for part in ("select", "score"):
        drawn[part] |= set(seen(b.bank(part)))
    for one, other in (("optimise", "select"), ("optimise", "score"), ("select", "score")):
        assert not drawn[one] & drawn[other]
    for part in PARTS:
        assert drawn[part] <= set(b.parts[part].all().flatten().tolist())


def test_latents_are_shared_by_no_two_draws() -> None:
    b = context(plain(), Gaussian(), **FAST)
    draws = (
        [b.minibatch(s, index=i) for s in range(30) for i in (0, 1)]
        + b.bank("select")
        + b.bank("score")
    )
    for key in ("latent", "real"):
        rows = torch.cat([d[key] for d in draws]).flatten().tolist()
        rounded = {float(np.float32(r)) for r in rows}
        assert len(rounded) > 0.999 * len(rows)


@pytest.mark.parametrize(("n", "batches", "batch"), [(1024, 16, 64), (1024, 16, 4), (1797, 64, 64)])
def test_banks_hold_no_sample_twice(n: int, batches: int, batch: int) -> None:
    b = context(plain(), numbered(n), batches=batches, batch=batch)
    rows = seen(b.bank("score"))
    assert len(rows) == len(set(rows))
    assert len(rows) == min(batches * batch, len(rows))
    assert 0.8 * batches <= len(b.bank("score")) <= batches
    assert b.bank("score")[0]["real"].dtype == F64


def test_a_bank_covers_a_part_that_fits() -> None:
    b = context(plain(), numbered(1024), batches=16)
    assert set(seen(b.bank("score"))) == set(b.parts["score"].all().flatten().tolist())


@pytest.mark.parametrize("n", [400, 500])
def test_a_bank_covers_nearly_all_of_a_small_part(n: int) -> None:
    """64 batches of one sample from a part of 100: 36 samples are paid for and not used."""
    b = context(plain(), numbered(n))
    assert len(seen(b.bank("score"))) >= 0.95 * b.parts["score"].size


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(1, dtype=F64)
        self.w = nn.Parameter(torch.ones(1, dtype=F64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * torch.relu(self.bn(x)).flatten()


def test_batch_norm_pairs_are_scored_on_whole_batches() -> None:
    game = GAN(Shift([0.3]), Normed(), Vanilla(), latent=1)
    assert not game.separable
    for n in (200, 4000, None):
        data = Gaussian() if n is None else numbered(n)
        b = context(game, data, batch=16, batches=20)
        for part in ("select", "score"):
            assert {len(d["real"]) for d in b.bank(part)} == {16}
            assert {len(d["latent"]) for d in b.bank(part)} == {16}
            if n:
                assert set(seen(b.bank(part))) <= set(b.parts[part].all().flatten().tolist())
    found = audited(game, numbered(200), **FAST)
    assert any("resampled" in line for line in found["nash/critic"].limits)
    assert not any(
        "resampled" in line
        for line in audited(plain(), numbered(200), **FAST)["nash/critic"].limits
    )


def test_resampled_batches_cover() -> None:
    """Nominal 95%; 300 trials elsewhere measured 77% (see measure_audit.py)."""
    game = GAN(Shift([0.3]), Normed(), Vanilla(), latent=1)
    start = game.init()
    moved = {k: v.clone() for k, v in start.players["critic"].items()}
    moved["w"] += 0.5
    moved["bn.bias"] += 0.2
    truth = student(
        deviation.gain(
            context(game, Gaussian(), 1, batch=16, batches=1500), "critic", moved, "score"
        ),
        0.95,
    ).mean
    hits = 0
    for seed in range(40):
        data = points(np.random.default_rng(1000 + seed).normal(size=(200, 1)))
        b = context(game, data, seed, batch=16)
        found = student(deviation.gain(b, "critic", moved, "score"), 0.95)
        hits += abs(found.mean - truth) <= found.half_width * b.resampling("score")
    assert hits >= 36


def test_every_step_and_every_group_draws_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    real = AuditContext.minibatch

    def noted(self: AuditContext, step: int, *args: Any, **settings: Any) -> Any:
        asked.append((step, *args, *settings.values()))
        return real(self, step, *args, **settings)

    monkeypatch.setattr(AuditContext, "minibatch", noted)
    audited(plain(), numbered(400), checks=("stationary",), **FAST)
    assert len(asked) == len(set(asked))
    assert sum(one[1] == "all" for one in asked) == 4 * 2
    used = {one for one in asked if Batch.FACT not in one}  # facts are the same in every audit
    asked.clear()
    audited(plain(), numbered(400), checks=("nash",), **(FAST | {"starts": 1}))
    assert len(set(asked)) > 5
    assert not used & set(asked)


# -- the gain ------------------------------------------------------------------------------------


def test_the_identity_gains_exactly_nothing() -> None:
    for game in (plain(), GAN(Shift([0.3]), Normed(), Vanilla(), latent=1)):
        b = context(game, numbered(300), **FAST)
        for player in game.players:
            for part in ("select", "score"):
                same = {k: v.clone() for k, v in b.players[player].items()}
                assert deviation.gain(b, player, same, part).abs().max() == 0


def test_the_gain_is_paired() -> None:
    """A tiny deviation: its gain is known to far better than either loss."""
    b = context(GAN(Affine(1.0, [0.4]), Linear([0.7]), Vanilla(), latent=1), Gaussian())
    moved = {k: v + 1e-6 for k, v in b.players["generator"].items()}
    paired = student(deviation.gain(b, "generator", moved, "score"), 0.95)
    alone = student(b.losses("generator", b.players, b.constants, "score"), 0.95)
    assert paired.half_width < 1e-4 * alone.half_width
    assert paired.low > 0


def test_the_gain_of_a_fixed_deviation_is_covered() -> None:
    """WGAN-like: D(x) = w x, the critic's gain is (w' - w) (E x - u), known exactly."""
    b0 = boxed([0.3], [0.2])
    hits = 0
    for seed in range(200):
        b = context(b0, Gaussian(), seed, batch=16, batches=16)
        found = student(
            deviation.gain(b, "critic", {"w": torch.tensor([-0.6], dtype=F64)}, "score"), 0.9
        )
        hits += found.low <= 0.8 * 0.3 <= found.high
    assert 0.84 <= hits / 200 <= 0.96


def test_losses_are_whole_losses() -> None:
    """Before and after are the full loss of the pair, its constant terms included."""
    found = audited(boxed([0.5], [0.5]), Gaussian(), **FAST)["nash/generator"]
    b = context(boxed([0.5], [0.5]), Gaussian(), **FAST)
    by_hand = np.mean(
        [float(0.5 * d["real"].mean() - 0.5 * (d["latent"].mean() + 0.5)) for d in b.bank("score")]
    )
    assert found.evidence["loss_before"] == pytest.approx(by_hand, abs=1e-14)
    assert found.evidence["loss_before"] - found.evidence["loss_after"] == pytest.approx(
        found.evidence["gain"]
    )


# -- perturbation, determinism -------------------------------------------------------------------


def test_perturbations_are_relative_to_each_tensor() -> None:
    like = {
        "big": torch.full((4000,), 100.0, dtype=F64),
        "small": torch.full((4000,), 1e-3, dtype=F64),
        "zero": torch.zeros(4000, dtype=F64),
    }
    noise = relative_noise(like, 0.02, np.random.default_rng(0))
    overall = tree.flatten({"a": like}).square().mean().sqrt()
    for key, size in (("big", 2.0), ("small", 2e-5), ("zero", 0.02 * float(overall))):
        assert float(noise[key].std()) == pytest.approx(size, rel=0.1)
        assert abs(float(noise[key].mean())) < 0.1 * size


def numbers(audit: Any) -> Any:
    certificates = audit if isinstance(audit, list) else audit.values()
    return [(c.claim, c.verdict, c.evidence, c.tolerance) for c in certificates]


def test_a_tensor_that_trained_to_almost_nothing_is_searched_around_like_the_others() -> None:
    like = {"W": torch.full((50,), 2.0), "u": torch.full((2000,), 1e-18), "v": torch.zeros(2000)}
    overall = float(torch.cat(list(like.values())).square().mean().sqrt())
    noise = relative_noise(like, 0.1, np.random.default_rng(0))
    for name, scale in (("W", 2.0), ("u", overall), ("v", overall)):
        assert float(noise[name].std()) == pytest.approx(0.1 * scale, rel=0.2)
    # Small is not tiny: a tensor of a thousandth keeps its own scale.
    like["u"] = torch.full((2000,), 2e-3)
    assert float(relative_noise(like, 0.1, np.random.default_rng(0))["u"].std()) == pytest.approx(
        2e-4, rel=0.2
    )


def test_an_audit_is_a_function_of_its_seed() -> None:
    def one(seed: int) -> Any:
        return audited(plain(), numbered(400), seed=seed, checks=("stationary", "nash"), **FAST)

    first, again, other = one(0), one(0), one(1)
    assert numbers(first) == numbers(again)
    for claim in ("stationary/critic", "nash/critic", "nash/generator"):
        key = "residual" if claim.startswith("stationary") else "gain"
        assert first[claim].evidence[key] != other[claim].evidence[key]
    torch.manual_seed(123)
    np.random.seed(7)
    assert numbers(one(0)) == numbers(first)
    for certificate, twin in zip(first.values(), again.values(), strict=True):
        if certificate.witness:
            for path, value in tree.items(certificate.witness):
                assert torch.equal(value, twin.witness[path[0]][path[1]])


def test_each_check_alone_says_the_same() -> None:
    """No check depends on another having run before it."""
    together = audited(plain(), numbered(400), checks=("stationary", "nash"), **FAST)
    for check in ("stationary", "nash"):
        alone = audited(plain(), numbered(400), checks=(check,), **FAST)
        for certificate in alone.values():
            if "implied_by" in together[certificate.claim].evidence:
                continue  # what another check refutes is carried over, and says so
            assert numbers([certificate]) == numbers([together[certificate.claim]])


def test_searches_differ_by_start() -> None:
    found = audited(plain(), numbered(400), **(FAST | {"starts": 4, "steps": 100}))["nash/critic"]
    curves = [tuple(c["gain"]) for c in found.evidence["curves"]]
    assert len(curves) == len(set(curves)) > 1
    sizes = {c["from"]: c["perturbation"] for c in found.evidence["curves"]}
    assert sizes["the pair"] == 0
    assert sizes["perturbed"] > 0
    assert found.evidence["budget"]["gradients"] <= 4 * 100
