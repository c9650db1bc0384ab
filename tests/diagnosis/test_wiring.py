"""The wiring check, held against loops whose gradients are known by hand."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from equilibrist import GradientPenalty
from equilibrist.diagnosis import check_wiring
from equilibrist.diagnosis._fit import Problem
from equilibrist.errors import GameError, RecipeError

BATCH = 32
Players = dict[str, nn.Module]


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
    critic = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    return generator, critic


def loop(fault: str = "") -> tuple[Callable[[int], None], Players]:
    """A vanilla GAN; `fault` switches one thing."""
    generator, critic = networks()
    adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
    adam_c = torch.optim.Adam(critic.parameters(), 1e-3)

    def step(i: int) -> None:
        x, fake = torch.randn(BATCH, 4) + 1, generator(torch.randn(BATCH, 4))
        if fault == "joint":
            on_real, on_fake = critic(torch.cat([x, fake.detach()])).split(BATCH)
        elif fault == "missing":
            on_real = critic(x)
            with torch.no_grad():
                on_fake = critic(fake)
        else:
            on_real, on_fake = critic(x), critic(fake.detach())
        sign = -1.0 if fault == "sign" else 1.0
        keep = 0.8 if fault == "smoothed" else 1.0
        loss = (
            sign * (keep * softplus(-on_real).mean() + (1 - keep) * softplus(on_real).mean())
            + softplus(on_fake).mean()
        )
        if fault == "flipped":
            loss = softplus(on_real).mean() + softplus(-on_fake).mean()
        if fault != "leak":
            adam_c.zero_grad()
        (loss * (2.0**12 if fault == "scaled" else 1.0)).backward()
        adam_c.step()
        if fault == "twice":
            adam_c.step()
        adam_g.zero_grad()
        adam_c.zero_grad()
        scores = critic(fake.detach() if fault == "cut" else fake)
        (softplus(scores if fault == "flipped" else -scores).mean()).backward()
        adam_g.step()

    return step, {"generator": generator, "critic": critic}


def found(fault: str, rounds: int = 6) -> Any:
    step, players = loop(fault)
    return check_wiring(players, "vanilla", step=step, rounds=rounds)


@pytest.mark.parametrize("fault", ["", "joint", "smoothed", "flipped"])
def test_usual_practice_is_explained(fault: str) -> None:
    wiring = found(fault)
    assert wiring.ok, wiring
    assert max(wiring.residuals.values()) < 1e-4
    parts = wiring.coefficients["critic"]
    if fault == "smoothed":  # the label 0.8
        assert parts["real"] == pytest.approx(0.8, abs=1e-3)
        assert parts["real samples with the label of generated ones"] == pytest.approx(
            0.2, abs=1e-3
        )
    elif not fault:
        assert parts["real"] == pytest.approx(1, abs=1e-3)
        assert wiring.coefficients["generator"] == {"declared loss": pytest.approx(1, abs=1e-3)}


@pytest.mark.parametrize(
    ("fault", "name", "where"),
    [
        ("sign", "wrong-sign", "critic, real term"),
        ("missing", "missing-term", "critic, generated term"),
        ("leak", "gradient-leak", "critic"),
        ("scaled", "loss-scale", "critic"),
        ("twice", "stepped-twice", "critic"),
        ("cut", "no-gradient", "generator"),
    ],
)
def test_faults_are_named(fault: str, name: str, where: str) -> None:
    wiring = found(fault)
    first = wiring.findings[0]
    assert (first.name, first.where, first.level) == (name, where, "fault"), wiring
    assert not wiring.ok
    assert first.text in repr(wiring)
    if fault == "leak":  # what the generator's backward pass left in the critic, once
        assert first.evidence["coefficients"]["the other player's loss"] == pytest.approx(
            1, abs=0.01
        )


def penalised(
    norm: Callable[[Tensor], Tensor], graph: bool = True
) -> tuple[Callable[[int], None], Players]:
    """A WGAN on 4 x 4 images whose penalty takes `norm` of the slopes [B, 1, 4, 4]."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 16), nn.Unflatten(1, (1, 4, 4)))
    critic = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 1))
    adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
    adam_c = torch.optim.Adam(critic.parameters(), 1e-3)

    def step(i: int) -> None:
        x, fake = torch.randn(8, 1, 4, 4), generator(torch.randn(8, 4)).detach()
        mixed = torch.lerp(x, fake, torch.rand(8, 1, 1, 1)).requires_grad_()
        slope = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=graph)[0]
        penalty = 10 * (norm(slope) - 1).square().mean()
        adam_c.zero_grad()
        (critic(fake).mean() - critic(x).mean() + penalty).backward()
        adam_c.step()
        adam_g.zero_grad()
        (-critic(generator(torch.randn(8, 4))).mean()).backward()
        adam_g.step()

    return step, {"generator": generator, "critic": critic}


