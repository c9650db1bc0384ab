"""What a loop does on purpose, beside the mistake like it: frames, frozen layers, pools, terms in balance."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, softplus

from equilibrist.diagnosis import Loop, check_wiring, diagnose
from equilibrist.diagnosis._after import _terms
from equilibrist.diagnosis._ages import Ages
from equilibrist.diagnosis._calls import GENERATOR, slopes_of
from equilibrist.diagnosis._decay import decay_share, judge_decay
from equilibrist.diagnosis._frame import without_the_frame
from equilibrist.diagnosis._judge_loss import _misfit
from equilibrist.diagnosis._judge_steps import untrained
from equilibrist.diagnosis._outcome import GameLook, Outcome
from equilibrist.diagnosis._seen import Opposition
from equilibrist.findings import Finding
from equilibrist.formulations import Vanilla
from equilibrist.penalties import R1

OPPOSED = [
    (0.6, -0.6, 1.0),
    (0.62, -0.6, 1.0),
] * 5  # (taken back, cosine, ratio of sizes) of ten steps
AGREE = [(-0.5, 0.5, 1.0), (-0.52, 0.5, 1.0)] * 5
UNSURE = [(0.9, -0.6, 1.0), (-0.4, 0.2, 1.0)] * 5


def mlp(first: int, last: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(first, 16), nn.Tanh(), nn.Linear(16, last))


def round_of(g: nn.Module, d: nn.Module, opt_g: Any, opt_d: Any, x: Tensor) -> None:
    """A round of a usual loop."""
    fake = g(torch.randn(len(x), 4))
    opt_d.zero_grad()
    (softplus(-d(x)).mean() + softplus(d(fake.detach())).mean()).backward()
    opt_d.step()
    opt_g.zero_grad()
    softplus(-d(fake)).mean().backward()
    opt_g.step()


@pytest.mark.parametrize(
    ("early", "late", "away", "level"),
    [
        (AGREE, OPPOSED, 0.02, "note"),  # a sum at its minimum
        (AGREE, OPPOSED, 0.6, "warning"),  # far from it
        (OPPOSED, OPPOSED, 0.02, "warning"),  # all along
        ([], OPPOSED, 0.02, "warning"),  # a term that came later
        (OPPOSED, UNSURE, 0.02, "warning"),  # all along: needs fewer of the last steps
        (AGREE, UNSURE, 0.6, ""),
        (OPPOSED, AGREE, 0.6, ""),
    ],
)
def test_terms_that_oppose_one_another(early: Any, late: Any, away: float, level: str) -> None:
    assert [f.level for f in terms_of(early, late, away)] == ([level] if level else [])


def terms_of(early: Any, late: Any, away: float) -> list[Finding]:
    """What is found of an autoencoder's terms, from rows of its first and last rounds."""
    generator = mlp(3, 3)
    looks = [GameLook(k, 0.5, 1.0 if k == 0 else away) for k in range(10)]
    calls = [(torch.randn(8, 3),) for _ in range(9)]
    run: Any = SimpleNamespace(
        early=SimpleNamespace(oppositions=[Opposition(*row) for row in early]),
        spread=SimpleNamespace(oppositions=[Opposition(*row) for row in late[::2]]),
        late=SimpleNamespace(oppositions=[Opposition(*row) for row in late[1::2]], real_given=None),
        outcome=Outcome(looks),
        given={"generator": calls, "critic": calls},
        loop=SimpleNamespace(players={"generator": generator}, held_out=None, seen=None),
        seed=0,
    )
    run.loop.seen = torch.cat([c for (c,) in calls])  # an autoencoder: its inputs are the data
    run.loop.held_out = run.loop.seen
    return _terms(run, "generator", "critic")


def scaled(by: float, data_spread: float) -> tuple[Loop, list[Finding]]:
    """A loop whose samples are the generator's output times `by`, and what a wiring check says of it."""
    torch.manual_seed(0)
    generator = mlp(4, 2)
    loop = Loop(
        lambda i: None,
        {"generator": generator, "critic": mlp(2, 1)},
        "vanilla",
        real=data_spread * torch.randn(400, 2),
        sample=lambda n: by * generator(torch.randn(n, 4)),
    )
    evidence = {"real": {"rows_of_the_data": 1.0}, "generated": {"scale": 3.0, "shift": 0.0}}
    found = Finding(
        "normalization-mismatch", "real and generated samples", "scaled", evidence=evidence
    )
    return loop, [found]


