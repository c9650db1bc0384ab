"""Listening to a training that gives no callback: its critic is kept, and what the critic was shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from equilibrist.critics import CriticAudit
from equilibrist.display import Rows, Shown
from equilibrist.errors import DataError, GameError, RecipeError, did_you_mean, warn_user
from equilibrist.formulations import Formulation
from equilibrist.interop._audited import audited
from equilibrist.interop._kept import (
    KINDS,
    Batch,
    Player,
    Snapshot,
    rates,
    single,
    stacked,
    was_shown,
)
from equilibrist.interop._listener import Listener
from equilibrist.interop._root import Name, Root
from equilibrist.interop._rounds import FAKE, REAL, SKIP, Rounds, Tell
from equilibrist.nn.noise import GLOBAL, seeded
from equilibrist.nn.wrapped import copied, unwrapped


class Heard(Shown):
    """What `listen` hears: players, steps, the critics and what they were shown. It is filled while the
    training runs and stays afterwards.

    Attributes:
        snapshots: by critic's name, {step: Snapshot}; see `every` of `listen`.
    """

    def __init__(
        self,
        listener: Callable[..., Listener],
        every: int | Sequence[int],
        then: Callable[[Heard], None] | None,
        keep: int,
    ) -> None:
        self._listener = listener(self._stepped, self._soon)
        self._every, self._then, self._keep = every, then, keep
        self.snapshots: dict[str, dict[int, Snapshot]] = {}

    def __enter__(self) -> Heard:
        self._listener.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._listener.stop()
        fault = self._listener.fault
        if fault is not None and kind is None:
            warn_user(
                f"listening stopped early, the training went on: {type(fault).__name__}: {fault}"
            )

    # -- who plays ---------------------------------------------------------------------------------

    @property
    def players(self) -> dict[str, Player]:
        """All players by name: critics, generators, and what else was stepped."""
        critics = self._listener.critics
        feeding = [self._listener.generator_of(critic) for critic in critics]
        found = {}
        for root in self._listener.roots:
            role = "critic" if root in critics else "generator" if root in feeding else ""
            names = {id(p): name for name, p in unwrapped(root.module).named_parameters()}
            bare = tuple(names[key] for key in root.stepped.bare if key in names)
            found[root.name] = Player(
                root.name,
                role,
                unwrapped(root.module),
                root.steps,
                root.stepped.name,
                tuple(root.stepped.rates),
                bare,
            )
        return found

    @property
    def steps(self) -> dict[str, int]:
        """Steps of every player by name."""
        return {root.name: root.steps for root in self._listener.roots}

    @property
    def critic(self) -> nn.Module:
        """The critic's module, as the training left it; GameError where there is none, or several."""
        return unwrapped(self._critic(None).module)

    @property
    def generator(self) -> nn.Module:
        """The generator's module; GameError where no module was found to feed the critic."""
        found = self._listener.generator_of(self._critic(None))
        if found is None:
            raise GameError(
                "no generator was heard: nothing that an optimiser stepped fed the critic; name it, as in "
                "listen(generator='Generator')"
            )
        return unwrapped(found.module)

    def pack(self, critic: str | None = None) -> int:
        """How many samples the critic judges at once: its rows in, over its scores out."""
        return self._critic(critic).pack

    def _critic(self, name: str | None) -> Root:
        critics = {root.name: root for root in self._listener.critics}
        if name is not None:
            if name not in critics:
                raise GameError(
                    f"no critic named {name!r} was heard: there is {', '.join(critics) or 'none'}"
                    f"{did_you_mean(name, critics)}"
                )
            return critics[name]
        if len(critics) == 1:
            return next(iter(critics.values()))
        heard = ", ".join(f"{root.name} ({root.steps:,} steps)" for root in self._listener.roots)
        if critics:
            raise GameError(f"several critics were heard, {', '.join(critics)}: name one of them")
        raise GameError(
            f"no critic was heard among {heard or 'no stepped modules'}: name its class, as in "
            "listen(critic='Discriminator')"
        )

    # -- what the critic was shown -----------------------------------------------------------------

    def batches(self, kind: str, critic: str | None = None) -> list[Batch]:
        """What a critic was shown in its last rounds, oldest first.

        Args:
            kind: "real" or "fake".
            critic: its name, where there are several.

        Returns:
            Copies of its inputs, a tensor for each call; a tuple of tensors where the critic takes several.

        Raises:
            GameError: no such critic.
            RecipeError: another kind.
        """
        if kind not in KINDS:
            raise RecipeError(f"kind={kind!r}: it must be 'real' or 'fake'")
        return list(map(single, self._critic(critic).rounds.batches(kind)))

    def pair(
        self, at: int | None = None, critic: str | None = None
    ) -> tuple[nn.Module, nn.Module | None]:
        """A critic and its generator.

        Args:
            at: the critic's step, one of the snapshots'; as the training left them where it is None.
            critic: its name, where there are several.

        Returns:
            The modules; the generator is None where none was found.

        Raises:
            GameError: no such critic, or no snapshot after that step.
        """
        root = self._critic(critic)
        if at is not None:
            found = self._snapshot_at(root, at)
            return found.critic, found.generator
        source = self._listener.generator_of(root)
        return unwrapped(root.module), None if source is None else unwrapped(source.module)

    def audit(
        self,
        loss: Formulation | str | Callable[..., Tensor],
        *,
        real: object = None,
        fake: object = None,
        at: int | None = None,
        critic: str | None = None,
        **options: Any,
    ) -> CriticAudit:
        """Audits a critic by the samples that it was shown, or by better ones.

        Without `real`, the rows that the critic was trained on stand for real ones: what they say of held-out
        ones is then an assumption, and whether it memorises them cannot be asked. With it, they are what it was
        trained on (`train_real`). A row that was shown several times counts once.

        Args:
            loss: what the critic minimises, as `audit_critic` takes it.
            real: samples that it was not trained on.
            fake: generated samples; without them, those that it was shown last.
            at: the step of a snapshot; the critic as the training left it where it is None.
            critic: its name, where there are several.
            options: those of `audit_critic` (penalties, reward, columns, gradients, seed, out, ...).

        Returns:
            The audit.

        Raises:
            GameError: no such critic, or no snapshot after that step.
            DataError: too few samples, or nothing that was told apart.
        """
        root = self._critic(critic)
        kept = self._snapshot(root) if at is None else self._snapshot_at(root, at)
        rows = {REAL: stacked(kept.real, REAL), FAKE: stacked(kept.fake, FAKE)}
        if real is not None:
            options.setdefault("train_real", rows[REAL])
        options.setdefault("pack", root.pack)
        real = rows[REAL] if real is None else real
        fake = rows[FAKE] if fake is None else fake
        for kind, samples in ((REAL, real), (FAKE, fake)):
            if samples is None:
                raise DataError(
                    f"{kind}: no {kind} batches were told apart: {was_shown(root)}; pass {kind}=, or say by order= or "
                    "tell= of listen what the critic was shown"
                )
        return audited(kept.critic, real, fake, loss, **options)

    def _snapshot_at(self, root: Root, step: int) -> Snapshot:
        found = self.snapshots.get(root.name, {})
        if step not in found:
            there = ", ".join(map(str, found)) or "none: give listen(every=...)"
            raise GameError(f"no snapshot of {root.name} after step {step}: there is {there}")
        return found[step]

    # -- on the way --------------------------------------------------------------------------------

    def _stepped(self, roots: list[Root]) -> None:
        if not self._every:
            return
        due = [root for root in self._listener.critics if root in roots and self._due(root.steps)]
        if not due:
            return
        with _untouched(), self._listener.paused():
            for root in due:
                self.snapshots.setdefault(root.name, {})[root.steps] = self._snapshot(root)
            if self._then is not None:
                self._then(self)

    def _soon(self, steps: int) -> bool:
        """Whether a snapshot within the next `keep` rounds wants all of them."""
        if isinstance(self._every, int):
            return self._every > 0 and self._every - steps % self._every <= self._keep
        return any(0 < step - steps <= self._keep for step in self._every)

    def _due(self, step: int) -> bool:
        if isinstance(self._every, int):
            return self._every > 0 and step % self._every == 0
        return step in self._every

    def _snapshot(self, root: Root) -> Snapshot:
        source = self._listener.generator_of(root)
        return Snapshot(
            root.steps,
            copied(unwrapped(root.module), root.name),
            None if source is None else copied(unwrapped(source.module), source.name),
            tuple(map(single, root.rounds.batches(REAL))),
            tuple(map(single, root.rounds.batches(FAKE))),
        )

    # -- plain facts -------------------------------------------------------------------------------

    def summary(self) -> str:
        """Plain facts: players, steps, learning rates, parameters without gradient, modules that nobody
        steps, what was kept, and by what real and generated batches were told apart."""
        return repr(self)

    def _facts(self) -> tuple[str, Rows]:
        rows: list[tuple[str, str]] = []
        for player in self.players.values():
            size = sum(p.numel() for p in player.module.parameters())
            rows.append(
                (
                    player.name,
                    f"{player.role or 'neither critic nor generator'}, {player.steps:,} steps of "
                    f"{player.optimizer}{rates(player.rates)}, {size:,} parameters",
                )
            )
            if player.without_gradient:
                rows.append(("", f"never a gradient: {', '.join(player.without_gradient)}"))
        for name, size in self._listener.idle.items():
            rows.append((name, f"called, never stepped, {size:,} parameters"))
        for root in self._listener.critics:
            rows.append(("", f"{root.name} was shown: {was_shown(root)}"))
        if self._listener.fault is not None:
            rows.append(("", f"listening stopped early: {self._listener.fault}"))
        if rows:
            return "Heard", rows
        count = len(self._listener.records)
        why = (
            f"{count} optimisers stepped, none a module that was called (module.compile() hides the calls: name "
            "the modules themselves)"
            if count
            else "no optimiser stepped"
        )
        return f"Heard nothing: {why}", rows


