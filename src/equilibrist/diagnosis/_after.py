"""What is looked at once a loop has run: averages, samples, latents, single samples and the size of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equilibrist.diagnosis._running import Running
from equilibrist.diagnosis._sizes import exploded, step_sizes
from equilibrist.diagnosis.averages import check_average
from equilibrist.diagnosis.latents import check_latent
from equilibrist.diagnosis.numerics import check_single
from equilibrist.diagnosis.samples import NARROW, check_diversity, opposed
from equilibrist.errors import EquilibristError
from equilibrist.findings import Finding
from equilibrist.interop.origin import tensors_of
from equilibrist.nn.wrapped import copied, unwrapped

SAMPLES = 512
CONFIDENCE = 0.95
NOISE = 0.25  # largest correlation between entries of independent noise
LONG = 300  # rounds before which samples may well be alike
HOPS = 1.5  # times as far as they lie apart: samples that move together, from look to look
LEAST = 8  # steps whose terms are compared


def after(run: Running, generator: str, critic: str) -> tuple[list[Finding], dict[str, str]]:
    """All findings of this kind, and what could not be looked at."""
    found: list[Finding] = []
    skipped: dict[str, str] = {}
    asked: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("batches of one", lambda: _single(run)),
        ("the average", lambda: _average(run, generator)),
        ("the variety of samples", lambda: _diversity(run, generator)),
        ("the latent", lambda: _latent(run, generator, critic)),
        ("terms against one another", lambda: _terms(run, generator)),
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
            seen = run.least.get(name, 2) == 1
            batch = run.epochs.batch if name == run.critic and not seen else None
            loader = run.epochs.loader() if batch else None
            said = check_single(
                module,
                *args,
                where=name,
                rows=run.epochs.rows if batch else None,
                batch=batch,
                drop_last=loader is not None and loader.drop_last,
                seen=seen,
                seed=run.seed,
            )
            # Whoever makes the batches without a loader of torch may leave the last one out.
            guess = batch is not None and loader is None
            found += [
                replace(f, level="warning", sure="likely") if guess and f.level == "fault" else f
                for f in said
            ]
    return found


def _rows(args: Any) -> int:
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


def _fresh(args: tuple[Any, ...], turn: int) -> tuple[Any, ...]:
    """Inputs anew: each entry's values in another order where they are noise, as they are where not."""
    if not turn:
        return args
    return tuple(_shuffled(a) if isinstance(a, Tensor) and _is_noise(a) else a for a in args)


def _shuffled(noise: Tensor) -> Tensor:
    return torch.stack(
        [column[torch.randperm(len(column))] for column in noise.flatten(1).T], 1
    ).reshape(noise.shape)


def _is_noise(values: Tensor) -> bool:
    """Whether a tensor looks like independent noise: entries of one law, uncorrelated."""
    if not values.is_floating_point() or values.ndim < 2 or len(values) < 16:
        return False
    rows = values.detach().flatten(1).double()
    if float(rows.std(0).min()) < 0.3 * float(rows.std(0).max()):
        return False
    if rows.shape[1] == 1:
        return True
    limit = max(NOISE, 4.0 / len(rows) ** 0.5)
    off = torch.corrcoef(rows.T) - torch.eye(rows.shape[1], dtype=torch.float64)
    centred = float(rows.mean(0).abs().max()) < 4 * float(rows.std()) / len(rows) ** 0.5 + 0.6
    return bool(off.abs().max() < limit + 0.2) and float(off.abs().mean()) < limit and centred


def _diversity(run: Running, generator: str) -> list[Finding]:
    fake, middle = run.outcome.last, run.middle
    if run.loop.held_out is None or fake is None:
        return []
    real = run.loop.held_out[: 2 * SAMPLES]
    found = list(check_diversity(fake, real, where=generator, seed=run.seed))
    variety, hops = run.outcome.variety, run.outcome.hops
    if found and run.done >= LONG and variety and hops and variety < NARROW and hops > HOPS:
        # A generator that has only begun to learn stays where it is.
        text = (
            f"Generated samples hop: throughout the second half they vary {variety:.2g} times as much as real ones, "
            f"and from look to look all of them move {hops:.2g} times as far as they lie apart."
        )
        evidence = {**found[0].evidence, "variety": variety, "hops": hops}
        return [replace(found[0], level="fault", sure="likely", text=text, evidence=evidence)]
    # Players that go round one another pass through narrow samples, and a generator that has only begun to learn
    # makes them: a fault lasts, and is of samples that look real or are all but one.
    lasts = run.done >= LONG and middle is not None
    if found and found[0].level != "note" and lasts and middle is not None:
        earlier = check_diversity(middle, real, where=generator, seed=run.seed)
        if earlier and earlier[0].level != "note":
            return found
    return [replace(f, level="note", sure="possible") for f in found]


