"""Randomness as an argument: every number is addressed, none is consumed.

An address (seed, stream, step, rank, index) is hashed into the state of a generator of its own
(NumPy's SeedSequence into SFC64). Asking twice for the same address gives the same numbers, so a run
that is resumed at step k needs nothing but k. A counter-based generator would do as well; this one
draws normal numbers more than twice as fast, which small networks feel.

Training's minibatches and noise take addresses as they come (`Draws`). Everything else that draws is
listed once, in `Use`: no two of its members share an address, whatever numbers they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.errors import GameError

Draw = dict[str, Tensor]


class Stream(IntEnum):
    """What the numbers are for. Data differ between ranks; noise on weights must not.

    STUDY is for what campaigns look at outside of training and audits.
    """

    DATA = 0
    NOISE = 1
    INIT = 2
    SAMPLE = 3
    STUDY = 4
    AUDIT = 5


class Batch(IntEnum):
    """What an audit's minibatches of one part of the data are for: `index` of `Use.MINIBATCH`."""

    DESCENT = 0
    PROBE = 1
    MEAN_GRADIENT = 2
    STATIONARY = 3
    PROX_CRITIC = 4
    PROX_GENERATOR = 5
    FIRST_ORDER = 6
    FACT = 7


class Use(Enum):
    """What random numbers are drawn for, apart from training's minibatches and noise.

    A value is an address under the seed: its words are numbers, or the names of numbers that tell
    the draws of one use apart. Two uses whose addresses have the same length differ in a fixed word.
    """

    # As `generator` has them (stream, step, rank, index): resumed runs depend on these.
    WEIGHTS = (Stream.INIT, 0, 0, "player")
    PARTICLES = (Stream.INIT, 0, 0, 2**16)
    PROBE = (Stream.INIT, 1, 0, 0)
    SHEET = (Stream.SAMPLE, 0, 0, "sheet")
    SHEET_OF_REAL = (Stream.SAMPLE, 1, 0, 0)
    SCORE = (Stream.SAMPLE, 2, 0, "place")
    SCORE_CONDITION = (Stream.SAMPLE, 3, 0, "place")
    LISTENED = (Stream.SAMPLE, 4, 0, "place")

    # An audit's: the word after the stream is the use.
    SPLIT = (Stream.AUDIT, 0)
    BANK = (Stream.AUDIT, 1, "part")
    MINIBATCH = (Stream.AUDIT, 2, "part", "step", "index")
    LINEAR = (Stream.AUDIT, 3, "part", "batch")
    SPECTRUM_OF_RUN = (Stream.AUDIT, 4, "batch")
    ADJOINT = (Stream.AUDIT, 5)
    DIFFERENCE = (Stream.AUDIT, 6, "player", "attempt")
    DEVIATION = (Stream.AUDIT, 7, "player")
    EIGENVALUES = (Stream.AUDIT, 8)
    DENSITIES = (Stream.AUDIT, 9)
    NORMALITY = (Stream.AUDIT, 11)
    CURVATURE = (Stream.AUDIT, 12, "player")
    ANSWERED = (Stream.AUDIT, 13, "search")
    PROXIMAL_CURVATURE = (Stream.AUDIT, 14)
    PROXIMAL_LEADER = (Stream.AUDIT, 15)
    PROX_GENERATOR = (Stream.AUDIT, 16, "start")
    PROX_CRITIC = (Stream.AUDIT, 17, "start")

    # Of an audit of a critic alone.
    CRITIC_SPLIT = (Stream.AUDIT, 40, "kind")
    CRITIC_BATCH = (Stream.AUDIT, 41, "run")
    CRITIC_FRESH = (Stream.AUDIT, 42)
    CRITIC_NOISE = (Stream.AUDIT, 43, "place")
    CRITIC_MIXED = (Stream.AUDIT, 44)
    CRITIC_COLUMN = (Stream.AUDIT, 45, "group")

    # Of a diagnosis of samples.
    DIAGNOSIS_ROWS = (Stream.AUDIT, 65, "place")

    # Of a choice among checkpoints.
    CHECKPOINT_ROWS = (Stream.AUDIT, 60)
    CHECKPOINT_SCORE = (Stream.AUDIT, 61, "block")
    BRANCH = (Stream.AUDIT, 62, "branch")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names among the words."""
        return tuple(word for word in self.value if isinstance(word, str))

    def at(self, **where: int) -> Address:
        """The address at which these numbers stand for the names.

        Returns: the words, each of 32 bits: longer ones would run into their neighbours when hashed.
        Raises: ValueError for other names than this use has, or a number out of range.
        """
        if set(where) != set(self.fields):
            raise ValueError(f"{self.name} is addressed by {self.fields}, not {tuple(where)}")
        for name, number in where.items():
            if not 0 <= number < LIMITS.get(name, 2**32):
                raise ValueError(f"{name}={number} is no address of {self.name}")
        return Address(
            self, tuple(int(where[w]) if isinstance(w, str) else int(w) for w in self.value)
        )


LIMITS = {"player": 2**16}  # WEIGHTS end where PARTICLES begin


class Address(NamedTuple):
    """Where numbers are drawn: the use, and the words that follow it."""

    use: Use
    words: tuple[int, ...]

    def generator(self, seed: int) -> np.random.Generator:
        """The generator at this address of a seed."""
        return _hashed(seed, self.words)


def generator(
    seed: int, stream: Stream, step: int = 0, rank: int = 0, index: int = 0
) -> np.random.Generator:
    """The generator at one address of training; generators at different addresses are independent.

    Raises: ValueError for the stream of audits, whose addresses are those of `Use`.
    """
    if stream == Stream.AUDIT:
        raise ValueError("an audit's random numbers are addressed by a `Use`")
    return _hashed(seed, (int(stream), step, rank, index))


def _hashed(seed: int, words: tuple[int, ...]) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=words)))


def normal(
    rng: np.random.Generator,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    """Standard normal numbers of the given shape, drawn in `dtype` (float32 or float64)."""
    values, kind = _blank(shape, dtype)
    rng.standard_normal(dtype=kind, out=values.numpy())
    return values.to(device, dtype)


def uniform(
    rng: np.random.Generator,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    """Uniform numbers on [0, 1)."""
    values, kind = _blank(shape, dtype)
    rng.random(dtype=kind, out=values.numpy())
    return values.to(device, dtype)


def _blank(shape: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Any]:
    """Memory of torch's own, which is aligned: matrix products on NumPy's run up to 8% slower, and
    kernels may round differently on another alignment."""
    if dtype == torch.float64:
        return torch.empty(tuple(shape), dtype=torch.float64), np.float64
    return torch.empty(tuple(shape), dtype=torch.float32), np.float32


class Draws:
    """What one step may draw: batches and weights' noise, made when they are asked for.

    `make` turns a NumPy generator into a draw (a game's own `draw`, with its data and batch size).
    """

    def __init__(
        self,
        make: Callable[[np.random.Generator], Draw],
        seed: int,
        step: int,
        rank: int = 0,
        stream: Stream = Stream.DATA,
    ) -> None:
        self._make, self.seed, self.step, self.rank, self.stream = make, seed, step, rank, stream

    def batch(self, index: int = 0) -> Draw:
        """Minibatch `index` of this step: independent for each index."""
        return self._make(generator(self.seed, self.stream, self.step, self.rank, index))

    def noise(self, like: tree.Nested, index: int = 0) -> tree.Tree:
        """Standard normal noise shaped as the tree `like`: the same on every rank."""
        # The stream of the data stands where a rank would: an audit's noise is not the training's.
        rng = generator(self.seed, Stream.NOISE, self.step, int(self.stream), index)
        return tree.map(lambda t: normal(rng, t.shape, t.dtype, t.device), like)


class Given(Draws):
    """Minibatches of your own as what one step draws: `solver.step(..., Given(first, second))`.

    Args:
        draws: the minibatches, in the order in which the step asks for them; the last again and again where it
            asks for more. `equilibrist.draw_of_rows` makes one of rows.
        seed, step: where weights' noise is drawn, by the solvers that add any.

    Raises:
        GameError: none given, or one that is no dictionary of tensors.

    Examples:
        >>> given = Given({"real": torch.zeros(4, 2)}, {"real": torch.ones(4, 2)})
        >>> [float(given.batch(index)["real"].mean()) for index in range(3)]
        [0.0, 1.0, 1.0]
    """

    too_few = "only {} are given: give it more draws"

    def __init__(self, *draws: Draw, seed: int = 0, step: int = 0) -> None:
        if not draws or not all(isinstance(draw, dict) for draw in draws):
            raise GameError(
                "Given needs one draw or more, each a dictionary of tensors: make them by "
                "equilibrist.draw_of_rows(game, samples, latents)"
            )
        super().__init__(lambda rng: {}, seed, step)
        self._draws = draws

    def independent(self, index: int) -> Draw:
        """Minibatch `index`, where one was given for it."""
        if index >= len(self._draws):
            count = len(self._draws)
            raise GameError(
                f"the solver needs {index + 1} independent minibatches, {self.too_few.format(count)}"
            )
        return self.batch(index)

    def batch(self, index: int = 0) -> Draw:
        """Minibatch `index`, or the last."""
        # A dictionary of its own: what a solver adds to it must not reach a later reader.
        return dict(self._draws[min(index, len(self._draws) - 1)])


class Batches:
    """The minibatches of a whole run, made several steps at a time where they are small.

    One generator and one call of `make` per minibatch cost a small network as much as its own
    gradient. Where a minibatch holds less than 64 KiB, one generator, addressed by the first of 16
    steps, makes those of all 16, and each step gets its rows. Which numbers a step gets depends on
    its address alone: a run that is resumed inside a block makes that block again.

    `make(rng, batch)` makes a draw whose entries all have a leading dimension of size `batch`.
    """

    SMALL, STEPS = 2**16, 16

    def __init__(
        self,
        make: Callable[[np.random.Generator, int], Draw],
        batch: int,
        seed: int,
        rank: int = 0,
        stream: Stream = Stream.DATA,
    ) -> None:
        self._make, self._batch = make, batch
        self.seed, self.rank, self.stream = seed, rank, stream
        probe = make(generator(seed, stream, 0, rank), batch)
        size = sum(value.nbytes for value in probe.values())
        rows = all(value.ndim and len(value) == batch for value in probe.values())
        self.steps = self.STEPS if rows and size < self.SMALL else 1
        self._blocks: dict[int, tuple[int, Draw]] = {}  # by index: the block made last
        self._stacks: dict[int, tuple[int, list[Batches], Draw]] = {}  # the same of several seeds

    @property
    def form(self) -> tuple[int, int]:
        """Steps in a block, samples in a step."""
        return self.steps, self._batch

    def at(self, step: int) -> Draws:
        """What step `step` may draw."""
        return _Row(self, step)

    def batch(self, step: int, index: int) -> Draw:
        """Minibatch `index` of step `step`."""
        number, row = divmod(step, self.steps)
        held, block = self._blocks.get(index, (-1, {}))
        if held != number:
            block = self._block(number, index)
            if self.steps > 1:
                self._blocks[index] = (number, block)
        # A dictionary of its own: what a solver adds to it must not reach a later reader.
        return self._rows(block, row)

    def stacked(self, seeds: list[Batches], step: int, index: int) -> Draw:
        """Minibatch `index` of step `step` of all these, `self` the first: entries [seeds, batch, ...].

        Blocks are stacked once, not 16 times by minibatch.
        """
        number, row = divmod(step, self.steps)
        held, whose, block = self._stacks.get(index, (-1, [], {}))
        if held != number or whose != seeds:
            block = tree.stack([one._block(number, index) for one in seeds])
            if self.steps > 1:
                self._stacks[index] = (number, seeds, block)
        return self._rows(block, row, dim=1)

    def _block(self, number: int, index: int) -> Draw:
        first = number * self.steps
        rng = generator(self.seed, self.stream, first, self.rank, index)
        return self._make(rng, self.steps * self._batch)

    def _rows(self, block: Draw, row: int, dim: int = 0) -> Draw:
        if self.steps == 1:
            return dict(block)
        return {k: v.narrow(dim, row * self._batch, self._batch) for k, v in block.items()}


class _Row(Draws):
    def __init__(self, batches: Batches, step: int) -> None:
        self.batches, self.step = batches, step
        self.seed, self.rank, self.stream = batches.seed, batches.rank, batches.stream

    def batch(self, index: int = 0) -> Draw:
        return self.batches.batch(self.step, index)


class StackedDraws:
    """The draws of several seeds at once, stacked along a leading dimension."""

    def __init__(self, members: Sequence[Draws]) -> None:
        self.members = tuple(members)

    def batch(self, index: int = 0) -> Draw:
        """Minibatch `index` of every member: each entry has shape [members, ...]."""
        rows = [m for m in self.members if isinstance(m, _Row)]
        alike = len({(r.step, r.batches.form) for r in rows}) == 1
        if alike and len(rows) == len(self.members):
            return rows[0].batches.stacked([r.batches for r in rows], rows[0].step, index)
        return tree.stack([member.batch(index) for member in self.members])

    def noise(self, like: tree.Nested, index: int = 0) -> tree.Tree:
        """Noise for stacked players: each member's own."""
        return tree.stack(
            [m.noise(tree.member(like, i), index) for i, m in enumerate(self.members)]
        )
