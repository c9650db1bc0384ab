"""Conditions of a generator: which of its inputs the critic is shown too, and whether its latent matters."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equilibrist.certificates import Json
from equilibrist.diagnosis._running import Running
from equilibrist.diagnosis._untouched import untouched
from equilibrist.diagnosis.latents import check_latent
from equilibrist.findings import Finding
from equilibrist.interop.origin import tensors_of
from equilibrist.nn.wrapped import copied, unwrapped

NOISE = 0.25  # largest correlation between entries of independent noise
NONE = 1e-3  # of the data's variance: no effect at all
LONG = 200  # rounds before which samples may well be alike
CALLS, LEAST = 10, 4  # of the generator whose inputs are used, and are needed
UNSEEN = 1e-4  # of the scores' spread: an input that moves them less is not in the network's reach
PAIRS = 1000  # held-out samples with their conditions


def latent(run: Running, generator: str, critic: str) -> list[Finding]:
    """Of a generator with a condition and a latent: whether the latent matters.

    Args:
        run: the loop, after its rounds.
        generator: the player's name.
        critic: the other's.

    Returns:
        The finding "latent-ignored", or nothing.
    """
    module = run.loop.players[generator]
    if not isinstance(module, nn.Module):
        return []
    calls = [args for args in run.given[generator] if all(isinstance(a, Tensor) for a in args)]
    if not calls:
        return []
    shape, count = Counter(tuple(a.shape for a in args) for args in calls).most_common(1)[0]
    calls = [args for args in calls if tuple(a.shape for a in args) == shape]
    if count < LEAST or len(shape) not in (1, 2):
        return []
    net = copied(unwrapped(module), generator).eval()  # batch statistics would mix the samples
    look = _of_one if len(shape) == 1 else _of_two
    found = look(run, generator, critic, net, calls)
    # Samples of a generator that has only begun to learn vary little, whatever they depend on; so do those of labels.
    labels = any(not t.is_floating_point() for t in calls[-1])
    return [
        f
        if run.done >= LONG and (not labels or _vanishes(f))
        else replace(f, level="note", sure="possible")
        for f in found
    ]


def _vanishes(finding: Finding) -> bool:
    value, data = finding.evidence.get("value"), finding.evidence.get("data")
    return isinstance(value, float) and isinstance(data, float) and value < NONE * data


def unseen(run: Running, critic: str) -> list[Finding]:
    """Inputs of the critic beside the samples, such as labels, that do not move its score.

    Args:
        run: the loop, after its rounds.
        critic: the player's name.

    Returns:
        The findings "blind".
    """
    module = run.loop.players[critic]
    calls = [args for args in run.given[critic] if all(isinstance(a, Tensor) for a in args)]
    calls = [args for args in calls if len(args) > 1 and len(args) == len(calls[0])][-CALLS:]
    if not isinstance(module, nn.Module) or len(calls) < LEAST:
        return []
    net = copied(unwrapped(module), critic).eval()
    found = []
    for place in range(1, len(calls[0])):
        changes, spread = [], []
        for args in calls:
            given = args[place]
            if given.ndim == 0 or len(given) != len(args[0]) or bool((given == given[:1]).all()):
                continue
            turned = (*args[:place], given.roll(1, 0), *args[place + 1 :])
            with torch.no_grad():
                one, two = (next(tensors_of(net(*a))).double().flatten() for a in (args, turned))
            changes.append(float((one - two).abs().max()))
            spread.append(float(one.std()))
        if len(changes) >= LEAST and max(changes) < UNSEEN * max(spread):
            what = "its second input" if len(calls[0]) == 2 else f"its input {place + 1}"
            text = (
                f"The critic's score does not change when {what} is exchanged among samples: it does not see "
                "whether a sample fits its condition."
            )
            evidence: Json = {"change": max(changes), "spread": max(spread), "calls": len(changes)}
            found.append(Finding("blind", critic, text, "fault", "certain", evidence))
    return found


def _of_one(
    run: Running, generator: str, critic: str, net: nn.Module, calls: list[tuple[Tensor, ...]]
) -> list[Finding]:
    """Condition and latent are columns of one input, or the input is the condition and noise is drawn within."""
    if all(_met(run, critic, args[0]) for args in calls[-CALLS:]):
        return _within_module(run, generator, critic, net, calls)
    calls = calls[-CALLS:]
    whole = torch.cat([args[0] for args in calls]).detach()
    if whole.ndim != 2 or not whole.is_floating_point():
        return []
    for width in range(whole.shape[1] - 1, 0, -1):
        conditions = whole[:, :width]
        shown = [_shown(run, critic, block) for block in conditions.split(len(calls[0][0]))]
        if all(x is not None for x in shown):
            break
    else:
        return []
    rest = whole[:, width:]

    def sample(given: Tensor) -> Tensor:
        return next(tensors_of(net(torch.cat([given, drawn(rest, len(given))], 1))))

    with torch.no_grad():
        size = sample(conditions[:2]).flatten(1).shape[1]
    real = torch.cat([x for x in shown if x is not None]).flatten(1)[:, -size:]
    return list(check_latent(sample, conditions, real, where=generator, seed=run.seed))


def _within_module(
    run: Running, generator: str, critic: str, net: nn.Module, calls: list[tuple[Tensor, ...]]
) -> list[Finding]:
    """The only input is the condition: a latent there is where two calls differ."""
    if not draws(net, calls[-1]):
        return []
    conditions, real = _pairs(run, critic, calls, 0)

    def sample(given: Tensor) -> Tensor:
        return next(tensors_of(net(given)))

    return list(check_latent(sample, conditions, real, where=generator, seed=run.seed))


def _of_two(
    run: Running, generator: str, critic: str, net: nn.Module, calls: list[tuple[Tensor, ...]]
) -> list[Finding]:
    """Condition and latent are two inputs, in either order."""
    place = _place(run, critic, calls)
    if place is None:
        return []
    rest = torch.cat([args[1 - place] for args in calls[-CALLS:]]).detach()
    conditions, real = _pairs(run, critic, calls, place)

    def sample(given: Tensor) -> Tensor:
        args: list[Any] = [None, None]
        args[place], args[1 - place] = given, drawn(rest, len(given))
        return next(tensors_of(net(*args)))

    return list(check_latent(sample, conditions, real, where=generator, seed=run.seed))


def _pairs(
    run: Running, critic: str, calls: list[tuple[Tensor, ...]], place: int
) -> tuple[Tensor, Tensor | None]:
    """Conditions, and a real sample of each: held-out ones, or those that the critic was shown; None without."""
    conditions = torch.cat([args[place] for args in calls[-CALLS:]]).detach()
    held = _held_out(run, conditions)
    if held is not None:
        return held
    shown = [(args[place], _shown(run, critic, args[place])) for args in calls]
    both = [(c.detach(), x) for c, x in shown if x is not None][-CALLS:]
    if len(both) < LEAST:
        return conditions, None
    return torch.cat([c for c, _ in both]), torch.cat([x for _, x in both])


def _place(run: Running, critic: str, calls: list[tuple[Tensor, ...]]) -> int | None:
    """Which of a generator's two inputs is its condition: what the critic is shown too, or else what is no noise."""
    met = [sum(_met(run, critic, args[k]) for args in calls[-CALLS:]) for k in (0, 1)]
    if min(met) == 0 < max(met):
        return met.index(max(met))
    noisy = [is_noise(torch.cat([args[k] for args in calls[-CALLS:]])) for k in (0, 1)]
    return noisy.index(False) if sum(noisy) == 1 else None


