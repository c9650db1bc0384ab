"""Does an audit of a critic alone tell its states apart, and leave healthy critics alone?

    python campaigns/critic_calibration.py run      # resumable; about twenty minutes on one core
    python campaigns/critic_calibration.py report   # the table of docs/results.md

Each pair is a law of real samples, a law of generated ones, and a critic that was made in one of six ways. The way is
the truth: nothing of the audit is used to decide it.

- `healthy`: overlapping laws, the critic trained on 4,000 samples of each until its step size has fallen to zero; WGAN
  with gradient penalty, the others with a light R1 or none;
- `saturated`: laws 8 to 12 standard deviations apart, no penalty, trained as long; vanilla with the saturating loss or
  AMP's reward, least squares with the clipped reward of AMP, hinge on a critic that ends with tanh;
- `smothered`: overlapping laws and R1 and R2 with a weight of 100 to 3,000, trained as long;
- `memorising`: wide networks, trained twice as long on 8 to 40 real samples;
- `lagging`: stopped within its first ten steps, or trained as long against generated samples that have since moved
  across the real ones;
- `blind`: trained as long with some columns masked, which hold a shift or a spread of their own.

Pairs with even seeds were looked at while thresholds were chosen; those with odd seeds were not run before that.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit_power import share
from torch import Tensor, nn

import equilibrist as eq
from equilibrist.penalties import R1, R2, GradientPenalty, Penalty
from equilibrist.progress import showing

Rng = np.random.Generator
KINDS = ("healthy", "saturated", "smothered", "memorising", "lagging", "blind")
COUNTS = {"healthy": 120, **dict.fromkeys(KINDS[1:], 24)}
STEPS = 1200
HELD = 2000  # held-out samples of each kind


def network(rng: Rng, dim: int, width: int | None = None) -> nn.Sequential:
    """A critic of random depth, width and activation."""
    width = int(rng.choice([16, 32, 64])) if width is None else width
    kind = (nn.ReLU, nn.Tanh, lambda: nn.LeakyReLU(0.2), nn.SiLU)[int(rng.integers(4))]
    layers: list[nn.Module] = [nn.Linear(dim, width), kind()]
    for _ in range(int(rng.integers(0, 2))):
        layers += [nn.Linear(width, width), kind()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


Law = Callable[[int], Tensor]


def direction(rng: Rng, dim: int) -> Tensor:
    """A random unit vector."""
    v = torch.from_numpy(rng.standard_normal(dim)).float()
    return v / v.norm()


def base(rng: Rng, dim: int) -> Law:
    """A law of unit variance in each direction, about: Gaussian, of two modes, heavy-tailed or skewed, its columns
    scaled and mixed."""
    kind = int(rng.integers(4))
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((dim, dim))).float())[0]
    scales = torch.from_numpy(rng.uniform(0.6, 1.4, dim)).float()
    mode = 1.5 * direction(rng, dim)

    def sample(n: int) -> Tensor:
        x = torch.randn(n, dim)
        if kind == 1:
            x = 0.7 * x + mode * torch.randint(0, 2, (n, 1)).mul(2).sub(1)
        elif kind == 2:
            x = x / (torch.randn(n, 6).square().sum(1, keepdim=True) / 4).sqrt()
        elif kind == 3:
            x = ((0.5 * x).exp() - math.exp(0.125)) / 0.604  # its standard deviation
        return (x * scales) @ turn

    return sample


def moved(law: Law, by: Tensor, scale: float = 1.0) -> Law:
    """The law, scaled and shifted."""
    return lambda n: scale * law(n) + by


@dataclass
class Pair:
    """A critic with everything that the audit is given, and what was planted."""

    critic: nn.Module
    real: Tensor
    fake: Tensor
    loss: Any
    penalties: tuple[Penalty, ...] = ()
    reward: Any = None
    train_real: Tensor | None = None
    masked: tuple[int, ...] = ()
    words: str = ""


def fit(
    critic: nn.Module, real: Tensor, fake: Tensor, loss: Any, penalties: Any = (), steps: int = STEPS,
    lr: float = 3e-3, falling: bool = True,
) -> None:  # fmt: skip
    """A critic's own training, by Adam on minibatches of 64."""
    rule = torch.optim.Adam(critic.parameters(), lr, betas=(0.5, 0.99), fused=True)

    def view(x: Tensor) -> Tensor:
        return critic(x)[:, 0]

    for step in range(steps):
        a, b = real[torch.randint(len(real), (64,))], fake[torch.randint(len(fake), (64,))]
        value = loss.critic_loss(view(a), view(b))
        for penalty in penalties:
            value = value + penalty(view, a, b, torch.rand(64))
        for group in rule.param_groups:
            group["lr"] = lr * min(1.0, 2 * (steps - step) / steps) if falling else lr
        rule.zero_grad(), value.backward(), rule.step()


