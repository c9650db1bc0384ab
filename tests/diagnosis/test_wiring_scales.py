"""The wiring check on what optimisers do with a gradient, on weights that nobody steps, and on losses in disguise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from equilibrist.diagnosis import check_wiring
from equilibrist.diagnosis.wiring import Wiring

BATCH, SCALE = 32, 4096.0
DATA = torch.randn(512, 4, generator=torch.Generator().manual_seed(1)) + 1
Score = Callable[[Tensor], Tensor]


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4)),
        nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1)),
    )


def checked(
    loss: Any,
    critic_loss: Callable[[Tensor, Tensor], Tensor],
    generator_loss: Callable[[Tensor, Tensor], Tensor],
    *,
    maximize: bool = False,
    critic: nn.Module | None = None,
    before_step: Callable[[nn.Module], None] = lambda module: None,
    after_generator: Callable[[torch.optim.Optimizer], None] = lambda adam: adam.zero_grad(),
    scale: float = 1.0,
) -> Wiring:
    """A loop whose losses are functions of the scores of real and generated samples, generator first."""
    generator, plain = networks()
    critic = plain if critic is None else critic
    adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
    adam_c = torch.optim.Adam(critic.parameters(), 4e-3, maximize=maximize)

    def step(i: int) -> None:
        x, fake = DATA[torch.randint(512, (BATCH,))], generator(torch.randn(BATCH, 4))
        adam_g.zero_grad()
        generator_loss(critic(fake), fake).backward()
        adam_g.step()
        after_generator(adam_c)
        (scale * critic_loss(critic(x), critic(fake.detach()))).backward()
        before_step(critic)
        adam_c.step()
        adam_c.zero_grad()

    for i in range(8):  # scores that vary
        step(i)
    return check_wiring({"generator": generator, "critic": critic}, loss, step=step)


def vanilla(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(-real).mean() + softplus(fake).mean()


def fooled(fake: Tensor, _: Tensor) -> Tensor:
    return softplus(-fake).mean()


def test_an_optimizer_that_maximizes_receives_a_gradient_with_its_sign_turned() -> None:
    def likelihood(real: Tensor, fake: Tensor) -> Tensor:
        return logsigmoid(real).mean() + logsigmoid(-fake).mean()

    healthy = checked("vanilla", likelihood, fooled, maximize=True)
    assert healthy.ok, healthy
    assert healthy.coefficients["critic"] == pytest.approx({"real": 1, "fake": 1}, abs=1e-3)
    for wrong in (
        checked("vanilla", vanilla, fooled, maximize=True),
        checked("vanilla", likelihood, fooled),
    ):
        assert wrong.findings[0].name == "wrong-sign"


def unscaled(critic: nn.Module) -> None:
    for p in critic.parameters():
        assert p.grad is not None
        p.grad /= SCALE


@pytest.mark.parametrize(("first", "limit"), [("clip", 0.01), ("unscale", 0.01), ("clip", 1e5)])
def test_clipping_under_a_loss_scale(first: str, limit: float) -> None:
    def before_step(critic: nn.Module) -> None:
        if first == "unscale":
            unscaled(critic)
        nn.utils.clip_grad_norm_(critic.parameters(), limit)
        if first == "clip":
            unscaled(critic)

    wiring = checked("vanilla", vanilla, fooled, scale=SCALE, before_step=before_step)
    if first == "unscale" or limit > SCALE:  # a limit that is scaled as well
        assert wiring.ok, wiring
        return
    (found,) = wiring.findings
    assert (found.name, found.where, found.level) == ("clipping", "critic", "fault")
    assert found.evidence["scale"] == pytest.approx(SCALE, rel=1e-3)


def test_a_gradient_that_arrives_too_small_is_noted() -> None:
    (found,) = checked("vanilla", vanilla, fooled, before_step=unscaled).findings
    assert (found.name, found.level) == ("loss-scale", "note")
    assert found.evidence["factor"] == pytest.approx(1 / SCALE, rel=1e-3)


class Listed(nn.Module):
    """A critic with a layer in a container."""

    def __init__(self, box: Callable[[list[nn.Module]], Any]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 1)
        self.between = box([nn.Linear(16, 16)])

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.between[0](self.first(x)).relu())
        return found


def frozen(layers: list[nn.Module]) -> list[nn.Module]:
    """A pretrained part, kept out of the state on purpose."""
    return [layer.requires_grad_(False) for layer in layers]


@pytest.mark.parametrize(("box", "faulty"), [(list, True), (nn.ModuleList, False), (frozen, False)])
def test_layers_in_a_plain_list(box: Callable[[list[nn.Module]], Any], faulty: bool) -> None:
    torch.manual_seed(2)
    wiring = checked("vanilla", vanilla, fooled, critic=Listed(box))
    assert wiring.ok != faulty, wiring
    if faulty:
        (found,) = wiring.findings
        assert found.name == "frozen-part"
        assert found.evidence["weights"] == ["between[0].weight", "between[0].bias"]
        assert "16x16" in found.text


def hinge(real: Tensor, fake: Tensor, bound: Score = lambda s: s) -> Tensor:
    return (1 - bound(real)).relu().mean() + (1 + bound(fake)).relu().mean()


def test_losses_in_disguise() -> None:
    bounded = checked("hinge", lambda r, f: hinge(r, f, torch.tanh), lambda f, _: -f.mean())
    assert bounded.findings[0].evidence["loss"] == "tanh", bounded
    assert checked("hinge", hinge, lambda f, _: -f.mean()).ok
    # A loss of pairs is declared; the loop's is one of single scores.
    single = checked("relativistic", vanilla, fooled)
    assert ("wrong-loss", "critic's loss") in [(f.name, f.where) for f in single.findings]
    paired = checked("relativistic", lambda r, f: softplus(f - r).mean(), fooled)
    assert not any(f.name == "wrong-loss" and "critic" in f.where for f in paired.findings), paired


@pytest.mark.parametrize("cleared", [True, False])
def test_a_leak_that_is_one_column_with_a_term_of_ones_own(cleared: bool) -> None:
    def losses(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake = modules.generator(z)
        critic = modules.critic(x).square().mean() + modules.critic(fake).mean()
        return {
            "critic": critic,
            "generator": fake.abs().mean() - 0.2 * modules.critic(fake).mean(),
        }

    wiring = checked(
        losses,
        lambda real, fake: real.square().mean() + fake.mean(),
        lambda scores, fake: fake.abs().mean() - 0.2 * scores.mean(),
        after_generator=lambda adam: adam.zero_grad() if cleared else None,
    )
    names = [(f.name, f.where) for f in wiring.findings]
    assert names == ([] if cleared else [("gradient-leak", "critic")]), wiring


@pytest.mark.parametrize("slip", ["", "leak", "missing"])
def test_a_leak_that_cancels_the_critics_term(slip: str) -> None:
    """Under a hinge the generator's loss is minus the critic's on the same samples: both slips leave the real term."""
    wiring = checked(
        "hinge",
        lambda real, fake: hinge(real, fake.detach() if slip == "missing" else fake),
        lambda scores, fake: -scores.mean(),
        after_generator=lambda adam: adam.zero_grad() if slip != "leak" else None,
    )
    names = {"": [], "leak": ["gradient-leak"], "missing": ["missing-term"]}[slip]
    assert [f.name for f in wiring.findings] == names, wiring
    if slip == "leak":
        found = wiring.findings[0].evidence["coefficients"]
        assert found["fake"] == pytest.approx(1, abs=0.05)
        assert found["the other player's loss"] == pytest.approx(1, abs=0.05)


def test_compiled_modules_are_not_compiled_anew_under_every_hook() -> None:
    generator, critic = networks()
    compiled = torch.compile(critic, backend="eager")
    counts = torch._dynamo.utils.counters["stats"]
    adam = torch.optim.Adam(critic.parameters(), 1e-3)

    def step(i: int) -> None:
        x, fake = torch.randn(BATCH, 4) + 1, generator(torch.randn(BATCH, 4)).detach()
        adam.zero_grad()
        vanilla(compiled(x), compiled(fake)).backward()
        adam.step()

    step(0)
    before = counts["unique_graphs"]
    assert before > 0
    found = check_wiring({"generator": generator, "critic": critic}, "vanilla", step=step)
    assert found.coefficients["critic"] == pytest.approx({"real": 1, "fake": 1}, abs=1e-3)
    step(0)
    assert counts["unique_graphs"] == before
