"""What an audit through losses of one's own costs, over the same audit through `GAN`.

The claim: at most 1.1 times. Pairs of whole audits are interleaved; the ratio of their process times is shown with the
quartiles over pairs. "joint" scores real and generated samples in one pass of the critic, as `GAN` does: what it costs
more is overhead. "plain" computes every loss at every call and scores in passes of their own, as most loops are
written; "only" leaves out what the player that is asked for does not need. The small pair measures overhead, the
larger one arithmetic.

OMP_NUM_THREADS=1 python benchmarks/own_losses.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from bench_rows import Row, keep
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from equilibrist import GAN, AdversarialGame
from equilibrist.checks import audit_game
from equilibrist.data import source_of

BOUND = 1.1
SIZES = {"2x16, 2-d": (2, 16), "2x128, 64-d": (64, 128)}


def net(first: int, width: int, last: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(first, width),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, last),
    )


def plain(modules: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    fake = modules.generator(z)
    on_fake = modules.critic(fake.detach())
    critic = F.softplus(-modules.critic(x)).mean() + F.softplus(on_fake).mean()
    return {"critic": critic, "generator": F.softplus(-modules.critic(fake)).mean()}


def joint(modules: Any, x: Tensor, z: Tensor, only: str | None = None) -> dict[str, Tensor]:
    fake = modules.generator(z)
    if only == "generator":
        return {"generator": F.softplus(-modules.critic(fake)).mean()}
    on_real, on_fake = modules.critic(torch.cat([x, fake])).tensor_split([len(x)])
    critic = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
    return {"critic": critic, "generator": F.softplus(-on_fake).mean()}


def only_what_is_asked(
    modules: Any, x: Tensor, z: Tensor, only: str | None = None
) -> dict[str, Tensor]:
    found, fake = {}, modules.generator(z)
    if only != "generator":
        on_fake = modules.critic(fake.detach())
        found["critic"] = F.softplus(-modules.critic(x)).mean() + F.softplus(on_fake).mean()
    if only != "critic":
        found["generator"] = F.softplus(-modules.critic(fake)).mean()
    return found


def spent(action: Callable[[], object]) -> float:
    begun = time.process_time()
    action()
    return time.process_time() - begun


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--gradients", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    above = 0
    for name, (dim, width) in SIZES.items():
        torch.manual_seed(0)
        generator, critic, x = net(8, width, dim), net(dim, width, 1), torch.randn(4000, dim)
        gan = GAN(generator, critic, "vanilla", latent=8)
        games: dict[str, tuple[Any, Any]] = {"gan": (gan, source_of(x))}
        for function in (joint, plain, only_what_is_asked):
            own = AdversarialGame(
                {"generator": generator, "critic": critic},
                function,
                x,
                latent=8,
                samples=lambda modules, x, z: (x, modules.generator(z)),
                score=lambda modules, x: modules.critic(x),
                formulation="vanilla",
            )
            games[function.__name__] = (own, own.data)

        def audit(which: str, games: Any = games) -> float:
            game, data = games[which]
            return spent(
                lambda: audit_game(
                    game, *game.init(), data, gradients=options.gradients, progress="none"
                )
            )

        for which in games:
            audit(which)
        ratios: dict[str, list[float]] = {which: [] for which in games if which != "gan"}
        for k in range(options.pairs):
            order = list(games) if k % 2 else list(games)[::-1]
            seconds = {which: audit(which) for which in order}
            for which, seen in ratios.items():
                seen.append(seconds[which] / seconds["gan"])
        for which, seen in ratios.items():
            low, middle, high = statistics.quantiles(seen, n=4)
            kept = "" if middle <= BOUND else "  ABOVE"
            above += bool(kept)
            keep(
                Row(
                    "Losses of one's own",
                    f"{name}, {which}",
                    "the same GAN",
                    middle,
                    low,
                    high,
                    BOUND,
                )
            )
            print(
                f"{name:14} {which:20} {middle:.3f} ({low:.3f} to {high:.3f}), bound {BOUND}{kept}"
            )
    return int(above > 0)


if __name__ == "__main__":
    sys.exit(main())
