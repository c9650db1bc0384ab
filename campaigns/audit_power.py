"""Does the audit find deviations that are there, and none where there are none?

    python campaigns/audit_power.py run      # resumable; a quarter of an hour on one core
    python campaigns/audit_power.py report   # the tables of docs/results.md

`planted`: 200 pairs, each with a deviation of one player at a known distance, between 1e-3 and 10 times the norm of its
weights, that gains 3 to 10 tolerances. Five families, in turn:

- `wall`: an exact game in 1 to 8 dimensions whose loss curves down from a stationary start to a wall at that distance;
- `well`: an exact game in 1 to 3 dimensions, a local minimum at the start and a deeper one behind a barrier;
- `valley`: an exact game in 2 to 8 dimensions, an ill-conditioned quadratic whose minimum is that far away;
- `critic`: a critic network whose best answer is known to within training, its weights displaced by that distance;
- `generator`: a generator network against a frozen critic, its weights displaced from where that critic is highest.

Samples bring noise that is first order in the distance, where gains are second order: networks are displaced by 0.03
and more. The tolerance of a pair is set to its planted gain, divided by a number from 3 to 10.

`healthy`: 200 pairs without a deviation that gains more than the tolerance: an exact minimum, a random generator that
realises the data's law beside a critic that is constant (Proposition 1 of Farnia and Ozdaglar 2020), and the Gaussian
W2GAN with s < 1 and sigma_min(W) >= 1 (Remark 1), on samples.

`theorem`: 100 settings of Theorem 1 on samples, as plain modules: d from 1 to 8, s, eta and t random with a gain
eta (s - 1) t^2 of at least 4 printed tolerances, audited by default settings.

`budget`: 100 small pairs, trained for a while or not at all, audited whole within 800 to 4,000 gradients: what was
planned and spent, and how often "stable" is answered.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import equilibrist as eq
from equilibrist import projections
from equilibrist.checks import Settings, audit_game
from equilibrist.checks.certificate import Certificate
from equilibrist.core.game import Plain
from equilibrist.progress import showing

F64 = torch.float64
Rng = np.random.Generator
FAMILIES = ("wall", "well", "valley", "critic", "generator")
HEALTHY = ("minimum", "realised", "remark 1")
DECADES = ((1e-3, 1e-2), (1e-2, 1e-1), (1e-1, 1.0), (1.0, 10.0))
COUNTS = {"planted": 200, "healthy": 200, "theorem": 100, "budget": 100}


class Landscape(Plain):
    """One player with a loss of its own, and one that has nothing to gain."""

    players = ("generator", "critic")
    zero_sum = False

    def __init__(self, loss: Callable[[Tensor], Tensor], wall: float | None = None) -> None:
        self.loss, self.wall = loss, wall

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        x = players["generator"]["y"] + 0 * players["generator"]["anchor"].sum()
        return {"generator": self.loss(x), "critic": players["critic"]["w"].square().sum()}

    def project(self, players: Any) -> Any:
        if self.wall is None:
            return players
        ball = projections.NormBall("generator", "y", self.wall)
        return {**players, "generator": dict(ball(players["generator"]))}


def landscape_pair(dim: int, y: Tensor | None = None) -> Any:
    """A pair whose generator has weights of norm 1, and stands at y (default 0)."""
    anchor = torch.ones(dim, dtype=F64) / dim**0.5
    y = torch.zeros(dim, dtype=F64) if y is None else y
    critic = {"w": torch.zeros(2, dtype=F64)}
    return {"generator": {"y": y, "anchor": anchor}, "critic": critic}


def unit(rng: Rng, dim: int) -> Tensor:
    """A random unit vector."""
    v = torch.from_numpy(rng.standard_normal(dim))
    return v / v.norm()


def exact(rng: Rng, family: str, distance: float) -> tuple[Any, Any, float]:
    """(game, pair, planted gain) of an analytic family; gains are of order 1."""
    if family == "wall":
        dim = int(rng.integers(1, 9))
        curvature = torch.from_numpy(np.exp(rng.uniform(-2, 0, dim)))
        curvature[0] = 1.0
        turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((dim, dim))))[0]
        scale = 2 / distance**2

        def down(y: Tensor) -> Tensor:
            return -0.5 * scale * (curvature * (turn @ y).square()).sum()

        return Landscape(down, distance), landscape_pair(dim), 1.0
    if family == "well":
        dim = int(rng.integers(1, 4))
        p, width, hump = distance * unit(rng, dim), 0.35 * distance, float(rng.uniform(0.2, 1.0))

        def well(y: Tensor) -> Tensor:
            near = hump * (1 - torch.exp(-18 * y.square().sum() / distance**2))
            return near - (hump + 1) * torch.exp(-0.5 * (y - p).square().sum() / width**2)

        start = well(torch.zeros(dim, dtype=F64))
        return Landscape(well), landscape_pair(dim), float(start - well(p))
    dim = int(rng.integers(2, 9))
    p = distance * unit(rng, dim)
    stiff = torch.from_numpy(10 ** rng.uniform(-1.5, 0, dim)) / distance**2

    def valley(y: Tensor) -> Tensor:
        return 0.5 * (stiff * (y - p).square()).sum()

    return Landscape(valley), landscape_pair(dim), float(valley(torch.zeros(dim, dtype=F64)))


def mlp(a: int, b: int, width: int = 24) -> nn.Sequential:
    """A small network."""
    return nn.Sequential(
        nn.Linear(a, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, b)
    )


class Bowl(nn.Module):
    """A frozen critic that is highest at one point: D(x) = -k |x - c|^2 / 2, and one weight of its own."""

    def __init__(self, c: Tensor, k: float) -> None:
        super().__init__()
        self.register_buffer("c", c)
        self.k = k
        self.own = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return -0.5 * self.k * (x - self.c).square().sum(1) + 0 * self.own


def displaced(module: nn.Module, distance: float, rng: Rng) -> None:
    """Move a module's weights by `distance` times their norm, in a random direction relative to each tensor's scale."""
    with torch.no_grad():
        noise = [
            torch.from_numpy(rng.standard_normal(tuple(p.shape))).float() * p.square().mean().sqrt()
            for p in module.parameters()
        ]
        size = math.sqrt(sum(float(n.square().sum()) for n in noise))
        norm = math.sqrt(sum(float(p.square().sum()) for p in module.parameters()))
        step = distance * norm
        for p, n in zip(module.parameters(), noise, strict=True):
            p += step / size * n


def network(rng: Rng, family: str, distance: float) -> tuple[Any, dict[str, Any], float, str]:
    """(modules and data, options, planted gain, player) of a pair of networks."""
    torch.manual_seed(int(rng.integers(2**31)))
    data = torch.randn(6000, 2) * float(rng.uniform(0.3, 1.0)) + torch.randn(2)
    if family == "critic":
        generator, critic = mlp(4, 2), mlp(2, 1)
        with torch.no_grad():
            fake = generator(torch.randn(6000, 4))
        loss = eq.Vanilla()
        rule = torch.optim.Adam(critic.parameters(), 3e-3)
        for _ in range(800):
            rows, others = torch.randint(6000, (256,)), torch.randint(6000, (256,))
            value = loss.critic_loss(critic(data[rows]).flatten(), critic(fake[others]).flatten())
            rule.zero_grad(), value.backward(), rule.step()
        best = loss.critic_loss(critic(data).flatten(), critic(fake).flatten()).item()
        displaced(critic, distance, rng)
        now = loss.critic_loss(critic(data).flatten(), critic(fake).flatten()).item()
        return (generator, critic, data, loss), {"latent": 4}, now - best, "critic"
    critic = Bowl(torch.randn(2), float(rng.uniform(0.5, 2.0)))
    generator = mlp(4, 2)
    rule = torch.optim.Adam(generator.parameters(), 3e-3)
    for _ in range(800):
        value = -critic(generator(torch.randn(256, 4))).mean()
        rule.zero_grad(), value.backward(), rule.step()
    z = torch.randn(6000, 4)
    with torch.no_grad():
        best = -critic(generator(z)).mean().item()
        displaced(generator, distance, rng)
        now = -critic(generator(z)).mean().item()
    return (generator, critic, data, eq.WGAN()), {"latent": 4}, now - best, "generator"


def planted(seed: int) -> dict[str, Any]:
    """Audit one planted deviation."""
    rng = np.random.default_rng([seed, 1])
    family = FAMILIES[seed % len(FAMILIES)]
    networks = family in ("critic", "generator")
    while True:
        distance = float(10 ** rng.uniform(-1.5 if networks else -3, 1))
        share = float(rng.uniform(3, 10))
        if not networks:
            game, pair, gain = exact(rng, family, distance)
            settings = Settings(absolute=gain / share, groups=3, group_batches=1, linear_batches=1)
            player = "generator"
            found = audit_game(
                game, pair, settings=settings, seed=seed, checks=("nash",), progress="none"
            )
            break
        args, options, gain, player = network(rng, family, distance)
        if not 1e-3 < gain < 1e4:  # rounding, or a displacement that costs nothing
            continue
        settings = Settings(absolute=gain / share)
        found = eq.audit_pair(
            *args, **options, settings=settings, seed=seed, checks=("nash",), progress="none"
        )
        break
    return row(found[f"nash/{player}"], family, distance, gain)


def row(c: Certificate, family: str, distance: float, gain: float) -> dict[str, Any]:
    """What is kept of a certificate."""
    return {
        "family": family,
        "distance": distance,
        "gain": gain,
        "tolerance": c.tolerance.value if c.tolerance else math.nan,
        "verdict": c.verdict.value,
        "found": c.evidence["gain"],
        "radius": c.evidence.get("radius"),
        "summary": c.summary,
    }


def healthy(seed: int) -> dict[str, Any]:
    """Audit one pair in which nobody gains more than the tolerance."""
    rng = np.random.default_rng([seed, 2])
    family = HEALTHY[seed % len(HEALTHY)]
    torch.manual_seed(seed)
    if family == "minimum":
        dim = int(rng.integers(1, 9))
        stiff = torch.from_numpy(10 ** rng.uniform(-2, 1, dim))
        game = Landscape(lambda y: 0.5 * (stiff * y.square()).sum())
        found = audit_game(game, landscape_pair(dim), seed=seed, checks=("nash",), progress="none")
    elif family == "realised":
        dim = int(rng.integers(1, 5))
        generator, critic = nn.Linear(dim, dim), mlp(dim, 1)
        with torch.no_grad():
            critic[-1].weight.zero_()
            data = generator(torch.randn(int(rng.integers(1500, 6000)), dim))
        loss = (eq.Vanilla(), eq.Vanilla(saturating=True), eq.formulations.Hinge())[seed % 3]
        found = eq.audit_pair(
            generator, critic, data, loss, latent=dim, seed=seed, checks=("nash",), progress="none"
        )
    else:
        args, options = w2gan(
            float(rng.uniform(0.3, 0.9)), int(rng.integers(1, 5)), float(rng.uniform(0.1, 2)), None
        )
        found = eq.audit_pair(*args, **options, seed=seed, checks=("nash",))
    worst = max((found["nash/generator"], found["nash/critic"]), key=lambda c: c.evidence["gain"])
    verdicts = [found[f"nash/{p}"].verdict.value for p in ("generator", "critic")]
    return row(worst, family, 0.0, 0.0) | {"verdicts": verdicts}


class SpectralFloor:
    """sigma_min(W) >= 1 for the generator's matrix: singular values are raised to it (Remark 1's feasible set)."""

    player = "generator"

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        left, sigma, right = torch.linalg.svd(params["W"], full_matrices=False)
        return {**params, "W": params["W"] + (left * (1 - sigma).clamp_min(0)) @ right}


def w2gan(s: float, dim: int, eta: float, t: float | None) -> tuple[Any, dict[str, Any]]:
    """The optimum of the Gaussian W2GAN as plain modules, inside Theorem 1's feasible sets (t) or without."""
    generator = eq.networks.LinearGenerator(dim, dim, dtype=F64)
    critic = eq.networks.QuadraticCritic(dim, dtype=F64)
    game = eq.games.GaussianW2GAN(s=s, dim=dim, eta=eta, **({"t": t} if t else {}))
    optimum = game.points()[0].players
    generator.load_state_dict(optimum["generator"])
    critic.load_state_dict(optimum["critic"])
    data = eq.data.Gaussian(np.zeros(dim), s * s * np.eye(dim), dtype=F64)
    sets: list[Any] = [projections.EigenvalueCap("critic", "A", 0.95 * eta)]
    if s < 1:
        sets = [SpectralFloor(), *sets]
    if t is not None:
        ball = projections.SpectralBall("generator", "W", 1.0)
        sets = [ball, projections.NormBall("generator", "u", t), *sets]
    formulation = eq.formulations.W2GAN(eta)
    return (generator, critic, data, formulation), {
        "latent": dim,
        "projections": sets,
        "progress": "none",
    }


