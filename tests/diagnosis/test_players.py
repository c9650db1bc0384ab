"""Faults of players and of what they are shown, from looks that are made by hand and from small loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, relu, softplus

from equilibrist.checks import Certificate, Verdict
from equilibrist.diagnosis import Loop, check_wiring, diagnose
from equilibrist.diagnosis._alterations import _descends
from equilibrist.diagnosis._conditions import draws
from equilibrist.diagnosis._outcome import GameLook, Outcome
from equilibrist.diagnosis._running import Running
from equilibrist.diagnosis._seen import last_function
from equilibrist.diagnosis._states import Way, states


def way(orders: Any, distances: Any, travels: Any, rounds: int = 400, **more: Any) -> Way:
    """A game of ten looks, all alike but for the first distance of 1."""
    orders = orders if isinstance(orders, list) else [orders] * 10
    looks = [
        GameLook(rounds * k // 9, order, 1.0 if k == 0 else distances)
        for k, order in enumerate(orders)
    ]
    return Way(Outcome(looks), travels, rounds, **{"penalised": False, **more})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (way(1.0, 0.7, (60.0, 4.0)), "saturated"),  # much the quicker one, samples far
        (way(1.0, 0.7, (2.0, 2.0)), ""),  # a strong critic, and samples get nearer
        (way(1.0, 0.95, (2.0, 2.0)), "saturated"),  # they do not
        (way(1.0, 0.1, (60.0, 4.0)), ""),  # quick, and samples are near
        (way(1.0, 0.7, (60.0, 4.0), rounds=100), ""),  # too few rounds
        (way([0.0, 0.9] * 5, 3.0, (0.1, 0.12)), "lagging"),
        (way([0.0, 0.9] * 5, 3.0, (0.1, 0.9)), ""),  # slow in the first rounds only
        (way([0.0, 0.9] * 5, 0.1, (0.1, 0.12)), ""),  # slow, and samples are near
        (way(0.7, 0.3, ()), ""),
    ],
)
def test_states_are_told_from_the_way_of_a_game(given: Way, name: str) -> None:
    loud = [f for f in states(None, "critic", given) if f.level != "note"]
    assert [f.name for f in loud] == ([name] if name else [])
    assert all("critic" in f.text and "evidence" in f.describe() for f in loud)


def test_hops_are_in_units_of_how_far_samples_lie_apart() -> None:
    looks = [GameLook(10 * k, 0.5, 1.0, variety=0.2, moved=0.6) for k in range(9)]
    outcome = Outcome(looks)
    assert outcome.variety == pytest.approx(0.2)
    assert outcome.hops == pytest.approx(3.0)
    assert outcome.away == pytest.approx(1.0)


def seeded(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def test_rows_of_the_data_are_known_again() -> None:
    data = torch.rand(400, 12, generator=seeded(0)) + 0.1
    fresh = torch.rand(200, 12, generator=seeded(1)) + 0.1
    dimmed = data[:200] * (0.5 + torch.rand(200, 1, generator=seeded(2)))
    masked = data[:200] * (torch.rand(200, 12, generator=seeded(3)) > 0.2)
    assert _descends(dimmed, data, fresh)
    assert _descends(masked, data, fresh)
    assert not _descends(torch.rand(200, 12, generator=seeded(4)) + 0.1, data, fresh)


def test_the_last_function_is_seen_through_reshapes() -> None:
    z = torch.randn(4, 6, requires_grad=True)
    assert last_function(z.tanh().view(4, 2, 3).unsqueeze(1)) == "Tanh"
    assert last_function(z * 2) == "Mul"
    assert last_function(z.detach()) == ""


def autoencoder(weight: float) -> tuple[Any, Any, Any]:
    """L1 and an adversarial term, as losses of one's own; round by round the terms' gradients as they are."""
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6))
    D = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    adam_g = torch.optim.Adam(G.parameters(), 1e-3)
    adam_d = torch.optim.Adam(D.parameters(), 1e-3)
    data = torch.randn(500, 6, generator=seeded(0))
    seen: list[float] = []

    def losses(modules: Any, x: Tensor) -> dict[str, Tensor]:
        y = modules.generator(x)
        d = relu(1 - modules.critic(x)).mean() + relu(1 + modules.critic(y)).mean()
        return {"critic": d, "generator": l1_loss(y, x) - weight * modules.critic(y).mean()}

    def step(i: int) -> None:
        x = data[torch.randint(500, (32,))]
        y = G(x)
        adam_d.zero_grad()
        (relu(1 - D(x)).mean() + relu(1 + D(y.detach())).mean()).backward()
        adam_d.step()
        one, two = l1_loss(y, x), -weight * D(y).mean()
        o, a = (
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(t, [*G.parameters()], retain_graph=True)]
            )
            for t in (one, two)
        )
        seen.append(float(-(a @ o) / (o @ o)))
        adam_g.zero_grad()
        (one + two).backward()
        adam_g.step()

    return step, ({"generator": G, "critic": D}, losses), seen


def test_terms_of_losses_of_ones_own_are_held_against_one_another() -> None:
    step, (players, losses), seen = autoencoder(0.5)
    found = check_wiring(players, losses, step=step, rounds=10)
    told = [undone for undone, _, _ in found.oppositions]
    assert len(told) >= 8
    torch.testing.assert_close(
        torch.tensor(told), torch.tensor(seen[-len(told) :]), rtol=1e-3, atol=1e-4
    )


def test_terms_are_compared_over_the_second_half_of_a_run() -> None:
    step, (players, losses), seen = autoencoder(0.5)
    loop = Loop(step, players, losses)
    run = Running(loop, rounds=300, first=0, critic="critic", seed=0)
    run.run(lambda done: None)
    assert run.spread is not None
    assert run.done == len(seen) == 300
    told = torch.tensor([row.undone for row in run.spread.oppositions])
    meant = torch.tensor([seen[150 + round(138 * k / 16)] for k in range(16)])
    torch.testing.assert_close(told, meant, rtol=1e-3, atol=1e-4)


def two_critics(own: bool) -> Loop:
    """A least-squares game with two critics whose optimiser hardly moves them."""
    torch.manual_seed(0)
    data = 0.5 * torch.randn(900, 4, generator=seeded(0)) + 1
    G = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
    both = [nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1)) for _ in range(2)]
    adam_g = torch.optim.Adam(G.parameters(), 3e-3)
    adam_d = torch.optim.Adam([p for D in both for p in D.parameters()], 1e-6)

    def critic_loss(critics: Any, x: Tensor, fake: Tensor) -> Tensor:
        return torch.stack(
            [(1 - D(x)).square().mean() + D(fake).square().mean() for D in critics]
        ).mean()

    def generator_loss(critics: Any, fake: Tensor) -> Tensor:
        return torch.stack([(1 - D(fake)).square().mean() for D in critics]).mean()

    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake, critics = modules.generator(z), modules.critic.values()
        return {
            "critic": critic_loss(critics, x, fake),
            "generator": generator_loss(critics, fake),
        }

    def step(i: int) -> None:
        x, fake = data[torch.randint(600, (32,))], G(torch.randn(32, 4))
        adam_d.zero_grad()
        critic_loss(both, x, fake.detach()).backward()
        adam_d.step()
        adam_g.zero_grad()
        generator_loss(both, fake).backward()
        adam_g.step()

    return Loop(
        step,
        {"generator": G, "critic": dict(zip("ab", both, strict=True)) if own else both},
        losses if own else "least-squares",
        real=data[600:],
        train=data[:600],
        sample=lambda n: G(torch.randn(n, 4)).detach(),
    )


@pytest.mark.parametrize("own", [False, True])
def test_several_critics_are_audited_as_one(own: bool) -> None:
    result = diagnose(two_critics(own), rounds=160, gradients=100, progress="none")
    assert "the critic's state" not in result.skipped
    assert result.critic is not None
    assert result.first is not None
    assert (result.first.name, result.first.where) == ("lagging", "critic"), result
    assert max(result.first.evidence["orders"]) < 0.65


def conditional(blind: bool) -> Loop:
    """Labelled points in the plane, hinge; the critic sees the label, or is handed it in vain."""
    torch.manual_seed(0)
    labels = torch.randint(3, (900,), generator=seeded(0))
    data = torch.randn(900, 2, generator=seeded(1)) + 3 * labels[:, None]

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(5, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            seen = torch.nn.functional.one_hot(y, 3).float()
            return self.body(torch.cat([x, 0 * seen if blind else seen], 1))

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))

        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            return self.body(torch.cat([z, torch.nn.functional.one_hot(y, 3).float()], 1))

    G, D = Generator(), Critic()
    adam_g = torch.optim.Adam(G.parameters(), 1e-3)
    adam_d = torch.optim.Adam(D.parameters(), 2e-3)

    def step(i: int) -> None:
        rows = torch.randint(600, (32,))
        x, y = data[rows], labels[rows]
        fake = G(torch.randn(32, 2), y)
        adam_d.zero_grad()
        (relu(1 - D(x, y)).mean() + relu(1 + D(fake.detach(), y)).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        (-D(fake, y).mean()).backward()
        adam_g.step()

    def sample(n: int) -> tuple[Tensor, Tensor]:
        y = labels[torch.randint(600, (n,))]
        return G(torch.randn(n, 2), y).detach(), y

    train, held = (data[:600], labels[:600]), (data[600:], labels[600:])
    return Loop(step, {"generator": G, "critic": D}, "hinge", real=held, train=train, sample=sample)


@pytest.mark.parametrize("blind", [True, False])
def test_conditions_that_do_not_move_the_score_are_named(blind: bool) -> None:
    found = diagnose(conditional(blind), 50, progress="none")
    named = [f for f in found.findings if f.name == "blind" and f.level == "fault"]
    assert [f.where for f in named] == (["critic"] if blind else [])
    if blind:
        assert "second input" in named[0].text
        assert named[0].evidence["change"] == 0.0


def test_a_hinge_beyond_its_margin_misses_no_term() -> None:
    """The critic's scores of generated samples are below -1: their declared term has no slope, and none is missing."""
    torch.manual_seed(0)
    G, D = nn.Linear(2, 2), nn.Linear(2, 1)
    with torch.no_grad():
        G.weight.zero_(), G.bias.fill_(-3.0), D.weight.fill_(1.0), D.bias.zero_()
    sgd_g = torch.optim.SGD(G.parameters(), 1e-6)
    sgd_d = torch.optim.SGD(D.parameters(), 1e-6)

    def step(i: int) -> None:
        x, fake = torch.randn(16, 2), G(torch.randn(16, 2))
        sgd_d.zero_grad()
        (relu(1 - D(x)).mean() + relu(1 + D(fake.detach())).mean()).backward()
        sgd_d.step()
        sgd_g.zero_grad()
        softplus(-D(fake)).mean().backward()
        sgd_g.step()

    found = check_wiring({"generator": G, "critic": D}, "hinge", step=step)
    assert "missing-term" not in [f.name for f in found.findings]


@pytest.mark.parametrize(("away", "level"), [(0.5, "fault"), (0.1, "note")])
def test_a_critic_at_chance_beside_good_samples_is_not_blamed_on_its_penalty(
    away: float, level: str
) -> None:
    evidence = {
        "missing_under_the_penalty_interval": [0.99, 1.0],
        "separation_without_penalty": 0.97,
    }
    certificate = Certificate(
        "not-smothered", Verdict.REFUTED, "The critic is smothered.", evidence
    )
    audit: Any = SimpleNamespace(certificates=[certificate], findings=())
    (found,) = states(audit, "critic", way(0.6, away, (1.0, 1.0), penalised=True))
    assert (found.name, found.level) == ("smothered", level)


class Within(nn.Module):
    """One input, the condition; noise of a size is drawn within."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x + self.size * torch.randn_like(x)


@pytest.mark.parametrize(("size", "random"), [(0.0, False), (0.1, True)])
def test_noise_within_a_module_is_seen_and_random_states_are_put_back(
    size: float, random: bool
) -> None:
    before = torch.get_rng_state()
    assert draws(Within(size), (torch.ones(4, 2),)) is random
    assert torch.equal(before, torch.get_rng_state())
