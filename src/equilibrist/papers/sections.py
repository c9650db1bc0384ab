"""Farnia and Ozdaglar 2020, sections 2 and 6.1: the generator trained on alone, on V and on V_prox."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from equilibrist.certificates import Json
from equilibrist.checks import audit
from equilibrist.files.atomic import write_json
from equilibrist.files.reading import parse_json
from equilibrist.papers.looks import looks
from equilibrist.papers.model import (
    Claim,
    ClaimOutcome,
    Experiment,
    Measures,
    Records,
    Size,
    Unit,
    Workspace,
)
from equilibrist.papers.sources import FARNIA
from equilibrist.papers.training import seed_folder, taken_up, train_seeds
from equilibrist.recipe_lookup import resolve
from equilibrist.run.recipe import Recipe
from equilibrist.statistics import Estimate, estimate

CLAIM = "generator-vs-prox"
GANS = {"wgan-wc": "WGAN-WC", "wgan-gp": "WGAN-GP", "sngan": "SN-GAN"}
SETTINGS: Mapping[str, Json] = {
    "mnist-wgan-wc": {"critic_batch_norm": False},
    "cifar10-wgan-wc": {"critic_batch_norm": False},
    "digits-sngan": {"latent": 16},
    "digits-wgan-gp": {"latent": 16},
    "digits-wgan-wc": {"latent": 16},
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """Data sets, width, generator iterations of training and of the experiment, seeds, whether these are stacked,
    and the minutes of a seed."""

    data: tuple[str, ...]
    dim: int
    steps: int
    alone: int
    seeds: tuple[int, ...]
    stacked: bool
    minutes: float


SCALES: dict[Size, Scale] = {
    "tiny": Scale(("digits",), 8, 1500, 60, tuple(range(10)), True, 1.5),
    "small": Scale(("mnist", "cifar10"), 16, 2000, 200, (0, 1, 2), False, 40),
    "paper": Scale(("mnist", "cifar10"), 64, 200_000, 10_000, (0, 1, 2), False, 30_000),
}


def units(size: Size) -> tuple[Unit, ...]:
    """A unit a data set, GAN and group of seeds."""
    scale = SCALES[size]
    groups = [scale.seeds] if scale.stacked else [(seed,) for seed in scale.seeds]
    return tuple(
        Unit(
            f"{data}-{gan}" + ("" if scale.stacked else f"-seed-{seeds[0]}"),
            f"{GANS[gan]} on {data}, seeds {seeds[0]} to {seeds[-1]}: trained, then its generator alone",
            scale.minutes * len(seeds),
            partial(_alone, scale, data, gan, seeds),
        )
        for seeds in groups
        for data in scale.data
        for gan in GANS
    )


def _recipe(scale: Scale, data: str, gan: str) -> Recipe:
    name = f"{data}-{gan}"
    settings = {"dim": scale.dim, "steps": scale.steps, **SETTINGS.get(name, {})}
    made: Recipe = resolve(name, settings, builtin=True).build()
    return made


def _alone(scale: Scale, data: str, gan: str, seeds: Sequence[int], place: Workspace) -> Measures:
    scores = looks(data, place.weights)
    made = dataclasses.replace(_recipe(scale, data, gan), scores=scores)
    found = train_seeds(place, made, seeds, scores=scores, looks=5, stacked=scale.stacked)
    alone = {
        str(seed): _experiment(scale, made, seed, place, picture=seed == seeds[0])
        for seed in seeds
        if found["seeds"][str(seed)]["diverged"] is None
    }
    return {**found, "alone": alone}


def _experiment(scale: Scale, made: Recipe, seed: int, place: Workspace, picture: bool) -> Json:
    """The falls of both objectives from one pair; kept beside the run."""
    where = seed_folder(place.runs, seed)
    path = where / "alone.json"
    if path.exists():
        held: Json = parse_json(path.read_bytes())
        return held
    run = taken_up(place.runs, made, seed, place.device)
    answer = audit(
        run, checks=(CLAIM,), experiment_steps=scale.alone, looks=10, progress="none", write=picture
    )[CLAIM]
    evidence = answer.evidence
    kept: Json = {
        str(key): evidence[key]
        for key in ("fall", "interval", "frozen_fall", "frozen_interval", "unit", "curves")
        if key in evidence
    }
    kept["verdict"] = answer.verdict.value
    kept["tolerance"] = None if answer.tolerance is None else answer.tolerance.value
    if picture:
        kept["pictures"] = _pictures(where / "audit", evidence.get("samples") or {}, place)
    write_json(path, kept)
    return kept


def _pictures(audit_folder: Path, samples: Json, place: Workspace) -> dict[str, str]:
    """Samples before, after V and after V_prox, beside the record."""
    names = {}
    for what, name in samples.items():
        source = audit_folder / str(name)
        if source.suffix == ".png" and source.exists():
            target = place.pictures / f"{place.stem}-{what}.png"
            shutil.copyfile(source, target)
            names[str(what)] = target.name
    return names


# -- what became of it ------------------------------------------------------------------------------


def falls(records: Records) -> dict[tuple[str, str], list[Json]]:
    """What every pair's experiment found, by data set and GAN."""
    found: dict[tuple[str, str], list[Json]] = {}
    for key, record in records.items():
        data, _, rest = key.partition("-")
        gan = next(name for name in GANS if rest.startswith(name))
        for one in record.measures.get("alone", {}).values():
            found.setdefault((data, gan), []).append(one)
    return found


