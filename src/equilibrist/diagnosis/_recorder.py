"""The hooks of the wiring check: calls, backward passes and steps of somebody's loop, in order."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as of_torch

from equilibrist.diagnosis._calls import FAKE, Call, right_norms
from equilibrist.diagnosis._clips import ClippingHook
from equilibrist.diagnosis._columns import Columns, columns_since_step
from equilibrist.diagnosis._decay import decay_share
from equilibrist.diagnosis._explain import Explained, explain
from equilibrist.diagnosis._fit import Problem
from equilibrist.diagnosis._generated import Generated, split_by_kind
from equilibrist.diagnosis._hidden import Hidden
from equilibrist.diagnosis._layers import layers_used, wrappers_called
from equilibrist.diagnosis._own import Declared
from equilibrist.diagnosis._routine import Routine
from equilibrist.diagnosis._schedulers import Schedulers
from equilibrist.diagnosis._seen import (
    BEFORE,
    CRITIC,
    Clip,
    ModuleHook,
    Opposition,
    PlayerStep,
    Side,
    ascended,
    backward_hooks,
    bare,
    heads_of,
    opposition,
    side_of,
    stranger,
)
from equilibrist.errors import GameError
from equilibrist.formulations import Formulation
from equilibrist.interop.origin import ancestor, tensors_of
from equilibrist.nn.functional import in_transform
from equilibrist.nn.wrapped import hook_target, uncompiled

CALLS = 24  # of a critic, kept between two steps of a player; older ones are dropped
SEVERAL = 3  # optimisers of one player


def _same(t: Any) -> Any:
    return t


class Recorder:
    """Hooks on the players, and everything seen so far.

    Args:
        players: by role, (the user's name, modules).
        loss: the declared formulation, or None.
        penalties: the declared penalties.
        score: from the critic's output to scores, where it is not the first tensor of it.
        declared: losses of one's own in the place of a formulation.
        inputs: what these are given besides the modules, at a step; else what the networks were given last.
    """

    # Many parameters: each is one thing that the user may declare.
    def __init__(
        self,
        players: Mapping[str, tuple[str, list[nn.Module]]],
        loss: Formulation | None,
        penalties: Sequence[Any],
        score: Callable[[Any], Any] | None,
        declared: Declared | None = None,
        inputs: Callable[[], Sequence[Any]] | None = None,
    ) -> None:
        self.penalties, self.score = list(penalties), score
        self.declared, self.inputs = declared, inputs
        self.batch: Any = None
        self.latent: Any = None
        self.words: dict[str, dict[str, str]] = {}
        self.sides = {role: side_of(role, *held) for role, held in players.items()}
        self.owners = {id(p): s.role for s in self.sides.values() for p in s.params}
        self.feeders = {k: role for k, role in self.owners.items() if role != CRITIC}
        self.known = [*right_norms(penalties)]
        self.steps: list[PlayerStep] = []
        self.calls: list[Call] = []
        self.quiet: list[tuple[int, Tensor, bool]] = []
        self.clips: list[Clip] = []
        self.generated = Generated()
        self.wrappers: dict[str, list[int]] = {}
        self._routine = Routine()
        self.columns = Columns(loss, penalties, self.sides[CRITIC], self._routine)
        self.explained: dict[int, Explained | None] = {}  # by the identity of a step
        self.round = 0
        self.schedulers: Schedulers | None = None
        self.hidden: dict[str, Hidden] = {}
        self.stepped: set[int] = set()  # identities of what optimisers hold that step
        self.on = False
        self.fault: Exception | None = None
        self.recorded: tuple[Any, Any] = (None, None)
        self._own, self._depth, self._thread, self._count = False, 0, 0, 0
        self._closed = self._paused = False
        self._handles: list[Any] = []
        self._eager = contextlib.ExitStack()

    # -- on and off --------------------------------------------------------------------------------

    def start(self) -> None:
        """Puts the hooks on."""
        if self.on:
            return
        self.on, self._thread = True, threading.get_ident()
        self._eager.enter_context(uncompiled())
        self._handles = [
            of_torch.register_optimizer_step_pre_hook(self._before_step),
            of_torch.register_optimizer_step_post_hook(self._after_step),
        ]
        for side in self.sides.values():
            # Hooks on the inner module would be traced by torch.compile; DDP hands its calls on to it.
            for module in side.modules:
                inner = hook_target(module)
                hook = self._critic_called if side.role == CRITIC else self._generator_called
                try:
                    handle = inner.register_forward_hook(ModuleHook(hook), with_kwargs=True)
                except RuntimeError as error:  # scripted modules take no hooks
                    self.stop()
                    raise GameError(
                        f"the player {side.name!r} ({type(inner).__name__}) cannot be listened to: {error}; check the "
                        "module as it is before it is scripted"
                    ) from None
                self._handles.append(handle)
            self._handles += backward_hooks(side, self.listening)
            self._handles += layers_used(side)
            self._handles += wrappers_called(side, self.wrappers)
            self.hidden[side.role] = Hidden(side)
        self.schedulers = Schedulers(self.listening)
        self._handles += [ClippingHook(self), self.schedulers]

    def stop(self) -> None:
        """Takes them off."""
        while self._handles:
            self._handles.pop().remove()
        self._eager.close()
        self.on = False
        self.generated.forget()
        for side in self.sides.values():
            side.travel = side.moved / max(float(side.start.norm()), 1e-12)
            side.forget()

    @property
    def loss(self) -> Formulation | None:
        """The declared formulation."""
        return self.columns.loss

    def begin(self, i: int) -> None:
        """Round i begins."""
        self.round = i
        self._routine.rounds += 1

    @property
    def resting(self) -> bool:
        """Whether this round's steps are not compared."""
        return self.declared is None and self._routine.resting

    def pause(self, paused: bool) -> None:
        """Stops or resumes recording; what was seen of an unfinished step is dropped."""
        self._paused = paused
        for side in self.sides.values():
            side.forget()

    def listening(self) -> bool:
        """Whether what happens now is recorded."""
        if self._paused or in_transform():
            return False
        return not self._own and self.fault is None and threading.get_ident() == self._thread

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hears nothing of its own work, and lets no fault of it reach the training."""
        self._own = True
        try:
            # What is saved for this work is no part of a checkpointed region of the loop's.
            with torch.autograd.graph.saved_tensors_hooks(_same, _same):
                yield
        except Exception as fault:
            self.fault = fault
        finally:
            self._own = False

    # -- calls -------------------------------------------------------------------------------------

    def _generator_called(self, module: nn.Module, args: Any, kwargs: Any, made: Any) -> None:
        if not self.listening():
            return
        if args:
            self.latent = args[0] if len(args) == 1 else args
            self.recorded = (args[0], made)
        self.generated.add(made)

    def _critic_called(self, module: nn.Module, args: Any, kwargs: Any, made: Any) -> None:
        if not self.listening():
            self.sides[CRITIC].transformed |= in_transform()
            return
        samples = next(tensors_of((args, kwargs)), None)
        if samples is None or samples.ndim == 0:
            return
        kind, rows = self.generated.kind(samples)
        out = made if self.score is None else self.score(made)
        heads = list(heads_of(out))
        if not torch.is_grad_enabled() or not any(h.requires_grad for h in heads):
            if kind != FAKE or rows is None:
                self.quiet.append((len(self.steps), samples.detach(), kind == FAKE))
            return
        with self.alone():
            linked = ancestor(samples, self.feeders) is not None
            known = linked or kind == FAKE or samples.requires_grad
            if args and not known and not self.generated.within(samples):
                self.batch = args[0] if len(args) == 1 else args
            for part, chosen in split_by_kind(kind, rows, heads, samples):
                self._record(part, linked, samples, heads, chosen)

    def _record(
        self,
        kind: str,
        linked: bool,
        samples: Tensor,
        heads: Sequence[Tensor],
        rows: Tensor | None,
    ) -> None:
        scores = [h if rows is None else h[rows] for h in heads]
        shown = samples.detach() if rows is None else samples.detach()[rows]
        call = Call(len(self.calls), kind, linked, shown, [s.detach() for s in scores])
        call.lowered = torch.is_autocast_enabled(samples.device.type)
        call.asked = samples.requires_grad and samples.is_leaf
        players = {role: side.at for role, side in self.sides.items() if role == CRITIC or linked}
        if not kind:
            call.source = self.generated.like(shown.shape)
        if not self.resting:
            self.columns.take(call, heads[0], scores, players, samples)
            if samples.requires_grad and rows is None and (samples.is_leaf or not kind):
                self.columns.penalty(call, samples, scores)
        self.calls.append(call)
        for side in self.sides.values():
            if side.role == CRITIC or linked:
                side.calls = [*side.calls, call][-CALLS:]
        if rows is None or kind == FAKE:
            call.listen(heads[0], rows, lambda: self.on and not self._own)

    # -- backward passes and steps -----------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self.listening():
            return
        self._depth += 1
        if self._depth > 1:  # an optimiser around another
            return
        self._count += 1
        closure = kwargs.get("closure") or next((a for a in args[1:] if callable(a)), None)
        self._closed = closure is not None  # gradients are there after it has run
        if not self._closed:
            self._taken(optimizer)

    def _taken(self, optimizer: torch.optim.Optimizer) -> None:
        with self.alone():
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            moved = [s for s in self.sides.values() if any(id(p) in held for p in s.params)]
            self.stepped |= held
            strangers = len(held - set(self.owners))
            for side in moved:
                self._step(side, optimizer, held, len(moved) > 1, strangers)
            if not moved and strangers:
                self.steps.append(stranger(optimizer, self.round, strangers))

    def _step(
        self,
        side: Side,
        optimizer: torch.optim.Optimizer,
        held: set[int],
        shared: bool,
        strangers: int,
    ) -> None:
        grads = [p.grad for p in side.params]
        some = [g for g in grads if g is not None]
        side.reached |= {id(p) for p in side.params if p.grad is not None and p.requires_grad}
        side.optimizers.add(id(optimizer))
        if len(side.optimizers) > SEVERAL:  # one optimiser a weight: no step is the player's
            return
        raw, received = ascended(optimizer, side, grads)
        turned, whole = received is not raw, received
        size = None if not some else float(torch.stack([g.detach().norm() for g in some]).norm())
        columns, names = self._compared(side)
        # Weights that the optimiser does not hold are no part of what it receives.
        chosen = side.at.of(held)
        if chosen is not None:
            received = received[chosen]
            columns = {name: column[chosen] for name, column in columns.items()}
        finite = bool(torch.isfinite(received).all())
        problem = Problem(received, columns) if size is not None and finite else None
        altered = side.altered
        groups = [
            g for g in optimizer.param_groups if any(id(p) in side.names for p in g["params"])
        ]
        self.steps.append(
            PlayerStep(
                side.role,
                self.round,
                id(optimizer),
                type(optimizer).__name__,
                size,
                side.fresh,
                problem,
                [bare(call) for call in side.calls],
                names,
                shared,
                tuple(float(g["lr"]) for g in groups if "lr" in g),
                altered,
                frozenset(held & set(side.names)),
                strangers,
                finite,
                None
                if chosen is not None or altered
                else self._opposition(side, raw, problem, columns),
                *(self.schedulers.at_step(optimizer) if self.schedulers else (0, False)),
                self._count,
                turned,
                decay_share(optimizer, groups),
                side.cleared,
                side.transformed,
            )
        )
        self._explain(self.steps[-1])
        side.end_step(whole if some else None)

    def _explain(self, step: PlayerStep) -> None:
        found = self.explained[id(step)] = explain(step, self.known)
        self._routine.note(step, found)

    def _compared(self, side: Side) -> tuple[dict[str, Tensor], dict[str, tuple[int, str]]]:
        """What a step is compared with."""
        if self.resting:
            return {}, {}
        if self.declared is None:
            return columns_since_step(side)
        given = (self.batch, self.latent) if self.inputs is None else tuple(self.inputs())
        if given[0] is None:
            return {}, {}
        columns, words = self.declared.columns(side.role, side.at, *given, made=self.recorded)
        if not columns:
            return {}, {}
        self.words[side.role] = words
        names = {name: (-1, name) for name in columns}
        if side.last is not None:
            columns[BEFORE], names[BEFORE] = side.last, (-1, BEFORE)
        return columns, names

    def _opposition(
        self, side: Side, received: Tensor, problem: Problem | None, columns: dict[str, Tensor]
    ) -> Opposition | None:
        """How the part of the generator's gradient that goes through the critic lies to the rest."""
        if side.role == CRITIC:
            return None
        if self.declared is None:
            return opposition(side, received, problem)
        return self.declared.opposition(columns, self.words.get(side.role, ()))

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if self.listening() and self._depth:
            self._depth -= 1
            if not self._depth and self._closed:
                self._taken(optimizer)

    def clipped(self, params: Sequence[Tensor], limit: float, norm: float) -> None:
        """torch's clipping was called."""
        if not self.listening():
            return
        whose = [s for s in self.sides.values() if any(id(p) in s.names for p in params)]
        self.clips.append(
            Clip(
                tuple(s.role for s in whose),
                sum(p.grad is not None and bool(p.grad.any()) for p in params),
                norm,
                limit,
                sum(s.fresh for s in whose),
                sum(id(p) not in self.owners for p in params),
                whose[0].steps if len(whose) == 1 else -1,
                self._count,
                len(params),
            )
        )
