"""The hooks of the wiring check: calls, backward passes and steps of somebody's loop, in order."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

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
from equilibrist.diagnosis._clips import ClipEar
from equilibrist.diagnosis._decay import decay_share
from equilibrist.diagnosis._explain import Explained, explain
from equilibrist.diagnosis._fit import Problem
from equilibrist.diagnosis._hidden import Hidden
from equilibrist.diagnosis._own import Declared
from equilibrist.diagnosis._routine import Routine
from equilibrist.diagnosis._seen import (
    BEFORE,
    CRITIC,
    Clip,
    Ear,
    Side,
    Step,
    ascended,
    bare,
    factor_of,
    fingerprints,
    heads_of,
    hooked,
    last_function,
    opposed_parts,
    opposition,
    side_of,
    stranger,
)
from equilibrist.errors import GameError
from equilibrist.formulations import Formulation, Vanilla
from equilibrist.interop.origin import ancestor, block_of, storage, tensors_of
from equilibrist.nn.wrapped import uncompiled, unwrapped
from equilibrist.penalties import R1, R2, GradientPenalty

CALLS = 24  # of a critic, kept between two steps of a player; older ones are dropped
FIRST = 2  # rounds in which every term of every call is looked at
SEVERAL = 3  # optimisers of one player
OUTPUTS = 6  # of a generator, by which its samples are known again
UNDECLARED = (GradientPenalty(1.0), R1(2.0))  # that an undeclared penalty may be


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
        self.loss, self.penalties, self.score = loss, list(penalties), score
        self.declared, self.inputs = declared, inputs
        self.batch: Any = None
        self.latent: Any = None
        self.words: dict[str, dict[str, str]] = {}
        self.sides = {role: side_of(role, *held) for role, held in players.items()}
        self.owners = {id(p): s.role for s in self.sides.values() for p in s.params}
        self.feeders = {k: role for k, role in self.owners.items() if role != CRITIC}
        self.known = [*right_norms(penalties)]
        self.separable = loss is None or separable(loss)
        self.steps: list[Step] = []
        self.calls: list[Call] = []
        self.quiet: list[tuple[int, Tensor, bool]] = []
        self.clips: list[Clip] = []
        self.outputs: list[tuple[int, Tensor]] = []
        self.made: set[int] = set()
        self.end = ""  # the function that makes the generator's samples
        self.wrappers: dict[str, list[int]] = {}
        self._told = False
        self._routine = Routine()
        self.explained: dict[int, Explained | None] = {}  # by the identity of a step
        self.round = 0
        self.hidden: dict[str, Hidden] = {}
        self.stepped: set[int] = set()  # identities of what optimisers hold that step
        self.on = False
        self.fault: Exception | None = None
        self.recorded: tuple[Any, Any] = (None, None)
        self._own, self._depth, self._thread, self._count = False, 0, 0, 0
        self._closed = False
        self._handles: list[Any] = []
        self._eager = contextlib.ExitStack()
        self._schedulers: dict[int, list[Any]] = {}

    # -- on and off --------------------------------------------------------------------------------

    def start(self) -> None:
        """Puts the hooks on."""
        if self.on:
            return
        self.on, self._thread = True, threading.get_ident()
        self._eager.enter_context(uncompiled())
        self._handles = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        for side in self.sides.values():
            # Hooks on the inner module would be traced by torch.compile; DDP hands its calls on to it.
            for module in side.modules:
                inner = hooked(module)
                heard = self._critic_called if side.role == CRITIC else self._generator_called
                try:
                    handle = inner.register_forward_hook(Ear(heard), with_kwargs=True)
                except RuntimeError as error:  # scripted modules take no hooks
                    self.stop()
                    raise GameError(
                        f"the player {side.name!r} ({type(inner).__name__}) cannot be listened to: {error}; check the "
                        "module as it is before it is scripted"
                    ) from None
                self._handles.append(handle)
            for p in side.params:
                if p.requires_grad or p.is_leaf:
                    with contextlib.suppress(RuntimeError):
                        self._handles.append(
                            p.register_post_accumulate_grad_hook(self._reached(side))
                        )
            self._watch_layers(side)
            self._find_wrappers(side)
            self.hidden[side.role] = Hidden(side)
        self._handles.append(ClipEar(self))

    def stop(self) -> None:
        """Takes them off."""
        while self._handles:
            self._handles.pop().remove()
        self._eager.close()
        self.on = False
        self.outputs.clear()
        for side in self.sides.values():
            side.travel = side.moved / max(float(side.start.norm()), 1e-12)
            side.calls, side.last = [], None
            side.counts.clear()

    @property
    def suspicious(self) -> bool:
        """Whether a step of the critic was not explained: then other labels and wrong penalties are looked for."""
        return CRITIC in self._routine.puzzled

    def begin(self, i: int) -> None:
        """Round i begins."""
        self.round = i
        self._routine.rounds += 1

    @property
    def resting(self) -> bool:
        """Whether this round's steps are not compared."""
        return self.declared is None and self._routine.resting

    def hears(self) -> bool:
        """Whether what happens now is to be heard."""
        if torch.compiler.is_compiling():
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

    def _watch_layers(self, side: Side) -> None:
        """Which layers with weights of their own are called."""
        for i, module in enumerate(side.modules):
            for name, layer in unwrapped(module).named_modules():
                if next(layer.parameters(recurse=False), None) is None:
                    continue
                full = name if len(side.modules) == 1 else f"{i}.{name}"

                def called(*_: object, full: str = full) -> None:
                    side.used.add(full)

                with contextlib.suppress(RuntimeError):
                    self._handles.append(layer.register_forward_pre_hook(Ear(called)))

    def _find_wrappers(self, side: Side) -> None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        for module in side.modules:
            inner = unwrapped(module)
            for thing in gc.get_objects():
                if type(thing).__name__ == "DistributedDataParallel" and (
                    thing.__dict__.get("_modules", {}).get("module") is inner
                ):
                    counts = self.wrappers.setdefault(side.role, [0, 0])

                    def outer(*_: object, counts: list[int] = counts) -> None:
                        counts[0] += torch.is_grad_enabled()

                    def inner_called(*_: object, counts: list[int] = counts) -> None:
                        counts[1] += torch.is_grad_enabled()

                    self._handles.append(thing.register_forward_pre_hook(Ear(outer)))
                    self._handles.append(inner.register_forward_pre_hook(Ear(inner_called)))

    # -- calls -------------------------------------------------------------------------------------

    def _generator_called(self, module: nn.Module, args: Any, kwargs: Any, made: Any) -> None:
        if not self.hears():
            return
        every = list(tensors_of(made))[:2]
        found = [t.detach() for t in every]
        if every and every[0].grad_fn is not None:
            self.end = last_function(every[0])
        if args:
            self.latent = args[0] if len(args) == 1 else args
            self.recorded = (args[0], made)
        self.outputs = (self.outputs + [(storage(t), t) for t in found])[-OUTPUTS:]
        if found and found[0].ndim:
            self.made.update(fingerprints(found[0]))

    def _critic_called(self, module: nn.Module, args: Any, kwargs: Any, made: Any) -> None:
        if not self.hears():
            return
        samples = next(tensors_of((args, kwargs)), None)
        if samples is None or samples.ndim == 0:
            return
        kind, rows = self._kind(samples)
        out = made if self.score is None else self.score(made)
        heads = list(heads_of(out))
        if not torch.is_grad_enabled() or not any(h.requires_grad for h in heads):
            if kind != FAKE or rows is None:
                self.quiet.append((len(self.steps), samples.detach(), kind == FAKE))
            return
        with self.alone():
            linked = ancestor(samples, self.feeders) is not None
            if not linked and kind != FAKE and args and not samples.requires_grad:
                self.batch = args[0] if len(args) == 1 else args
            for part, chosen in self._parts(kind, rows, heads, samples):
                self._record(part, linked, samples, heads, chosen)

    def _kind(self, samples: Tensor) -> tuple[str, slice | None]:
        """FAKE where memory or values are those of a generator's output, and the rows where not all are."""
        where = storage(samples)
        if where and any(where == held for held, _ in self.outputs):
            return FAKE, None
        for _, made in reversed(self.outputs):
            block = block_of(samples.detach(), made)
            if block is not None:
                whole = block.stop - block.start == len(samples)
                return FAKE, None if whole else block
        return "", None

    def _parts(
        self, kind: str, rows: slice | None, heads: Sequence[Tensor], samples: Tensor
    ) -> Iterator[tuple[str, Tensor | None]]:
        if rows is None or any(len(h) != len(samples) for h in heads):
            yield kind, None
            return
        fakes = torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
        fakes[rows] = True
        yield REAL, ~fakes
        yield FAKE, fakes

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
            same = (t for _, t in reversed(self.outputs) if t.shape == shown.shape)
            call.source = next(same, None)
        if (
            isinstance(self.loss, Vanilla)
            and not self.loss.probabilities
            and _is_probability(heads[0])
        ):
            self.loss = replace(self.loss, probabilities=True)
        if self.loss is not None and not self.resting:
            for role in self._roles(kind, linked, samples):
                self._column(call, role, scores, players)
        penalised = samples.requires_grad and rows is None and (samples.is_leaf or not kind)
        if penalised and not self.resting:
            self._penalty(call, samples, scores)
        self.calls.append(call)
        for side in self.sides.values():
            if side.role == CRITIC or linked:
                side.calls = [*side.calls, call][-CALLS:]
        if rows is None or kind == FAKE:
            self._listen(call, heads[0], rows)

    def _roles(self, kind: str, linked: bool, samples: Tensor) -> Sequence[str]:
        """Whose terms a call may be part of. Other labels are looked at first, and where something is not explained."""
        if linked:
            # What a generator's steps received twice without the critic's terms, the later ones need not be tried for.
            return (GENERATOR,) if self._routine.apart else ROLES
        self._told |= kind == FAKE
        sure = kind or (self._told and not samples.requires_grad)
        if self.suspicious or self.round < FIRST or not sure:
            return FAKE, REAL
        return (kind or REAL,)

    def _column(
        self,
        call: Call,
        role: str,
        scores: Sequence[Tensor],
        players: Mapping[str, Coordinates],
    ) -> None:
        assert self.loss is not None
        others = self._others(call, role)
        slopes = [slopes_of(self.loss, role, s, others(s)).to(s.dtype) for s in scores]
        call.slopes[role] = slopes[0]
        for done, held in call.columns.items():
            factor = factor_of(slopes[0], call.slopes[done]) if len(scores) == 1 else None
            if factor is not None:  # the same column, up to a factor
                call.columns[role] = {name: factor * v for name, v in held.items()}
                return
        call.columns[role] = gradients(scores, slopes, players)

    def _others(self, call: Call, role: str) -> Callable[[Tensor], Tensor]:
        """Scores of the other kind, which a paired loss needs: the last of the same size; else none would do."""
        if self.separable:
            return lambda s: s
        for other in reversed(self.sides[CRITIC].calls):
            if other.kind != call.kind and other.scores[0].shape == call.scores[0].shape:
                return lambda s: other.scores[0].reshape(s.shape)
        return torch.zeros_like

    def _penalty(self, call: Call, samples: Tensor, scores: Sequence[Tensor]) -> None:
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
        if self.suspicious and self.penalties:
            norms.update({n.name: n.value for n in wrong_norms(self.penalties, slope.shape)})
        critic = {CRITIC: self.sides[CRITIC].at}
        for name, value in norms.items():
            paid = value(slope)
            if paid.requires_grad:
                call.penalties[name] = gradients([paid], [torch.ones_like(paid)], critic)
        sizes = slope.detach().flatten(1).norm(dim=1)
        call.slopes["norm"] = sizes

    def _listen(self, call: Call, head: Tensor, rows: Tensor | None) -> None:
        """What the loop's own backward passes send into the scores."""
        if not head.requires_grad:
            return

        def hook(received: Tensor) -> None:
            if not self._own and self.on:
                got = received.detach() if rows is None else received.detach()[rows]
                call.received.append(got.clone())

        head.register_hook(hook)

    # -- backward passes and steps -----------------------------------------------------------------

    def _reached(self, side: Side) -> Callable[[Tensor], None]:
        def hook(p: Tensor) -> None:
            if self.hears() and p.grad is not None:
                side.counts[id(p)] = side.counts.get(id(p), 0) + 1
                side.versions[id(p)] = p.grad._version
                side.reached.add(id(p))

        return hook

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self.hears():
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
        if side.role in self._many(optimizer):  # one optimiser a weight: no step is the player's
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
            Step(
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
                *self._schedules(optimizer),
                self._count,
                turned,
                decay_share(optimizer, groups),
            )
        )
        self._explain(self.steps[-1])
        side.end_step(whole if some else None)

    def _explain(self, step: Step) -> None:
        found = self.explained[id(step)] = explain(step, self.known)
        self._routine.note(step, found)

    def _opposition(
        self, side: Side, received: Tensor, problem: Problem | None, columns: dict[str, Tensor]
    ) -> tuple[float, float, float] | None:
        """How the part of the generator's gradient that goes through the critic lies to the rest."""
        if self.declared is None:
            return opposition(side, received, problem)
        through = self.declared.through
        own = [columns[name] for name in through if name in columns]
        rest = [
            columns[k] for k in self.words.get(side.role, ()) if k in columns and k not in through
        ]
        if side.role == CRITIC or not own or not rest:
            return None
        return opposed_parts(torch.stack(own).sum(0), torch.stack(rest).sum(0))

    def _many(self, optimizer: torch.optim.Optimizer) -> set[str]:
        """Players that more optimisers step than a loop has for them on purpose."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for side in self.sides.values():
            if held & set(side.names):
                side.optimizers.add(id(optimizer))
        return {s.role for s in self.sides.values() if len(s.optimizers) > SEVERAL}

    def _compared(self, side: Side) -> tuple[dict[str, Tensor], dict[str, tuple[int, str]]]:
        """What a step is compared with."""
        if self.resting:
            return {}, {}
        return self._declared(side) if self.declared else self._columns(side)

    def _columns(self, side: Side) -> tuple[dict[str, Tensor], dict[str, tuple[int, str]]]:
        found: dict[str, Tensor] = {}
        names: dict[str, tuple[int, str]] = {}
        for i, call in enumerate(side.calls):
            held: dict[str, Vectors] = {**call.columns, **call.penalties}
            for role, vectors in held.items():
                if side.role in vectors:
                    found[f"{i}:{role}"] = vectors[side.role]
                    names[f"{i}:{role}"] = (i, role)
        if side.last is not None:
            found[BEFORE] = side.last
            names[BEFORE] = (-1, BEFORE)
        return found, names

    def _schedules(self, optimizer: torch.optim.Optimizer) -> tuple[int, bool]:
        """How many schedulers hold an optimiser, and whether its rate is not the one that they have set."""
        if not hasattr(optimizer.step, "_wrapped_by_lr_sched"):
            return 0, False
        key = id(optimizer)
        if key not in self._schedulers:
            kinds = (LRScheduler, ReduceLROnPlateau)
            every = [t for t in gc.get_objects() if issubclass(type(t), kinds)]
            inner = {id(part) for t in every for part in getattr(t, "_schedulers", ())}
            self._schedulers[key] = [
                t for t in every if id(getattr(t, "optimizer", None)) == key and id(t) not in inner
            ]
        mine = self._schedulers[key]
        if len(mine) != 1 or isinstance(mine[0], ReduceLROnPlateau):
            return len(mine), False
        set_to = [float(lr) for lr in getattr(mine[0], "_last_lr", [])]
        now = [float(g["lr"]) for g in optimizer.param_groups]
        differ = len(set_to) == len(now) and any(
            abs(a - b) > 1e-6 * max(abs(a), abs(b)) for a, b in zip(set_to, now, strict=True)
        )
        return 1, differ

    def _declared(self, side: Side) -> tuple[dict[str, Tensor], dict[str, tuple[int, str]]]:
        """Columns of losses of one's own."""
        assert self.declared is not None
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

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if self.hears() and self._depth:
            self._depth -= 1
            if not self._depth and self._closed:
                self._taken(optimizer)

    def clipped(self, params: Sequence[Tensor], limit: float, norm: float) -> None:
        """torch's clipping was called."""
        if not self.hears():
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
            )
        )