def ratios(pairs: Sequence[Json]) -> Estimate:
    """The fall of V_prox over that of V with D frozen, where the latter is beyond the tolerance."""
    return estimate(
        [
            one["fall"] / one["frozen_fall"]
            for one in pairs
            if one.get("frozen_fall") and one["frozen_fall"] > (one.get("tolerance") or 0.0)
        ]
    )


def judge_frozen(records: Records) -> ClaimOutcome:
    """Section 2: every pair's generator alone gains beyond the tolerance."""
    found = falls(records)
    pairs = [one for group in found.values() for one in group]
    if not pairs:
        return ClaimOutcome("not tried", "no pair yet")
    sure = sum(one["frozen_interval"][0] > (one.get("tolerance") or 0.0) for one in pairs)
    words = "; ".join(
        f"{GANS[gan]} on {data}: {estimate([one['frozen_fall'] for one in group])} {group[0]['unit']}"
        for (data, gan), group in found.items()
    )
    why = f"{sure} of {len(pairs)} pairs fall beyond the tolerance (95%); {words}"
    if sure == len(pairs):
        return ClaimOutcome("holds", why)
    return ClaimOutcome("holds in part" if sure else "does not hold", why)


def judge_proximal(records: Records) -> ClaimOutcome:
    """Section 6.1: V_prox falls by less than a tenth of V's fall."""
    found = {key: ratios(group) for key, group in falls(records).items()}
    found = {key: one for key, one in found.items() if one.n >= 2}
    if not found:
        return ClaimOutcome("not tried", "fewer than two pairs of any GAN yet")
    words = "; ".join(f"{GANS[gan]} on {data}: {one}" for (data, gan), one in found.items())
    why = f"fall of V_prox over fall of V: {words}"
    below = [one.high is not None and one.high < 0.1 for one in found.values()]
    if all(below):
        return ClaimOutcome("holds", why)
    if any(below) or all(one.high is not None and one.high < 0.5 for one in found.values()):
        return ClaimOutcome("holds in part", why)
    if all(one.low is not None and one.low > 0.5 for one in found.values()):
        return ClaimOutcome("does not hold", why)
    return ClaimOutcome("undecided", why)


def judge_equilibrium(records: Records) -> ClaimOutcome:
    """Section 6.1: the pairs are proximal equilibria at lambda = 0.1, to the tolerance."""
    pairs = [one for group in falls(records).values() for one in group]
    if not pairs:
        return ClaimOutcome("not tried", "no pair yet")
    count = {
        w: sum(one["verdict"] == w for one in pairs)
        for w in ("REFUTED", "NOT_REFUTED", "UNASSESSED")
    }
    why = ", ".join(f"{n} {word}" for word, n in count.items()) + f" of {len(pairs)} pairs"
    if count["REFUTED"] == 0 and count["UNASSESSED"] == 0:
        return ClaimOutcome("holds", why)
    if count["REFUTED"] == len(pairs):
        return ClaimOutcome("does not hold", why)
    return ClaimOutcome("holds in part" if count["NOT_REFUTED"] else "undecided", why)


def markdown_tables(records: Records, folder: Path) -> list[str]:
    """Falls by data set and GAN, and the pictures of one seed."""
    lines = [
        "| pair | seeds | V falls, D frozen | V_prox falls, lambda = 0.1 | ratio | tolerance |",
        "|---|---|---|---|---|---|",
    ]
    for (data, gan), group in falls(records).items():
        frozen, prox = (estimate([one[k] for one in group]) for k in ("frozen_fall", "fall"))
        lines.append(
            f"| {GANS[gan]} on {data} ({group[0]['unit']}) | {len(group)} | {frozen} | {prox} | {ratios(group)} "
            f"| {estimate([one['tolerance'] for one in group]).mean:.3g} |"
        )
    for key, record in records.items():
        for one in record.measures.get("alone", {}).values():
            for what, name in (one.get("pictures") or {}).items():
                lines += ["", f"![{key}: samples, {what}]({(folder / name).as_posix()})"]
    return lines


SECTIONS = Experiment(
    "farnia-sections-2-and-6.1",
    "The generator alone, on V and on V_prox",
    FARNIA,
    (
        Claim(
            "Section 2, figures 1 and 2",
            "Trained WGAN-WC, WGAN-GP and SN-GAN pairs are not Nash: with D frozen the generator lowers the objective "
            "at once.",
            "holds: in every pair the fall's 95% interval lies above the tolerance; in part: in some",
            judge_frozen,
        ),
        Claim(
            "Section 6.1, figures 4 and 5",
            "On V_prox with lambda = 0.1 the objective holds.",
            "the ratio of falls, V_prox over V, over seeds: holds where its 95% interval lies below 0.1 for every GAN; "
            "in part: for one, or below 0.5 for all; does not hold: above 0.5 for all",
            judge_proximal,
        ),
        Claim(
            "Section 6.1, its conclusion",
            "The pairs found are local proximal equilibria.",
            "the audit's verdict at lambda = 0.1, to 2% of the loss's scale: holds where no pair is refuted or "
            "unassessed",
            judge_equilibrium,
        ),
    ),
    units,
    {
        "tiny": "8x8 digits, width 8, 1,500 iterations, 60 steps alone; ten seeds.",
        "small": "MNIST and CIFAR-10 at width 16, 2,000 iterations instead of 200,000, 200 steps alone instead of "
        "10,000.",
        "paper": "CIFAR-10 in place of CelebA.",
    },
    markdown_tables,
)
