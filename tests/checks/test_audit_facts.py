"""Plain facts: each number against an independent computation, each sign of a fault on a planted one and its twin."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import softplus

import equilibrist as eq
from equilibrist.checks import Settings
from equilibrist.checks._initial import as_initialised
from equilibrist.checks.context import AuditContext
from equilibrist.checks.facts import Copies, Facts, Loss, Range, facts, separation, starved
from equilibrist.data import ArraySource

QUICK = Settings(steps=4, starts=1, groups=3, group_batches=1)


def context(
    generator: nn.Module, critic: nn.Module, data: torch.Tensor, **options: Any
) -> AuditContext:
    formulation = options.pop("formulation", eq.Vanilla())
    game = eq.GAN(generator, critic, formulation, latent=options.pop("latent", 4), **options)
    start = game.read(generator, critic)
    source = ArraySource(data, kind="points")
    return AuditContext(game, start.players, start.constants, source, Settings(), 0)


def mlp(a: int, b: int, width: int = 32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, width), nn.Tanh(), nn.Linear(width, b))


@pytest.mark.parametrize(("confidence", "quantile"), [(0.95, 1.959964), (0.9, 1.644854)])
@pytest.mark.parametrize("ties", [False, True])
def test_separation_is_the_area_under_the_roc_curve_with_delongs_interval(
    ties: bool, confidence: float, quantile: float
) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal(300) + 0.7, rng.standard_normal(200)
    if ties:
        real, fake = np.round(real), np.round(fake)
    share, low, high = separation(torch.from_numpy(real), torch.from_numpy(fake), confidence)
    labels = np.r_[np.ones(300), np.zeros(200)]
    assert share == pytest.approx(roc_auc_score(labels, np.r_[real, fake]), abs=1e-12)
    # DeLong's variance by its definition, pair by pair.
    wins = (real[:, None] > fake[None, :]) + 0.5 * (real[:, None] == fake[None, :])
    variance = wins.mean(1).var(ddof=1) / 300 + wins.mean(0).var(ddof=1) / 200
    assert high - low == pytest.approx(2 * quantile * math.sqrt(variance), rel=1e-6)
    assert math.isnan(separation(torch.tensor([math.nan, 1.0]), torch.zeros(2), 0.95)[0])


@pytest.mark.parametrize(
    ("formulation", "critic", "generator"),
    [
        (eq.Vanilla(), 2 * math.log(2), math.log(2)),
        (eq.Vanilla(saturating=True), 2 * math.log(2), -2 * math.log(2)),
        (eq.WGAN(), 0.0, None),
        (eq.formulations.Hinge(), 2.0, None),
    ],
)
def test_losses_stand_beside_their_value_at_equality(
    formulation: Any, critic: float, generator: float | None
) -> None:
    torch.manual_seed(0)
    found = facts(
        context(mlp(4, 2), mlp(2, 1), torch.randn(800, 2), formulation=formulation), deep=False
    )
    assert found is not None
    assert found.losses["critic"].at_equality == pytest.approx(critic, abs=1e-6)
    if isinstance(formulation, eq.Vanilla) and not formulation.saturating:
        assert found.losses["generator"].at_equality == pytest.approx(generator, abs=1e-6)


def test_facts_are_those_of_held_out_samples() -> None:
    torch.manual_seed(0)
    generator, critic, data = mlp(4, 2), mlp(2, 1), torch.randn(2000, 2) * 2 + 1
    b = context(generator, critic, data)
    found = facts(b)
    assert found is not None
    real = torch.cat([draw["real"] for draw in b.bank("score")])[: found.samples]
    latent = torch.cat([draw["latent"] for draw in b.bank("score")])[: found.samples]
    with torch.no_grad():
        fake = generator.double()(latent)
        scores = critic.double()(real), critic(fake)
    auc = roc_auc_score(
        np.r_[np.ones(len(real)), np.zeros(len(fake))], torch.cat(scores).flatten().numpy()
    )
    assert found.separation[0] == pytest.approx(auc, abs=1e-9)
    assert found.losses["critic"].value == pytest.approx(
        float(softplus(-scores[0]).mean() + softplus(scores[1]).mean()), abs=1e-6
    )
    assert found.real.low == pytest.approx(float(real.min()))
    assert found.generated.high == pytest.approx(float(fake.max()))
    spread = torch.pdist(fake).mean() / torch.pdist(real).mean()
    assert found.diversity == pytest.approx(float(spread), rel=0.1)


LAYERS = {
    "linear": lambda: mlp(8, 4, 64),
    "convolutions and batch norm": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4)
    ),
}


@pytest.mark.parametrize("layers", LAYERS)
def test_weights_that_no_step_has_moved_are_recognised(layers: str) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        module = LAYERS[layers]()
        params = {k: p.detach() for k, p in module.named_parameters()}
        assert as_initialised(module, params)
        moved = {k: p + 1e-2 * torch.randn_like(p) for k, p in params.items()}
        assert not as_initialised(module, moved)


def test_other_initialisations_are_not_called_untouched() -> None:
    torch.manual_seed(0)
    module = mlp(8, 4, 64)
    for p in module.parameters():
        nn.init.normal_(p, std=0.02)
    assert not as_initialised(module, dict(module.named_parameters()))
    clipped = {k: p.detach().clamp(-0.01, 0.01) for k, p in mlp(8, 4, 64).named_parameters()}
    assert not as_initialised(module, clipped)
    assert not as_initialised(nn.Sequential(nn.PReLU()), dict(nn.PReLU().named_parameters()))


def test_a_batch_norm_whose_input_hardly_varies_is_named() -> None:
    torch.manual_seed(0)
    found = []
    for scale in (1.0, 0.005):
        norm = nn.BatchNorm1d(16)
        module = nn.Sequential(nn.Linear(4, 16), norm)
        for _ in range(100):
            module(scale * torch.randn(64, 4))
        found.append(starved(module, dict(module.named_buffers()), "generator"))
    assert found[0] == ()
    assert [layer.layer for layer in found[1]] == ["1"]


def trained(steps: int = 300, sign: float = 1.0, **factors: float) -> tuple[Any, Any, torch.Tensor]:
    """A small GAN on a Gaussian in the plane, with a fault where it is asked for."""
    torch.manual_seed(0)
    generator, critic = mlp(4, 2), mlp(2, 1)
    data = 0.5 * torch.randn(3000, 2) + 1
    rules = {
        "g": torch.optim.Adam(generator.parameters(), 1e-3 * factors.get("g", 1.0)),
        "c": torch.optim.Adam(critic.parameters(), 1e-3 * factors.get("c", 1.0)),
    }
    for _ in range(steps):
        real, fake = data[torch.randint(3000, (64,))], generator(torch.randn(64, 4))
        loss = softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean()
        rules["c"].zero_grad(), loss.backward(), rules["c"].step()
        loss = softplus(-sign * critic(generator(torch.randn(64, 4)))).mean()
        rules["g"].zero_grad(), loss.backward(), rules["g"].step()
    return generator, critic, data


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({}, ""),
        ({"g": 0.0}, "The generator's weights look exactly as freshly initialised ones"),
        ({"c": 0.0}, "The critic's weights look exactly as freshly initialised ones"),
        ({"sign": -1.0, "steps": 900}, "The generator stands near a maximum of its own loss"),
    ],
)
def test_the_first_sign_names_the_planted_fault(fault: dict[str, Any], says: str) -> None:
    generator, critic, data = trained(**fault)
    found = facts(context(generator, critic, data))
    assert found is not None
    signs = found.signs
    assert (signs[0] if signs else "").startswith(says)
    assert bool(signs) == bool(says)


FINE = Facts(
    unit="nats",
    losses={"generator": Loss(0.7, 0.693), "critic": Loss(1.3, 1.386)},
    separation=(0.7, 0.68, 0.72),
    diversity=0.9,
    real=Range(-1, 1, -0.9, 0.9, 0.0, 0.5),
    generated=Range(-1, 1, -0.9, 0.9, 0.0, 0.5),
    outside=0.0,
    unreached=0.0,
)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"diversity": 0.05}, "not diverse"),
        # Location or scale of all entries, not what overshoots an end of the range.
        ({"outside": 0.2}, ""),
        ({"outside": 0.2, "apart": (0.5, 1.3)}, ""),
        ({"outside": 0.2, "apart": (1.7, 2.0)}, "differ in range"),
        ({"outside": 0.2, "apart": (3.0, 1.0)}, "differ in range"),
        ({"outside": 0.2, "apart": (0.1, 10.0)}, "differ in range"),
        ({"apart": (1.7, 2.0)}, ""),
        ({"unreached": 0.2}, ""),
        ({"unreached": 0.2, "apart": (1.0, 0.004)}, "out of the generator's reach"),
        # The generator's own ends against data in 0..1.
        (
            {"outside": 0.2, "ends": (-1.0, 1.0), "real": Range(0, 1, 0, 1)},
            "output ends at -1 and 1",
        ),
        ({"outside": 0.01, "ends": (-1.0, 1.0), "real": Range(0, 1, 0, 1)}, ""),
        ({"outside": 0.2, "ends": (0.0, 1.0), "real": Range(0, 1, 0, 1)}, ""),
        ({"outside": 0.2, "ends": (-1.0, 1.0)}, ""),
        # Points.
        ({"images": False, "apart": (5.0, 0.1)}, "lie elsewhere"),
        ({"images": False, "apart": (5.0, 20.0)}, "lie elsewhere"),
        ({"images": False, "apart": (5.0, 0.6)}, ""),
        ({"images": False, "apart": (1.0, 0.1)}, ""),
        ({"constant": 0.3, "untouched": ("generator", "critic")}, "every sample the same score"),
        ({"unbounded": True}, "Nothing bounds the critic's slope"),
        ({"copies": Copies(0.7, 0.0, 512, 750, 1000)}, "70% of generated samples are copies"),
        ({"copies": Copies(0.07, 0.0, 512, 4096, 50000)}, "copies"),
        ({"copies": Copies(0.3, 0.0, 512, 750, 1000)}, ""),
        ({"copies": Copies(0.9, 0.8, 512, 750, 1000)}, ""),
        ({"copies": Copies(0.004, 0.0, 512, 4096, 10**6)}, ""),
        ({"separation": (0.1, 0.08, 0.12)}, "wrong way round"),
        ({"separation": (math.nan,) * 3}, "not finite"),
        ({"losses": {"generator": Loss(0.7, 0.693), "critic": Loss(900.0, 1.386)}}, "exploded"),
        (
            {
                "separation": (0.999, 0.998, 1.0),
                "losses": {"generator": Loss(7.0, 0.693), "critic": Loss(0.01, 1.386)},
            },
            "it has won",
        ),
        # Without a scale of the loss this is what a Wasserstein critic does early on: said as a fact.
        (
            {
                "separation": (0.999, 0.998, 1.0),
                "losses": {"generator": Loss(0.3, None), "critic": Loss(-2.0, 0.0)},
            },
            "The critic tells real from generated in 99.9% of pairs.",
        ),
        (
            {
                "separation": (0.985, 0.975, 0.995),
                "losses": {"generator": Loss(0.3, None), "critic": Loss(-2.0, 0.0)},
            },
            "",
        ),
        (
            {
                "separation": (0.992, 0.985, 1.0),
                "losses": {"generator": Loss(0.3, None), "critic": Loss(-2.0, 0.0)},
            },
            "tells real from generated in 99.2%",
        ),
        # Trained on another loss.
        (
            {
                "separation": (0.97, 0.96, 0.98),
                "losses": {"generator": Loss(2.0, 0.693), "critic": Loss(3.0, 1.386)},
                "silent": 1.386,
            },
            "orders 97.0% of pairs rightly, yet its loss is 3 nats",
        ),
        (
            {
                "separation": (0.97, 0.96, 0.98),
                "losses": {"generator": Loss(2.0, 0.693), "critic": Loss(3.0, 0.0)},
                "silent": 10.0,
            },
            "",
        ),
        (
            {
                "separation": (0.9, 0.88, 0.92),
                "losses": {"generator": Loss(2.0, 0.693), "critic": Loss(3.0, 1.386)},
                "silent": 1.386,
            },
            "",
        ),
        ({"outside": 0.2, "images": False}, ""),
        ({"uphill": 0.1}, "maximum of its own loss"),
        ({"uphill": 2.0}, ""),
        (
            {
                "slope": 0.01,
                "tolerance": 0.02,
                "losses": {"generator": Loss(6.0, 0.693), "critic": Loss(1.3, 1.386)},
            },
            "lowers its loss, 6 nats, by 0.01 (its own output may be saturated too)",
        ),
        ({"slope": 0.01, "tolerance": 0.02}, ""),
        ({"slope": 0.2, "tolerance": 0.02}, ""),
        ({"pull": 0.001}, "0.001 times as fast"),
        ({"pull": 0.1}, ""),
    ],
)
def test_each_sign_has_its_bound(change: dict[str, Any], says: str) -> None:
    signs = replace(FINE, **change).signs
    assert bool(signs) == bool(says)
    if says:
        assert says in signs[0]


def test_signs_come_first_in_the_headline_and_facts_in_the_print_and_the_record() -> None:
    generator, critic, data = trained(g=0.0)
    audit = eq.audit_pair(
        generator,
        critic,
        data,
        eq.Vanilla(),
        latent=4,
        settings=QUICK,
        checks=("stationary",),
        progress="none",
    )
    assert audit.place.startswith(
        "The generator's weights look exactly as freshly initialised ones"
    )
    assert str(audit).startswith(audit.place)
    assert "at equality" in str(audit)
    assert "stationary/critic" not in str(audit), "a line for the pair alone"
    assert str(audit).endswith('print(audit.details); one of them: audit["stationary"].summary')
    assert all(
        f"{c.claim:22} {c.verdict.value:12} {c.summary}" in audit.details for c in audit.values()
    )
    assert audit.details.startswith(audit.place)
    assert audit.to_json()["facts"]["signs"][0] in audit.place


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (4.88e-32, 1.0, "0 to 1"),
        (-3.0, 2e-9, "-3 to 0"),
        (1e-3, 1.0, "0.001 to 1"),
        (0.0, 0.0, "0 to 0"),
    ],
)
def test_ends_that_are_zero_to_the_eye(low: float, high: float, said: str) -> None:
    assert str(Range(low, high, low, high)) == said


def test_a_critic_of_the_wrong_sign_has_not_exploded() -> None:
    far = {"generator": Loss(0.0, 0.693), "critic": Loss(90.0, 1.386)}
    (found,) = replace(FINE, separation=(0.001, 0.0, 0.002), losses=far).findings
    assert found.name == "wrong-sign"
    assert "wrong way round" in found.text
    assert "has the wrong sign" in found.cure
    found, other = replace(FINE, separation=(0.3, 0.28, 0.32), losses=far).findings
    assert "exploded" in found.text
    assert "wrong way round" in other.text
    still = replace(FINE, separation=(0.001, 0.0, 0.002), untouched=("critic",)).findings
    assert "no step was ever taken" in still[0].text
    assert [f.name for f in still] == ["never-stepped", "lagging"]


def signs_of(generator: nn.Module, critic: nn.Module, data: torch.Tensor, **options: Any) -> str:
    found = facts(context(generator, critic, data, **options), deep=False)
    assert found is not None
    return " ".join(found.signs)


def test_a_critic_that_gives_all_the_same_score_is_named_first() -> None:
    generator, critic, data = trained(30)
    assert "same score" not in signs_of(generator, critic, data)
    for last in (
        nn.Softmax(1),
        nn.Threshold(1e9, 0.3),
    ):  # whatever the weights are: refused at the door
        with pytest.raises(eq.GameError, match="one number for all samples"):
            signs_of(generator, nn.Sequential(*critic, last), data)
    dead = nn.Sequential(
        *critic[:-1], nn.Linear(critic[-1].in_features, 8), nn.ReLU(), nn.Linear(8, 1)
    )
    with torch.no_grad():
        dead[-3].bias.fill_(-1e3)
    assert signs_of(generator, dead, data).startswith("The critic gives every sample the same")
    with torch.no_grad():
        critic[0].weight.zero_()
    said = signs_of(*trained(0)[:1], critic, data)
    assert said.startswith("The critic gives every sample the same score")
    assert "no step was ever taken" not in said


def drawn(law: str) -> nn.Module:
    """A module as DCGAN's and other programs initialise theirs."""
    module = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 8))
    for layer in module:
        if isinstance(layer, nn.Linear):
            getattr(nn.init, law)(layer.weight, **({"std": 0.02} if law == "normal_" else {}))
            nn.init.zeros_(layer.bias)
    return module


