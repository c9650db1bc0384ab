"""Run the checks, collect the certificates, write them beside the run."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from equilibrist._errors import RecipeError, RequirementError, did_you_mean
from equilibrist._files import finite, write_atomically, write_json
from equilibrist._game import Constants, Players
from equilibrist.checks._bench import Bench
from equilibrist.checks._bench_exact import ExactBench
from equilibrist.checks._registry import CHECKS, REGISTRY
from equilibrist.checks._settings import Settings
from equilibrist.checks.certificate import Certificate
from equilibrist.data import Source
from equilibrist.games import GAN
from equilibrist.run import Run, samples
from equilibrist.run.progress import showing
from equilibrist.schedules import base
from equilibrist.solvers import Averaged

FORMAT = 1


@dataclass(frozen=True)
class Audit:
    """Certificates by claim: `audit["nash"]`, `audit["stationary/critic"]`."""

    certificates: tuple[Certificate, ...]
    settings: Settings
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)
    sheets: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    precision: str = "float32"
    work: dict[str, dict[str, float]] = field(default_factory=dict)

    def __getitem__(self, claim: str) -> Certificate:
        for certificate in self.certificates:
            if certificate.claim == claim:
                return certificate
        known = [c.claim for c in self.certificates]
        hint = did_you_mean(claim, known)
        raise RequirementError(
            f"this audit says nothing of {claim!r}{hint}; its claims are {', '.join(known)}"
        )

    def __iter__(self) -> Iterator[Certificate]:
        return iter(self.certificates)

    def __str__(self) -> str:
        return "\n".join(
            f"{c.claim:22} {c.verdict.value:12} {c.summary}" for c in self.certificates
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in audit.json (docs/design.md)."""
        rows = []
        for c in self.certificates:
            row = {
                k: getattr(c, k)
                for k in ("claim", "player", "summary", "evidence", "scope", "limits", "references")
            }
            rows.append(
                row
                | {
                    "verdict": c.verdict.value,
                    "tolerance": asdict(c.tolerance) if c.tolerance else None,
                    "witness": f"nash_{c.player}.safetensors" if c.witness else None,
                }
            )
        value: dict[str, Any] = finite(
            {
                "format": FORMAT,
                **self.about,
                "seconds": round(self.seconds, 2),
                "work": self.work,
                "dtype": {"search": self.precision, "score": "float64"},
                "settings": self.settings.describe(),
                "certificates": rows,
            }
        )
        return value

    def save(
        self,
        directory: Path,
        data: Source,
        witnesses: dict[str, dict[str, torch.Tensor]] | None = None,
    ) -> None:
        """Write audit.json, the witnesses and the sheets as the folder `directory`, whole or not at all.

        `witnesses` are plain state_dicts by player, as `replayable` makes them: they load into the
        modules that `export` fills. Without them the players' own parameters are written.
        """
        aside = directory.with_name(f".{directory.name}.old")
        if aside.exists() and not directory.exists():
            os.replace(aside, directory)  # an earlier save died between its two renamings
        directory.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".audit.", suffix=".part"))
        try:
            os.chmod(part, 0o755)
            value = self.to_json()
            for c in self.certificates:
                if c.witness is not None and c.player is not None:
                    values = (witnesses or c.witness)[c.player]
                    flat = {k: t.cpu().contiguous().clone() for k, t in values.items()}
                    write_atomically(part / f"nash_{c.player}.safetensors", save(flat))
            names = {
                when: samples.write_sheet(part / f"nash_generator_{when}", sheet, data).name
                for when, sheet in self.sheets.items()
            }
            for row in value["certificates"]:
                if row["claim"] == "nash/generator" and names:
                    row["evidence"]["samples"] = names
            write_json(part / "audit.json", value)
            if directory.exists():
                if aside.exists():
                    shutil.rmtree(aside)
                os.replace(directory, aside)
            try:
                os.replace(part, directory)
            except BaseException:
                if aside.exists():
                    os.replace(aside, directory)
                raise
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def audit(
    run: Run,
    *,
    checks: Sequence[str] = CHECKS,
    progress: str = "auto",
    write: bool = True,
    iterate: str = "auto",
    **settings: Any,
) -> Audit:
    """Audit the pair that `run` holds and write the answer to RUN/audit.

    Args:
        run: what `train` or `load` returned. It is left as it was.
        checks: any of "stationary", "nash".
        progress: "auto", "bar", "lines" or "none".
        write: False keeps the answer in memory only.
        iterate: "last", "average" (where the solver keeps averages), or "auto": the average where
            there is one, for that is the generator that gets used.
        settings: fields of `Settings`; they override the recipe's own.

    Raises: RecipeError for an unknown check or setting.
    """
    if not isinstance(run, Run):
        raise RecipeError(
            f"audit needs a run, not {type(run).__name__}: pass what train or load returned"
        )
    recipe = run.recipe
    solver = recipe.solver
    while isinstance(solver, Averaged):
        solver = solver.solver
    rule = getattr(solver, "rule", None)
    players = run.pair(iterate)
    chosen = replace(
        Settings(
            batch=recipe.batch,
            optimizers={p: base(rule(p)) for p in recipe.game.players} if rule else {},
        ),
        **_known({**recipe.audit, **settings}),
    )
    result = audit_game(
        recipe.game,
        players,
        run.constants,
        run.data,
        chosen,
        iterate=_described(run, iterate),
        seed=run.seed,
        checks=checks,
        progress=progress,
        generator_batch=recipe.batch,
    )
    result = replace(
        result,
        about={
            "step": run.step,
            "seed": run.seed,
            "checkpoint": run.checkpoint,
            "sha256": run.sha256,
            "iterate": _described(run, iterate),
        },
    )
    if write:
        result.save(
            run.directory / "audit",
            run.data,
            replayable(result, recipe.game, players, run.constants),
        )
    return result


