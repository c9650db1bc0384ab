"""Mirror-GAN and Mirror-Prox-GAN against SGD, Adam and RMSProp at equal compute: methods, tuning, and the comparison.

Every run spends the same number of minibatch gradients, generator's and critic's together, on minibatches of one
size. Every method is tuned on six settings, three step sizes times two paces: a plain method takes so many critic steps
to a generator step, a mirror method so many inner steps against a frozen opponent. Langevin steps are preconditioned
as RMSProp is, and the critic's are five times the generator's, for players of one pace cycle.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from equilibrist.langevin import RMSPropSGLD
from equilibrist.optimizers import SGD, Adam, Optimizer, RMSProp
from equilibrist.papers.model import ClaimOutcome, Measures, Records, Workspace
from equilibrist.papers.training import last, seed_folder, train_seeds
from equilibrist.run.recipe import Recipe
from equilibrist.scores import Score
from equilibrist.solvers import Alternating, MirrorGAN, MirrorProxGAN, Solver
from equilibrist.statistics import Estimate, estimate, holm, paired

RATIO = 5.0  # of a mirror method's step sizes, the critic's over the generator's
PACES = (1, 5)


class Hyperparameters(NamedTuple):
    """The generator's step size, and critic steps or inner steps."""

    rate: float
    pace: int

    def __str__(self) -> str:
        return f"{self.rate:g}, {self.pace}"


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train: its solver at a setting (and noise), and how many gradients a step takes.

    Attributes:
        key: in names of units.
        title: for people.
        build: the solver, from a setting and the noise of Langevin steps.
        price, base: a step takes base + price * pace minibatch gradients, of both players together.
        particles: networks a player.
    """

    key: str
    title: str
    build: Callable[[Hyperparameters, float], Solver]
    price: int
    base: int = 0
    particles: int = 1

    @property
    def mirror(self) -> bool:
        """Whether it is a method of the paper."""
        return self.key.startswith("mirror")

    def steps(self, setting: Hyperparameters, gradients: int) -> int:
        """Steps that `gradients` minibatch gradients pay for."""
        return max(1, gradients // (self.base + self.price * setting.pace))


def _plain(rule: Callable[[float], Optimizer]) -> Callable[[Hyperparameters, float], Solver]:
    return lambda setting, noise: Alternating(setting.pace, rule(setting.rate))


def _mirror(kind: type[MirrorGAN]) -> Callable[[Hyperparameters, float], Solver]:
    def build(setting: Hyperparameters, noise: float) -> Solver:
        generator, critic = (
            RMSPropSGLD(setting.rate * ratio, noise, decay=0.9) for ratio in (1.0, RATIO)
        )
        return kind(generator, {"critic": critic}, inner=setting.pace)

    return build


PLAIN = (
    # SGD's gradients are not divided by their size: its step sizes are larger.
    Method("sgd", "SGD", _plain(lambda rate: SGD(30 * rate)), 1, 1),
    Method("rmsprop", "RMSProp", _plain(lambda rate: RMSProp(rate, 0.9)), 1, 1),
    Method("adam", "Adam", _plain(lambda rate: Adam(rate, 0.5, 0.9)), 1, 1),
)
MEAN = (
    Method("mirror-gan", "Mirror-GAN, mean network", _mirror(MirrorGAN), 2),
    Method("mirror-prox-gan", "Mirror-Prox-GAN, mean network", _mirror(MirrorProxGAN), 4),
)


def mixture(method: Method, particles: int) -> Method:
    """The same method on stacks of networks."""
    return dataclasses.replace(
        method,
        key=f"{method.key}-of-{particles}",
        title=f"{method.title.partition(',')[0]}, mixture of {particles}",
        particles=particles,
    )


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a unit spends.

    Attributes:
        gradients: of a run that counts; a tuning run takes a quarter.
        rates: the generator's step sizes.
        noise: of Langevin steps.
        seeds: that are compared.
        tuning: that settings are chosen on; none of `seeds`.
    """

    gradients: int
    rates: tuple[float, ...]
    noise: float
    seeds: tuple[int, ...]
    tuning: tuple[int, ...]

    @property
    def grid(self) -> tuple[Hyperparameters, ...]:
        """The settings that every method is tuned on."""
        return tuple(Hyperparameters(rate, pace) for rate in self.rates for pace in PACES)

    @property
    def total(self) -> float:
        """Gradients of all runs of a unit."""
        tuned = len(self.grid) * len(self.tuning) / 4
        return self.gradients * (tuned + len(self.seeds))