def _met(run: Running, critic: str, block: Tensor) -> bool:
    """Whether the critic was given a tensor, beside samples or as their first columns."""
    return any(
        args and isinstance(args[0], Tensor) and (_beside(args, block) or _within(args[0], block))
        for args in run.given[critic]
    )


def _held_out(run: Running, conditions: Tensor) -> tuple[Tensor, Tensor] | None:
    """(conditions, samples) that training does not see, where the loop has them."""
    real = run.loop.real
    if real is None or isinstance(real, Tensor):
        return None
    samples, given = (t[:PAIRS] for t in real)
    if given[0].shape != conditions[0].shape or given.dtype != conditions.dtype:
        return None
    return given.detach(), samples.detach()


def _shown(run: Running, critic: str, block: Tensor) -> Tensor | None:
    """The real samples that the critic was shown with these conditions, row by row."""
    for args in run.given[critic]:
        x = args[0] if args else None
        if not isinstance(x, Tensor) or x.ndim < 2 or x.grad_fn is not None or x.requires_grad:
            continue
        if _beside(args, block) or _within(x, block):
            return x.detach()
    return None


def _beside(given: tuple[Any, ...], block: Tensor) -> bool:
    """Whether the critic was given a sample for each condition, and the conditions themselves."""
    return len(given[0]) == len(block) and any(
        isinstance(other, Tensor) and other.shape == block.shape and torch.equal(other, block)
        for other in given[1:]
    )


def _within(sample: Tensor, block: Tensor) -> bool:
    """Whether conditions are the first columns of samples."""
    if block.ndim < 2 or not (block.is_floating_point() and sample.is_floating_point()):
        return False
    width, whole = block[0].numel(), sample.flatten(1)
    return (
        len(whole) == len(block)
        and whole.shape[1] > width
        and torch.equal(whole[:, :width], block.flatten(1).to(whole))
    )


def known(run: Running, critic: str, args: tuple[Any, ...]) -> bool:
    """Whether the critic was shown all that the generator was given in one call, or all but labels.

    Args:
        run: the loop, after its rounds.
        critic: the player's name.
        args: what the generator was given.
    """
    shown = [t for given in run.given[critic] for t in tensors_of(given)]
    return all(
        any(t.shape == s.shape and t.dtype == s.dtype and torch.equal(t, s) for s in shown)
        for t in tensors_of(args)
        if t.is_floating_point()
    )


def draws(net: nn.Module, args: tuple[Any, ...]) -> bool:
    """Whether a module gives something else when it is called again, for it draws random numbers.

    Args:
        net: the module.
        args: what it is called with.
    """
    with torch.no_grad(), untouched(0):
        one, two = (next(tensors_of(net(*args))) for _ in range(2))
    return not torch.equal(one, two)


def drawn(noise: Tensor, n: int) -> Tensor:
    """n rows of noise anew: each column's values in another order.

    Args:
        noise: rows of independent entries [m, ...].
        n: how many.
    """
    rows = torch.stack(
        [column[torch.randint(len(column), (n,))] for column in noise.flatten(1).T], 1
    )
    return rows.reshape(n, *noise.shape[1:])


def is_noise(values: Tensor) -> bool:
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