def theorem(seed: int) -> dict[str, Any]:
    """Audit one setting of Theorem 1 by the default settings; drawn again while its gain is below 4 tolerances."""
    rng = np.random.default_rng([seed, 3])
    while True:
        d = 1 + seed % 8
        s, eta, t = (
            float(x) for x in np.exp(rng.uniform(np.log([1.05, 0.05, 0.2]), np.log([6, 4, 8])))
        )
        gain = eta * (s - 1) * t**2
        # The printed tolerance is 2% of the root mean square of the costs, about eta (s + 1)^2 d.
        if gain < 4 * 0.02 * eta * (s + 1) ** 2 * d / 4:
            continue
        args, options = w2gan(s, d, eta, t)
        found = eq.audit_pair(*args, **options, seed=seed, checks=("nash",))
        c = found["nash/generator"]
        assert c.tolerance is not None
        if gain < 4 * c.tolerance.value:
            continue
        return row(c, f"d={d}", t / d**0.5, gain) | {"s": s, "eta": eta, "t": t, "d": d}


def small_pair(rng: Rng) -> tuple[Any, dict[str, Any]]:
    """A small pair of networks, trained for 0 to 400 steps."""
    torch.manual_seed(int(rng.integers(2**31)))
    width, latent = int(rng.integers(4, 65)), int(rng.integers(1, 9))
    data = torch.randn(int(rng.integers(800, 6000)), 2) * 0.5 + torch.randn(2)
    generator, critic = mlp(latent, 2, width), mlp(2, 1, width)
    loss = (eq.Vanilla(), eq.Vanilla(saturating=True), eq.formulations.LeastSquares())[
        rng.integers(3)
    ]
    rules = [
        torch.optim.Adam(m.parameters(), 1e-3, betas=(0.5, 0.999)) for m in (generator, critic)
    ]
    for _ in range(int(rng.integers(0, 401))):
        real, fake = data[torch.randint(len(data), (64,))], generator(torch.randn(64, latent))
        value = loss.critic_loss(critic(real).flatten(), critic(fake.detach()).flatten())
        rules[1].zero_grad(), value.backward(), rules[1].step()
        value = loss.generator_loss(critic(generator(torch.randn(64, latent))).flatten())
        rules[0].zero_grad(), value.backward(), rules[0].step()
    return (generator, critic, data, loss), {"latent": latent}


