"""A game from losses of your own: any modules, any loss function, as your training loop has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.data.nested import Nested, nested_source
from equilibrist.data.structure import SAMPLES, Structure
from equilibrist.errors import GameError
from equilibrist.formulations import Formulation, formulation_of
from equilibrist.games import _own_probe
from equilibrist.games._own_calls import OwnCalls
from equilibrist.games._own_gradients import find_new_stops
from equilibrist.games._own_players import (
    Held,
    check_frozen,
    functions_of,
    projection_list,
    renamed,
    roles,
)
from equilibrist.games._own_returned import check_returned, scalar_loss
from equilibrist.games._own_scale import loss_scale, losses_at_equality
from equilibrist.games._own_scores import (
    OwnLosses,
    OwnScores,
    accepted_arguments,
    batch_size,
    check_functions,
    laws_of,
)
from equilibrist.projections import Projection

Losses = Callable[..., Mapping[str, Tensor]] | Mapping[str, Callable[..., Tensor]]
BATCH = 64


class AdversarialGame(OwnCalls):
    """Players with losses of your own, written as a training loop writes them.

        def losses(modules, batch, z):
            fake = modules.generator(z)
            real_logits, fake_logits = modules.critic(batch), modules.critic(fake.detach())
            return {
                "critic": F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean(),
                "generator": -modules.critic(fake).mean(),
            }

        game = AdversarialGame({"generator": G, "critic": D}, losses, loader, latent=64)
        found = equilibrist.audit(game)

    The function may call modules any number of times, and differentiate within itself (gradient penalties, adaptive
    weights). Each loss is descended by its own player alone. Random numbers that the function or a module draws
    (torch's, NumPy's or Python's global ones) are part of a draw. Gradients that the function stops (`detach`,
    `no_grad`) only for another player's sake pass where derivatives need them; places where a player's own gradient
    is stopped are kept as they are and projection_list in `stops`.

    Modules are copied, never touched; torch's spectral norm divides by the exact norm in the copies.

    Args:
        players: by name: an nn.Module, or several in a list or dictionary; or tensors that the player chooses (a
            perturbation, a multiplier). Two players, the first of which leads (the generator) and the second answers
            (the critic, also where it is named so); or more, of which audits ask whether they are at rest, stable,
            and whether one gains alone.
        losses: `losses(modules, batch)`, or `losses(modules, batch, z)` where there is a latent, returns each player's
            loss, a 0-d tensor. `modules` holds them as `players` does, by name. With a parameter `only`, it is given
            the name of the player whose loss alone is needed (None: all). Or a function a player, each of one loss.
        data: tensors [N, ...] by themselves or in a tuple or dictionary, a Dataset, a loader (its first 10,000 rows are
            read), a function from a number to a batch, or a `Source`. `batch` has the structure of its batches.
        latent: dimension, shape or law of z, or a dictionary of them, which makes z a dictionary.
        frozen: modules that no player trains and losses use (a perceptual network): handed over among `modules`, in the
            precision of the players. Others that the function finds in its own scope stay as they are.
        samples: `samples(modules, batch[, z])` returns (real, generated) samples [n, ...]: for pictures, plain facts,
            and lambda-proximal claims.
        score: `score(modules, x[, batch])` returns the critic's scores of samples x, [n] or [n, 1], those of real ones
            the higher: for plain facts and lambda-proximal claims.
        formulation: whose unit and yardstick a tolerance takes ("vanilla", ...), where the losses are those of one;
            needs `samples` and `score`. Without it a tolerance is a share of the player's own loss (`yardstick`).
        projections: feasible sets, applied after every step.
        semi_gradient: the losses stop some of a player's own gradient on purpose: straight-through estimates, weights
            that are held constant, reversed gradients. An audit then claims what values show (rest, gains) and leaves
            claims of second order UNASSESSED; without it the self-tests end it.
        batch: samples in a minibatch; by default the loader's own, else 64.

    Attributes: those of `SampledGame`;
        data: the source of batches.
        stops: where a player's own gradient is stopped ("losses.py:12").
        any_rows: whether the losses take batches of any size.
        names: the players' own names by those that audits use.

    Raises:
        GameError: a loss that is not a number, does not depend on its player's weights, or is no function of weights
            and draw.
        DataError: data that cannot be read.
    """

    # Many parameters: each names one thing that a game of one's own may have.
    @torch.inference_mode(False)  # copies are to have gradients wherever they are made
    def __init__(
        self,
        players: Mapping[str, Held],
        losses: Losses,
        data: object,
        *,
        latent: object = None,
        frozen: Mapping[str, nn.Module] | None = None,
        samples: Callable[..., tuple[Tensor, Tensor]] | None = None,
        score: Callable[..., Tensor] | None = None,
        formulation: Formulation | str | None = None,
        projections: Sequence[Projection] = (),
        semi_gradient: bool = False,
        batch: int | None = None,
    ) -> None:
        if not isinstance(players, Mapping):
            raise GameError("players must be a dictionary: {'generator': G, 'critic': D}")
        called = roles(tuple(players))
        self.names = {role: name for name, role in called.items()}
        # The generator leads, whichever came first.
        self.players = tuple(sorted(self.names, key=lambda role: role == "critic"))  # type: ignore[assignment]
        self._losses = functions_of(losses, tuple(players))
        check_functions(samples=samples, score=score)
        self._samples, self._score = samples, score
        self.data: Nested | Source = nested_source(data)
        self._laws = laws_of(latent, self.structure.names)
        self.batch = batch_size(batch, data, BATCH)
        self.named = None if formulation is None else formulation_of(formulation)
        super().__init__(
            OwnLosses(losses, self.named),
            latent=self._laws,
            condition=None,
            penalties=(),
            auxiliary=(),
            projections=[renamed(p, called) for p in projection_list(projections)],
        )
        self._hold(players, check_frozen(frozen, tuple(players)))
        self.heads, self.normalised = 1, ()
        self._asks = (
            not isinstance(self._losses, dict) and "only" in accepted_arguments(self._losses)[1]
        )
        self._expect_nothing()
        self._stacks, self.any_rows, self.semi_gradient = False, True, bool(semi_gradient)
        _own_probe.probe(self)
        self._probed = True

    # -- the game -------------------------------------------------------------------------------

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """Each player's loss on a draw of batch rows, latents and noise."""
        function, wanted = self._losses, self.players if only is None else (only,)
        if isinstance(function, dict):
            found = {
                p: self._call(function[self.names[p]], players, constants, draw, mover=only)
                for p in wanted
            }
        else:
            extra = {} if only is None or not self._asks else {"only": self.names[only]}
            given = self._call(function, players, constants, draw, mover=only, **extra)
            if only is None or not self._probed:
                check_returned(self, given, only)
            found = {p: given[self.names[p]] for p in wanted}
        return {
            p: loss if type(loss) is Tensor and loss.ndim == 0 else scalar_loss(self.names[p], loss)
            for p, loss in found.items()
        }

    def _met(self, players: Players, constants: Constants, draw: Draw) -> bool:
        return find_new_stops(self, players, constants, draw)

    def batch_of(self, draw: Draw) -> object:
        """The batch of a draw, in the structure in which the data give it."""
        return self.structure.nested(draw)

    @property
    def structure(self) -> Structure:
        return getattr(self.data, "structure", None) or Structure(torch.zeros(1))

    def refresh(
        self, players: Players, constants: Constants, draw: Draw, exact: bool = False
    ) -> Constants:
        """Running statistics moved on by one evaluation of the losses, unless `exact`."""
        if exact or not any(self._pure[p].keeps_statistics for p in self.players):
            return constants
        renewed = {p: {k: t.clone() for k, t in held.items()} for p, held in constants.items()}
        with ExitStack() as stack:
            for p in self.players:
                stack.enter_context(self._pure[p].tracking())
            for memo in self._memos:  # a layer that counts its batches counts all of them
                memo.resting = True
            try:
                with torch.no_grad():
                    self.losses(players, renewed, draw)
            finally:
                for memo in self._memos:
                    memo.resting = False
        return renewed

    # -- its pieces ------------------------------------------------------------------------------

    def lacks(self, *wanted: str) -> str:
        """The first of these arguments that was not given; "" where all were."""
        given = {
            "samples": self._samples,
            "score": self._score,
            "formulation": self.named,
        }
        return next((name for name in wanted if given[name] is None), "")

    def _both(self, players: Players, constants: Constants, draw: Draw) -> tuple[Tensor, Tensor]:
        if self._samples is None:
            raise GameError("the game has no samples: give AdversarialGame samples=function")
        found = self._call(self._samples, players, constants, draw)
        if not isinstance(found, tuple | list) or len(found) != 2:
            what = type(found).__name__
            raise GameError(f"samples must return two tensors, (real, generated), not {what}")
        return found[0], found[1]

    def reals(self, players: Players, constants: Constants, draw: Draw) -> Tensor:
        """The real samples [n, ...] of a draw, as `samples` gives them."""
        return self._both(players, constants, draw)[0]

    def fakes(self, players: Players, constants: Constants, draw: Draw) -> Tensor:
        """The generated samples [n, ...] of a draw, as `samples` gives them."""
        return self._both(players, constants, draw)[1]

    def critic_of(
        self, players: Players, constants: Constants, draw: Draw, head: int = 0
    ) -> OwnScores:
        """The critic's scores as a function of samples, as `score` gives them."""
        if self._score is None:
            raise GameError("the game has no score: give AdversarialGame score=function")
        return OwnScores(self, players, constants, draw)

    def score_of(self, players: Players, constants: Constants, draw: Draw, x: Tensor) -> Tensor:
        """The user's scores of samples x under a draw's batch and noise."""
        assert self._score is not None
        found: Tensor = self._call(self._score, players, constants, draw, x)
        return found

    def yardstick(
        self, players: Players, constants: Constants, bank: Sequence[Draw], player: str
    ) -> float:
        """The formulation's scale where one is named; else that of the player's own loss (`_own_scale.loss_scale`)."""
        if self.named is not None and not self.lacks("samples", "score"):
            return super().yardstick(players, constants, bank, player)
        return loss_scale(self, players, constants, bank, player)

    def at_equality(self, players: Players, constants: Constants, draw: Draw) -> dict[str, float]:
        """The players' losses against a critic that tells nothing apart, where that can be seen."""
        return losses_at_equality(self, players, constants, draw)

    @property
    def own_scale(self) -> bool:
        """Whether `yardstick` is of each player's loss."""
        return self.named is None or bool(self.lacks("samples", "score"))

    @property
    def one_by_one(self) -> bool:
        """Whether the members of a stack are evaluated one after the other: where the function draws random numbers,
        differentiates within itself or does what no vmap takes."""
        return not self._stacks

    # -- draws -----------------------------------------------------------------------------------

    def draw(
        self,
        rng: np.random.Generator,
        source: Any,
        batch: int,
        dtype: torch.dtype = torch.float32,
        device: tree.Device = None,
    ) -> Draw:
        """One minibatch: rows of the data, then latents in their order, then the noise's seed."""
        rows = source.sample_rows(rng, batch) if hasattr(source, "sample_rows") else None
        rows = {SAMPLES: source.sample(rng, batch)} if rows is None else rows
        return self._around(rng, tree.to(rows, device=device, dtype=dtype), dtype)

    def draw_around(
        self, rng: np.random.Generator, real: object, condition: Tensor | None = None
    ) -> Draw:
        """The draw of this batch, in the structure of the data's batches."""
        anchor = next(self._live[self.players[0]].parameters())
        rows = tree.to(self.structure.flat(real), device=anchor.device, dtype=anchor.dtype)
        return self._around(rng, rows, anchor.dtype)

    def _around(self, rng: np.random.Generator, rows: Draw, dtype: torch.dtype) -> Draw:
        first = next(iter(rows.values()))
        draw = dict(rows)
        for name, law in self._laws.items():
            draw[name] = law.sample(rng, len(first), dtype, first.device)
        return self.with_noise(rng, draw)

    def covered(self, source: Any, rows: Tensor, device: tree.Device, dtype: torch.dtype) -> Draw:
        """These rows of a finite source."""
        if hasattr(source, "take_rows"):
            return tree.to(source.take_rows(rows), device=device, dtype=dtype)
        return super().covered(source, rows, device, dtype)