def game(rng: Rng) -> tuple[Any, tuple[Penalty, ...]]:
    """A formulation with a penalty that is usual for it."""
    kind = int(rng.integers(4))
    if kind == 0:
        return eq.WGAN(), (GradientPenalty(10.0 ** rng.uniform(0, 1)),)
    loss = (eq.Vanilla(), eq.Hinge(), eq.LeastSquares(*((1, 0, 1) if rng.random() < 0.5 else ())))
    light = (R1(float(10 ** rng.uniform(-2, -1))),) if rng.random() < 0.4 else ()
    return loss[kind - 1], light


def overlapping(rng: Rng, dim: int, low: float = 0.2, high: float = 1.8) -> tuple[Law, Law]:
    """Two laws that differ by a shift, and by a scale in some."""
    law = base(rng, dim)
    scale = float(rng.choice([1.0, 1.0, 0.8, 1.25]))
    return law, moved(law, float(rng.uniform(low, high)) * direction(rng, dim), scale)


def healthy(rng: Rng) -> Pair:
    """A critic at its best response."""
    dim = int(rng.integers(1, 13))
    p, q = overlapping(rng, dim)
    critic, (loss, penalties) = network(rng, dim), game(rng)
    rows = p(4000)
    fit(critic, rows, q(4000), loss, penalties)
    return Pair(critic, p(HELD), q(HELD), loss, penalties, train_real=rows, words=str(loss))


def _amp(scores: Tensor) -> Tensor:
    return -torch.log(torch.clamp(1 - torch.sigmoid(scores), min=1e-4))


def _clipped(scores: Tensor) -> Tensor:
    return torch.clamp(1 - 0.25 * (scores - 1).square(), min=0)


def saturated(rng: Rng) -> Pair:
    """A critic of laws far apart, with nothing that bounds its slope and a reward that ends."""
    dim = int(rng.integers(2, 13))
    law = base(rng, dim)
    far = moved(law, float(rng.uniform(8, 12)) * direction(rng, dim))
    critic, kind = network(rng, dim), int(rng.integers(4))
    loss = (eq.Vanilla(saturating=True), eq.Vanilla(), eq.LeastSquares(), eq.Hinge())[kind]
    if kind == 3:
        critic.append(nn.Tanh())
    reward = {1: _amp, 2: _clipped}.get(kind)
    rows = law(4000)
    fit(critic, rows, far(4000), loss)
    return Pair(critic, law(HELD), far(HELD), loss, (), reward, rows, words=f"{loss}, kind {kind}")


def smothered(rng: Rng) -> Pair:
    """A critic whose penalty is far too heavy."""
    dim = int(rng.integers(1, 13))
    p, q = overlapping(rng, dim, 1.2, 2.5)
    loss = (eq.Vanilla(), eq.Hinge(), eq.LeastSquares())[int(rng.integers(3))]
    weight = float(10 ** rng.uniform(2, 3.5))
    critic, penalties = network(rng, dim), (R1(weight), R2(weight))
    rows = p(4000)
    fit(critic, rows, q(4000), loss, penalties)
    words = f"{loss}, weight {weight:.0f}"
    return Pair(critic, p(HELD), q(HELD), loss, penalties, train_real=rows, words=words)


