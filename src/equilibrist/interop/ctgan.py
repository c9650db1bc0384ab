"""CTGAN, by itself and within SDV: its critic against held-out rows of the table, and the columns that betray it.

    with equilibrist.listen() as heard:
        model.fit(train, discrete_columns)
    print(audit_table(heard, model, held_out))

Nothing of either package is imported here: the model is the user's, and brings its own encoding along.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equilibrist.core.draws import Use
from equilibrist.critics import CriticAudit
from equilibrist.errors import DataError, GameError
from equilibrist.interop._audited import audited
from equilibrist.interop.listening import Heard
from equilibrist.nn.noise import GLOBAL, derived, seeded
from equilibrist.nn.wrapped import copied
from equilibrist.penalties import GradientPenalty

CONDITION = "condition"
ROWS = 499  # of a table encoded at once: from 500 on the encoder starts processes
ENCODED, CONDITIONS, GENERATED = range(3)  # places of draws


@dataclass(frozen=True)
class Span:
    """Neighbouring entries of an encoded row.

    Attributes:
        column: the table's.
        begin, end: the entries.
        softmax: whether they are one choice: a category, or the mode of a number.
        discrete: whether the column is one of categories, by which training conditions rows.
    """

    column: str
    begin: int
    end: int
    softmax: bool
    discrete: bool


class _Entries(Protocol):
    dim: int
    activation_fn: str


class _ColumnInfo(Protocol):
    column_name: object


class _Transformer(Protocol):
    output_dimensions: int
    output_info_list: Sequence[Sequence[_Entries]]
    _column_transform_info_list: Sequence[_ColumnInfo]

    def transform(self, table: object) -> NDArray[np.float64]: ...


class _Sampler(Protocol):
    def dim_cond_vec(self) -> int: ...


class _CTGAN(Protocol):
    """What is used of a fitted `ctgan.CTGAN`."""

    pac: int
    _batch_size: int
    _embedding_dim: int
    _transformer: _Transformer
    _data_sampler: _Sampler

    def _apply_activate(self, rows: Tensor) -> Tensor: ...


def audit_table(
    heard: Heard,
    model: object,
    held_out: object,
    *,
    train: object = None,
    at: int | None = None,
    harden: bool = True,
    seed: int = 0,
    **options: Any,
) -> CriticAudit:
    """Audits a synthesiser's critic on rows that it has not seen, and names the columns that betray generated rows.

    Real and generated rows are given the same conditions, those of the held-out rows. The loss is that of the
    training, WGAN with a gradient penalty of 10 over each pack of rows. Nothing is drawn from global random
    states, and nothing of the model changes.

    Args:
        heard: what `listen` heard of `model.fit`.
        model: the fitted `ctgan.CTGAN`, or SDV's `CTGANSynthesizer`.
        held_out: rows of the same table that were kept from `fit`; each is used once.
        train: the rows that were given to `fit`, to ask whether the critic memorises them.
        at: the critic's step, one of `heard.snapshots`; the pair as `fit` left it where it is None.
        harden: whether generated choices are made, as in a sampled table. Without it rows are those that training
            shows, whose soft choices give every column away at sight.
        seed: of every draw.
        options: those of `audit_critic` (gradients, mode, out, ...).

    Returns:
        The audit; its `columns` are the table's.

    Raises:
        GameError: a model that is not fitted, or a training in which no pair was heard.
        DataError: a table that does not fit the model, or too few rows: a pack is one sample.
    """
    own = _fitted(model)
    critic, generator = heard.pair(at)
    if generator is None:
        raise GameError(
            "no generator was heard beside the critic: listen to the whole of model.fit"
        )
    real = encoded(model, held_out, seed)
    fake = generated(own, generator, len(real), real[:, _width(own) :], harden, seed)
    if train is not None:
        options["train_real"] = encoded(model, train, seed)
    options = {"mode": "train", "columns": columns_of(own), **options}
    return audited(
        critic,
        real,
        fake,
        "wgan",
        penalties=[GradientPenalty(10.0)],
        pack=own.pac,
        seed=seed,
        **options,
    )


def columns_of(model: object) -> dict[str, list[int]]:
    """Which entries of an encoded row belong to each column of the table, and to the condition."""
    own = _fitted(model)
    found: dict[str, list[int]] = {}
    for span in _spans(own):
        found.setdefault(span.column, []).extend(range(span.begin, span.end))
    width, conditions = _width(own), own._data_sampler.dim_cond_vec()
    if conditions:
        found[CONDITION] = list(range(width, width + conditions))
    return found


def encoded(model: object, table: Any, seed: int = 0) -> Tensor:
    """Rows of a table as the critic sees them: encoded, each with a condition that it meets.

    A condition names the row's own category in one discrete column, drawn evenly. (Training draws the category
    first, by the logarithm of its frequency, so that rare ones are seen more often than here.)
    """
    own = _fitted(model)
    if isinstance(table, dict) and len(table) == 1:  # as SDV takes tables
        (table,) = table.values()
    if not len(table):
        raise DataError("the table has no rows: give it some that were kept from fit")
    with seeded(_seed(seed, ENCODED), GLOBAL):  # the encoder draws the mode of a number
        try:
            if own is not model:
                # Not `preprocess`, which fits SDV's own transformers anew.
                processor = copy.deepcopy(getattr(model, "_data_processor"))  # noqa: B009 (it is SDV's own)
                table = processor.transform(table)
            pieces = [table[k : k + ROWS] for k in range(0, len(table), ROWS)]
            rows = np.concatenate([own._transformer.transform(piece) for piece in pieces])
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"the table does not fit the model ({str(error).splitlines()[0]}): give it the columns that "
                "were given to fit"
            ) from error
    x = torch.from_numpy(rows.astype("float32"))
    parts = [x[:, span.begin : span.end] for span in _spans(own) if span.discrete]
    if not parts:
        return x
    drawn = Use.LISTENED.at(place=CONDITIONS).generator(seed).integers(len(parts), size=len(x))
    chosen = torch.from_numpy(drawn)
    return torch.cat([x, *(p * (chosen == k)[:, None] for k, p in enumerate(parts))], 1)


def generated(
    model: object,
    generator: nn.Module,
    count: int,
    conditions: Tensor,
    harden: bool = True,
    seed: int = 0,
) -> Tensor:
    """Rows of a generator, encoded, as `model.sample` makes them: in batches of the training's size.

    Args:
        model: the fitted model.
        generator: its own, or a copy of an earlier one.
        count: rows.
        conditions: what is asked for [n, categories]; in another order.
        harden: whether soft choices are made.
        seed: of noise and order.
    """
    own = _fitted(model)
    order = Use.LISTENED.at(place=GENERATED).generator(seed).permutation(len(conditions))
    asked = conditions[torch.from_numpy(order)]
    network = copied(generator, "generator")  # batch norm's running averages are the user's
    device, size = next(network.parameters()).device, own._batch_size
    made = []
    with torch.no_grad(), seeded(_seed(seed, GENERATED), GLOBAL):
        for begin in range(0, count, size):
            # Batch norm takes a whole batch's statistics, so the last one is filled up.
            wanted = torch.arange(begin, begin + size) % count
            z = torch.randn(size, own._embedding_dim)
            rows = own._apply_activate(network(torch.cat([z, asked[wanted]], 1).to(device)))
            made.append(torch.cat([rows.cpu(), asked[wanted]], 1)[: count - begin])
    rows = torch.cat(made)
    if harden:
        for span in _spans(own):
            if span.softmax:
                soft = rows[:, span.begin : span.end]
                hard = nn.functional.one_hot(soft.argmax(1), soft.shape[1])
                rows[:, span.begin : span.end] = hard.to(rows.dtype)
    return rows


def _seed(seed: int, place: int) -> int:
    return derived(seed, *Use.LISTENED.at(place=place).words)


def _fitted(model: Any) -> _CTGAN:
    """The CTGAN itself: SDV's synthesiser holds one."""
    own: _CTGAN = getattr(model, "_model", model)
    parts = ("_transformer", "_data_sampler", "_generator", "_apply_activate")
    if any(getattr(own, part, None) is None for part in parts):
        raise GameError(
            f"{type(model).__name__} is no fitted CTGAN: give the model after fit (SDV: the synthesizer itself)"
        )
    return own


def _width(own: _CTGAN) -> int:
    return int(own._transformer.output_dimensions)


def _spans(own: _CTGAN) -> Iterator[Span]:
    begin = 0
    transformer = own._transformer
    for info, spans in zip(
        transformer._column_transform_info_list, transformer.output_info_list, strict=True
    ):
        for span in spans:
            softmax = span.activation_fn == "softmax"
            discrete = softmax and len(spans) == 1
            yield Span(str(info.column_name), begin, begin + span.dim, softmax, discrete)
            begin += span.dim
