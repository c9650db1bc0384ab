"""What a critic was shown, told apart: real batches, generated ones, points of a penalty."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equilibrist.errors import GameError
from equilibrist.interop.origin import block_of

REAL, FAKE, PENALTY, UNKNOWN, SKIP = "real", "fake", "penalty", "unknown", "skip"
CALLS = 64  # of a critic between two of its steps; older ones are dropped
TRIES = 24  # comparisons by value that may fail before they are given up
DEFAULT = (REAL, FAKE)

Tell = Callable[..., object]


@dataclass
class CriticCall:
    """One call of a critic.

    Attributes:
        kind: "real", "fake", "penalty", or "unknown" until its round is over.
        how: by what it was recognised: "memory", "value", "graph", "order", "tell".
        tensors: copies of its inputs.
        fakes: which of its rows are generated, where it holds both kinds.
        segment: the stretch between two steps, of any player, in which it was made.
        nbytes: memory of its inputs.
    """

    kind: str
    how: str
    tensors: tuple[Tensor, ...]
    fakes: Tensor | None = None
    segment: int = 0
    nbytes: int = 0

    def part(self, kind: str) -> tuple[Tensor, ...] | None:
        """The inputs of one kind, or None where there are none."""
        if self.fakes is None:
            return self.tensors if self.kind == kind else None
        rows = self.fakes if kind == FAKE else ~self.fakes
        if not rows.any():
            return None
        return tuple(t[rows] if t.ndim and len(t) == len(rows) else t for t in self.tensors)


@dataclass
class Rounds:
    """The last rounds of one critic; a round is what it was called with before one of its steps.

    Args:
        keep: rounds.
        limit: bytes of all rounds together.
        order: kinds of the calls of a round, again and again, where the user says so.
        tell: a function of the call's place in its round and its inputs, which says the kind.

    Attributes:
        rounds: the last ones, each a list of calls.
        tally: how often each kind was recognised by what.
        open: calls of which nothing says what they were.
        learned: the kinds of the two calls of a round, once a generator's step has shown them.
        tries: comparisons by value that may still fail.
    """

    keep: int
    limit: int
    order: Sequence[str] | None = None
    tell: Tell | None = None
    rounds: deque[list[CriticCall]] = field(default_factory=deque)
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    open: int = 0
    learned: tuple[str, ...] | None = None
    tries: int = TRIES
    _pending: deque[CriticCall] = field(default_factory=lambda: deque(maxlen=CALLS))
    _open_bytes: int = 0
    _kept_bytes: int = 0
    _segment: int = 0
    _used: int = -1  # the source's call whose output was met last

    def by_value(self) -> bool:
        """Whether inputs are still compared with outputs by value."""
        return self.tries > 0

    def add(
        self, tensors: tuple[Tensor, ...], how: str | None, made: int, block: slice | None
    ) -> None:
        """Notes a call.

        Args:
            tensors: its inputs.
            how: what shows that they came from a generator; None where nothing does.
            made: how often that generator had been called.
            block: the generated rows, where the others are not.
        """
        kind, fakes = UNKNOWN, None
        main = tensors[0]
        if how == "graph":
            # What is computed from an output that was shown before is a point between samples.
            kind = PENALTY if made == self._used else FAKE
            self._learn(main)
        elif how:
            kind = FAKE
        elif main.requires_grad and main.is_leaf and self._both():
            kind = PENALTY
        if kind == FAKE:
            self._used = made
        if block is not None and block.stop - block.start < len(main):
            fakes = torch.zeros(len(main), dtype=torch.bool, device=main.device)
            fakes[block] = True
        # A penalty's points may be told apart by a function or an order of the user's, so only the
        # library's own judgement spares the copy.
        spare = kind == PENALTY and self.order is None and self.tell is None
        copies = () if spare else tuple([_copy(t) for t in tensors])
        size = sum([t.nbytes for t in copies])
        if len(self._pending) == CALLS:
            self._open_bytes -= self._pending[0].nbytes
        self._pending.append(CriticCall(kind, how or "", copies, fakes, self._segment, size))
        self._open_bytes += size
        while self._open_bytes > self.limit and len(self._pending) > 1:
            self._open_bytes -= self._pending.popleft().nbytes

    def _both(self) -> bool:
        """Whether this stretch has seen two batches already, not both of them generated."""
        here = [call.kind for call in self._pending if call.segment == self._segment]
        return len(here) > 1 and UNKNOWN in here

    def other_step(self) -> None:
        """Another player has stepped."""
        if self._pending:
            self._segment += 1

    def step(self, fed: bool) -> None:
        """The critic has stepped: its round is over. `fed`: whether a generator is known to feed it."""
        self._used = -1
        if not self._pending:
            return
        here = [call for call in self._pending if call.segment == self._segment]
        calls = here or list(self._pending)
        self._pending.clear()
        self._open_bytes = 0
        self._segment += 1
        self._decide(calls, fed)
        kept = []
        for call in calls:
            if call.kind in (REAL, FAKE):
                kept.append(call)
                self.tally["both" if call.fakes is not None else call.kind, call.how] += 1
            elif call.kind == UNKNOWN:
                self.open += 1
        if not kept:
            return
        self.rounds.append(kept)
        self._kept_bytes += sum([call.nbytes for call in kept])
        while len(self.rounds) > self.keep or (
            len(self.rounds) > 1 and self._kept_bytes > self.limit
        ):
            self._kept_bytes -= sum([call.nbytes for call in self.rounds.popleft()])

    def _decide(self, calls: list[CriticCall], fed: bool) -> None:
        if self.tell is not None:
            for place, call in enumerate(calls):
                _label_by_answer(call, self.tell(place, *call.tensors))
            return
        if self.order is not None:
            for place, call in enumerate(calls):
                call.kind, call.how = self.order[place % len(self.order)], "your order"
                call.fakes = None
            return
        left = [call for call in calls if call.kind == UNKNOWN]
        if not fed:
            return  # before the generator's first step, or no generator at all: there is nothing to go by
        if any(call.kind == FAKE for call in calls) or len(left) == 1:
            for call in left:
                call.kind, call.how = REAL, "no trace of the generator"
        elif len(left) > 1:
            kinds, how = (self.learned, "place") if self.learned else (DEFAULT, "order")
            for place, call in enumerate(left):
                call.kind, call.how = kinds[place % len(kinds)], how

    def _learn(self, main: Tensor) -> None:
        """Where a generator's step shows a batch of the critic's round again, that batch's place in the round
        was the generated one's."""
        if self.learned is not None or not self.rounds or self.tries <= 0:
            return
        last = [call for call in self.rounds[-1] if call.how == "order"]
        if len(last) != 2:
            return
        self.tries -= 1
        again = [block_of(call.tensors[0], main.detach()) is not None for call in last]
        if sum(again) == 1:
            self.learned = (FAKE, REAL) if again[0] else (REAL, FAKE)
            for calls in self.rounds:
                for kind, call in zip(self.learned, calls, strict=False):
                    if call.how == "order":
                        call.kind, call.how = kind, "place"

    def batches(self, kind: str) -> list[tuple[Tensor, ...]]:
        """What was kept of one kind, oldest first."""
        parts = (call.part(kind) for calls in self.rounds for call in calls)
        return [part for part in parts if part is not None]

    def forget_open(self) -> None:
        """Lets go of what no step has claimed."""
        self._pending.clear()


def _copy(tensor: Tensor) -> Tensor:
    """A plain tensor of its own memory, whatever subclass carries it (MONAI's MetaTensor)."""
    made = tensor.detach().clone()
    return made if type(made) is Tensor else made.as_subclass(Tensor)


def _label_by_answer(call: CriticCall, answer: object) -> None:
    """Takes what a user's `tell` has returned."""
    call.how, call.fakes = "tell", None
    if isinstance(answer, Tensor) and answer.dtype == torch.bool and answer.ndim == 1:
        call.kind, call.fakes = FAKE, ~answer
    elif answer in (REAL, FAKE):
        call.kind = answer
    elif answer in (None, SKIP):
        call.kind = SKIP
    else:
        raise GameError(
            f"tell returned {answer!r}: it must return 'real', 'fake', 'skip', or a tensor of bools with one "
            "entry for each row, True where the row is real"
        )