def memorising(rng: Rng) -> Pair:
    """A critic that saw few real samples many times."""
    dim = int(rng.integers(3, 13))
    p, q = overlapping(rng, dim, 0.0, 1.2)
    critic = network(rng, dim, width=128)
    loss = (eq.Vanilla(), eq.Hinge(), eq.LeastSquares())[int(rng.integers(3))]
    rows = p(int(rng.integers(8, 41)))
    fit(critic, rows, q(4000), loss, steps=2 * STEPS)
    return Pair(critic, p(HELD), q(HELD), loss, train_real=rows, words=f"{loss}, {len(rows)} rows")


def lagging(rng: Rng) -> Pair:
    """A critic that was trained too little, or against samples of long ago."""
    dim = int(rng.integers(1, 13))
    critic, (loss, penalties) = network(rng, dim), game(rng)
    law = base(rng, dim)
    by = float(rng.uniform(1.2, 2.5)) * direction(rng, dim)
    p, q = law, moved(law, by)
    rows = p(4000)
    if rng.random() < 0.5:
        steps = int(rng.integers(0, 11))
        fit(critic, rows, q(4000), loss, penalties, steps, lr=1e-4, falling=False)
        words = f"{loss}, {steps} steps"
    else:
        fit(critic, rows, moved(law, -by)(4000), loss, penalties)
        words = f"{loss}, behind"
    return Pair(critic, p(HELD), q(HELD), loss, penalties, train_real=rows, words=words)


class Masked(nn.Module):
    """A critic whose input loses some columns."""

    def __init__(self, body: nn.Module, keep: Tensor) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("keep", keep)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * self.keep)


