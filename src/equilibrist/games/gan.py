"""A generative adversarial network as a game of two modules."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.auxiliary import Auxiliary
from equilibrist.core.draws import Draw, Use, normal, uniform
from equilibrist.core.game import Constants, Players, check_separable, check_zero_sum
from equilibrist.data import Source
from equilibrist.display import Rows, Shown
from equilibrist.errors import GameError
from equilibrist.formulations import Formulation, formulation_of
from equilibrist.games import inputs as _setup
from equilibrist.games._scores import Scores
from equilibrist.games.inputs import Latent
from equilibrist.nn import spectral_norm
from equilibrist.nn.pure import PureModule, copied
from equilibrist.optimizers import Coupled
from equilibrist.penalties import Penalty
from equilibrist.projections import Projection, coupled

Player = nn.Module | Callable[[], nn.Module] | Sequence[nn.Module | Callable[[], nn.Module]]


class Reals(Protocol):
    """A law of real samples, as `equilibrist.data.Source`; `sample_pairs` where the game is conditional."""

    def sample(self, rng: np.random.Generator, n: int) -> Tensor: ...


class Start(NamedTuple):
    """Where play begins."""

    players: Players
    constants: Constants


_BOUNDS = {
    _setup.UNIT: "lie within [0, 1] whatever its weights are (a sigmoid at its end?)",
    _setup.SIGNED: "lie within [-1, 1] whatever its weights are (a tanh at its end?)",
    _setup.POSITIVE: "are never negative, whatever its weights are (a ReLU or softplus at its end?)",
    _setup.NEGATIVE: "are never positive, whatever its weights are (a logsigmoid at its end?)",
    _setup.CONSTANT: "are one number for all samples, whatever its weights are (a softmax over one column?)",
}


class GAN(Shown):
    """Generator against critic, each with its own loss.

    Args:
        generator: an nn.Module from latents [batch, ...] to samples, or a function that builds one
            (then every seed starts from fresh weights). Modules are copied, never touched, and run
            in the mode (train or eval) in which they are handed over. A list makes one player of
            several generators: an equal mixture of them, the component chosen by one latent more.
        critic: an nn.Module from samples to one score each, [batch] or [batch, 1]: a free logit,
            no sigmoid (`Vanilla(probabilities=True)` takes one); or a function that builds one. A list
            makes one player of several critics: every loss is then the mean of the losses against each.
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
            message names the layer and the mend), a claim of zero-sum that does not hold.

    Attributes: `zero_sum` and `separable` as in `Game`; `why_not_separable` says what was seen;
    `heads` is the number of critics; `notes` are the warnings that were given while it was built, which every
    certificate repeats.
    """

    players = ("generator", "critic")

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
            "generator": _setup.builder(generator, "generator"),
            "critic": _setup.builder(critic, "critic"),
        }
        self._fresh = {p: not isinstance(build, nn.Module) for p, build in self._build.items()}
        self.formulation = formulation_of(formulation)
        _setup.each("penalties", penalties, "needs_mix", "GradientPenalty()")
        _setup.each("auxiliary", auxiliary, "player", "Reconstruction(100.0)")
        _setup.each("projections", projections, "player", "WeightClipping()")
        self.latent, self.condition = _setup.law_of(latent), _setup.condition_of(condition)
        if isinstance(generator, list | tuple):
            self.latent = _setup.chooses(self.latent)
        self.penalties, self.projections = tuple(penalties), tuple(projections)
        self.auxiliary = tuple(auxiliary)
        named: list[Projection | Auxiliary] = [*self.projections, *self.auxiliary]
        for part in named:
            if part.player not in self.players:
                raise GameError(f"{part} names no player: choose 'generator' or 'critic'")
        self.zero_sum = self.formulation.zero_sum and not self.penalties and not self.auxiliary
        self._needs_mix = any(p.needs_mix for p in self.penalties)
        built = {player: _setup.built(build, 0) for player, build in self._build.items()}
        _setup.apart(built["generator"], built["critic"])
        self.heads = _setup.heads(built["critic"])
        self._pure = {p: PureModule(m, p) for p, m in built.items()}
        self.modules = {p: copied(m, p) for p, m in built.items()}
        self.normalised = _setup.normalised(self.modules["critic"], spectral_norm)
        self.notes: tuple[str, ...] = ()
        self.samplewise = True
        self.separable, self.why_not_separable = True, ""
        self._check()

    # -- the game -------------------------------------------------------------------------------

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """Each player's loss on draw = {real [B, ...], latent [B, ...], condition [B, ...] of conditional
        games, mix [B] if penalties need it}. With only="critic" a `fake` [B, ...] in the draw stands for the
        generator's samples."""
        if only == "critic" and "fake" in draw:  # made beforehand, for a generator that rests
            fake = draw["fake"]
        else:
            fake = self.generate(players, constants, draw["latent"], draw.get("condition"))
        return self.against(players, constants, draw, fake, only)

    def against(
        self,
        players: Players,
        constants: Constants,
        draw: Draw,
        fake: Tensor,
        only: str | None = None,
    ) -> dict[str, Tensor]:
        """The losses once the generated samples [B, ...] are made: of the players, the critic's alone are read."""
        condition, real = draw.get("condition"), draw["real"]
        if fake.dtype != real.dtype:  # under autocast
            fake = fake.to(real.dtype)
        losses: dict[str, Tensor] = {}
        for head in range(self.heads):
            critic = self.critic(players, constants, condition, head)
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
            renewed["generator"] = generator.statistics(
                players["generator"], renewed["generator"], draw["latent"], *shown
            )
            with torch.no_grad():
                fake = self.generate(players, constants, draw["latent"], *shown)
            for x in (draw["real"], fake):
                params = self._seen(players, renewed)
                renewed["critic"] = critic.statistics(params, renewed["critic"], x, *shown)
        return renewed

    def project(self, players: Players) -> Players:
        """Every projection on its player."""
        for projection in self.projections:
            players = {**players, projection.player: projection(players[projection.player])}
        return players

    # The field skips a projection that changes nothing; one of a subclass's own may change anything.
    project.applies_projections = True  # type: ignore[attr-defined]

    @property
    def coupled(self) -> dict[str, Coupled]:
        """What the projections couple, by player."""
        return {
            player: coupled([one for one in self.projections if one.player == player])
            for player in self.players
        }

    # -- its pieces ------------------------------------------------------------------------------

    def generate(
        self,
        players: Players,
        constants: Constants,
        latent: Tensor,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Generated samples [B, ...]."""
        shown = () if condition is None else (condition,)
        samples: Tensor = self._pure["generator"](
            players["generator"], constants["generator"], latent, *shown
        )
        return samples

    def critic(
        self,
        players: Players,
        constants: Constants,
        condition: Tensor | None = None,
        head: int = 0,
    ) -> Scores:
        """The critic as a function of samples, its weights normalised where that is asked for; of
        several critics, number `head`."""
        return Scores(
            self._pure["critic"],
            self._seen(players, constants),
            constants["critic"],
            self.samplewise,
            condition,
            head if self.heads > 1 else None,
            getattr(self.modules["critic"], "closed_transform", False),
        )

    def scale(self, players: Players, constants: Constants, draw: Draw) -> Tensor:
        """The formulation's yardstick for differences of losses, on one draw; of several critics, the
        mean of theirs, as the losses are."""
        condition = draw.get("condition")
        with torch.no_grad():
            fake = self.generate(players, constants, draw["latent"], condition)
            scales = [
                self.formulation.scale(
                    self.critic(players, constants, condition, head), draw["real"], fake
                )
                for head in range(self.heads)
            ]
            return scales[0] if self.heads == 1 else torch.stack(scales).mean()

    def draw(
        self,
        rng: np.random.Generator,
        source: Reals,
        batch: int,
        dtype: torch.dtype = torch.float32,
        device: Any = None,
    ) -> Draw:
        """One minibatch: real samples (with their conditions) first, then latents, then mixing weights."""
        if self.condition is None:
            return self.draw_around(rng, source.sample(rng, batch).to(device, dtype))
        if not hasattr(source, "sample_pairs"):
            name = getattr(source, "name", type(source).__name__)
            raise GameError(
                f"the game is conditional, but {name} has no conditions: take data with labels, "
                "or leave condition out"
            )
        real, condition = source.sample_pairs(rng, batch)
        return self.draw_around(rng, real.to(device, dtype), condition)

    def draw_around(self, rng: np.random.Generator, real: Tensor, condition: Any = None) -> Draw:
        """The draw of these real samples [n, ...] with their conditions: latents, then mixing weights, of their
        precision and where they are."""
        draw: Draw = {"real": real}
        if self.condition is not None:
            draw["condition"] = _setup.as_condition(condition, real.device, real.dtype)
        draw["latent"] = self.latent.sample(rng, len(real), real.dtype, real.device)
        if self._needs_mix:
            draw["mix"] = uniform(rng, (len(real),), real.dtype, real.device)
        return draw

    def init(
        self, seed: int | None = None, *, device: Any = None, dtype: torch.dtype | None = None
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
                module = _setup.built(
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
            players[player] = {name: held[name].detach() for name in free}
            fixed[player] = {
                name: held[name].detach() for name in wanted if name not in players[player]
            }
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

    def describe(self) -> dict[str, Any]:
        """What was built, for the record: plain values only."""
        return {
            "formulation": str(self.formulation),
            "spec": repr(self.formulation),
            "loss": self.formulation.formula,
            "unit": self.formulation.unit,
            "zero_sum": self.zero_sum,
            "separable": self.separable,
            "penalties": [repr(p) for p in self.penalties],
            **({"auxiliary": [repr(a) for a in self.auxiliary]} if self.auxiliary else {}),
            **({"condition": self.condition} if self.condition is not None else {}),
            "projections": [repr(p) for p in self.projections],
            "spectral_norm": bool(self.normalised),
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

    def _facts(self) -> tuple[str, Rows]:
        said = self.describe()
        rows = [
            (player, f"{one['class']}, {one['parameters']:,} parameters")
            for player, one in said["players"].items()
        ]
        rows += [("losses", said["formulation"]), ("latent", said["latent"])]
        for name in ("condition", "penalties", "auxiliary", "projections", "spectral_norm"):
            if value := said.get(name):
                rows.append((name, ", ".join(value) if isinstance(value, list) else str(value)))
        return type(self).__name__, rows

    # -- checks -----------------------------------------------------------------------------------

    def _seen(self, players: Players, constants: Constants) -> Mapping[str, Tensor]:
        if not self.normalised:
            return players["critic"]
        kind = next(iter(players["critic"].values())).device.type
        # In full precision under autocast too: the norm is what bounds the critic.
        with _setup.full_precision(kind):
            return spectral_norm.effective(players["critic"], constants["critic"], self.normalised)

    def _check(self) -> None:
        """Shapes, purity, and the claims on a probe of eight samples."""
        players, constants = self.init()
        anchor = next(iter(players["generator"].values()), None)
        if anchor is None or not players["critic"]:
            empty = "generator" if anchor is None else "critic"
            raise GameError(f"the {empty} has no parameters, so it has nothing to choose")
        rng = Use.PROBE.at().generator(0)
        latent = self.latent.sample(rng, 8, anchor.dtype, anchor.device)
        condition = _setup.probe(self.condition, rng, 8, anchor.dtype, anchor.device)
        shown = () if condition is None else (condition,)
        beside = "" if condition is None else f" and conditions {list(condition.shape)}"
        fake = self._run(
            "generator",
            players,
            constants,
            f"latents of shape {list(latent.shape)}{beside}",
            latent,
            *shown,
        )
        if not isinstance(fake, Tensor) or fake.ndim == 0 or len(fake) != 8:
            raise GameError(
                f"the generator maps latents {list(latent.shape)} to {_setup.shape_of(fake)}: it must return "
                "one sample for each latent, [batch, ...]"
            )
        scores = self._run(
            "critic",
            players,
            constants,
            f"the generator's samples {list(fake.shape)}{beside}",
            fake,
            *shown,
        )
        if not isinstance(scores, Tensor) or scores.numel() != 8 * self.heads:
            raise GameError(
                f"the critic maps samples {list(fake.shape)} to {_setup.shape_of(scores)}: it must return one "
                "score for each sample, [batch] or [batch, 1]"
            )
        self._check_range(players, constants, fake, condition, scores)
        # Distinct samples, and weights moved off their start: a last layer that begins at zero would
        # hide what mixes the samples of a batch.
        slope = torch.arange(8, device=fake.device).reshape(-1, *[1] * (fake.ndim - 1)) / 8
        real = torch.lerp(fake, fake.roll(1, 0), 0.5) + slope.to(fake.dtype)
        draw: Draw = {"real": real, "latent": latent}
        if condition is not None:
            draw["condition"] = condition
        if self._needs_mix:
            draw["mix"] = uniform(rng, (8,), anchor.dtype, anchor.device)
        noisy: Players = tree.map(
            lambda x: (
                x + 0.1 * (x.std(correction=0) + 0.1) * normal(rng, x.shape, x.dtype, x.device)
            ),
            players,
        )
        moved = self.project(noisy)  # losses need not be finite outside the feasible set
        self.samplewise = self._scores_samplewise(moved, constants, real, condition)
        if self.penalties and not self.samplewise:
            raise GameError(
                f"{self.penalties[0]} needs the gradient of each score by its own sample, but the critic's "
                "scores depend on the whole batch (batch norm?): use layer or group norm in the critic"
            )
        for term in self.auxiliary:
            _setup.check_term(term, self.critic(moved, constants, condition), fake, draw)
        check_zero_sum(self, moved, constants, draw)
        self.separable, seen = check_separable(self, moved, constants, draw)
        self.why_not_separable = "" if self.separable else seen

    def _check_range(
        self,
        players: Players,
        constants: Constants,
        fake: Tensor,
        condition: Tensor | None,
        scores: Tensor,
    ) -> None:
        """GameError where a probability is given to a formulation that takes a logit, or a logit to one that takes
        a probability; a warning where the formulation takes any score."""
        low, high = float(scores.min()), float(scores.max())
        within = low >= 0 and high <= 1
        if getattr(self.formulation, "probabilities", False):
            if not within:
                raise GameError(
                    f"Vanilla(probabilities=True) takes scores within [0, 1], but the critic's reach from {low:.3g} "
                    f"to {high:.3g}: put a sigmoid at its end, or leave probabilities=True out"
                )
            return

        def score(params: Mapping[str, Tensor]) -> Tensor:
            here = self.critic({**players, "critic": dict(params)}, constants, condition)(fake)
            return here.detach()

        bound = _setup.bounded_by_form(score, players["critic"])
        logits = getattr(self.formulation, "logits", False)
        if not bound or (bound in (_setup.POSITIVE, _setup.NEGATIVE) and not logits):
            return
        found = f"the critic's scores {_BOUNDS[bound]}"
        if bound == _setup.CONSTANT:
            raise GameError(f"{found}: let it return one score for each sample that depends on it")
        if bound == _setup.UNIT and logits:
            instead = ", or write Vanilla(probabilities=True), the loss of BCELoss"
            instead = instead if hasattr(self.formulation, "probabilities") else ""
            raise GameError(
                f"{found}, but {self.formulation} takes a free logit: take the sigmoid off{instead}"
            )
        self.note(f"{found}, while {self.formulation} is made for free scores")

    def note(self, text: str) -> None:
        """Warn of what was seen, and keep it for the certificates of every audit (`notes`)."""
        self.notes = (*self.notes, text)
        warnings.warn(text, stacklevel=2)

    def _scores_samplewise(
        self, players: Players, constants: Constants, x: Tensor, condition: Tensor | None
    ) -> bool:
        """Whether the scores of even and odd samples by themselves are those of all together."""

        def same(players: Players, constants: Constants, x: Tensor, tolerance: float) -> bool:
            c = (
                condition.to(x.dtype)
                if condition is not None and condition.is_floating_point()
                else condition
            )
            for head in range(self.heads):
                whole = self.critic(players, constants, c, head)(x)
                for start in (0, 1):
                    part = None if c is None else c[start::2]
                    scores = self.critic(players, constants, part, head)(x[start::2])
                    if not torch.allclose(whole[start::2], scores, rtol=tolerance, atol=1e-12):
                        return False
            return True

        with torch.no_grad():
            try:
                wide, fixed = (tree.to(t, dtype=torch.float64) for t in (players, constants))
                return same(wide, fixed, x.double(), 1e-7)
            except RuntimeError:  # a module that insists on its own precision
                return same(players, constants, x, 1e-4)

    def _run(
        self, player: str, players: Players, constants: Constants, what: str, *args: Tensor
    ) -> Any:
        pure = self._pure[player]
        params = self._seen(players, constants) if player == "critic" else players[player]
        try:
            return pure.check(params, constants[player], *args)
        except GameError:
            raise
        except Exception as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise GameError(f"the {player} fails on {what}: {first_line}") from error


def _paid(
    penalty: Penalty, critic: Scores, real: Tensor, fake: Tensor, mix: Tensor | None
) -> Tensor:
    """A penalty, in full precision also where the rest runs in less: squares of gradients overflow
    and lose their digits first."""
    with _setup.full_precision(real.device.type):
        return penalty(critic, real, fake, mix)
