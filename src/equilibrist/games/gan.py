"""A generative adversarial network as a game of two modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.auxiliary import Auxiliary
from equilibrist.certificates import Json
from equilibrist.core.draws import Draw, Use
from equilibrist.core.game import Constants, Players, check_separable, check_zero_sum
from equilibrist.data import Source
from equilibrist.errors import GameError, first_line
from equilibrist.formulations import Critic, Formulation
from equilibrist.games import _probe, inputs
from equilibrist.games._scores import Reading, Scores
from equilibrist.games.inputs import Latent, Player
from equilibrist.games.sampled import SampledGame, Start, seed_of
from equilibrist.nn import noise, spectral_norm
from equilibrist.nn.pure import Output, PureModule
from equilibrist.nn.wrapped import copied
from equilibrist.penalties import Penalty
from equilibrist.projections import Projection


class GAN(SampledGame):
    """Generator against critic, each with its own loss.

    Args:
        generator: an nn.Module from latents [batch, ...] to samples, or a function that builds one
            (then every seed starts from fresh weights). Modules are copied, never touched, and run
            in the mode (train or eval) in which they are handed over. Random numbers that they draw
            in their forward pass (dropout, Gumbel noise, noise injection) are part of a draw: they are the
            same ones whenever the draw is, and losses are expectations over them too. A list makes one player of
            several generators: an equal mixture of them, the component chosen by one latent more.
        critic: an nn.Module from samples to one score each, [batch] or [batch, 1]: a free logit,
            no sigmoid (`Vanilla(probabilities=True)` takes one); or a function that builds one. A list
            makes one player of several critics: every loss is then the mean of the losses against each. So it is
            where a critic returns a list or a dictionary of scores. Where it returns a map of scores
            [batch, 1, ...], a loss is the mean over its patches; of a tuple the first entry is the score.
        formulation: `Vanilla()`, `WGAN()`, ..., or a name (`formulations.formulation_of`).
        latent: dimension of z ~ N(0, I), a shape such as (100, 1, 1), a `Latent` law, or a
            source of data (`equilibrist.data.Gaussian`).
        condition: what both players are shown beside their input, generator(z, c) and critic(x, c):
            the number of classes (c: int64 [batch]), or the shape of one condition (c: floats
            [batch, *shape]; image-to-image). It comes from the data, real and generated alike.
        penalties: added to the critic's loss.
        auxiliary: further terms of either player's loss (`equilibrist.auxiliary`).
        projections: feasible sets, applied after every step.
        spectral_norm: normalise every weight matrix of the critic by its largest singular value; or the
            names of the parameters to be normalised.

    Raises:
        GameError: shapes that do not fit, a loss that is not a pure function of the parameters (the
            message names the layer and the remedy), a claim of zero-sum that does not hold.

    Attributes: those of `SampledGame`.
    """

    # Many parameters: each is one part that a game may have, and most games have few.
    def __init__(
        self,
        generator: Player,
        critic: Player,
        formulation: Formulation | str,
        *,
        latent: int | tuple[int, ...] | Latent | Source,
        condition: int | tuple[int, ...] | None = None,
        penalties: Sequence[Penalty] = (),
        auxiliary: Sequence[Auxiliary] = (),
        projections: Sequence[Projection] = (),
        spectral_norm: bool | Sequence[str] = False,
    ) -> None:
        self._build = {
            "generator": inputs.builder(generator, "generator"),
            "critic": inputs.builder(critic, "critic"),
        }
        self._fresh = {p: not isinstance(build, nn.Module) for p, build in self._build.items()}
        super().__init__(
            formulation,
            latent=latent,
            condition=condition,
            penalties=penalties,
            auxiliary=auxiliary,
            projections=projections,
        )
        if isinstance(generator, list | tuple):
            self.latent = inputs.chooses(self.latent)
        built = {player: inputs.built(build, 0) for player, build in self._build.items()}
        inputs.apart(built["generator"], built["critic"])
        self.heads = inputs.heads(built["critic"])
        self._readings: tuple[Reading, ...] = (Reading(),)
        self._pure = {p: PureModule(m, p) for p, m in built.items()}
        self.modules = {p: copied(m, p) for p, m in built.items()}
        # Of modules that were given, the copies are enough.
        self._build = {p: build for p, build in self._build.items() if self._fresh[p]}
        self.normalised = inputs.normalised(self.modules["critic"], spectral_norm)
        self._check()

    # -- the game -------------------------------------------------------------------------------

    def against(
        self,
        players: Players,
        constants: Constants,
        draw: Draw,
        fake: Tensor,
        only: str | None = None,
    ) -> dict[str, Tensor]:
        """The losses once the generated samples [B, ...] are made: of the players, the critic's alone are read."""
        real = draw["real"]
        if self.noise:
            # Masks follow the order of the critic's calls, which shortcuts for one player would change.
            only = None
        if fake.dtype != real.dtype:  # under autocast
            fake = fake.to(real.dtype)
        losses: dict[str, Tensor] = {}
        for head in range(self.heads):
            critic = self.critic_of(players, constants, draw, head)
            against = self.formulation.losses(critic, real, fake, only)
            if only != "generator":
                for penalty in self.penalties:
                    paid = _paid(penalty, critic, real, fake, draw.get("mix"))
                    against["critic"] = against["critic"] + paid
            for term in self.auxiliary:
                if only in (None, term.player):
                    against[term.player] = against[term.player] + term(critic, fake, draw)
            losses = {p: losses[p] + loss for p, loss in against.items()} if losses else against
        if self.heads > 1:
            losses = {player: loss / self.heads for player, loss in losses.items()}
        return losses

    def refresh(
        self, players: Players, constants: Constants, draw: Draw, exact: bool = False
    ) -> Constants:
        """One power iteration (or the singular vectors themselves, if `exact`) for spectral
        normalisation; one update of running statistics where layers keep any (and unless `exact`)."""
        renewed = {player: dict(values) for player, values in constants.items()}
        if self.normalised:
            renewed["critic"].update(
                spectral_norm.refreshed(
                    players["critic"], constants["critic"], self.normalised, exact
                )
            )
        if not exact and any(pure.keeps_statistics for pure in self._pure.values()):
            generator, critic = self._pure["generator"], self._pure["critic"]
            shown = () if self.condition is None else (draw["condition"],)
            with self._noise(seed_of(draw), "generator"):
                renewed["generator"] = generator.statistics(
                    players["generator"], renewed["generator"], draw["latent"], *shown
                )
            with torch.no_grad():
                fake = self.fakes(players, constants, draw)
            with self._noise(seed_of(draw), "critic"):
                for x in (draw["real"], fake):
                    params = self._seen(players, renewed)
                    renewed["critic"] = critic.statistics(params, renewed["critic"], x, *shown)
        return renewed

    # -- its pieces ------------------------------------------------------------------------------

    def generate(
        self,
        players: Players,
        constants: Constants,
        latent: Tensor,
        condition: Tensor | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Generated samples [B, ...]; `seed` (0 without one) is that of the random numbers that the generator draws."""
        shown = () if condition is None else (condition,)
        pure = self._pure["generator"]
        with self._noise(seed, "generator"):
            return cast(Tensor, pure(players["generator"], constants["generator"], latent, *shown))

    def _noise(self, seed: int | None, player: str) -> AbstractContextManager[None]:
        """Random numbers of a player under a seed, where it draws any."""
        sources = self._pure[player].noise_sources
        if not sources:
            return nullcontext()
        where = self.players.index(player)
        return noise.seeded(noise.derived(seed or 0, where), sources)

    def critic(
        self,
        players: Players,
        constants: Constants,
        condition: Tensor | None = None,
        head: int = 0,
        seed: int | None = None,
    ) -> Scores:
        """The critic as a function of samples, its weights normalised where that is asked for; of
        several critics, number `head`; `seed` (0 without one) is that of the random numbers that it draws."""
        which, path = self._readings[head]
        draws = bool(self._pure["critic"].noise_sources)
        return Scores(
            self._pure["critic"],
            self._seen(players, constants),
            constants["critic"],
            self.samplewise and not draws,  # one pass for both kinds would draw other masks
            condition,
            which,
            getattr(self.modules["critic"], "closed_transform", False),
            path,
            noise.derived(seed or 0, 1, which or 0) if draws else None,
        )

    def init(
        self,
        seed: int | None = None,
        *,
        device: tree.Device = None,
        dtype: torch.dtype | None = None,
    ) -> Start:
        """Copies of the modules' parameters and buffers, and the power vectors at them.

        Frozen parameters (requires_grad=False) are constants: nobody descends them. With a seed,
        players given as functions are built afresh under it; those given as modules
        keep their weights. The global random state is left as it was.
        """
        players: Players = {}
        constants: Constants = {}
        for index, player in enumerate(self.players):
            module = self.modules[player]
            if seed is not None and self._fresh[player]:
                module = inputs.built(
                    self._build[player],
                    Use.WEIGHTS.at(player=index).generator(seed).integers(2**63).item(),
                )
            free = {k: p.detach().clone() for k, p in module.named_parameters() if p.requires_grad}
            frozen = {k: p.detach().clone() for k, p in module.named_parameters() if k not in free}
            players[player] = free
            constants[player] = frozen | {k: b.detach().clone() for k, b in module.named_buffers()}
        players, constants = (tree.to(t, device=device, dtype=dtype) for t in (players, constants))
        players = self.project(players)
        constants["critic"].update(spectral_norm.power_vectors(players["critic"], self.normalised))
        return Start(players, constants)

    def read(
        self, generator: nn.Module, critic: nn.Module, constants: Constants | None = None
    ) -> Start:
        """The values that these modules hold now: views, no copies. They must have the layers of those
        that the game was built from; which parameters are frozen was settled then. Power vectors
        are those of `constants`, or exact at these weights.

        Raises:
            GameError: a module of another structure.
        """
        players: Players = {}
        fixed: Constants = {}
        for player, module in zip(self.players, (generator, critic), strict=True):
            built = self.modules[player]
            free = [name for name, p in built.named_parameters() if p.requires_grad]
            held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            wanted = {**dict(built.named_parameters()), **dict(built.named_buffers())}
            for name, value in wanted.items():
                if name not in held or held[name].shape != value.shape:
                    found = list(held[name].shape) if name in held else "nothing"
                    raise GameError(
                        f"the {player} has {found} at {name!r}, where the game was built from "
                        f"{list(value.shape)}: build the GAN from these modules"
                    )
            # A game of float32 copies may be asked about modules in half precision.
            values = {name: held[name].detach().to(t.dtype) for name, t in wanted.items()}
            players[player] = {name: values[name] for name in free}
            fixed[player] = {name: t for name, t in values.items() if name not in free}
        if constants is None:
            vectors = spectral_norm.power_vectors(players["critic"], self.normalised)
        else:
            vectors = {
                k: v for k, v in constants["critic"].items() if spectral_norm.is_power_vector(k)
            }
        fixed["critic"].update(vectors)
        return Start(players, fixed)

    def load(self, players: Players, constants: Constants) -> dict[str, nn.Module]:
        """Modules that hold these values. Spectral normalisation is folded into the weights, by the exact
        singular values: the effective norms are 1, as an audit holds them."""
        if self.normalised:
            constants = self.refresh(players, constants, {}, exact=True)
        loaded = {}
        for player, module in ((p, copied(self.modules[p], p)) for p in self.players):
            values = self._seen(players, constants) if player == "critic" else players[player]
            buffers = {
                k: b for k, b in constants[player].items() if not spectral_norm.is_power_vector(k)
            }
            with torch.no_grad():
                for key, p in module.named_parameters():
                    p.data = (values if key in values else buffers)[key].detach().clone()
                names = {id(b): name for name, b in module.named_buffers()}
                fresh = {name: buffers[name].detach().clone() for name in names.values()}
                for owner in module.modules():
                    for key, b in owner._buffers.items():
                        if b is not None:
                            owner._buffers[key] = fresh[names[id(b)]]
            loaded[player] = module
        return loaded

    def describe(self) -> Json:
        """What was built, for the record: plain values only."""
        return {
            **self._about_losses(),
            "penalties": [repr(p) for p in self.penalties],
            **({"auxiliary": [repr(a) for a in self.auxiliary]} if self.auxiliary else {}),
            **({"condition": self.condition} if self.condition is not None else {}),
            "projections": [repr(p) for p in self.projections],
            "spectral_norm": bool(self.normalised),
            **({"noise": list(self.noise)} if self.noise else {}),
            "latent": str(self.latent),
            "players": {
                p: {
                    "class": type(m).__name__,
                    "parameters": sum(q.numel() for q in m.parameters()),
                    "structure": repr(m),
                }
                for p, m in self.modules.items()
            },
        }

    # -- checks -----------------------------------------------------------------------------------

    def _seen(self, players: Players, constants: Constants) -> Mapping[str, Tensor]:
        if not self.normalised:
            return players["critic"]
        kind = next(iter(players["critic"].values())).device.type
        # In full precision under autocast too: the norm is what bounds the critic.
        with inputs.full_precision(kind):
            return spectral_norm.effective(players["critic"], constants["critic"], self.normalised)

    def _check(self) -> None:
        """Shapes, purity, and the claims on a probe of eight samples."""
        start = self.init()
        rng = Use.PROBE.at().generator(0)
        seen = _probe.probed(self, start, rng, self._run)
        self.sample_shape = tuple(seen.fake.shape[1:])
        self._readings, self.heads = seen.readings, len(seen.readings)
        self.noise = tuple(where for p in self.players for where in self._pure[p].noise)
        _probe.check_scores(self, start, seen)
        draw = self.with_noise(rng, _probe.distinct(self, start, seen, rng))
        # Projected, for losses need not be finite outside the feasible set.
        moved, constants = self.project(_probe.moved_off(start.players, rng)), start.constants
        self.samplewise = _probe.scores_samplewise(
            self, moved, constants, draw["real"], seen.condition
        )
        if self.penalties and not self.samplewise:
            penalty = str(self.penalties[0])
            self.note(inputs.penalised_together(self.modules["critic"], penalty))
        for term in self.auxiliary:
            critic = self.critic_of(moved, constants, draw)
            inputs.check_term(term, critic, seen.fake, draw)
        check_zero_sum(self, moved, constants, draw)
        if self.noise:
            self.separable, why = False, f"random numbers are drawn within {self.noise[0]}"
        else:
            self.separable, why = check_separable(self, moved, constants, draw)
        self.why_not_separable = "" if self.separable else why

    def _run(self, player: str, start: Start, what: str, *args: Tensor) -> Output:
        """The player's module on `args`, checked for purity; GameError where it fails on `what` it was given."""
        params = self._seen(*start) if player == "critic" else start.players[player]
        try:
            return self._pure[player].check(params, start.constants[player], *args)
        except GameError:
            raise
        except Exception as error:
            why = first_line(error, type(error).__name__)
            raise GameError(f"the {player} fails on {what}: {why}") from error


def _paid(
    penalty: Penalty, critic: Critic, real: Tensor, fake: Tensor, mix: Tensor | None
) -> Tensor:
    """A penalty, in full precision also where the rest runs in less: squares of gradients overflow
    and lose their digits first."""
    with inputs.full_precision(real.device.type):
        return penalty(critic, real, fake, mix)