def blind(rng: Rng) -> Pair:
    """A critic that does not see some columns, which tell something of their own."""
    dim = int(rng.integers(3, 13))
    masked = sorted(rng.choice(dim, int(rng.integers(1, max(2, dim // 3))), replace=False).tolist())
    seen = float(rng.uniform(0.3, 1.2)) * direction(rng, dim)
    shift, scale = torch.where(torch.arange(dim)[:, None] == torch.tensor(masked), 1, 0).sum(1), 1.0
    spread = rng.random() < 0.3
    widths = torch.ones(dim)
    if spread:
        widths = torch.where(shift > 0, torch.tensor(float(rng.uniform(1.8, 2.5))), widths)
        by = seen * (1 - shift)
    else:
        by = seen * (1 - shift) + float(rng.uniform(0.8, 1.5)) * shift
    mixed = rng.random() < 0.5

    def p(n: int) -> Tensor:
        x = torch.randn(n, dim)
        return x + 0.3 * x.roll(1, 1) if mixed else x

    def q(n: int) -> Tensor:
        return scale * p(n) * widths + by

    keep = 1.0 - shift.float()
    body, (loss, penalties) = network(rng, dim), game(rng)
    inside = rng.random() < 0.5
    critic: nn.Module = Masked(body, keep)
    rows = p(4000)
    fit(critic, rows, q(4000), loss, penalties)
    if not inside:  # the same function as a plain network, which a fresh critic sees with
        critic = body
        with torch.no_grad():
            first = critic[0]
            assert isinstance(first, nn.Linear)
            first.weight *= keep
    words = f"{loss}, columns {masked}, {'spread' if spread else 'shift'}"
    return Pair(
        critic,
        p(HELD),
        q(HELD),
        loss,
        penalties,
        train_real=rows,
        masked=tuple(masked),
        words=words,
    )


MADE: dict[str, Callable[[Rng], Pair]] = {
    "healthy": healthy,
    "saturated": saturated,
    "smothered": smothered,
    "memorising": memorising,
    "lagging": lagging,
    "blind": blind,
}


def audited(kind: str, seed: int) -> dict[str, Any]:
    """Make one pair and audit it."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    torch.manual_seed(int(rng.integers(2**31)))
    begun = time.process_time()
    pair = MADE[kind](rng)
    made = time.process_time()
    found = eq.audit_critic(
        pair.critic, pair.real, pair.fake, pair.loss, penalties=pair.penalties, reward=pair.reward,
        train_real=pair.train_real, gradients=1500, seed=seed, progress="none",
    )  # fmt: skip
    named = [int(name.split()[1]) for name in found["not-blind"].evidence["blind_to"]]
    return {
        "states": list(found.states),
        "named_columns": named,
        "masked": pair.masked,
        "verdicts": {claim: c.verdict.value for claim, c in found.items()},
        "place": found.place,
        "evidence": {c: _short(found[c].evidence) for c in list(found)[:6]},
        "words": pair.words,
        "seconds": [round(made - begun, 2), round(time.process_time() - made, 2)],
    }


def _short(evidence: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in evidence.items() if not isinstance(v, list | dict) or len(v) == 2}


def right(kind: str, row: dict[str, Any]) -> bool:
    """Whether the planted state was established and is the first that is named; of a blind critic, with the right
    columns and no other. A flat reward follows from several states and is not counted against any."""
    states = [s for s in row["states"] if s != "uninformative"]
    if kind == "blind" and not set(row["named_columns"]) <= set(row["masked"]):
        return False
    return bool(states) and states[0] == kind


def run(folder: Path, kinds: list[str], halves: str, count: int | None) -> None:
    """Every pair whose answer is not kept yet."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for kind in kinds:
        path = folder / f"{kind}.jsonl"
        kept = path.read_text().splitlines() if path.exists() else []
        done = {json.loads(line)["seed"] for line in kept}
        seeds = [
            s for s in range(count or COUNTS[kind]) if s not in done and halves in ("both", half(s))
        ]
        with showing("auto", kind, len(seeds)) as bar:
            for k, seed in enumerate(seeds):
                found = audited(kind, seed)
                with path.open("a") as out:
                    out.write(json.dumps({"seed": seed} | found) + "\n")
                bar.update(k + 1, {})


def half(seed: int) -> str:
    """Which half a seed belongs to."""
    return "held-back" if seed % 2 else "development"


def report(folder: Path) -> None:
    """The table."""
    columns = (*KINDS[1:], "uninformative")
    for name in ("development", "held-back"):
        print(f"\n{name} seeds\n")
        print(f"| planted | {' | '.join(columns)} | none | right |")
        print("|---|" + "---|" * (len(columns) + 2))
        hits = planted = 0
        for kind in KINDS:
            path = folder / f"{kind}.jsonl"
            lines = path.read_text().splitlines() if path.exists() else []
            rows = [r for r in map(json.loads, lines) if half(r["seed"]) == name]
            counts = [sum(c in r["states"] for r in rows) for c in columns]
            none = sum(not r["states"] for r in rows)
            good = none if kind == "healthy" else sum(right(kind, r) for r in rows)
            if kind != "healthy":
                hits, planted = hits + good, planted + len(rows)
            print(
                f"| {kind} | {' | '.join(map(str, counts))} | {none} | {share(good, len(rows))} |"
            )
            if kind == "healthy":
                alarms = share(len(rows) - none, len(rows))
        print(f"\nRight: {share(hits, planted)}; false alarms on healthy critics: {alarms}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--folder", type=Path, default=Path("runs/critic_calibration"))
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--half", choices=("development", "held-back", "both"), default="both")
    parser.add_argument("--count", type=int, help="fewer pairs of each kind")
    options = parser.parse_args()
    if options.what == "run":
        run(options.folder, options.only, options.half, options.count)
    report(options.folder)


if __name__ == "__main__":
    main()
