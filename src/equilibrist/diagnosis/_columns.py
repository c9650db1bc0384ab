"""The gradients that the declared loss and penalties would send through one call of the critic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from equilibrist.diagnosis._calls import (
    FAKE,
    GENERATOR,
    REAL,
    ROLES,
    Call,
    Coordinates,
    Vectors,
    gradients,
    right_norms,
    separable,
    slopes_of,
    wrong_norms,
)
from equilibrist.diagnosis._routine import Routine
from equilibrist.diagnosis._seen import BEFORE, CRITIC, Side, factor_of
from equilibrist.formulations import Formulation, Vanilla
from equilibrist.penalties import R1, R2, GradientPenalty

FIRST = 2  # rounds in which every term of every call is looked at
UNDECLARED = (GradientPenalty(1.0), R1(2.0))  # that an undeclared penalty may be


class Columns:
    """Fills in the columns of calls.

    Args:
        loss: the declared formulation, or None.
        penalties: the declared penalties.
        critic: the critic.
        routine: which steps are explained already.

    Attributes:
        loss: the formulation, of probabilities where the critic turned out to return them.
        separable: whether real and generated scores enter it apart from one another.
    """

    def __init__(
        self, loss: Formulation | None, penalties: Sequence[object], critic: Side, routine: Routine
    ) -> None:
        self.loss, self.penalties = loss, list(penalties)
        self.separable = loss is None or separable(loss)
        self._critic, self._routine = critic, routine
        self._known = False  # that some samples are generated ones

    def take(
        self,
        call: Call,
        head: Tensor,
        scores: Sequence[Tensor],
        players: Mapping[str, Coordinates],
        samples: Tensor,
    ) -> None:
        """The terms of the declared loss at this call.

        Args:
            call: the call.
            head: the critic's first output, as it returned it.
            scores: of its heads, with their graph.
            players: whose gradients are taken.
            samples: the critic's input.
        """
        probabilities = isinstance(self.loss, Vanilla) and not self.loss.probabilities
        if probabilities and _is_probability(head):
            self.loss = replace(self.loss, probabilities=True)  # type: ignore[type-var]
        if self.loss is not None:
            for role in self._roles(call, samples.requires_grad):
                self._column(call, role, scores, players)
            reached = call.columns.get(GENERATOR, {}).get(GENERATOR)
            if call.linked and reached is not None and not bool(reached.any()):
                slopes = torch.autograd.grad(
                    [s.sum() for s in scores], samples, retain_graph=True, allow_unused=True
                )
                call.cut = 0.0 if slopes[0] is None else float(slopes[0].abs().max())

    def _roles(self, call: Call, asked: bool) -> Sequence[str]:
        """Whose terms a call may be part of. Other labels are looked at first, and where something is not explained."""
        if call.linked:
            # What a generator's steps received twice without the critic's terms, the later ones need not be tried for.
            return (GENERATOR,) if self._routine.apart else ROLES
        self._known |= call.kind == FAKE
        sure = call.kind or (self._known and not asked)
        if self._suspicious or self._routine.rounds <= FIRST or not sure:
            return FAKE, REAL
        return (call.kind or REAL,)

    @property
    def _suspicious(self) -> bool:
        """Whether a step of the critic was not explained: then other labels and wrong penalties are looked for."""
        return CRITIC in self._routine.puzzled

    def _column(
        self,
        call: Call,
        role: str,
        scores: Sequence[Tensor],
        players: Mapping[str, Coordinates],
    ) -> None:
        assert self.loss is not None
        others = self._others(call)
        slopes = [slopes_of(self.loss, role, s, others(s)).to(s.dtype) for s in scores]
        call.slopes[role] = slopes[0]
        for done, held in call.columns.items():
            factor = factor_of(slopes[0], call.slopes[done]) if len(scores) == 1 else None
            if factor is not None:  # the same column, up to a factor
                call.columns[role] = {name: factor * v for name, v in held.items()}
                return
        call.columns[role] = gradients(scores, slopes, players)

    def _others(self, call: Call) -> Callable[[Tensor], Tensor]:
        """Scores of the other kind, which a paired loss needs: the last of the same size; else none would do."""
        if self.separable:
            return lambda s: s
        for other in reversed(self._critic.calls):
            if other.kind != call.kind and other.scores[0].shape == call.scores[0].shape:
                return lambda s: other.scores[0].reshape(s.shape)
        return torch.zeros_like

    def penalty(self, call: Call, samples: Tensor, scores: Sequence[Tensor]) -> None:
        """The penalties on slopes at this call."""
        total = torch.stack([s.sum() for s in scores]).sum()
        found: Sequence[Tensor | None] = torch.autograd.grad(
            total, samples, create_graph=True, allow_unused=True
        )
        slope = found[0]
        if slope is None:
            return
        # R1 is taken at real samples, R2 at generated ones: at one call they would be one column.
        kinds = {R1, R2} & {type(p) for p in self.penalties}
        other = {R1 if call.kind == FAKE else R2} if len(kinds) == 2 else set()
        norms = right_norms([p for p in self.penalties if type(p) not in other] or UNDECLARED)
        if self._suspicious and self.penalties:
            norms.update({n.name: n.value for n in wrong_norms(self.penalties, slope.shape)})
        for name, value in norms.items():
            paid = value(slope)
            if paid.requires_grad:
                call.penalties[name] = gradients(
                    [paid], [torch.ones_like(paid)], {CRITIC: self._critic.at}
                )
        call.slopes["norm"] = slope.detach().flatten(1).norm(dim=1)


def columns_since_step(side: Side) -> tuple[dict[str, Tensor], dict[str, tuple[int, str]]]:
    """All columns of a player since its last step, and its last gradient; of each, (place of the call, role)."""
    found: dict[str, Tensor] = {}
    names: dict[str, tuple[int, str]] = {}
    for i, call in enumerate(side.calls):
        held: dict[str, Vectors] = {**call.columns, **call.penalties}
        for role, vectors in held.items():
            if side.role in vectors:
                found[f"{i}:{role}"] = vectors[side.role]
                names[f"{i}:{role}"] = (i, role)
    if side.last is not None:
        found[BEFORE], names[BEFORE] = side.last, (-1, BEFORE)
    return found, names


def _is_probability(head: Tensor) -> bool:
    """Whether scores are what a sigmoid returned."""
    node, steps = head.grad_fn, 0
    while node is not None and steps < 3:
        if node.name().startswith("Sigmoid"):
            return True
        if not node.name().startswith(("View", "Reshape", "Squeeze", "UnsafeView")):
            return False
        node, steps = node.next_functions[0][0], steps + 1
    return False