@pytest.mark.parametrize(
    ("axes", "law"),
    [((1, 2, 3), None), ((0, 1, 2, 3), 8**-0.5), ((2,), 2.0), ((1,), 4.0)],
    ids=["samples", "batch", "rows", "channels"],
)
def test_the_axes_of_a_penalty(axes: tuple[int, ...], law: float | None) -> None:
    step, players = penalised(lambda g: g.square().sum(axes).sqrt())
    wiring = check_wiring(players, "wgan", step=step, rounds=8, penalties=[GradientPenalty(10.0)])
    if law is None:
        assert wiring.ok, wiring
        assert wiring.coefficients["critic"][
            "gradient penalty 10 (|slope| - 1)^2"
        ] == pytest.approx(1, abs=0.01)
        return
    (finding,) = wiring.findings
    assert finding.name == "penalty-norm"
    # sqrt(entries of a sample / entries under one norm), by hand: 16 over 128, 4 and 1
    assert finding.evidence["expected_slope"] == pytest.approx(law)


def test_a_penalty_without_a_graph() -> None:
    step, players = penalised(lambda g: g.flatten(1).norm(dim=1), graph=False)
    wiring = check_wiring(players, "wgan", step=step, penalties=[GradientPenalty(10.0)])
    assert [f.name for f in wiring.findings] == ["constant-penalty"]


def test_terms_of_own_losses_are_told_apart() -> None:
    generator, critic = networks()
    adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
    adam_c = torch.optim.Adam(critic.parameters(), 1e-3)

    def losses(modules: Any, x: Tensor) -> dict[str, Tensor]:
        fake = modules.generator(x)
        scores = softplus(-modules.critic(x)).mean() + softplus(modules.critic(fake)).mean()
        own = 0.1 * softplus(-modules.critic(fake)).mean() + (fake - x).abs().mean()
        return {"critic": scores, "generator": own}

    def step(i: int, weight: float) -> None:
        x = torch.randn(BATCH, 4)
        fake = generator(x)
        adam_c.zero_grad()
        (softplus(-critic(x)).mean() + softplus(critic(fake.detach())).mean()).backward()
        adam_c.step()
        adam_g.zero_grad()
        (0.1 * softplus(-critic(fake)).mean() + weight * (fake - x).abs().mean()).backward()
        adam_g.step()

    players = {"generator": generator, "critic": critic}
    healthy = check_wiring(players, losses, step=lambda i: step(i, 1.0))
    assert healthy.ok
    assert max(healthy.residuals.values()) < 1e-4
    (finding,) = check_wiring(players, losses, step=lambda i: step(i, 0.0)).findings
    assert finding.name == "missing-term"
    assert "absolute value" in finding.where


@pytest.mark.parametrize("fault", ["", "sign", "missing"])
def test_the_training_is_not_changed(fault: str) -> None:
    ends = []
    for watched in (False, True):
        step, players = loop(fault)
        torch.manual_seed(5)
        if watched:
            check_wiring(players, "vanilla", step=step, rounds=5)
        else:
            for i in range(5):
                step(i)
        held = [p for module in players.values() for p in module.parameters()]
        ends.append([*held, torch.rand(1)])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert not any(m._forward_hooks for m in players.values())


def test_least_squares_agree_with_a_dense_solution() -> None:
    rng = torch.Generator().manual_seed(1)
    columns = torch.randn(3, 40, generator=rng, dtype=torch.float64)
    received = (
        2 * columns[0]
        - 0.5 * columns[1]
        + 0.1 * torch.randn(40, generator=rng, dtype=torch.float64)
    )
    twin = -3 * columns[0]
    names = {"a": columns[0], "b": columns[1], "c": columns[2], "twin": twin}
    fit = Problem(received, names).fit(["a", "b", "c", "twin"])
    dense = torch.linalg.lstsq(columns.T, received[:, None]).solution[:, 0]
    assert list(fit.coefficients.values()) == pytest.approx(dense.tolist())
    rest = float((received - dense @ columns).norm() / received.norm())
    assert fit.residual == pytest.approx(rest)
    assert fit.merged == {"a": ["twin"]}
    assert fit.rank == 3
    assert math.isclose(Problem(received, names).ratio("twin", "a"), -3)