def _latent(run: Running, generator: str, critic: str) -> list[Finding]:
    """Of a generator with a condition and a latent: whether the latent matters."""
    module = run.loop.players[generator]
    if not isinstance(module, nn.Module):
        return []
    calls = [args for args in run.given[generator] if all(isinstance(a, Tensor) for a in args)]
    calls = calls[-10:]
    if len(calls) < 4 or len({tuple(a.shape for a in args) for args in calls}) != 1:
        return []
    whole = [torch.cat([args[k] for args in calls]).detach() for k in range(len(calls[0]))]
    net = copied(unwrapped(module), generator).eval()  # batch statistics would mix the samples
    if len(whole) == 1:
        split = _split(run, critic, len(calls), whole[0])
        if split is None:
            return []
        width, shown = split
        latent = whole[0][:, width:]

        def joined(conditions: Tensor) -> Tensor:
            made = net(torch.cat([conditions, _shuffled(latent)], 1))
            return next(tensors_of(made))

        with torch.no_grad():
            size = joined(whole[0][:, :width]).flatten(1).shape[1]
        real = shown.flatten(1)[:, -size:]
        return list(check_latent(joined, whole[0][:, :width], real, where=generator, seed=run.seed))
    if len(whole) != 2:
        return []
    known = [_aligned(run, critic, len(calls), t) for t in whole]
    # The condition is the tensor that real samples were shown with, or else the one that is no noise.
    condition = next((k for k in (0, 1) if known[k] is not None), None)
    if condition is None:
        noisy = [_is_noise(t) for t in whole]
        if sum(noisy) != 1:
            return []
        condition = noisy.index(False)

    def sample(conditions: Tensor) -> Tensor:
        args: list[Any] = [None, None]
        args[condition], args[1 - condition] = conditions, _shuffled(whole[1 - condition])
        return next(tensors_of(net(*args)))

    return list(
        check_latent(sample, whole[condition], known[condition], where=generator, seed=run.seed)
    )


def _split(run: Running, critic: str, count: int, given: Tensor) -> tuple[int, Tensor] | None:
    """Of a generator's only input [n, d]: how many of its first columns real samples were shown with, and those."""
    if given.ndim != 2 or not given.is_floating_point():
        return None
    for width in range(given.shape[1] - 1, 0, -1):
        shown = _aligned(run, critic, count, given[:, :width])
        if shown is not None:
            return width, shown
    return None


def _aligned(run: Running, critic: str, count: int, conditions: Tensor) -> Tensor | None:
    """The real samples of these conditions, where the critic was shown them row by row."""
    shown = [a[0] for a in run.given[critic] if isinstance(a[0], Tensor) and a[0].ndim > 1]
    plain = [x.detach() for x in shown if x.grad_fn is None and not x.requires_grad]
    width = conditions[0].numel()
    rows: list[Tensor] = []
    if conditions.ndim < 2 or not conditions.is_floating_point():
        return None
    for block in conditions.split(len(conditions) // count):
        match = next(
            (
                x
                for x in plain
                if len(x) == len(block)
                and x.is_floating_point()
                and x.flatten(1).shape[1] > width
                and torch.equal(x.flatten(1)[:, :width], block.flatten(1).to(x))
            ),
            None,
        )
        if match is None:
            return None
        rows.append(match)
    return torch.cat(rows)


def _terms(run: Running, generator: str) -> list[Finding]:
    rows = run.late.oppositions if run.late is not None else []
    if len(rows) < LEAST:
        return []
    undone, cosines, sizes = (list(column) for column in zip(*rows, strict=True))
    return list(opposed(undone, cosines, sizes, generator, CONFIDENCE))
