"""Sound loops that look like a fault, each beside the fault that it looks like."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import softplus

from equilibrist import R1
from equilibrist.diagnosis import Loop, check_wiring, diagnose
from equilibrist.diagnosis._after import _restless
from equilibrist.diagnosis._judge_rates import ruled
from equilibrist.diagnosis._outcome import GameLook, Outcome

BATCH = 32


def rows(n: int, seed: int) -> Tensor:
    """A table: two numbers, and a category of three as zeros and a one."""
    rng = torch.Generator().manual_seed(seed)
    kind = torch.nn.functional.one_hot(torch.randint(3, (n,), generator=rng), 3).float()
    return torch.cat([torch.randn(n, 2, generator=rng) + kind[:, :2], kind], 1)


DATA, HELD = rows(600, 0), rows(400, 1)


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def adam(module: nn.Module, rate: float = 1e-3) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), rate, (0.5, 0.9))


def as_rows(raw: Tensor) -> Tensor:
    """The activations of a table's columns, outside the generator."""
    return torch.cat([raw[:, :2], raw[:, 2:].softmax(1)], 1)


def loop(
    emit: Callable[[nn.Module, int], Tensor], sample: Callable[[nn.Module, int], Tensor] | None
) -> Loop:
    """A vanilla GAN on the table; `emit` makes what the critic is shown, `sample` what is compared."""
    torch.manual_seed(0)
    g, d = mlp(4, 16, 5), mlp(5, 16, 1)
    adam_g, adam_d = adam(g), adam(d)

    def step(i: int) -> None:
        real, fake = DATA[torch.randint(len(DATA), (BATCH,))], emit(g, BATCH)
        adam_d.zero_grad()
        (softplus(-d(real)).mean() + softplus(d(fake.detach())).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        softplus(-d(emit(g, BATCH))).mean().backward()
        adam_g.step()

    drawn = None if sample is None else lambda n: sample(g, n).detach()
    return Loop(step, {"generator": g, "critic": d}, "vanilla", real=HELD, train=DATA, sample=drawn)


def activated(g: nn.Module, n: int) -> Tensor:
    return as_rows(g(torch.randn(n, 4)))


def raw(g: nn.Module, n: int) -> Tensor:
    made: Tensor = g(torch.randn(n, 4))
    return made


def jittered(g: nn.Module, n: int) -> Tensor:
    made: Tensor = g(torch.randn(n, 4))
    return made * (1 + 0.3 * torch.randn(n, 5)) + 0.3 * torch.randn(n, 5)


@pytest.mark.parametrize(
    ("emit", "sample", "found"),
    [
        pytest.param(activated, activated, [], id="activations that samples have too"),
        pytest.param(jittered, raw, ["augmentation-mismatch"], id="augmented on the way only"),
    ],
)
def test_activations_outside_the_generator_belong_to_its_samples(
    emit: Any, sample: Any, found: list[str]
) -> None:
    result = diagnose(loop(emit, sample), rounds=16, progress="none")
    loud = [f.name for f in result.findings if f.level != "note"]
    assert [name for name in loud if name == "augmentation-mismatch"] == found, result


def test_samples_under_conditions_of_held_out_ones_may_be_few() -> None:
    """sample(n) that cannot make more samples than there are conditions; the critic is audited with as many."""

    def few(g: nn.Module, n: int) -> Tensor:
        return as_rows(g(torch.cat([HELD[:n, :2], torch.randn(n, 2)], 1)))

    result = diagnose(loop(activated, few), rounds=16, progress="none")
    assert "the critic's state" not in result.skipped, result


def test_samples_that_cannot_be_made_are_no_traceback() -> None:
    def none(g: nn.Module, n: int) -> Tensor:
        raise OSError("no such file")

    result = diagnose(loop(raw, none), rounds=16, progress="none")
    assert "sample(400) failed: OSError: no such file" in result.skipped["the critic's state"]


@pytest.mark.parametrize("held", ["between the grid", "on the grid"])
def test_few_values_are_a_grid_where_the_data_have_more(held: str) -> None:
    """Temperatures around 290 in float16 lie a quarter apart; so may a sensor's."""
    torch.manual_seed(0)
    data = 290 + 8 * torch.randn(600, 2)
    cache, given = data.half().float(), 290 + 8 * torch.randn(400, 2)
    given = given if held == "between the grid" else given.half().float()
    g, d = mlp(4, 16, 2), mlp(2, 16, 1)
    adam_g, adam_d = adam(g), adam(d)

    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = d

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.net((x - 290) / 8)
            return scores

    critic = Shown()

    def shown(i: int) -> None:
        real = cache[torch.randint(len(cache), (BATCH,))]
        fake = 290 + 8 * g(torch.randn(BATCH, 4))
        adam_d.zero_grad()
        (softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        softplus(-critic(290 + 8 * g(torch.randn(BATCH, 4)))).mean().backward()
        adam_g.step()

    players = {"generator": g, "critic": critic}
    found = check_wiring(players, "vanilla", step=shown, real=given, train=cache)
    loud = [f.name for f in found.findings if f.level != "note"]
    assert ("dtype-mismatch" in loud) == (held == "between the grid"), found


@pytest.mark.parametrize("cleared", [True, False])
def test_a_gradient_like_the_last_one_is_no_old_gradient(cleared: bool) -> None:
    """A reconstruction's gradients hardly change from step to step, whether or not they are cleared."""
    torch.manual_seed(0)
    g, d = mlp(5, 32, 5), mlp(5, 16, 1)
    sgd, adam_d = torch.optim.SGD(g.parameters(), 1e-5), adam(d)
    batch = DATA[:BATCH]

    def step(i: int) -> None:
        made = g(batch)
        loss = 20 * (made - batch - 3).square().mean() + softplus(-d(made)).mean()
        loss.backward()
        sgd.step()
        if cleared:
            sgd.zero_grad(set_to_none=False)
        adam_d.zero_grad()
        (softplus(-d(batch)).mean() + softplus(d(made.detach())).mean()).backward()
        adam_d.step()

    found = check_wiring({"generator": g, "critic": d}, "vanilla", step=step)
    stale = [f for f in found.findings if f.name == "stale-gradients"]
    assert bool(stale) != cleared, found


@pytest.mark.parametrize("detached", [True, False])
def test_a_penalty_by_torch_func_of_detached_weights(detached: bool) -> None:
    torch.manual_seed(0)
    g, d = mlp(4, 16, 5), mlp(5, 16, 1)
    adam_g, adam_d = adam(g), adam(d)

    def penalty(real: Tensor) -> Tensor:
        weights = {k: v.detach() if detached else v for k, v in d.named_parameters()}

        def score(x: Tensor) -> Tensor:
            value: Tensor = functional_call(d, weights, (x[None],)).squeeze()
            return value

        return 5 * vmap(grad(score))(real).square().sum(1).mean()

    def step(i: int) -> None:
        real, fake = DATA[torch.randint(len(DATA), (BATCH,))], g(torch.randn(BATCH, 4))
        adam_d.zero_grad()
        (softplus(-d(real)).mean() + softplus(d(fake.detach())).mean() + penalty(real)).backward()
        adam_d.step()
        adam_g.zero_grad()
        softplus(-d(fake)).mean().backward()
        adam_g.step()

    players = {"generator": g, "critic": d}
    found = check_wiring(players, "vanilla", step=step, penalties=[R1(10.0)])
    loud = [f.name for f in found.findings if f.level != "note"]
    assert loud == (["constant-penalty"] if detached else []), found


def test_a_first_step_that_is_not_finite_is_not_too_large() -> None:
    """log(1 - sigmoid(s)) is infinite for scores of unscaled data, before any step."""
    torch.manual_seed(0)
    g, d = mlp(4, 16, 5), mlp(5, 16, 1)
    adam_g, adam_d = adam(g), adam(d)
    scale = torch.tensor([1.0, 5e3, 1.0, 1.0, 1.0])

    def step(i: int) -> None:
        real, fake = DATA[:BATCH] * scale, g(torch.randn(BATCH, 4))
        adam_d.zero_grad()
        other, one = torch.sigmoid(d(fake.detach())), torch.sigmoid(d(real))
        (-torch.log(one).mean() - torch.log(1 - other).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        (-torch.log(torch.sigmoid(d(fake))).mean()).backward()
        adam_g.step()

    given = Loop(step, {"generator": g, "critic": d}, "vanilla", real=HELD * scale)
    result = diagnose(given, rounds=20, progress="none")
    loud = [f.name for f in result.findings if f.level != "note"]
    assert loud[0] == "not-finite", result
    assert "step-too-large" not in loud, result


@pytest.mark.parametrize("adopted", [True, False])
def test_a_rate_that_becomes_the_other_players(adopted: bool) -> None:
    """An adaptive rule of one player that is written into both optimisers; or into its own."""
    mine, other, count = 2e-4, 1e-3, 0
    seen: dict[str, dict[int, list[tuple[int, float]]]] = {"critic": {0: []}, "generator": {1: []}}
    for i in range(60):
        for k, (name, rate) in enumerate((("critic", mine), ("generator", other))):
            count += 1
            seen[name][k].append((count, rate))
        if i in (0, 1, 5):
            other /= 1.5
        mine = other if adopted else mine
    found = [f for f in ruled(seen, "critic") if f.level != "note"]
    assert [f.name for f in found] == (["rate-rewritten"] if adopted else [])
    assert not adopted or "begins at 0.0002, jumps to the generator's 0.000667" in found[0].text


@pytest.mark.parametrize(
    ("variety", "moved", "distance", "says"),
    [
        (0.1, 0.3, 3.0, "wander"),
        (0.1, 0.3, 0.3, ""),  # they come nearer
        (0.1, 0.02, 3.0, ""),  # they stay where they are
        (0.3, 0.3, 3.0, ""),  # as those of sound loops that have only begun
        (0.2, 1.2, 0.3, "hop"),
    ],
)
def test_narrow_samples_that_move_about(
    variety: float, moved: float, distance: float, says: str
) -> None:
    looks = [GameLook(10 * k, 0.5, 1.0 if not k else distance, variety, moved) for k in range(25)]
    found = _restless(Outcome(looks))
    assert (says in found[0] and bool(says)) if found else not says


def shared(both_hold_all: bool) -> Loop:
    """Two optimisers step the critic after one backward pass: its body and its head, or all of it twice."""
    torch.manual_seed(0)
    g, d = mlp(4, 16, 5), mlp(5, 16, 16, 1)
    body, head = adam(d if both_hold_all else d[:3]), adam(d if both_hold_all else d[3:])
    adam_g = adam(g)

    def step(i: int) -> None:
        real, fake = DATA[torch.randint(len(DATA), (BATCH,))], g(torch.randn(BATCH, 4))
        body.zero_grad(), head.zero_grad()
        (softplus(-d(real)).mean() + softplus(d(fake.detach())).mean()).backward()
        body.step(), head.step()
        adam_g.zero_grad()
        softplus(-d(fake)).mean().backward()
        adam_g.step()

    return Loop(step, {"generator": g, "critic": d}, "vanilla")


@pytest.mark.parametrize("both_hold_all", [False, True])
def test_a_body_and_a_head_may_have_an_optimiser_each(both_hold_all: bool) -> None:
    made = shared(both_hold_all)
    found = [f.name for f in check_wiring(made.players, made.loss, step=made.step).findings]
    assert ("stepped-twice" in found) == both_hold_all


def translated(cut: bool, first: bool) -> Loop:
    """Pairs (condition, image) beside one another as the critic's one input; `cut`: the L1 term has no gradient."""
    torch.manual_seed(0)
    a = torch.randn(600, 4)
    b = a.cumsum(1)
    g, d = mlp(4, 16, 4), mlp(8, 16, 1)
    adam_g, adam_d = adam(g), adam(d)

    def beside(condition: Tensor, x: Tensor) -> Tensor:
        return torch.cat([x, condition] if first else [condition, x], 1)

    def losses(modules: Any, pair: Tensor) -> dict[str, Tensor]:
        condition, x = (pair[:, 4:], pair[:, :4]) if first else (pair[:, :4], pair[:, 4:])
        fake = modules.generator(condition)
        shown = beside(condition, fake)
        critic = softplus(-modules.critic(pair)).mean() + softplus(modules.critic(shown.detach()))
        adversarial = softplus(-modules.critic(shown)).mean()
        return {"critic": critic.mean(), "generator": adversarial + 5 * (fake - x).abs().mean()}

    def step(i: int) -> None:
        k = torch.randint(600, (BATCH,))
        fake = g(a[k])
        adam_d.zero_grad()
        real = softplus(-d(beside(a[k], b[k]))).mean()
        (real + softplus(d(beside(a[k], fake.detach()))).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        with torch.set_grad_enabled(not cut):
            distance = (fake - b[k]).abs().mean()
        (softplus(-d(beside(a[k], fake))).mean() + 5 * distance).backward()
        adam_g.step()

    return Loop(step, {"generator": g, "critic": d}, losses)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_a_batch_of_pairs_is_the_real_one(cut: bool, first: bool) -> None:
    """Generated samples beside their conditions are no batch of data: with them the L1 term would be zero."""
    made = translated(cut, first)
    found = check_wiring(made.players, made.loss, step=made.step)
    assert [f.name for f in found.findings if f.level == "fault"] == (
        ["missing-term"] if cut else []
    )
    assert max(found.residuals.values()) < 1e-3


def test_gradients_that_the_loop_puts_in_place_are_used_once() -> None:
    """torch.autograd.grad for both players at one point: no backward pass announces their gradients."""
    torch.manual_seed(0)
    g, d = mlp(4, 16, 5), mlp(5, 16, 1)
    adam_g, adam_d = adam(g), adam(d)

    def step(i: int) -> None:
        real, scores = d(DATA[torch.randint(len(DATA), (BATCH,))]), d(g(torch.randn(BATCH, 4)))
        critic = softplus(-real).mean() + softplus(scores).mean()
        found = torch.autograd.grad(critic, list(d.parameters()), retain_graph=True)
        made = torch.autograd.grad(softplus(-scores).mean(), list(g.parameters()))
        for p, grad_of in zip([*d.parameters(), *g.parameters()], [*found, *made], strict=True):
            p.grad = grad_of
        adam_d.step()
        adam_g.step()

    found = check_wiring({"generator": g, "critic": d}, "vanilla", step=step).findings
    assert [f.name for f in found if f.level != "note"] == []