def test_arguments_are_looked_at() -> None:
    step, players = loop()
    with pytest.raises(RecipeError, match="rounds=0"):
        check_wiring(players, "vanilla", step=step, rounds=0)
    with pytest.raises(GameError, match="must be a module"):
        check_wiring({"generator": 3, "critic": nn.Linear(1, 1)}, "vanilla")  # type: ignore[dict-item]
    assert copy.deepcopy(players["critic"]) is not None  # no hook is left that cannot be copied


# -- what an attack found -----------------------------------------------------------------------------


def usual(hook: str = "") -> tuple[Callable[[int], None], Players]:
    """A healthy loop that does something else with its modules on the way."""
    generator, critic = networks()
    adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
    adam_c = torch.optim.Adam(critic.parameters(), 1e-3)

    def scores(x: Tensor) -> Tensor:
        found: Tensor = checkpoint(critic, x, use_reentrant=False) if hook == "again" else critic(x)
        return found

    def step(i: int) -> None:
        x, fake = torch.randn(BATCH, 4) + 1, generator(torch.randn(BATCH, 4))

        def loss_c() -> Tensor:
            if hook != "stale":
                adam_c.zero_grad()
            loss = softplus(-scores(x)).mean() + softplus(scores(fake.detach())).mean()
            if loss.requires_grad:
                loss.backward()
            if hook == "stale":
                nn.utils.clip_grad_norm_(critic.parameters(), 0.05)
            return loss

        if hook == "closure":
            adam_c.step(loss_c)  # type: ignore[arg-type]
        else:
            loss_c()
            adam_c.step()
        critic.requires_grad_(False)
        adam_g.zero_grad()
        softplus(-scores(fake)).mean().backward()
        adam_g.step()
        critic.requires_grad_(hook != "frozen")
        if hook == "copy":
            copy.deepcopy((generator, critic))
        if hook == "save":
            torch.save(critic, io.BytesIO())

    return step, {"generator": generator, "critic": critic}


@pytest.mark.parametrize("hook", ["copy", "save", "again", "closure"])
def test_what_loops_do_with_their_modules_still_works(hook: str) -> None:
    ends = []
    for watched in (False, True):
        step, players = usual(hook)
        torch.manual_seed(5)
        if watched:
            assert check_wiring(players, "vanilla", step=step, rounds=5).ok
        else:
            for i in range(5):
                step(i)
        ends.append([p for module in players.values() for p in module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize(
    ("hook", "name"), [("frozen", "no-gradient"), ("stale", "stale-gradients")]
)
def test_more_faults_are_named(hook: str, name: str) -> None:
    step, players = usual(hook)
    assert check_wiring(players, "vanilla", step=step).findings[0].name == name


def test_a_penalty_that_is_subtracted() -> None:
    generator, critic = networks()
    adam = torch.optim.Adam(critic.parameters(), 1e-3)

    def step(i: int) -> None:
        x, fake = torch.randn(BATCH, 4) + 1, generator(torch.randn(BATCH, 4)).detach()
        mixed = torch.lerp(x, fake, torch.rand(BATCH, 1)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        adam.zero_grad()
        penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
        (critic(fake).mean() - critic(x).mean() - penalty).backward()
        adam.step()

    players = {"generator": generator, "critic": critic}
    found = check_wiring(players, "wgan", step=step, penalties=[GradientPenalty(10.0)])
    assert ("wrong-sign", "critic, penalty") in [(f.name, f.where) for f in found.findings]


def test_nothing_seen_is_not_called_well() -> None:
    generator, critic = networks()

    def by_hand(i: int) -> None:
        softplus(-critic(generator(torch.randn(8, 4)))).mean().backward()

    found = check_wiring({"generator": generator, "critic": critic}, "vanilla", step=by_hand)
    assert not found.ok
    assert repr(found).startswith("Wiring: not looked at: no optimiser of torch stepped a player")
