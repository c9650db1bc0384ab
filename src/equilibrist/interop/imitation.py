"""`imitation`'s adversarial trainers (GAIL, AIRL): their reward network as a critic of transitions.

    with listening(trainer) as heard:
        trainer.train(100_000)
    audit_reward(heard, trainer, held_out, learner)

Nothing of the package is imported here: the trainer is the user's, and brings its own encoding along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from equilibrist.critics import CriticAudit
from equilibrist.errors import DataError, GameError
from equilibrist.interop._audited import audited
from equilibrist.interop.listening import Heard, listen

PARTS = ("state", "action", "next state", "done")
FIELDS = ("obs", "acts", "next_obs", "dones")


def listening(trainer: object, **options: Any) -> Heard:
    """`listen` to a trainer: the critic is its reward network, and the first half of each of its batches is the
    expert's.

    Args:
        trainer: a `GAIL` or `AIRL`.
        options: those of `listen` (every, then, keep).

    Returns:
        A context manager, for `with listening(trainer) as heard: trainer.train(...)`.
    """
    return listen(critic=_network(trainer), tell=expert_first, **options)


def expert_first(place: int, state: Tensor, *rest: Tensor) -> Tensor:
    """Which rows of a critic's batch are the expert's: the first half."""
    return torch.arange(len(state), device=state.device) < len(state) // 2


def audit_reward(
    heard: Heard,
    trainer: object,
    expert: object,
    learner: object,
    *,
    train: object = None,
    at: int | None = None,
    **options: Any,
) -> CriticAudit:
    """Audits GAIL's reward network: is it saturated, does its reward still vary where the learner is, ...

    Args:
        heard: what was heard of `trainer.train`.
        trainer: a `GAIL`. (AIRL's critic subtracts the policy's log-probability, which transitions do not hold.)
        expert: the expert's transitions that were kept from the trainer (`imitation.data.types.Transitions`).
        learner: the learner's transitions, by its policy as it is now.
        train: the demonstrations that the trainer was given, to ask whether they are memorised.
        at: the critic's step, one of `heard.snapshots`.
        options: those of `audit_critic` (gradients, seed, out, ...).

    Returns:
        The audit; its columns are entries of state, action, next state and done, of those that the network reads.

    Raises:
        GameError: a trainer that is no GAIL.
        DataError: transitions that do not fit it, or too few.
    """
    if not hasattr(trainer, "_processed_reward"):
        raise GameError(
            f"audit_reward takes a GAIL, not {type(trainer).__name__}: of others pass the network and samples to "
            "equilibrist.audit_critic"
        )
    critic, _ = heard.pair(at)
    parts = _parts(trainer, expert)
    joined = _Joined(critic, [part.shape[1:] for part in parts])
    given = {"real": _rows(parts), "fake": _rows(_parts(trainer, learner))}
    if train is not None:
        options["train_real"] = _rows(_parts(trainer, train))
    options = {"reward": paid, "columns": _columns(critic, parts), **options}
    return audited(joined, given["real"], given["fake"], "vanilla", **options)


def paid(scores: Tensor) -> Tensor:
    """What GAIL pays the learner for a logit: -log(1 - D)."""
    return -logsigmoid(-scores)


class _Joined(nn.Module):
    """A reward network as a module of one input: state, action, next state and done side by side."""

    def __init__(self, network: nn.Module, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.network, self.shapes = network, [tuple(shape) for shape in shapes]

    def forward(self, rows: Tensor) -> Tensor:
        parts = rows.split([int(np.prod(shape)) for shape in self.shapes], dim=1)
        scores: Tensor = self.network(
            *(part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True))
        )
        return scores


def _network(trainer: object) -> nn.Module:
    found = getattr(trainer, "_reward_net", None)
    if not isinstance(found, nn.Module):
        raise GameError(
            f"{type(trainer).__name__} has no reward network: listen to a GAIL or an AIRL of imitation"
        )
    return found


def _parts(trainer: Any, transitions: object) -> tuple[Tensor, ...]:
    try:
        fields = [np.asarray(getattr(transitions, name)) for name in FIELDS]
        encoded: tuple[Tensor, ...] = trainer.reward_train.preprocess(*fields)
    except (AttributeError, ValueError, AssertionError) as error:
        raise DataError(
            f"transitions that the trainer cannot read ({str(error).splitlines()[0] if str(error) else error!r}): give "
            "imitation's Transitions (flatten_trajectories), of the trainer's environment"
        ) from error
    return tuple(part.float() for part in encoded)


def _rows(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten(1) if part.ndim > 1 else part[:, None] for part in parts], 1)


def _columns(network: nn.Module, parts: Sequence[Tensor]) -> dict[str, list[int]]:
    """Entries by name, of the parts that the network reads: BasicRewardNet leaves two out unless it is told."""
    found: dict[str, list[int]] = {}
    begin = 0
    for name, part in zip(PARTS, parts, strict=True):
        size = int(np.prod(part.shape[1:]))
        if getattr(network, f"use_{name.replace(' ', '_')}", True):
            for k in range(size):
                found[name if size == 1 else f"{name} {k}"] = [begin + k]
        begin += size
    return found
