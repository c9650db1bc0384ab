"""A loop that is run for a diagnosis: its rounds, what is counted on the way, and what its networks were given."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Container
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from equilibrist.diagnosis._ages import Ages
from equilibrist.diagnosis._critic import critic_of
from equilibrist.diagnosis._epochs import Epochs
from equilibrist.diagnosis._outcome import Outcome
from equilibrist.diagnosis._seen import ModuleHook
from equilibrist.diagnosis.loop import Loop, modules_of
from equilibrist.diagnosis.numerics import watched
from equilibrist.diagnosis.wiring import ROUNDS, Wiring, check_wiring
from equilibrist.errors import EquilibristError
from equilibrist.findings import Finding
from equilibrist.interop.origin import tensors_of
from equilibrist.nn.functional import in_transform
from equilibrist.nn.wrapped import uncompiled, unwrapped

OneRound = Callable[[int, Callable[[int], Any], int], None]
LATE = 12  # rounds at the end that are watched again
LOOKS = 32  # on the way
KEPT = 48  # calls whose inputs are kept
TRIED = 2  # of them, after which a loss without a second term is left alone
SPREAD = 16  # rounds of the second half in which two terms of one loss are compared
MEASURED = 40  # rounds that must be left for the size of steps to be measured early


class Running:
    """Runs a loop's rounds and watches them.

    Attributes:
        steps: of every player, by name.
        early, late: wiring checks of the first and the last rounds.
        spread: what two terms of the generator's loss were like in rounds of the second half.
        outcome: looks at the game on the way.
        fault: what ended the looks at what networks were given; None where nothing did.
        stopped: the finding that ended the run early; None where it ran to its end.
        given: what each player was given in its last rounds, (arguments, output's rows) by name.
        least: samples in the smallest batch that each player was given.
        middle: generated samples past the middle of the run.
        sizes: what was found of the size of steps early on.
        epochs: whether the critic is shown the data in order.
        ages: of the generated samples that the critic is trained on.
        rates: by player and optimiser, (number among all steps, learning rate) of steps that no scheduler of torch
            governs.
    """

    def __init__(self, loop: Loop, rounds: int, first: int, critic: str, seed: int) -> None:
        self.loop, self.rounds, self.first, self.seed = loop, rounds, first, seed
        self.critic = critic
        self.steps: Counter[str] = Counter(dict.fromkeys(loop.players, 0))
        self.given: dict[str, deque[tuple[Any, ...]]] = {
            name: deque(maxlen=KEPT) for name in loop.players
        }
        self.least: dict[str, int] = {}
        self.outcome = Outcome()
        self.early = self._check(ROUNDS)
        self.late: Wiring | None = None
        self.spread: Wiring | None = None
        self.stopped: Finding | None = None
        self.fault: Exception | None = None
        self.middle: Tensor | None = None
        self.sizes: list[Finding] = []
        self.rates: dict[str, dict[int, list[tuple[int, float]]]] = {
            name: defaultdict(list) for name in loop.players
        }
        self.epochs = Epochs(loop.seen)
        self.ages = Ages()
        self._count = 0  # of all optimisers' steps
        self.done = 0
        self._sizes: set[int] = set()
        self._single = False  # a batch of one sample was met, and nothing happened
        self._modules = {
            f"{name}{k or ''}": unwrapped(m)
            for name, held in loop.players.items()
            for k, m in enumerate(modules_of(held))
        }
        self._owners = {
            id(p): name
            for name, held in loop.players.items()
            for module in modules_of(held)
            for p in module.parameters()
        }

    def run(
        self, progress: Callable[[int], None], measure: Callable[[], list[Finding]] | None = None
    ) -> None:
        """Runs all rounds; `measure` runs some of them, by `one`, after the first."""
        watch = min(ROUNDS, self.rounds)
        late = self.rounds - LATE if self.rounds >= watch + 2 * LATE else self.rounds
        looks = {round(self.rounds * k / LOOKS) for k in range(LOOKS + 1)}
        self._look(0)
        with uncompiled(), self._counting():
            with self.early:
                self._rounds(0, watch, self.early, progress, set())
            if measure is not None and self.stopped is None and self.done + MEASURED < late:
                self.sizes = measure()
            looks = {i for i in looks if i > watch}
            if late - self.done >= 4 * SPREAD:
                half = max(self.done, self.rounds // 2)
                self._rounds(self.done, half, None, progress, looks)
                self._spread_over(half, late, progress, looks)
            self._rounds(self.done, late, None, progress, looks)
            if late < self.rounds and self.stopped is None:
                self.late = self._check(LATE)
                self.ages.listening = True
                with self.late:
                    self._rounds(late, self.rounds, self.late, progress, set())
        if self.stopped is None and self.rounds > watch:
            self._look(self.rounds)

    def _spread_over(
        self, half: int, late: int, progress: Callable[[int], None], looks: set[int]
    ) -> None:
        """Runs the rounds of the second half, and compares terms in some of them."""
        self.spread = spread = self._check(LATE)
        chosen = [half + round((late - half) * k / SPREAD) for k in range(SPREAD)]
        with spread.sampling() as sampled:

            def round_of(i: int, step: Callable[[int], object], first: int) -> None:
                if i in chosen[:TRIED] or spread.oppositions:
                    sampled(i, step, first)
                else:  # there is one term only
                    step(first + i)

            self._rounds(self.done, late, None, progress, looks, chosen, round_of)

    def one(self) -> None:
        """Runs the next round.

        Raises:
            RuntimeError: it has ended the run; see `stopped`.
        """
        self._round(self.done, None)
        if self.stopped is not None:
            raise RuntimeError(self.stopped.text)

    def _check(self, rounds: int) -> Wiring:
        loop = self.loop
        return check_wiring(
            loop.players,
            loop.loss,
            rounds=rounds,
            penalties=loop.penalties,
            real=loop.held_out,
            train=loop.seen,
        )

    def _rounds(
        self,
        begin: int,
        end: int,
        check: Wiring | None,
        progress: Callable[[int], None],
        looks: set[int],
        chosen: Container[int] = (),
        sampled: OneRound | None = None,
    ) -> None:
        """Runs these rounds; those that are chosen by `sampled`, the others by the check's."""
        usual = None if check is None else check.round
        for i in range(begin, end):
            if self.stopped is not None:
                return
            self._round(i, sampled if i in chosen else usual)
            progress(self.done)
            if self.done in looks and self.stopped is None:
                self._look(self.done)

    def _round(self, i: int, run: OneRound | None) -> None:
        """Runs round i; a value that is not finite or a batch of one that fails ends the run."""
        self._sizes = set()
        with watched(self._modules, self.first + i) as found:
            try:
                if run is None:
                    self.loop.step(self.first + i)
                else:
                    run(i, self.loop.step, self.first)
            except EquilibristError:
                raise
            except Exception as error:
                if not found and 1 not in self._sizes:
                    raise
                # The loop has stopped itself at a value that is not finite, or at a single sample.
                found.append(self._alone(i, f"{type(error).__name__}: {error}"))
        self.done = i + 1
        if found:
            single = 1 in self._sizes and not self._single
            self.stopped = self._alone(i, found[0].text) if single else found[0]
        self._single |= 1 in self._sizes

    def _alone(self, i: int, what: str) -> Finding:
        text = f"In round {self.first + i} the loop meets a batch of one sample: {what.splitlines()[0]}"
        return Finding("batch-of-one", "loop", text, evidence={"round": self.first + i})

    def _look(self, i: int) -> None:
        loop = self.loop
        if loop.real is None or loop.sample is None:
            return
        critic = critic_of(loop.players[self.critic])
        self.outcome.look(i, critic, loop.real, loop.sample, self.seed)
        if self.middle is None and i >= self.rounds * 0.6:
            self.middle = self.outcome.last

    def _counting(self) -> ExitStack:
        stack = ExitStack()
        stack.callback(register_optimizer_step_post_hook(self._stepped).remove)
        for name, held in self.loop.players.items():
            for module in modules_of(held):
                called = ModuleHook(self._harmless(self._called(name)))
                hook = module.register_forward_pre_hook(called, with_kwargs=True)
                stack.callback(hook.remove)
                if name != self.critic:
                    made = ModuleHook(self._harmless(self._made))
                    stack.callback(module.register_forward_hook(made).remove)
        return stack

    def _harmless(self, look: Callable[..., None]) -> Callable[..., None]:
        """A look whose faults do not reach the loop: after the first it looks no more."""

        def hook(*args: object) -> None:
            if self.fault is None:
                try:
                    look(*args)
                except Exception as fault:
                    self.fault = fault

        return hook

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._count += 1
        rates: dict[str, float] = {}
        for group in optimizer.param_groups:
            whose = {self._owners[id(p)] for p in group["params"] if id(p) in self._owners}
            for name in whose - set(rates):
                rates[name] = float(group.get("lr", 0.0))
        self.steps.update(rates.keys())
        if not hasattr(optimizer.step, "_wrapped_by_lr_sched"):
            for name, rate in rates.items():
                self.rates[name][id(optimizer)].append((self._count, rate))

    def _made(self, module: nn.Module, args: Any, output: Any) -> None:
        if not in_transform():
            for made in tensors_of(output):
                self.ages.made(self.done, made)

    def _called(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if in_transform() or not torch.is_grad_enabled():
                return
            shown = [t for t in tensors_of((args, kwargs)) if t.ndim]
            sizes = [len(t) for t in shown]
            if name == self.critic and shown:
                self.epochs.meet(shown[0].detach())
                if not shown[0].requires_grad:
                    self.ages.shown(self.done, shown[0])
            if sizes:
                self.least[name] = min(self.least.get(name, sizes[0]), *sizes)
                self._sizes.update(sizes)
            if not kwargs and sizes:
                self.given[name].append(args)

        return hook