class ListenOptions(TypedDict, total=False):
    """What `listen` takes besides the two players."""

    order: Sequence[str] | None
    tell: Tell | None
    keep: int
    megabytes: float
    every: int | Sequence[int]
    then: Callable[[Heard], None] | None


def listen(
    critic: Name = None,
    generator: Name = None,
    *,
    order: Sequence[str] | None = None,
    tell: Tell | None = None,
    keep: int = 16,
    megabytes: float = 256,
    every: int | Sequence[int] = 0,
    then: Callable[[Heard], None] | None = None,
) -> Heard:
    """Listens to whatever is trained inside a `with` block, through PyTorch's public hooks.

        with equilibrist.listen() as heard:
            SomeTrainer().fit(data)
        heard.critic, heard.steps, heard.batches("fake")

    The training is not changed: it ends with the same bits. Players are the outermost modules whose
    parameters an optimiser steps; the critic is the one that is fed both by another player and by something
    else, and feeds none. A batch is generated if it shares memory or values with a generator's output, or was
    computed from its parameters; what reaches the critic beside it is real. Where no trace of the generator is
    left, the calls of a round count as real, generated, real, ...: `heard.summary()` says so, and `order` or
    `tell` says better. Calls without gradients are not recorded: nobody learns from them.

    The first 64 rounds of a critic are recorded, then one in sixteen, and all of the last `keep` before a snapshot.

    Listens to the thread that enters the block. Blocks may be nested, and several trainings may run in one.

    Args:
        critic, generator: the class's name, or the module, where a guess would be wrong.
        order: kinds of the critic's calls between two of its steps, again and again, each "real", "fake" or "skip".
        tell: called as tell(place, *inputs) with the place of a call in its round; returns "real", "fake", "skip",
            or a tensor of bools, one for each row, True where it is real.
        keep: rounds of the critic whose batches are kept, the last of those that were recorded.
        megabytes: the most that these batches may hold, for each critic.
        every: the critic's steps after which copies of the pair and its batches are kept (`heard.snapshots`): every so
            many, or those of a sequence.
        then: called with what was heard so far, at those steps; random states are put back afterwards.

    Returns:
        What is heard: a context manager.

    Raises:
        RecipeError: an order, number or name that is none.
    """
    _require(critic, generator, order, keep, megabytes, every, then)

    def rounds() -> Rounds:
        return Rounds(keep, int(megabytes * 2**20), order, tell)

    return Heard(
        lambda *callbacks: Listener(rounds, critic, generator, *callbacks), every, then, keep
    )


def _require(
    critic: Name,
    generator: Name,
    order: Sequence[str] | None,
    keep: int,
    megabytes: float,
    every: int | Sequence[int],
    then: object,
) -> None:
    """RecipeError for an argument of `listen` that is none."""
    for named in (critic, generator):
        if named is not None and not isinstance(named, str | nn.Module):
            raise RecipeError(
                f"critic and generator are named by a class's name or a module, not {type(named).__name__}"
            )
    if order is not None and (not order or not set(order) <= {REAL, FAKE, SKIP}):
        raise RecipeError(f"order={order!r}: its entries must be 'real', 'fake' or 'skip'")
    if keep < 1 or not megabytes > 0:
        raise RecipeError(f"keep={keep}, megabytes={megabytes}: both must be positive")
    if min((every,) if isinstance(every, int) else (1, *every)) < 0:
        raise RecipeError(f"every={every!r}: steps cannot be negative")
    if then is not None and not every:
        raise RecipeError("then is called at the steps of every=...: give those too")


@contextmanager
def _untouched() -> Iterator[None]:
    """Random states and the gradient's mode as they were."""
    with seeded(0, GLOBAL), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield
