"""What is looked at once a loop has run: averages, samples, latents, single samples and the size of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from equilibrist.certificates import Json
from equilibrist.diagnosis._conditions import drawn, draws, is_noise, known, latent, unseen
from equilibrist.diagnosis._outcome import Outcome
from equilibrist.diagnosis._running import Running
from equilibrist.diagnosis._seen import Opposition
from equilibrist.diagnosis._sizes import exploded, step_sizes
from equilibrist.diagnosis.averages import check_average
from equilibrist.diagnosis.numerics import check_single
from equilibrist.diagnosis.samples import NARROW, check_diversity
from equilibrist.diagnosis.terms import LOST, UNDONE, drowned, opposed
from equilibrist.errors import EquilibristError
from equilibrist.findings import Finding
from equilibrist.interop.origin import tensors_of
from equilibrist.nn.wrapped import copied, unwrapped

SAMPLES = 512
CONFIDENCE = 0.95
LONG = 300  # rounds before which samples may well be alike
SHORT = 150  # the same, of samples that move together
HOPS = 4.0  # times as far as they lie apart: samples that move together, from look to look (cycling players: 3)
FAR = 0.75  # of their first distance to the data: samples that have hardly got nearer
# Sound loops that have only begun wander as well, with a quarter of the data's variety or more, and come back.
THIN, PATH, LOST_BY = (
    0.15,
    3.0,
    2.0,
)  # variety; of the data's scale, in the second half; distance over that at the start
LEAST = 8  # steps whose terms are compared


def after(run: Running, generator: str, critic: str) -> tuple[list[Finding], dict[str, str]]:
    """All findings of this kind, and what could not be looked at."""
    found: list[Finding] = []
    skipped: dict[str, str] = {}
    if run.fault is not None:
        skipped["what networks were given"] = f"{type(run.fault).__name__}: {run.fault}"
    asked: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("batches of one", lambda: _single(run)),
        ("the average", lambda: _average(run, generator)),
        ("the variety of samples", lambda: _diversity(run, generator)),
        ("the critic's conditions", lambda: unseen(run, critic)),
        ("the latent", lambda: latent(run, generator, critic)),
        ("terms against one another", lambda: _terms(run, generator, critic)),
        ("the size of steps", lambda: exploded(run) or step_sizes(run, generator, critic)),
    )
    for what, look in asked:
        try:
            found += look()
        except (EquilibristError, RuntimeError, TypeError, ValueError) as error:
            skipped[what] = str(error).splitlines()[0][:200]
    return found, skipped


def early_sizes(run: Running, generator: str, critic: str) -> list[Finding]:
    """Whether steps overshoot early in a run; nothing where that cannot be measured."""
    try:
        return step_sizes(run, generator, critic)
    except (EquilibristError, RuntimeError, TypeError, ValueError):
        return []


def _single(run: Running) -> list[Finding]:
    found: list[Finding] = []
    for name, given in run.given.items():
        module = run.loop.players[name]
        whole = next((args for args in reversed(given) if _rows(args) > 1), None)
        if isinstance(module, nn.Module) and whole is not None:
            args = tuple(a.detach() if isinstance(a, Tensor) else a for a in whole)
            # Whoever makes the batches without a loader of torch may leave the last one out.
            batch = run.epochs.batch if name == run.critic else None
            loader = run.epochs.loader() if batch else None
            found += check_single(
                module,
                *args,
                where=name,
                rows=run.epochs.rows if loader is not None else None,
                batch=batch,
                drop_last=loader is not None and loader.drop_last,
                seen=run.least.get(name, 2) == 1,
                seed=run.seed,
            )
    return found


def _rows(args: object) -> int:
    first = next(tensors_of(args), None)
    return len(first) if first is not None and first.ndim else 0


def _average(run: Running, generator: str) -> list[Finding]:
    loop = run.loop
    module = loop.players[generator]
    if loop.average is None or not isinstance(module, nn.Module):
        return []
    given = [args for args in run.given[generator] if _rows(args) > 1]

    def sample(net: nn.Module, n: int) -> Tensor:
        made: list[Tensor] = []
        while sum(map(len, made)) < n:
            args = given[len(made) % len(given)]
            made.append(net(*_fresh(args, len(made) // len(given))))
        return torch.cat(made)[:n]

    usable = loop.held_out is not None and given
    return list(
        check_average(
            loop.average,
            unwrapped(module),
            loop.held_out if usable else None,
            sample if usable else None,
            seed=run.seed,
        )
    )


def _fresh(args: tuple[object, ...], turn: int) -> tuple[object, ...]:
    """Inputs anew: each entry's values in another order where they are noise, as they are where not."""
    if not turn:
        return args
    return tuple(drawn(a, len(a)) if isinstance(a, Tensor) and is_noise(a) else a for a in args)


