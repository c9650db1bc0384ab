"""The hooks of `listen`: which modules play, what reaches the critics, who steps."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from equilibrist.interop import _optimizers
from equilibrist.interop._optimizers import Stepped
from equilibrist.interop._root import AFTER, BEFORE, Name, PlayerHook, Root
from equilibrist.interop._rounds import Rounds
from equilibrist.interop.origin import ancestor, block_of, storage
from equilibrist.nn.wrapped import hook_target, unwrapped

SETTLED = 2  # steps of every optimiser after the last newcomer, before discovery ends
EARLY = 64  # steps of a critic, after the last newcomer, with every round heard; then only
THIN = 16  # one round in so many, with no hook on any module in between
PROBATION = 50  # calls after which a player that fed nobody is not held any more


class Listener:
    """Registers the hooks, finds the players and passes on what they do.

    Args:
        make: makes the record of a critic's rounds.
        critic, generator: the user's names for them: a class's name, or a module.
        stepped: called after every step of a player, with its roots.
        soon: whether the rounds after so many steps of a critic must all be heard.
    """

    def __init__(
        self,
        make: Callable[[], Rounds],
        critic: Name,
        generator: Name,
        stepped: Callable[[list[Root]], None],
        soon: Callable[[int], bool],
    ) -> None:
        self._make, self._stepped, self._soon = make, stepped, soon
        self._awake = True
        self._named = {"critic": critic, "generator": generator}
        self._handles: list[RemovableHandle] = []
        self._seeker: RemovableHandle | None = None
        self._named_late = (
            False  # a module of a name that the user gave was seen for the first time
        )
        self._seen: dict[int, weakref.ref[nn.Module]] = {}
        self.records: list[Stepped] = []
        self._by_id: dict[int, Stepped] = {}
        self._owners: dict[int, Root] = {}
        self._last: tuple[Root | None, Stepped | None] = (None, None)
        self.thread = 0
        self.roots: list[Root] = []
        self.idle: dict[str, int] = {}
        self.fault: Exception | None = None
        self.muted = False

    # -- from outside ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to listen, to the thread that calls."""
        self.thread = threading.get_ident()
        given = [named for named in self._named.values() if isinstance(named, nn.Module)]
        self._seen.update({id(module): weakref.ref(module) for module in given})
        self._handles = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self._seek()

    def stop(self) -> None:
        """Removes every hook, and lets go of everything but players and their rounds."""
        stepped = set().union(*(one.params for one in self.records))
        self.idle = _optimizers.idle(list(self._alive()), stepped)
        self._settle()
        while self._handles:
            self._handles.pop().remove()
        for root in self.roots:
            root.unhook()
            root.rounds.forget_open()
        self._seen.clear()
        self._owners.clear()

    def fail(self, fault: Exception) -> None:
        """Takes a fault of the listener's own: from here on it ignores all calls, and the training goes on."""
        self.fault, self.muted = fault, True

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hears nothing meanwhile: an audit's own modules are not the training's."""
        self.muted, before = True, self.muted
        try:
            yield
        finally:
            self.muted = before

    @property
    def critics(self) -> list[Root]:
        """The critics: those that the user named, or those that a player feeds and that feed none."""
        if self._named["critic"] is not None:
            return [root for root in self.roots if self._is("critic", root.module)]
        fed = [root for root in self.roots if root.sources and not root.feeds]
        for better in (
            [root for root in fed if root.plain],
            [root for root in fed if root.plain and root.scores],
        ):
            fed = better or fed
        return fed

    def generator_of(self, critic: Root) -> Root | None:
        """The player that feeds a critic; the one that the user named, if any."""
        named = [root for root in self.roots if self._is("generator", root.module)]
        near = [root for root in self.roots if root in critic.sources]
        return next(iter([r for r in named if r in near] or named or near), None)

    # -- discovery ---------------------------------------------------------------------------------

    def _seek(self) -> None:
        if self._seeker is None:
            self._seeker = register_module_forward_pre_hook(self._see)

    def _settle(self) -> None:
        if self._seeker is not None:
            self._seeker.remove()
            self._seeker = None

    def _see(self, module: nn.Module, _: object) -> None:
        if torch.compiler.is_compiling() or self.muted:
            return
        known = self._seen.get(id(module))
        if (known is None or known() is not module) and threading.get_ident() == self.thread:
            self._seen[id(module)] = weakref.ref(module)
            self._named_late |= type(module).__name__ in self._named.values()

    def _is(self, role: str, module: nn.Module) -> bool:
        named = self._named[role]
        if isinstance(named, nn.Module):
            return unwrapped(module) is unwrapped(named)
        return named is not None and named in (
            type(part).__name__ for part in _optimizers.layers_of(module)
        )

    def _alive(self) -> Iterator[nn.Module]:
        for reference in self._seen.values():
            module = reference()
            if module is not None:
                yield module

    def _resolve(self) -> None:
        """Finds the roots of all optimisers again, and listens to those that are new."""
        self._named_late = False
        seen = list(self._alive())
        everyone = set().union(*(one.params for one in self.records))
        named = [m for m in seen if self._is("critic", m) or self._is("generator", m)]
        inside = {id(part) for m in named for part in m.modules() if part is not m}
        named = [m for m in named if id(m) not in inside]
        apart = {id(p) for m in named for p in m.parameters()}
        found: dict[int, tuple[nn.Module, Stepped]] = {}
        for one in self.records:
            chosen = [m for m in named if any(id(p) in one.params for p in m.parameters())]
            chosen += _optimizers.roots(seen, one.params - apart, everyone | apart)
            for module in chosen:
                found.setdefault(id(module), (module, one))
        for root in [root for root in self.roots if id(root.module) not in found]:
            self._drop(root)
        known = {id(root.module) for root in self.roots}
        for key, (module, one) in found.items():
            if key not in known:
                self._take(module, one)
        self._owners = {
            id(p): root
            for root in self.roots
            for p in root.module.parameters()
            if id(p) in root.stepped.params
        }
        for one in self.records:
            one.roots = [r for r in self.roots if r.own & one.params]

    def _take(self, module: nn.Module, stepped: Stepped) -> None:
        kind = type(unwrapped(module)).__name__
        same = sum(root.name.partition(" ")[0] == kind for root in self.roots)
        name = kind if not same else f"{kind} {same + 1}"
        where = hook_target(module)
        root = Root(
            module,
            where,
            name,
            stepped,
            self._make(),
            steps=stepped.steps,
            own={id(p) for p in module.parameters()},
        )
        root.hooks[BEFORE] = PlayerHook(self, self._before_call, root)
        root.hooks[AFTER] = PlayerHook(self, self._after_call, root)
        root.hook()
        self.roots.append(root)

    def _drop(self, root: Root) -> None:
        root.unhook()
        self.roots.remove(root)
        for other in self.roots:
            other.sources.discard(root)

    # -- what the hooks do -------------------------------------------------------------------------

    def hears(self) -> bool:
        """Whether what happens now is to be heard."""
        if torch.compiler.is_compiling():  # before anything that cannot be traced
            return False
        return not self.muted and threading.get_ident() == self.thread

    def _before_call(self, root: Root, inputs: tuple[Tensor, ...]) -> None:
        root.calls += 1
        root.called = True
        if root.feeds and root.calls > PROBATION and not self._is("critic", root.module):
            # A player that feeds others is no critic: only what it makes is listened to from now on.
            root.forget(BEFORE)
            return
        # Without gradients nobody learns from the call.
        if not torch.is_grad_enabled() or not inputs or inputs[0].ndim == 0:
            return
        source, how, block = self._origin(root, inputs)
        if source is None or block is not None:
            root.plain += 1
        if source is not None and source not in root.sources:
            root.sources.add(source)
            source.feeds = True
        root.rounds.add(inputs, how, source.made if source else -1, block)

    def _after_call(self, root: Root, inputs: tuple[Tensor, ...], made: object) -> None:
        root.made += 1
        root.called = True
        if root.scores is None:
            root.shape_of(inputs, made)
        if root.feeds or root.calls <= PROBATION:
            root.hold(made)
        else:
            root.forget(AFTER)
            root.held = []

    def _origin(
        self, root: Root, tensors: tuple[Tensor, ...]
    ) -> tuple[Root | None, str | None, slice | None]:
        """Who made an input, what shows it, and which of its rows are concerned where not all are."""
        others = [other for other in self.roots if other is not root and other.held]
        for tensor in tensors:
            where = storage(tensor)
            for other in others:
                if where and any(where == held for held, _ in other.held):
                    return other, "memory", None
        if root.rounds.by_value():
            for tensor in tensors:
                for other in others:
                    for _, made in reversed(other.held):
                        block = block_of(tensor.detach(), made)
                        if block is not None:
                            whole = block.stop - block.start == len(tensor)
                            root.rounds.tries += 1
                            return other, "value", None if whole else block
            root.rounds.tries -= 1
        for tensor in tensors:
            if tensor.grad_fn is not None:
                found = ancestor(tensor, self._owners)
                if found is not None and found is not root:
                    return found, "graph", None
        return None, None, None

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        known = self._by_id.get(id(optimizer))
        if not self._awake and known is not None and known.optimizer() is optimizer:
            return
        if self.hears():
            try:
                self._look(optimizer)
            except Exception as fault:
                self.fail(fault)

    def _look(self, optimizer: torch.optim.Optimizer) -> None:
        known = self._by_id.get(id(optimizer))
        if known is None or known.optimizer() is not optimizer:
            known = Stepped.of(optimizer)
            self.records.append(known)
            self._by_id[id(optimizer)] = known
            self._meet()
        elif known.size != _optimizers.size_of(optimizer):
            known.widen(optimizer)
            self._meet()
        elif not known.roots or self._named_late:
            self._resolve()
        known.before()

    def _meet(self) -> None:
        """An optimiser is new, or steps more than before: modules are looked for again."""
        for one in self.records:
            one.begun = one.steps
        self._resolve()
        self._seek()
        for root in self.roots:
            root.met = root.steps
        self._wake()

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        one = self._by_id.get(id(optimizer))
        if one is None or not self.hears():
            return
        if not self._awake:
            self._slumber(one)
            return
        moved: list[Root] = []
        try:
            moved = self._count(one, optimizer)
        except Exception as fault:
            self.fail(fault)
        if moved:
            self._stepped(moved)

    def _count(self, one: Stepped, optimizer: torch.optim.Optimizer) -> list[Root]:
        """Counts a step; whose it was."""
        first = one.roots[0] if one.roots else None
        # An optimiser around another, or two that share a module, step it with no call in between: that
        # is one step of the player.
        last, self._last = self._last, (first, one)
        if self._awake:
            same = first is not None and not first.called and last[0] is first
            one.echo = same and last[1] is not one
        one.after(optimizer)
        if one.echo:
            return []
        for root in self.roots:
            if root in one.roots:
                root.called = False
                root.steps += 1
                root.rounds.step(bool(root.sources))
            else:
                root.rounds.other_step()
        if self._seeker is not None:
            live = [s for s in self.records if s.optimizer() is not None]
            if all(s.steps - s.begun >= SETTLED for s in live):
                self._resolve()
                self._settle()
        elif not self._wakes():
            self._rest()
        return one.roots

    def _rest(self) -> None:
        """Takes all hooks off the modules, until a critic's next round is to be heard."""
        self._awake = False
        for root in self.roots:
            root.unhook()
            root.wake_at = None
        for root in self.critics or self.roots:
            root.wake_at = root.steps + 1
            while not self._heard_after(root, root.wake_at):
                root.wake_at += 1

    def _slumber(self, one: Stepped) -> None:
        """Counts a step in between."""
        one.steps += 1
        if one.echo:
            return
        for root in one.roots:
            root.steps += 1
            if root.steps == root.wake_at:
                self._wake()
        self._stepped(one.roots)

    def _wake(self) -> None:
        self._awake = True
        for root in self.roots:
            root.called = True  # or another optimiser's next step would look like an echo
            root.hook()

    def _wakes(self) -> bool:
        """Whether the calls before the critics' next steps are to be heard."""
        return any(self._heard_after(root, root.steps) for root in self.critics or self.roots)

    def _heard_after(self, root: Root, steps: int) -> bool:
        """Whether the round that begins after so many steps is heard."""
        return steps - root.met < EARLY or (steps + 1) % THIN == 0 or self._soon(steps)