def _described(run: Run, iterate: str) -> str:
    if iterate == "last" or not run.average:
        return "last"
    said = getattr(run.recipe.solver, "said", None)
    text: str = said(run.step) if said else f"average of the {' and '.join(run.average)}"
    return text


def replayable(
    found: Audit, game: GAN, players: Players, constants: Constants
) -> dict[str, dict[str, torch.Tensor]]:
    """The witnesses as state_dicts of plain modules, spectral normalisation folded in exactly."""
    return {
        c.player: game.load({**players, **c.witness}, constants)[c.player].state_dict()
        for c in found
        if c.witness is not None and c.player is not None
    }


def audit_game(
    game: Any,
    players: Players,
    constants: Constants | None = None,
    data: Source | None = None,
    settings: Settings | None = None,
    *,
    seed: int = 0,
    checks: Sequence[str] = CHECKS,
    progress: str = "auto",
    generator_batch: int = 0,
    iterate: str = "last",
) -> Audit:
    """The same for a game and a pair at hand: nothing is read or written.

    Without `data` the game's losses must be exact (`equilibrist.games` that draw nothing); default
    settings are then those of exact arithmetic: a tolerance of 1e-6, one group a gradient.
    """
    chosen_checks = named_checks(checks)
    begun = time.monotonic()
    if data is None:
        settings = settings or Settings(tolerance=1e-6, groups=3, group_batches=1, linear_batches=1)
        bench: Bench = ExactBench(game, players, settings, seed)
    else:
        settings = settings or Settings()
        bench = Bench(game, players, constants or {}, data, settings, seed, iterate)

    def show(at: Players, fixed: Constants) -> torch.Tensor:
        assert data is not None
        n = samples.SHEET[data.kind]
        return samples.generate(game, at, fixed, n, seed, batch=generator_batch, data=data).cpu()

    certificates: list[Certificate] = []
    sheets: dict[str, torch.Tensor] = {}
    work: dict[str, dict[str, float]] = {}
    planned = {name: REGISTRY[name].work(bench) for name in chosen_checks}
    with showing(progress, "audit", round(sum(planned.values()))) as bar:
        spent, shown = 0.0, 0

        def tick(gradients: float = 1.0) -> None:
            nonlocal spent, shown
            spent += gradients
            if spent - shown >= 10:
                shown = round(spent)
                bar.update(min(shown, round(sum(planned.values()))), {})

        for name in chosen_checks:
            before, since = spent, time.monotonic()
            found = REGISTRY[name].run(bench, tick, show if data is not None else None)
            certificates += found.certificates
            sheets |= found.sheets
            work[name] = {
                "gradients": round(spent - before, 1),
                "planned": round(planned[name], 1),
                "seconds": round(time.monotonic() - since, 2),
            }
    return Audit(
        tuple(certificates),
        settings,
        time.monotonic() - begun,
        sheets=sheets,
        precision=str(bench.dtype).removeprefix("torch."),
        work=work,
    )


def named_checks(checks: Sequence[str]) -> tuple[str, ...]:
    """The checks of these names in the ladder's order; RecipeError for a name that is none."""
    if isinstance(checks, str):
        checks = (checks,)
    for check in checks:
        if check not in REGISTRY:
            hint = did_you_mean(check, tuple(REGISTRY))
            raise RecipeError(
                f"there is no check {check!r}{hint}; choose from {', '.join(REGISTRY)}"
            )
    return tuple(name for name in REGISTRY if name in checks)


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    names = [f.name for f in fields(Settings)]
    for key in settings:
        if key not in names:
            hint = did_you_mean(key, names)
            raise RecipeError(f"an audit has no setting {key!r}{hint}; it has {', '.join(names)}")
    return settings