@pytest.mark.parametrize(
    "law",
    [
        "normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "orthogonal_",
    ],
)
def test_other_initialisations_with_zero_biases_are_recognised_until_a_step_is_taken(
    law: str,
) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        module = drawn(law)
        assert as_initialised(module, dict(module.named_parameters()))
        rule = torch.optim.Adam(module.parameters(), 2e-4)
        for _ in range(30):
            loss = (module(torch.randn(32, 8)) - 1).square().mean()
            rule.zero_grad(), loss.backward(), rule.step()
        assert not as_initialised(module, dict(module.named_parameters()))


def test_weights_set_by_hand_are_no_initialisation() -> None:
    module = nn.Linear(8, 8)
    with torch.no_grad():
        module.bias.zero_()
        for weight in (torch.eye(8), torch.full((8, 8), 0.3)):
            module.weight.copy_(weight)
            assert not as_initialised(module, dict(module.named_parameters()))
    plain = nn.Linear(64, 64, bias=False)
    nn.init.normal_(plain.weight, std=0.02)  # nothing that a step would have moved off zero
    assert not as_initialised(plain, dict(plain.named_parameters()))


class Rows(nn.Module):
    """Gives back rows that it holds, moved by a share of noise."""

    def __init__(self, rows: torch.Tensor, noise: float) -> None:
        super().__init__()
        self.rows, self.noise = nn.Parameter(rows.clone()), noise

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        row = (z[:, 0].abs() * 1e4).long() % len(self.rows)
        return self.rows[row] + self.noise * z[:, :2]