def _diversity(run: Running, generator: str) -> list[Finding]:
    fake, middle = run.outcome.last, run.middle
    if run.loop.held_out is None or fake is None:
        return []
    real = run.loop.held_out[: 2 * SAMPLES]
    found = list(check_diversity(fake, real, where=generator, seed=run.seed))
    if found and run.done >= SHORT and (restless := _restless(run.outcome)):
        words, seen = restless
        evidence = {**found[0].evidence, **seen}
        return [replace(found[0], level="fault", sure="likely", text=words, evidence=evidence)]
    # Players that go round one another pass through narrow samples, and a generator that has only begun to learn
    # makes them: a fault lasts, and is of samples that look real or are all but one.
    lasts = run.done >= LONG and middle is not None
    if found and found[0].level != "note" and lasts and middle is not None:
        earlier = check_diversity(middle, real, where=generator, seed=run.seed)
        if earlier and earlier[0].level != "note":
            return found
    return _as_notes(found)


def _restless(outcome: Outcome) -> tuple[str, Json] | None:
    """Narrow samples that move about: a generator that has only begun to learn stays where it is, or comes nearer."""
    variety, hops, path, away = outcome.variety, outcome.hops, outcome.path, outcome.away
    if not variety or not hops or away is None or variety >= NARROW:
        return None
    seen: Json = {"variety": variety, "hops": hops, "path": path, "away": away}
    vary = f"throughout the second half they vary {variety:.2g} times as much as real ones"
    if hops > HOPS:
        return (
            f"Generated samples hop: {vary}, and from look to look all of them move {hops:.2g} times as far as they "
            "lie apart."
        ), seen
    if variety < THIN and path > PATH and away > LOST_BY:
        return (
            f"Generated samples wander: {vary}, go {path:.2g} times as far as the data are wide, and are {away:.2g} "
            "times as far from them as at the start."
        ), seen
    return None


def _terms(run: Running, generator: str, critic: str) -> list[Finding]:
    rows = [*(run.spread.oppositions if run.spread is not None else [])]
    rows += run.late.oppositions if run.late is not None else []
    if len(rows) < LEAST:
        return []
    first = run.early.oppositions
    from_the_start = len(first) >= LEAST and bool(opposed(first, generator, CONFIDENCE))
    # What was so all along needs fewer of the last steps to be still there.
    still = from_the_start and _mean(rows) > UNDONE
    found = list(opposed([*first, *rows] if still else rows, generator, CONFIDENCE))
    # Terms that agreed while there was a way to go oppose one another where samples have come near: at the minimum of a
    # sum each term's gradient is the other's, turned round.
    if run.outcome.near and len(first) >= LEAST and not from_the_start:
        return _as_notes(found)
    if not found and not run.outcome.near:
        found = list(drowned(rows, generator, CONFIDENCE))
    if not found:
        return []
    away = run.outcome.away
    lost = float(found[0].evidence.get("value", 0.0)) > LOST and away is not None and away > FAR
    calls = list(run.given[generator])[-LEAST:-1]
    module = run.loop.players[generator]
    silent = isinstance(module, nn.Module) and not draws(
        copied(unwrapped(module), generator).eval(), calls[-1]
    )
    # What a term hundreds of times as large leaves without effect need not be a reconstruction.
    if silent and (lost or all(known(run, critic, args) for args in calls)):
        return found
    # A generator with a latent is meant to leave what the other term asks for: the one most likely answer.
    return _as_notes(found)


def _mean(rows: Sequence[Opposition]) -> float:
    return sum(row.undone for row in rows) / len(rows)


def _as_notes(found: list[Finding]) -> list[Finding]:
    return [replace(f, level="note", sure="possible") for f in found]
