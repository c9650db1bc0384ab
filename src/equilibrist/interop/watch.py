"""Audits in the middle of any training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from equilibrist.checkpoints import Choice, HeldOut, Ledger
from equilibrist.checks import Audit, Settings
from equilibrist.checks.arguments import settings_of
from equilibrist.checks.pair import Prepared
from equilibrist.checks.registry import named_checks
from equilibrist.data import Source
from equilibrist.data.loaders import as_made, source_of
from equilibrist.display import Rows, Shown
from equilibrist.errors import RecipeError
from equilibrist.formulations import Formulation
from equilibrist.interop._lightning_types import LightningTrainer, lightning_base
from equilibrist.nn import torch_spectral_norm

WATCHED = ("stationary", "nash")
BUDGET = 600  # minibatch gradients, unless a watch is given another


class Watch(Shown):
    """Audits two modules while some other loop trains them.

        watch = Watch(generator, critic, loader, Vanilla(), latent=64, every=1000)
        for step, batch in enumerate(loader):
            ...                      # the loop as it was
            watch(step)

    An audit builds its losses from the modules alone, so nothing that the loop does to its own
    losses (a detached sample, a scaled gradient) can mislead it. It works on copies and leaves
    weights, buffers, gradients, optimisers, modes and random states as they were; it may be called
    under no_grad, inference_mode or autocast and says the same. Forward hooks belong to the modules:
    they are copied with them and run in an audit too.

    Args:
        generator, critic: the modules as they are trained; wrapped ones (DistributedDataParallel,
            torch.compile) are unwrapped. They are looked at in the mode in which they are handed over.
            Weights under torch's spectral norm are divided by their exact norm (`audit_pair`).
        data, formulation, latent, mode, spectral_norm, batch, seed, checks, progress, game: as `audit_pair`
            takes them. The formulation is the loss of the loop: `Vanilla()` for binary cross entropy on
            logits, `Vanilla(probabilities=True)` behind a sigmoid, `WGAN()`, ...
        every: steps between audits, when called with a step.
        gradients: what one audit may spend, in minibatch gradients (see `Settings.within`): 600 unless
            `settings` is a whole `Settings`. The self-tests come on top, about 12.
        settings: a `Settings`, or a dictionary of some of its fields, over those that the budget gives.
        held_out: real samples that training does not see (as `source_of` takes them). With them every audit also
            measures the checkpoint on them, and `choice` says whether to stop, to go on, or which step to take.
        score: by what checkpoints are judged, as `choose_checkpoint` takes it.

    Raises:
        GameError: modules that make no game (`GAN`): a buffer written in the forward pass, say; or
            data that do not fit them.
        DataError: data that cannot be read (`source_of`).
        RecipeError: a budget that is too small, or `every` below 1.

    Attributes: `choice`, the recommendation; `audits`, pairs (step, Audit) in order; `game`, `data` and `settings` of
    the audits.
    """

    # More parameters than other functions: the game's, as `audit_pair` has them, and the budget's.
    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        data: object,
        formulation: Formulation | str,
        *,
        latent: object,
        every: int = 1000,
        mode: str = "as is",
        spectral_norm: bool | Sequence[str] = False,
        settings: Settings | Mapping[str, object] | None = None,
        gradients: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        checks: Sequence[str] = WATCHED,
        progress: str = "none",
        held_out: object = None,
        score: object = None,
        **game: Any,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise RecipeError(f"every={every!r} steps: it must be a whole number of at least 1")
        if gradients is None and not isinstance(settings, Settings):
            gradients = BUDGET
        self.checks = named_checks(checks)
        self.settings = settings_of(settings, gradients, batch)
        self._prepared = Prepared.of(
            generator,
            critic,
            data,
            formulation,
            mode,
            latent=latent,
            spectral_norm=spectral_norm,
            **game,
        )
        self._prepared.require_budget(self.settings, self.checks)
        self.game, self.data = self._prepared.game, self._prepared.data
        self.every, self.seed, self.progress = every, seed, progress
        self.audits: list[tuple[int, Audit]] = []
        self.held_out: Source | None = None
        self._held: HeldOut | None = None
        images = isinstance(game.get("condition"), tuple | list)
        if held_out is not None:
            self.held_out = as_made(source_of(held_out, conditions=images), self.game.sample_shape)
            self._held = HeldOut(self.data, self.held_out, score=score, gradients=0, seed=self.seed)
            self._ledger = Ledger("score", self.settings.confidence, score=self._held.score)
        elif score is not None:
            raise RecipeError("a score judges on samples that training does not see: give held_out")

    def _facts(self) -> tuple[str, Rows]:
        names = [type(module).__name__ for module in self._prepared.modules.values()]
        rows = [
            ("modules", f"{names[0]} against {names[1]}"),
            ("losses", str(self.game.formulation)),
            ("data", f"{self.data.name}, {list(self.data.shape)}"),
            ("every", f"{self.every:,} steps"),
            ("audits", ", ".join(f"step {step}" for step, _ in self.audits) or "none yet"),
        ]
        return "Watch", rows

    def __call__(self, step: int) -> Audit | None:
        """An audit where `step` is a positive multiple of `every`, else None."""
        if step <= 0 or step % self.every:
            return None
        return self.audit(step)

    def audit(self, step: int = 0) -> Audit:
        """An audit now."""
        found = self._prepared.audit(
            self.settings, seed=self.seed, checks=self.checks, progress=self.progress
        )
        found = replace(found, about={"step": step, **found.about})
        self.audits.append((step, found))
        if self._held is not None:
            players, constants = self._prepared.here()
            with torch_spectral_norm.by_itself(self._prepared.modules["generator"]):
                measured = self._held.measure(self.game, players, constants, self.settings.batch)
            self._ledger.add(step, *measured)
        return found

    @property
    def choice(self) -> Choice | None:
        """Stop, go on, or take the weights of an earlier step: by all checkpoints that were audited so far, on
        held-out rows, with intervals that hold however often one asks. None without `held_out`, or before the first
        audit."""
        return self._ledger.choice() if self._held is not None and self.audits else None


def lightning_callback(watch: Watch, log: bool = True, stop: bool = False) -> Any:
    """A Lightning callback that calls `watch` with the number of training batches so far, on the first
    process.

    Batches are counted here, for `trainer.global_step` counts optimiser steps: two a batch where both
    players have an optimiser. The count is saved in Lightning's checkpoints. With `log`, every logger
    of the trainer gets "audit/nash/<player>" (gains) and "audit/stationary/<player>" (residuals) at
    that count; the audits themselves are in `watch.audits`.

    Args:
        watch: what audits.
        log: whether gains and residuals go to the trainer's loggers.

    Returns:
        The callback, for `Trainer(callbacks=[...])`.

    Raises:
        RequirementError: neither `lightning` nor `pytorch_lightning` is installed.
        RecipeError: `stop` with a watch that has no held-out samples.
    """
    if stop and watch.held_out is None:
        raise RecipeError(
            "stop=True needs a watch that judges checkpoints: Watch(..., held_out=rows)"
        )
    base = lightning_base("lightning_callback")

    class EquilibriumCallback(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.batches = 0

        def on_train_batch_end(self, trainer: LightningTrainer, *_: object) -> None:
            self.batches += 1
            found = watch(self.batches) if trainer.is_global_zero else None
            if found is None:
                return
            choice = watch.choice
            if stop and choice is not None and choice.advice != "go on":
                trainer.should_stop = True
            if not log:
                return
            values = {}
            if choice is not None and (scored := choice.looks[-1].score) is not None:
                values["checkpoints/score"] = scored.mean
            for c in found.values():
                measured = c.evidence.get("gain", c.evidence.get("residual"))
                if measured is not None:
                    values[f"audit/{c.claim}"] = measured
            for logger in trainer.loggers:
                logger.log_metrics(values, step=self.batches)

        def state_dict(self) -> dict[str, int]:
            return {"batches": self.batches}

        def load_state_dict(self, state_dict: dict[str, int]) -> None:
            self.batches = int(state_dict["batches"])

    return EquilibriumCallback()