def test_copies_of_the_data_are_named_unless_real_samples_coincide_as_often() -> None:
    torch.manual_seed(0)
    data = torch.randn(1000, 2)
    assert "are copies of real ones" in signs_of(Rows(data, 0.0), mlp(2, 1), data)
    assert "copies" not in signs_of(Rows(data, 0.01), mlp(2, 1), data)
    discrete = data.round()
    assert "copies" not in signs_of(Rows(discrete, 0.0), mlp(2, 1), discrete)


def test_points_that_lie_elsewhere_are_named_with_both_ranges() -> None:
    generator, critic, data = trained(60)
    assert "elsewhere" not in signs_of(generator, critic, data)
    assert "lie elsewhere than real ones" in signs_of(generator, critic, data / 100)


def test_a_wasserstein_critic_that_nothing_bounds_is_named() -> None:
    torch.manual_seed(0)
    data, says = torch.randn(400, 2), "Nothing bounds the critic's slope"
    bound = {
        "nothing": {},
        "penalty": {"penalties": [eq.GradientPenalty(10.0)]},
        "clipping": {"projections": [eq.WeightClipping(0.05)]},
        "norms": {"spectral_norm": True},
    }
    for name, options in bound.items():
        said = signs_of(mlp(4, 2), mlp(2, 1), data, formulation=eq.WGAN(), **options)
        assert (says in said) == (name == "nothing")
    assert says not in signs_of(mlp(4, 2), mlp(2, 1), data)


