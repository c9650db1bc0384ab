"""Our solvers against public implementations of the same method, side by side; what is not installed is skipped.

    pip install cooper-optim CGDs optax jax curvlinops-for-pytorch      # the ones that run today
    python benchmarks/public_solvers.py [--pairs 15] [--only NAME] [--threads 1]

The game is the zero-sum vanilla GAN of two MLPs with SGD; both sides meet the same minibatches, drawn beforehand, a
new one each step. Interleaved blocks A B A B ..., the order alternating: medians and quartiles of ours / theirs.

- cooper's ExtraSGD: extragradient, one optimiser a player, gradients from one backward pass.
- CGDs' BCGD: competitive gradient descent, solved to the same relative residual (its tolerance is of squares).
- curvlinops' product with the critic's Hessian, on the same minibatch.
- optax's optimistic gradient: the whole step in one jitted function, which XLA compiles. Ours is eager PyTorch: where
  the networks are small its time is the interpreter's, which a compiled step has not: compiled rows are the same step
  through `CompiledStep`.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from bench_rows import Row, arguments, keep
from torch import Tensor, nn
from torch.nn.functional import softplus

from equilibrist import VectorField
from equilibrist.compiled import CompiledStep
from equilibrist.core.draws import Draws
from equilibrist.core.jacobian import HessianOperator
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN
from equilibrist.optimizers import SGD
from equilibrist.solvers import Competitive, Extragradient, Optimistic

LATENT, POOL = 16, 32
OPTAX = "compiled optimistic / optax, jitted"
BOUNDS = {(OPTAX, "4x16, batch 64"): 1.5, (OPTAX, "3x128, batch 512"): 1.1}
Stepper = Callable[[int], None]


@dataclass(frozen=True)
class Case:
    """Two MLPs of `depth` hidden layers of `width`."""

    width: int
    depth: int
    batch: int
    steps: int  # in one timed block

    def networks(self) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        return mlp(LATENT, 2, self), mlp(2, 1, self)

    def pool(self) -> list[dict[str, Tensor]]:
        rng = torch.Generator().manual_seed(0)
        shapes = {"real": (self.batch, 2), "latent": (self.batch, LATENT)}
        return [{k: torch.randn(s, generator=rng) for k, s in shapes.items()} for _ in range(POOL)]


def mlp(inputs: int, outputs: int, case: Case) -> nn.Module:
    """Linear layers and ReLUs."""
    widths = [inputs, *[case.width] * case.depth]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(case.width, outputs))


def ours(case: Case, solver: Any, compiled: bool = False) -> Stepper:
    game = GAN(*case.networks(), Vanilla(saturating=True), latent=LATENT)
    field, pool = VectorField(game), case.pool()
    players, constants = game.init()
    held = {"players": players, "constants": constants, "state": solver.init(players)}
    take = CompiledStep(solver, field) if compiled else partial(solver.step, field)

    def step(k: int) -> None:
        draws = Draws(lambda rng: pool[k % POOL], 0, k)
        held["players"], held["constants"], held["state"], _ = take(
            held["players"], held["constants"], held["state"], draws
        )

    return step


def value(generator: nn.Module, critic: nn.Module, draw: dict[str, Tensor]) -> Tensor:
    """V, up to its constant: the critic goes up, the generator down."""
    fake = critic(generator(draw["latent"]))
    return -(softplus(-critic(draw["real"])).mean() + softplus(fake).mean())


def cooper(case: Case, rate: float) -> Stepper:
    optim = importlib.import_module("cooper.optim")
    generator, critic = case.networks()
    sides = [list(generator.parameters()), list(critic.parameters())]
    rules, pool = [optim.ExtraSGD(side, lr=rate) for side in sides], case.pool()

    def step(k: int) -> None:
        for move in ("extrapolation", "step"):
            loss = value(generator, critic, pool[k % POOL])
            grads = torch.autograd.grad(loss, [*sides[0], *sides[1]])
            for p, g in zip(sides[0], grads, strict=False):
                p.grad = g
            for p, g in zip(sides[1], grads[len(sides[0]) :], strict=True):
                p.grad = -g
            for rule in rules:
                getattr(rule, move)()

    return step


def bcgd(case: Case, rate: float) -> Stepper:
    cgds = importlib.import_module("CGDs")
    generator, critic = case.networks()
    sides = [list(critic.parameters()), list(generator.parameters())]
    rule = cgds.BCGD(*sides, lr_max=rate, lr_min=rate, tol=1e-12, atol=1e-30)
    pool = case.pool()

    def step(k: int) -> None:
        rule.zero_grad()
        rule.step(value(generator, critic, pool[k % POOL]))

    return step


def optimistic(case: Case, rate: float, scanned: bool = False) -> Stepper:
    """optax's step; `scanned`: a whole timed block of them in one call, the minibatches on the device."""
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
    jnp = jax.numpy
    layers = [
        [(jnp.asarray(m.weight.detach().numpy().T), jnp.asarray(m.bias.detach().numpy()))
         for m in network.modules() if isinstance(m, nn.Linear)]
        for network in case.networks()
    ]  # fmt: skip
    pool = [{k: jnp.asarray(t.numpy()) for k, t in draw.items()} for draw in case.pool()]
    rule = optax.optimistic_gradient_descent(rate)

    def forward(network: Any, x: Any) -> Any:
        for weight, bias in network[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ network[-1][0] + network[-1][1]

    def loss(players: Any, draw: Any) -> Any:
        generator, critic = players
        fake = forward(critic, forward(generator, draw["latent"]))
        on_real = jax.nn.softplus(-forward(critic, draw["real"])).mean()
        return -(on_real + jax.nn.softplus(fake).mean())

    def moved(players: Any, state: Any, draw: Any) -> Any:
        down, up = jax.grad(loss)(players, draw)
        v = [down, jax.tree_util.tree_map(lambda g: -g, up)]
        updates, state = rule.update(v, state, players)
        return optax.apply_updates(players, updates), state

    held = {"players": layers, "state": rule.init(layers)}
    single = jax.jit(moved)
    stacked = {k: jnp.stack([pool[i % POOL][k] for i in range(case.steps)]) for k in pool[0]}

    @jax.jit
    def block_of(players: Any, state: Any) -> Any:
        return jax.lax.scan(lambda at, draw: (moved(*at, draw), None), (players, state), stacked)[0]

    def step(k: int) -> None:
        if scanned and k % case.steps:
            return  # done by the block's first
        now = held["players"], held["state"]
        found = block_of(*now) if scanned else single(*now, pool[k % POOL])
        held["players"], held["state"] = jax.block_until_ready(found)

    return step


def hessian_product(case: Case) -> tuple[Stepper, Stepper]:
    """A product with the critic's Hessian, ours and curvlinops'."""
    curvlinops = importlib.import_module("curvlinops")
    generator, critic = case.networks()
    draw = case.pool()[0]
    game = GAN(generator, critic, Vanilla(saturating=True), latent=LATENT)
    players, constants = game.init()
    mine = HessianOperator(VectorField(game), players, constants, [draw], "critic")
    with torch.no_grad():
        fake = generator(draw["latent"])
    inputs = torch.cat([draw["real"], fake])
    labels = torch.cat([torch.ones(case.batch, 1), torch.zeros(case.batch, 1)])
    loss = nn.BCEWithLogitsLoss()
    theirs = curvlinops.HessianLinearOperator(
        critic, loss, list(critic.parameters()), [(inputs, labels)], check_deterministic=False
    )
    u = torch.randn(mine.shape[1], generator=torch.Generator().manual_seed(0))
    apart = (2 * (theirs @ u) - mine @ u).norm() / (mine @ u).norm()
    assert float(apart) < 1e-3, f"not the same Hessian: {float(apart):.2g}"
    return (lambda k: mine @ u), (lambda k: theirs @ u)


CASES = {
    "4x16, batch 64": Case(16, 4, 64, 40),
    "3x128, batch 512": Case(128, 3, 512, 12),
}
# name: (our solver, theirs, the package that must be there)
ROWS: dict[str, tuple[Any, Callable[[Case], Stepper], str]] = {
    "compiled extragradient / cooper": (
        Extragradient(SGD(1e-3)),
        lambda case: cooper(case, 1e-3),
        "cooper",
    ),
    "compiled optimistic / optax, jitted": (
        Optimistic(SGD(1e-3)),
        lambda case: optimistic(case, 1e-3),
        "optax",
    ),
    "extragradient / cooper": (
        Extragradient(SGD(1e-3)),
        lambda case: cooper(case, 1e-3),
        "cooper",
    ),
    "competitive / CGDs": (Competitive(SGD(1e-2)), lambda case: bcgd(case, 1e-2), "CGDs"),
    "optimistic / optax, jitted": (
        Optimistic(SGD(1e-3)),
        lambda case: optimistic(case, 1e-3),
        "optax",
    ),
    "compiled optimistic / JAX scan": (
        Optimistic(SGD(1e-3)),
        lambda case: optimistic(case, 1e-3, scanned=True),
        "optax",
    ),
    "product with a Hessian / curvlinops": (
        None,
        lambda case: hessian_product(case)[1],
        "curvlinops",
    ),
}


def block(step: Stepper, steps: int, begin: int) -> float:
    """Milliseconds a step."""
    begun = time.perf_counter()
    for k in range(steps):
        step(begin + k)
    return (time.perf_counter() - begun) / steps * 1e3


def main() -> int:
    parser = arguments(__doc__, 15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.pairs} pairs")
    print(f"{'ours / theirs':44} {'ms':>7} {'theirs':>7} {'ratio':>6} {'quartiles':>13}")
    for name, (solver, theirs, package) in ROWS.items():
        try:
            importlib.import_module(package)
        except ImportError:
            print(f"{name:44} skipped: {package} is not installed")
            continue
        for size, case in CASES.items():
            label = f"{name}, {size}"
            if options.only not in label:
                continue
            if solver is None:
                sides = list(hessian_product(case))
            else:
                sides = [ours(case, solver, name.startswith("compiled")), theirs(case)]
            for side in sides:
                block(side, 5, 0)
            pairs = []
            for i in range(options.pairs):
                order = (0, 1) if i % 2 == 0 else (1, 0)
                took = {one: block(sides[one], case.steps, i * case.steps) for one in order}
                pairs.append((took[0], took[1]))
            low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
            mine, other = (statistics.median(p[i] for p in pairs) for i in (0, 1))
            mine_of, rival = name.split(" / ")
            bound = BOUNDS.get((name, size))
            label_of = f"{mine_of}, {size}"
            keep(Row("Public solvers", label_of, rival, middle, low, high, bound, mine, other))
            print(
                f"{label:44} {mine:7.2f} {other:7.2f} {middle:6.3f} {low:6.3f}-{high:5.3f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