def tuned_and_trained(
    place: Workspace,
    method: Method,
    budget: Budget,
    recipe: Callable[[Method], Recipe],
    scores: Sequence[Score],
    decisive: Callable[[Iterable[str]], str],
    stacked: bool,
) -> Measures:
    """Tune on a quarter of the budget, then train every seed with the best setting.

    Runs that tuned stay in the unit's folder, so that an interrupted unit does not tune again.

    Args:
        recipe: game, data and batch of a method; solver and steps are replaced.
        scores: of samples.
        decisive: the name of the score that counts, out of those that were measured; lower is better.
        stacked: all seeds as one computation (small networks).

    Returns:
        As `training.trained`, without losses; and "tuning" (rate, pace, mean score, None where a seed diverged),
        "setting", "decisive".
    """

    def runs(
        name: str, setting: Hyperparameters, gradients: int, seeds: Sequence[int], looks: int
    ) -> dict[str, Measures]:
        made = dataclasses.replace(
            recipe(method),
            solver=method.build(setting, budget.noise),
            steps=method.steps(setting, gradients),
        )
        where = dataclasses.replace(place, runs=place.runs / name)
        done = train_seeds(where, made, seeds, scores=scores, looks=looks, stacked=stacked)
        by_seed: dict[str, Measures] = done["seeds"]
        return by_seed

    tuning: list[tuple[float, int, float | None]] = []
    for setting in budget.grid:
        name = f"tuning-{setting.rate:g}-{setting.pace}"
        found = runs(name, setting, budget.gradients // 4, budget.tuning, 1)
        ends = [last(one, decisive(one["scores"])) for one in found.values()]
        sound = [end for end in ends if end is not None and math.isfinite(end)]
        mean = sum(sound) / len(sound) if len(sound) == len(ends) else None
        tuning.append((*setting, mean))
    order = sorted(tuning, key=lambda one: math.inf if one[2] is None else one[2])
    best = Hyperparameters(order[0][0], order[0][1])
    seeds = runs("trained", best, budget.gradients, budget.seeds, 4)
    kept = {s: {k: one[k] for k in ("scores", "diverged", "reached")} for s, one in seeds.items()}
    names = [decisive(one["scores"]) for one in kept.values()]
    return {
        "seeds": kept,
        "tuning": [list(row) for row in tuning],
        "setting": list(best),
        "decisive": next(filter(None, names), ""),
    }


def newest_samples(place: Workspace, budget: Budget, kind: str) -> Path | None:
    """The first seed's last samples, as a file of this kind; None where it left none."""
    samples = seed_folder(place.runs / "trained", budget.seeds[0]) / "samples"
    return max(samples.glob(f"step_*.{kind}"), default=None)


# -- comparisons ----------------------------------------------------------------------------------------


class Contrast(NamedTuple):
    """A comparison to make: the method claimed to be better, the other, and the data they were trained on."""

    better: str
    worse: str
    data: str


class PairedDifference(NamedTuple):
    """How much closer one method came than another, over seeds (positive: it did), with p after correction."""

    contrast: Contrast
    gain: Estimate
    corrected: float = math.nan

    @property
    def sign(self) -> int:
        """1: closer, -1: further, 0: neither."""
        if not self.corrected < 0.05:
            return 0
        return 1 if self.gain.mean > 0 else -1

    def __str__(self) -> str:
        return (
            f"{self.contrast.better} over {self.contrast.worse} on {self.contrast.data}: {self.gain}, "
            f"p {self.corrected:.2g}"
        )


def measures(records: Records, data: str, method: str) -> Measures | None:
    """What the unit of a method on some data measured, or None."""
    record = records.get(f"{data}-{method}")
    return record.measures if record is not None and "seeds" in record.measures else None


def ends(records: Records, data: str, method: str) -> dict[int, float | None]:
    """The final distance of every seed, None for one that diverged."""
    found = measures(records, data, method)
    if found is None:
        return {}
    seeds = found["seeds"].items()
    return {int(seed): last(one, found["decisive"]) for seed, one in seeds}


def tuned_best(records: Records, data: str, methods: Sequence[Method]) -> str:
    """The method whose best setting tuned best; "" unless all of them ran."""
    found = {one.key: measures(records, data, one.key) for one in methods}
    if any(one is None for one in found.values()):
        return ""
    return min(
        found,
        key=lambda key: min(
            math.inf if row[2] is None else row[2] for row in (found[key] or {})["tuning"]
        ),
    )


def compared(
    records: Records, pairs: Mapping[str, Sequence[Contrast]]
) -> dict[str, list[PairedDifference]]:
    """All comparisons by claim, with p-values after Holm's correction for their number.

    A seed that diverged counts as the largest final distance of any run on the same data.
    """
    rows = {
        claim: [PairedDifference(one, _gain(records, one)) for one in asked]
        for claim, asked in pairs.items()
    }
    p = iter(holm([one.gain.p for row in rows.values() for one in row]))
    return {claim: [one._replace(corrected=next(p)) for one in row] for claim, row in rows.items()}


def _gain(records: Records, contrast: Contrast) -> Estimate:
    held = [key for key in records if key.startswith(f"{contrast.data}-")]
    every = [ends(records, contrast.data, key[len(contrast.data) + 1 :]) for key in held]
    sound = [value for one in every for value in one.values() if value is not None]
    worst = max(sound, default=math.nan)
    better, worse = (
        {s: worst if v is None else v for s, v in ends(records, contrast.data, key).items()}
        for key in (contrast.better, contrast.worse)
    )
    return paired(worse, better)


RULE = (
    "each method with the setting that tuned best, on seeds that tuned nothing; differences are paired by seed, and p "
    "is corrected after Holm over all comparisons of the experiment. A seed that diverged counts as the largest "
    "distance of any run on the same data. Holds: closer (p < 0.05) in every comparison named. Holds in part: in some, "
    "and further in none. Does not hold: further in one. Undecided: neither closer nor further"
)


def verdict(found: Sequence[PairedDifference], wanted: int) -> ClaimOutcome:
    """The rule above, for the comparisons of one claim."""
    sound = [one for one in found if one.gain.n > 1]
    if len(sound) < wanted:
        return ClaimOutcome(
            "not tried", f"{len(sound)} of {wanted} comparisons have two seeds or more"
        )
    why = "; ".join(map(str, sound))
    signs = [one.sign for one in sound]
    if min(signs) < 0:
        return ClaimOutcome("does not hold", why)
    if min(signs) > 0:
        return ClaimOutcome("holds", why)
    return ClaimOutcome("holds in part" if max(signs) > 0 else "undecided", why)


def markdown_tables(
    records: Records, data: str, methods: Sequence[Method], others: Sequence[str] = ()
) -> list[str]:
    """Final distances by method, other figures (the ends of scores' names), settings, divergence."""
    rows = [(one, found) for one in methods if (found := measures(records, data, one.key))]
    if not rows:
        return []
    head = "".join(f" {name} |" for name in others)
    lines = [
        f"{data}: {next((f['decisive'] for _, f in rows if f['decisive']), 'no distance')}, lower is better.",
        "",
        f"| method | rate, pace | distance |{head} tuning: best to worst | diverged |",
        "|---|---|---|" + "---|" * (len(others) + 2),
    ]
    for method, found in rows:
        seeds = found["seeds"].values()
        figures = [found["decisive"]] + [
            next((k for one in seeds for k in one["scores"] if k.endswith(f"/ {name}")), "")
            for name in others
        ]
        cells = " | ".join(str(estimate([last(one, name) for one in seeds])) for name in figures)
        tried = [row[2] for row in found["tuning"] if row[2] is not None]
        spread = f"{min(tried):.3g} to {max(tried):.3g}" if tried else "none"
        lost = len(found["tuning"]) - len(tried)
        spread += f", {lost} diverged" if lost else ""
        gone = sum(one["diverged"] is not None for one in seeds)
        setting = Hyperparameters(*found["setting"])
        lines.append(
            f"| {method.title} | {setting} | {cells} | {spread} | {gone} of {len(seeds)} |"
        )
    return [*lines, ""]


def gallery(
    records: Records, where: Path, data: str, title: str, methods: Sequence[Method]
) -> list[str]:
    """The methods' pictures in a row, named relative to the parent of the folder of all records."""
    shown = []
    for method in methods:
        found = measures(records, data, method.key)
        if found is not None and "picture" in found:
            path = (where / found["picture"]).relative_to(where.parents[2])
            shown.append(f"![{title}: {method.title}]({path.as_posix()})")
    if not shown:
        return []
    return ["Samples of the first seed, in the order of the table:", "", " ".join(shown), ""]