def test_the_slope_of_the_generators_loss_is_that_of_its_formula() -> None:
    generator, critic, data = trained(300, g=0.0, c=10.0)
    found = facts(context(generator, critic, data, formulation=eq.Vanilla(saturating=True)))
    assert found is not None
    fake = generator.double()(torch.randn(4000, 4, dtype=torch.float64))
    share = float(torch.sigmoid(critic.double()(fake)).mean().detach())
    assert found.pull == pytest.approx(share / 0.5, rel=0.2)
    assert ("gradient vanishes" in " ".join(found.signs)) == (share < 0.01)


def test_samples_that_are_all_alike_do_not_break_the_facts() -> None:
    flat = torch.ones(400, 2)
    assert facts(context(mlp(4, 2), mlp(2, 1), flat), deep=False) is not None
    found = facts(context(Rows(flat, 0.0), mlp(2, 1), flat), deep=False)
    assert found is not None
    assert "same score" in found.signs[0]


def test_a_generator_whose_output_is_saturated_has_no_gradient() -> None:
    generator, critic, data = trained(900, g=0.0)
    found = facts(context(generator, critic, data), deep=False)
    assert found is not None
    assert found.slope is not None
    assert found.slope > found.tolerance
    with torch.no_grad():
        generator[2].bias.fill_(-20.0)
    pinned = facts(context(nn.Sequential(*generator, nn.Tanh()), critic, data), deep=False)
    assert pinned is not None
    assert pinned.slope == pytest.approx(0.0, abs=1e-6)
    assert "The generator's gradient vanishes" in " ".join(pinned.signs)
