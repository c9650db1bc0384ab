"""Scores and losses of critics, in whatever form users have them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from equilibrist.critics._samples import Inputs
from equilibrist.errors import EquilibristError, GameError, first_line
from equilibrist.formulations import Formulation, ScoreFormulation
from equilibrist.penalties import Penalty

# A penalty of this library, or `penalty(critic, real, fake) -> scalar`.
CriticPenalty = Penalty | Callable[..., Tensor]


class Judge:
    """Scores of a module: one number a sample, or several (patches, several heads).

    Args:
        score: from the module's output to scores; None for what `scores_of` makes of it.
        pack: rows that the module judges at once.
        conditional: whether the module is shown what lies beside the samples.
    """

    def __init__(self, score: Callable[..., object] | None, pack: int, conditional: bool) -> None:
        self.score, self.pack, self.conditional = score, pack, conditional

    def raw(self, module: nn.Module, x: Tensor, y: Tensor | None) -> object:
        """The module's output as it is."""
        x, y = self.spread(x), None if y is None else self.spread(y)
        return module(x, y) if self.conditional else module(x)

    def spread(self, t: Tensor) -> Tensor:
        """Samples as the module takes them: packs row by row."""
        return t.flatten(0, 1) if self.pack > 1 else t

    def heads(self, module: nn.Module, batch: Inputs) -> list[Tensor]:
        """Scores [n, patches] of each of the critic's heads."""
        output = self.raw(module, batch.x, batch.y)
        if self.score is not None:
            output = self.score(output)
        return scores_of(output, len(batch.x), self.score is not None)

    def scores(self, module: nn.Module, batch: Inputs) -> Tensor:
        """One score a sample [n]: the mean over heads of the means over patches."""
        heads = self.heads(module, batch)
        return torch.stack([head.mean(1) for head in heads]).mean(0)

    def as_given(self, batch: Inputs) -> Tensor | tuple[Tensor, Tensor]:
        """Samples as a user's own function takes them: x, or (x, y)."""
        if not self.conditional:
            return self.spread(batch.x)
        assert batch.y is not None
        return self.spread(batch.x), self.spread(batch.y)


def scores_of(output: object, count: int, named: bool = False) -> list[Tensor]:
    """Scores [n, patches] by head from what a critic returns.

    A tensor [n], [n, 1] or [n, 1, h, w] (a map of patches) is one head; of a tuple the first entry counts (the
    others are features); a list is several heads.

    Args:
        output: what the critic, or `score`, returned.
        count: how many samples it was shown.
        named: whether a user's `score` made it: then any shape [n, ...] is taken for patches.

    Raises:
        GameError: something else.
    """
    if isinstance(output, tuple) and output:
        return scores_of(output[0], count, named)
    if isinstance(output, list) and output:
        return [head for part in output for head in scores_of(part, count, named)]
    if not isinstance(output, Tensor):
        raise GameError(
            f"the critic returns {type(output).__name__}: pass score=, which makes of it one score a sample"
        )
    shape = list(output.shape)
    if not shape or shape[0] != count:
        each = count // shape[0] if shape and shape[0] and count % shape[0] == 0 else 0
        hint = f" (does it judge {each} rows at once? pass pack={each})" if each > 1 else ""
        raise GameError(
            f"the critic returns {shape} for {count} samples: it must return [{count}]{hint}"
        )
    if len(shape) > 1 and shape[1] != 1 and not named:
        raise GameError(
            f"the critic returns {shape}, {shape[1]} numbers a sample: pass score= to say which is the score, "
            "such as score=lambda out: out[:, 1] - out[:, 0]"
        )
    if output.is_complex():
        raise GameError("the critic returns complex numbers: pass score=, such as score=torch.abs")
    return [output.reshape(count, -1)]


class _Head:
    """One head of a module as formulations and penalties see a critic: samples to scores."""

    samplewise = False

    def __init__(
        self,
        judge: Judge,
        module: nn.Module,
        real: Inputs,
        fake: Inputs,
        head: int,
        kept: dict[int, list[Tensor]],
    ) -> None:
        self.judge, self.module, self.real, self.fake, self.head = judge, module, real, fake, head
        self.kept = kept

    def __call__(self, x: Tensor) -> Tensor:
        if x is self.real.x or x is self.fake.x:
            if id(x) not in self.kept:
                self.kept[id(x)] = self._of(x)
            heads = self.kept[id(x)]
        else:
            heads = self._of(x)
        scores = heads[self.head]
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def _of(self, x: Tensor) -> list[Tensor]:
        # Penalties make samples of their own, some of which lie in the memory of the generated ones.
        generated = _memory(x) == _memory(self.fake.x)
        return self.judge.heads(self.module, Inputs(x, (self.fake if generated else self.real).y))


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


