"""The audit of a critic as a loop left it; several critics are one, whose scores are means over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equilibrist.critics import CriticAudit, audit_critic
from equilibrist.diagnosis.loop import Held, Loop, Samples, modules_of
from equilibrist.errors import EquilibristError
from equilibrist.formulations.named import is_formulation
from equilibrist.games import Modules, accepted_arguments, roles
from equilibrist.nn.noise import GLOBAL, derived, seeded
from equilibrist.nn.wrapped import copied, unwrapped

SAMPLES = 2_000


class SeveralCritics(nn.Module):
    """Several critics as one module, which returns a list of their outputs."""

    def __init__(self, critics: Sequence[nn.Module]) -> None:
        super().__init__()
        self.critics = nn.ModuleList(critics)

    def forward(self, *args: Any, **kwargs: Any) -> list[Any]:
        """The critics' outputs, in order."""
        return [critic(*args, **kwargs) for critic in self.critics]


def critic_of(held: Held) -> nn.Module:
    """A player's module, or its modules as one.

    Args:
        held: a module, or several in a list or dictionary.

    Returns:
        The module itself, without what wraps it, or `SeveralCritics` of them.
    """
    modules = [unwrapped(module) for module in modules_of(held)]
    return modules[0] if isinstance(held, nn.Module) else SeveralCritics(modules)


def audit_of(
    loop: Loop, critic: str, gradients: int, seed: int, progress: str, skipped: dict[str, str]
) -> CriticAudit | None:
    """The audit of the critic as training left it.

    Args:
        loop: the loop.
        critic: its critic's name.
        gradients: that the audit may spend.
        seed: of what it draws.
        progress: "auto", "bar", "lines" or "none".
        skipped: is given the reason where there is none.

    Returns:
        The audit; None where it cannot be had.
    """
    found = _audited(loop, critic, gradients, seed, progress)
    if isinstance(found, str):
        skipped["the critic's state"] = found
        return None
    return found


def _audited(
    loop: Loop, critic: str, gradients: int, seed: int, progress: str
) -> CriticAudit | str:
    """The audit, or why there is none."""
    module = critic_of(loop.players[critic])
    if loop.real is None or loop.sample is None:
        return "it needs real= (held-out samples) and sample="
    if not isinstance(loop.real, Tensor) and not is_formulation(loop.loss) and callable(loop.loss):
        return (
            "your losses show generated samples with the conditions of real ones: give audit_critic the samples of "
            "both with their own, and a named loss"
        )
    if not all(bool(torch.isfinite(p).all()) for p in module.parameters()):
        return "its weights are not finite"
    try:
        with seeded(derived(seed), GLOBAL):
            with torch.no_grad():
                fake = _samples(loop)
            if isinstance(fake, str):
                return fake
            return audit_critic(
                copied(module, "critic"),
                loop.real,
                fake,
                _loss(loop, critic),
                penalties=loop.penalties,
                train_real=loop.train,
                gradients=gradients,
                seed=seed,
                progress=progress,
            )
    except EquilibristError as error:
        return str(error)


def _samples(loop: Loop) -> Samples | str:
    """As many generated samples as are wanted, or as there are real ones (conditions may be those of held-out
    samples); or why there are none."""
    assert loop.sample is not None
    held = loop.held_out
    counts = [SAMPLES] if held is None or len(held) >= SAMPLES else [SAMPLES, len(held)]
    fault: Exception | None = None
    for count in counts:
        try:
            return loop.sample(count)
        except Exception as error:  # a user's own sample() may fail in any way
            fault = error
    return f"sample({counts[-1]}) failed: {type(fault).__name__}: {str(fault).splitlines()[0]}"


def _loss(loop: Loop, critic: str) -> Any:
    """The critic's loss as `audit_critic` takes it."""
    if not callable(loop.loss) or is_formulation(loop.loss):
        return loop.loss
    called = roles(tuple(loop.players))
    losses, count = loop.loss, accepted_arguments(loop.loss)[0]

    def loss(module: Any, real: Any, fake: Any) -> Any:
        if not isinstance(loop.players[critic], nn.Module):
            module = _like(loop.players[critic], module)
        # Whatever the generator is given, it gives these samples.
        stand_in = Modules({name: (lambda *_, **__: fake) for name in called} | {critic: module})
        if count < 3:
            return losses(*(stand_in, real)[:count])[critic]
        try:
            return losses(stand_in, real, None)[critic]
        except (
            AttributeError,
            TypeError,
        ):  # an autoencoder's z is a sample, which it is compared with
            return losses(stand_in, real, real)[critic]

    return loss


def _like(held: Held, module: Callable[..., Any]) -> Any:
    """The critics in the form in which the loop holds them: each is one output of the module of all."""

    def part(k: int) -> Callable[..., Any]:
        return lambda *args, **kwargs: module(*args, **kwargs)[k]

    parts = [part(k) for k in range(len(held))]  # type: ignore[arg-type]
    return dict(zip(held, parts, strict=True)) if isinstance(held, Mapping) else parts
