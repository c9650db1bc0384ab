"""Audits in the middle of any training loop."""

from __future__ import annotations

from typing import Any

from torch import nn

from equilibrist._errors import RecipeError, RequirementError
from equilibrist.checks import Audit, Settings, audit_game
from equilibrist.checks.pair import normalised
from equilibrist.data.loaders import source_of
from equilibrist.formulations import Formulation
from equilibrist.games import GAN
from equilibrist.games._foreign import by_itself, foreign, unwrapped, with_vectors
from equilibrist.games._setup import apart

# What a budget of gradients is shared among; see Settings.within.
WATCHED = ("stationary", "nash")


class Watch:
    """Audits two modules while some other loop trains them.

        watch = Watch(generator, critic, Vanilla(), loader, latent=64, every=1000)
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
        formulation: the loss of the loop: `Vanilla()` for binary cross entropy on logits,
            `Vanilla(probabilities=True)` behind a sigmoid, `WGAN()`, ...
        data: real samples: a `Source`, a tensor, a DataLoader (see `source_of`).
        latent: dimension, shape or law of the generator's input.
        every: steps between audits, when called with a step.
        gradients: what one audit may spend, in minibatch gradients (see `Settings.within`); the self-tests
            come on top, about 12.
        batch: samples in each of them.
        seed: of the audits' draws.
        checks: names of `equilibrist.checks.REGISTRY`; what is not "stationary" or "nash" comes on top of
            `gradients`.
        progress: "auto", "bar", "lines" or "none".
        settings: fields of `Settings`, over those that the budget gives.
        game: arguments of `GAN` besides (penalties, projections, condition, ...).

    Raises:
        GameError: modules that make no game (`GAN`): dropout in training mode, noise within a module.
        DataError: data that cannot be read (`source_of`).
        RecipeError: a budget below 60 gradients, or `every` below 1.

    Attributes: `audits`, pairs (step, Audit) in order.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        formulation: Formulation,
        data: Any,
        *,
        latent: Any,
        every: int = 1000,
        gradients: int = 600,
        batch: int = 64,
        seed: int = 0,
        checks: tuple[str, ...] = WATCHED,
        progress: str = "none",
        settings: dict[str, Any] | None = None,
        **game: Any,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise RecipeError(f"every={every!r} steps: it must be a whole number of at least 1")
        self._modules = unwrapped(generator), unwrapped(critic)
        apart(*self._modules)
        with by_itself(self._modules[0]):
            made = foreign(self._modules[0], "generator"), foreign(self._modules[1], "critic")
            self._critic = made[1]
            game["spectral_norm"] = normalised(made[1], game.get("spectral_norm", False))
            self.game = GAN(made[0].module, made[1].module, formulation, latent=latent, **game)
        self.data = source_of(data)
        self.settings = Settings.within(gradients, batch=batch, **(settings or {}))
        self.every, self.seed, self.checks, self.progress = every, seed, checks, progress
        self.audits: list[tuple[int, Audit]] = []

    def __call__(self, step: int) -> Audit | None:
        """An audit where `step` is a positive multiple of `every`, else None."""
        if step <= 0 or step % self.every:
            return None
        return self.audit(step)

    def audit(self, step: int = 0) -> Audit:
        """An audit now."""
        with by_itself(self._modules[0]):
            here = self.game.read(*self._modules)
            constants = with_vectors(here.constants, self._critic, self._modules[1])
            found = audit_game(
                self.game,
                here.players,
                constants,
                self.data,
                self.settings,
                seed=self.seed,
                checks=self.checks,
                progress=self.progress,
                generator_batch=self.settings.batch,
            )
        self.audits.append((step, found))
        return found


def lightning_callback(watch: Watch, log: bool = True) -> Any:
    """A Lightning callback that calls `watch` with the number of training batches so far, on the first
    process.

    Batches are counted here, for `trainer.global_step` counts optimiser steps: two a batch where both
    players have an optimiser. The count is saved in Lightning's checkpoints. With `log`, every logger
    of the trainer gets "audit/nash/<player>" (gains) and "audit/stationary/<player>" (residuals) at
    that count; the audits themselves are in `watch.audits`.

    Raises:
        RequirementError: neither `lightning` nor `pytorch_lightning` is installed.
    """
    base = _lightning()

    class EquilibriumCallback(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.batches = 0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.batches += 1
            found = watch(self.batches) if trainer.is_global_zero else None
            if found is None or not log:
                return
            values = {}
            for c in found:
                measured = c.evidence.get("gain", c.evidence.get("residual"))
                if measured is not None:
                    values[f"audit/{c.claim}"] = measured
            for logger in trainer.loggers:
                logger.log_metrics(values, step=self.batches)

        def state_dict(self) -> dict[str, Any]:
            return {"batches": self.batches}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.batches = int(state_dict["batches"])

    return EquilibriumCallback()


def _lightning() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            module = __import__(f"{name}.callbacks", fromlist=["Callback"])
        except ImportError:
            continue
        return module.Callback
    raise RequirementError(
        "lightning_callback needs Lightning: pip install lightning (a plain loop needs only Watch)"
    )