def budget(seed: int) -> dict[str, Any]:
    """Audit one small pair whole, within a budget."""
    rng = np.random.default_rng([seed, 4])
    args, options = small_pair(rng)
    n = int(np.exp(rng.uniform(np.log(800), np.log(4000))))
    found = eq.audit_pair(*args, **options, settings=Settings.within(n), seed=seed, progress="none")
    stable = found["stable"]
    return {
        "gradients": n,
        "planned": sum(w["planned"] for w in found.work.values()),
        "spent": sum(w["gradients"] for w in found.work.values()),
        "parameters": sum(p.numel() for m in args[:2] for p in m.parameters()),
        "stable": stable.verdict.value,
        "summary": stable.summary,
        "place": found.place,
    }


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "planted": planted,
    "healthy": healthy,
    "theorem": theorem,
    "budget": budget,
}


def run(folder: Path, parts: list[str], count: int | None) -> None:
    """Every seed of every part whose answer is not kept yet."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for part in parts:
        path = folder / f"{part}.jsonl"
        done = (
            {json.loads(line)["seed"] for line in path.read_text().splitlines()}
            if path.exists()
            else set()
        )
        todo = [seed for seed in range(count or COUNTS[part]) if seed not in done]
        with showing("auto", part, len(todo)) as bar:
            for k, seed in enumerate(todo):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = PARTS[part](seed)
                with path.open("a") as out:
                    out.write(json.dumps({"seed": seed} | found) + "\n")
                bar.update(k + 1, {})


def share(hits: int, of: int) -> str:
    """A share with its exact 95% interval."""
    if not of:
        return "-"
    interval = binomtest(hits, of).proportion_ci(0.95, method="exact")
    return f"{hits}/{of} = {hits / of:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def report(folder: Path) -> None:
    """The tables."""
    rows = {
        part: [json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()]
        for part in PARTS
        if (folder / f"{part}.jsonl").exists()
    }
    for part in ("planted",) if "planted" in rows else ():
        print(
            "| distance | refuted, of those inside the stated radius | unassessed | beyond the radius |"
        )
        print("|---|---|---|---|")
        groups = [
            (f"{a:g} to {b:g}", [r for r in rows[part] if a <= r["distance"] < b])
            for a, b in DECADES
        ]
        groups += [(f, [r for r in rows[part] if r["family"] == f]) for f in FAMILIES]
        for name, found in [*groups, ("all", rows[part])]:
            hits = sum(r["verdict"] == "REFUTED" for r in found)
            inside = sum(
                r["verdict"] == "NOT_REFUTED" and r["radius"] >= r["distance"] for r in found
            )
            beyond = sum(
                r["verdict"] == "NOT_REFUTED" and r["radius"] < r["distance"] for r in found
            )
            unassessed = sum(r["verdict"] == "UNASSESSED" for r in found)
            print(f"| {name} | {share(hits, hits + inside)} | {unassessed} | {beyond} |")
    if "healthy" in rows:
        print("\n| healthy pairs | players | false alarms | unassessed |\n|---|---|---|---|")
        for family in (*HEALTHY, "all"):
            found = [
                v for r in rows["healthy"] if family in (r["family"], "all") for v in r["verdicts"]
            ]
            print(
                f"| {family} | {len(found)} | {share(found.count('REFUTED'), len(found))} | "
                f"{found.count('UNASSESSED')} |"
            )
    if "theorem" in rows:
        found = rows["theorem"]
        hits = sum(r["verdict"] == "REFUTED" for r in found)
        half = sum(r["found"] >= 0.5 * r["gain"] for r in found)
        least = min(r["found"] / r["gain"] for r in found)
        print(
            f"\nTheorem 1: refuted {share(hits, len(found))}; at least half of the true gain "
            f"{half}/{len(found)}, least share {least:.2f}"
        )
    if "budget" in rows:
        found = rows["budget"]
        answered = sum(r["stable"] != "UNASSESSED" for r in found)
        worst = [max(r[k] / r["gradients"] for r in found) for k in ("planned", "spent")]
        print(
            f"\nBudgets: planned at most {worst[0]:.3f} and spent at most {worst[1]:.3f} of what was asked "
            f"for; stable answered {share(answered, len(found))}"
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--folder", type=Path, default=Path("runs/audit_power"))
    parser.add_argument("--only", nargs="*", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--count", type=int, help="fewer pairs of each part")
    options = parser.parse_args()
    if options.what == "run":
        run(options.folder, options.only, options.count)
    report(options.folder)


if __name__ == "__main__":
    main()