@pytest.mark.parametrize(
    ("by", "spread", "left"),
    [
        (3.0, 1.0, 0),  # as the critic is shown them, and nearer to the data
        (1.0, 1.0, 1),  # samples that are compared with data are not scaled
        (3.0, 0.1, 1),  # they are, and lie farther from the data for it
        (2.0, 1.0, 1),  # otherwise than the critic is shown them
    ],
)
def test_a_scale_outside_the_generator_is_a_frame_where_samples_have_it(
    by: float, spread: float, left: int
) -> None:
    loop, found = scaled(by, spread)
    before = torch.get_rng_state()
    assert len(without_the_frame(found, loop, "generator", 0)) == left
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_were_never_trained_are_known() -> None:
    torch.manual_seed(0)
    assert untrained(nn.Linear(8, 16).weight.detach())
    assert untrained(nn.Conv2d(3, 8, 3).weight.detach())
    assert not untrained(nn.init.normal_(torch.empty(16, 8), std=0.1))
    trained = nn.Linear(8, 16).weight.detach().clone()
    trained[0] *= 1.5
    assert not untrained(trained)


@pytest.mark.parametrize("case", ["left over", "pretrained", "not in the optimiser"])
def test_layers_that_are_switched_off(case: str) -> None:
    torch.manual_seed(0)
    g, d = mlp(4, 2), mlp(2, 1)
    first = d.get_submodule("0").requires_grad_(False)
    if case == "pretrained":
        nn.init.normal_(first.get_parameter("weight"), std=0.5)
    held = (
        [p for p in d.parameters() if p.requires_grad] if case[0] == "n" else list(d.parameters())
    )
    opt_g, opt_d = torch.optim.Adam(g.parameters(), 1e-3), torch.optim.Adam(held, 1e-3)

    check = check_wiring({"generator": g, "critic": d}, "vanilla")
    check.run(lambda i: round_of(g, d, opt_g, opt_d, torch.randn(16, 2)))
    loud = [(f.name, f.where) for f in check.findings if f.level != "note"]
    assert loud == ([("frozen-part", "critic: 0.weight")] if case == "left over" else [])


@pytest.mark.parametrize(("age", "fresh", "old"), [(40, 0, 40.0), (40, 1, None), (5, 0, None)])
def test_the_age_of_what_a_critic_is_trained_on(age: int, fresh: int, old: float | None) -> None:
    ages, made = Ages(), {}
    for i in range(80):
        made[i] = torch.randn(16, 3)
        ages.made(i, made[i])
        ages.listening = i > 70
        if i >= age:
            ages.shown(i, torch.cat([made[i - age], made[i][:fresh], torch.randn(4, 3)]))
    assert ages.old == old


def test_a_batch_of_one_in_rounds_that_measure_steps() -> None:
    """The loader's last batch is one sample, in round 16 of 17 an epoch: while sizes of steps are measured."""
    torch.manual_seed(0)

    class Deviation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            spread = x.std(0).mean().expand(len(x), 1)  # of one sample: not finite
            made: Tensor = self.net(torch.cat([x, spread], 1))
            return made

    g, d = mlp(4, 2), Deviation()
    opt_g, opt_d = (torch.optim.Adam(m.parameters(), 1e-4) for m in (g, d))
    data = torch.randn(257, 2)

    def step(i: int) -> None:
        round_of(g, d, opt_g, opt_d, data[16 * (i % 17) : 16 * (i % 17) + 16])

    found = diagnose(
        Loop(step, {"generator": g, "critic": d}, "vanilla", train=data), 100, progress="none"
    )
    assert found.first is not None
    assert (found.first.name, found.rounds) == ("batch-of-one", 17)


DROWNED = [(1.2, 0.1, 4.0), (-1.1, -0.2, 4.4)] * 5  # many times the other's size, and no help


@pytest.mark.parametrize(
    ("late", "away", "level"), [(DROWNED, 0.6, "warning"), (DROWNED, 0.02, "")]
)
def test_a_term_that_drowns_the_other(late: Any, away: float, level: str) -> None:
    assert [f.level for f in terms_of(AGREE, late, away)] == ([level] if level else [])