class CriticLoss:
    """What the critic minimises, as a function of a module and samples.

    Args:
        judge: reads the module's scores.
        formulation: a formulation, or None where the user's own loss is given.
        loss: `loss(critic, real, fake) -> scalar`, or None.
        penalties: of this library (`needs_mix`), or `penalty(critic, real, fake) -> scalar`.
        heads: how many heads the critic has.
    """

    def __init__(
        self,
        judge: Judge,
        formulation: Formulation | None,
        loss: Callable[..., Tensor] | None,
        penalties: Sequence[CriticPenalty],
        heads: int,
    ) -> None:
        self.judge, self.formulation, self.loss = judge, formulation, loss
        self.penalties, self.heads = tuple(penalties), heads

    @property
    def needs_graph(self) -> bool:
        """Whether evaluating it may take derivatives."""
        return self.loss is not None or bool(self.penalties)

    @property
    def paired(self) -> bool:
        """Whether it may ask for as many real as generated samples: a user's function that mixes them does, and so
        does a formulation that compares them pair by pair."""
        own = any(not _of_library(p) for p in self.penalties)
        return own or not isinstance(self.formulation, ScoreFormulation)

    def __call__(
        self, module: nn.Module, real: Inputs, fake: Inputs, mix: Tensor, penalised: bool = True
    ) -> Tensor:
        """The loss, 0-d; without the penalties where not `penalised`."""
        total = self._loss_without_penalties(module, real, fake)
        if penalised:
            for penalty in self.penalties:
                total = total + self._penalty_on(penalty, module, real, fake, mix)
        return total

    def views(self, module: nn.Module, real: Inputs, fake: Inputs) -> list[_Head]:
        """The critic's heads, which share one pass over these samples."""
        kept: dict[int, list[Tensor]] = {}
        return [_Head(self.judge, module, real, fake, k, kept) for k in range(self.heads)]

    def _loss_without_penalties(self, module: nn.Module, real: Inputs, fake: Inputs) -> Tensor:
        if self.formulation is None:
            assert self.loss is not None
            given = self.judge.as_given
            return _scalar("loss", self.loss, module, given(real), given(fake))
        losses = [
            self.formulation.losses(view, real.x, fake.x, only="critic")["critic"]
            for view in self.views(module, real, fake)
        ]
        return torch.stack(losses).mean()

    def _penalty_on(
        self, penalty: CriticPenalty, module: nn.Module, real: Inputs, fake: Inputs, mix: Tensor
    ) -> Tensor:
        if not _of_library(penalty):
            given = self.judge.as_given
            return _scalar("a penalty", penalty, module, given(real), given(fake))
        n = min(len(real), len(fake))
        paid = [
            penalty(view, real.x[:n], fake.x[:n], mix[:n] if penalty.needs_mix else None)
            for view in self.views(module, real, fake)
        ]
        return torch.stack(paid).mean()


def _scalar(what: str, function: Callable[..., object], *arguments: object) -> Tensor:
    """What a user's function returns, a 0-d tensor.

    Raises:
        GameError: it fails, or returns something else than one number.
    """
    try:
        value = function(*arguments)
    except EquilibristError:
        raise
    except Exception as error:
        raise GameError(
            f"{what}(critic, real, fake) fails: {type(error).__name__}: {first_line(error)[:200]}"
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        shown = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise GameError(
            f"{what}(critic, real, fake) returns {shown}: it must return one number, a tensor"
        )
    return value.reshape(())


def _of_library(penalty: CriticPenalty) -> TypeGuard[Penalty]:
    return hasattr(penalty, "needs_mix")


def takes_two(module: nn.Module) -> bool:
    """Whether the module's forward requires two arguments: samples and what lies beside them."""
    return required_arguments(module.forward) >= 2


def required_arguments(function: Callable[..., object]) -> int:
    """How many positional arguments without a default a function has; 0 where that is unknown."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return 0
    needed = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(needed)