@pytest.mark.parametrize(
    ("kind", "group", "share"),
    [
        (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 100.0}, 0.1),
        (torch.optim.Adam, {"lr": 1e-3, "weight_decay": 100.0}, 0.0),  # scaled with the gradient
        (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}, 0.01),
        (torch.optim.SGD, {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9}, 0.01),
        (torch.optim.RMSprop, {"lr": 0.1, "weight_decay": 0.1}, 0.0),
    ],
)
def test_what_weight_decay_takes_at_a_step(kind: Any, group: Any, share: float) -> None:
    """Against steps themselves: the weights without a gradient shrink by that share, once momentum has built up."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = kind([weight], **group)
    assert decay_share(optimizer, optimizer.param_groups) == pytest.approx(share)
    if share:
        sizes = []
        for _ in range(60):
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
            sizes.append(weight.item())
        shrunk = 1 - (sizes[-1] / sizes[-21]) ** (1 / 20)
        assert shrunk == pytest.approx(share, rel=0.3)


@pytest.mark.parametrize(("share", "found"), [(0.1, ["smothered", "collapsed"]), (1e-5, [])])
def test_weight_decay_that_empties_a_player(share: float, found: list[str]) -> None:
    sides: Any = {r: SimpleNamespace(role=r, name=f"my {r}") for r in ("critic", "generator")}
    steps: Any = [SimpleNamespace(player=r, decay=share) for r in sides for _ in range(4)]
    judged = judge_decay(sides, steps)
    assert [f.name for f in judged] == found
    assert all("10%" in f.text for f in judged)


def test_slopes_of_probabilities_that_are_rounded_away_tell_no_other_loss() -> None:
    """torch's loss of probabilities is cut off below 1e-12, where log(1 - p) is not."""
    loss, scores = Vanilla(saturating=True, probabilities=True), torch.full((16,), 1e-20)
    usual = torch.linspace(0.1, 0.9, 16)
    for p, told in ((scores, False), (usual, True)):
        leaf = p.clone().requires_grad_()
        binary_cross_entropy(leaf, torch.zeros_like(p)).neg().backward()
        assert leaf.grad is not None
        declared = slopes_of(loss, GENERATOR, p, p).double()
        call: Any = SimpleNamespace(scores=[p], received=[leaf.grad])
        found = _misfit(loss, call, GENERATOR, [declared], 1.0)
        assert (found is not None) == told
        assert found is None or found.size < 1e-3


def test_a_generator_that_pleases_by_either_name_has_the_wrong_sign() -> None:
    """Where scores are near zero, the critic's loss on generated samples is minus the generator's, nearly."""
    torch.manual_seed(0)
    g, d = mlp(4, 2), mlp(2, 1)
    with torch.no_grad():
        for p in d.parameters():
            p *= 0.1
    opt_g, opt_d = torch.optim.Adam(g.parameters(), 5e-4), torch.optim.Adam(d.parameters(), 1e-3)

    def step(i: int) -> None:
        fake = g(torch.randn(64, 4))
        opt_d.zero_grad()
        (softplus(-d(torch.randn(64, 2))).mean() + softplus(d(fake.detach())).mean()).backward()
        opt_d.step()
        opt_g.zero_grad()
        softplus(d(fake)).mean().backward()
        opt_g.step()

    check = check_wiring({"generator": g, "critic": d}, "vanilla")
    check.run(step)
    assert [f.name for f in check.findings if f.level != "note"] == ["wrong-sign"]


@pytest.mark.parametrize("dead", [True, False])
def test_a_penalty_of_a_critic_without_slopes_has_no_gradient_to_miss(dead: bool) -> None:
    torch.manual_seed(0)
    g, d = mlp(4, 2), mlp(2, 1)
    with torch.no_grad():
        d.get_submodule("0").get_parameter("bias").add_(
            60.0 if dead else 0.0
        )  # tanh is 1 to rounding
    opt_g, opt_d = (torch.optim.Adam(m.parameters(), 1e-3) for m in (g, d))

    def step(i: int) -> None:
        x, fake = torch.randn(32, 2).requires_grad_(), g(torch.randn(32, 4))
        real = d(x)
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        slope.flatten(1).square().sum(1).mean()  # the penalty is computed, and forgotten
        opt_d.zero_grad()
        (softplus(-real).mean() + softplus(d(fake.detach())).mean()).backward()
        opt_d.step()
        opt_g.zero_grad()
        softplus(-d(fake)).mean().backward()
        opt_g.step()

    check = check_wiring({"generator": g, "critic": d}, "vanilla", penalties=[R1(1.0)])
    check.run(step)
    named = [f.name for f in check.findings if f.level != "note"]
    assert ("constant-penalty" in named) is not dead
