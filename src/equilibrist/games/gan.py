"""A generative adversarial network as a game of two modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist import _draws, spectral_norm, tree
from equilibrist._draws import Draw, Stream
from equilibrist._errors import GameError
from equilibrist._game import Constants, Players, check_separable, check_zero_sum
from equilibrist._pure import PureModule, copied
from equilibrist.formulations import Formulation
from equilibrist.penalties import Penalty
from equilibrist.projections import Projection


class Reals(Protocol):
    """A law of real samples, as `equilibrist.data.Source`."""

    def sample(self, rng: np.random.Generator, n: int) -> Tensor: ...


class Latent(Protocol):
    """The law of the generator's input."""

    def sample(
        self, rng: np.random.Generator, n: int, dtype: torch.dtype, device: Any
    ) -> Tensor: ...


@dataclass(frozen=True)
class Normal:
    """z ~ N(0, I), shape [n, dim]."""

    dim: int

    def __str__(self) -> str:
        return f"z ~ N(0, I) in {self.dim} dimensions"

    def sample(self, rng: np.random.Generator, n: int, dtype: torch.dtype, device: Any) -> Tensor:
        return _draws.normal(rng, (n, self.dim), dtype, device)


class Start(NamedTuple):
    """Where play begins."""

    players: Players
    constants: Constants


@dataclass(frozen=True)
class _Scores:
    """The critic at fixed parameters (see `formulations.Critic`)."""

    module: PureModule
    params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    samplewise: bool

    def __call__(self, x: Tensor) -> Tensor:
        scores: Tensor = self.module(self.params, self.buffers, x)
        return scores.flatten()


class GAN:
    """Generator against critic, each with its own loss.

    Args:
        generator: an nn.Module from latents [batch, ...] to samples, or a function that builds one
            (then every seed starts from fresh weights). Modules are copied, never touched, and run
            in the mode (train or eval) in which they are handed over.
        critic: an nn.Module from samples to one score each, [batch] or [batch, 1]: a free logit,
            no sigmoid; or a function that builds one.
        formulation: `Vanilla()`, `WGAN()`, ...
        latent: dimension of z ~ N(0, I), or a `Latent` law.
        penalties: added to the critic's loss.
        projections: feasible sets, applied after every step.
        spectral_norm: normalise every weight matrix of the critic by its largest singular value.

    Raises:
        GameError: shapes that do not fit, a loss that is not a pure function of the parameters (the
            message names the layer and the mend), a claim of zero-sum that does not hold.

    Attributes: `zero_sum` and `separable` as in `Game`; `why_not_separable` says what was seen.
    """

    players = ("generator", "critic")

    def __init__(
        self,
        generator: nn.Module | Callable[[], nn.Module],
        critic: nn.Module | Callable[[], nn.Module],
        formulation: Formulation,
        *,
        latent: int | Latent,
        penalties: Sequence[Penalty] = (),
        projections: Sequence[Projection] = (),
        spectral_norm: bool = False,
    ) -> None:
        self._build = {"generator": _builder(generator), "critic": _builder(critic)}
        self._fresh = {p: not isinstance(build, nn.Module) for p, build in self._build.items()}
        self.formulation = formulation
        if isinstance(formulation, type):
            raise GameError(
                f"formulation={formulation.__name__} is a class: write {formulation.__name__}()"
            )
        if not hasattr(formulation, "losses"):
            raise GameError(f"formulation={formulation!r} is none: write Vanilla() or WGAN()")
        _each("penalties", penalties, "needs_mix", "GradientPenalty()")
        _each("projections", projections, "player", "WeightClipping()")
        self.latent = _law(latent)
        self.penalties, self.projections = tuple(penalties), tuple(projections)
        for projection in self.projections:
            if projection.player not in self.players:
                raise GameError(f"{projection} names no player: choose 'generator' or 'critic'")
        self.zero_sum = formulation.zero_sum and not self.penalties
        self._needs_mix = any(p.needs_mix for p in self.penalties)
        built = {player: _built(build, 0) for player, build in self._build.items()}
        self._pure = {p: PureModule(m, p) for p, m in built.items()}
        self.modules = {p: copied(m, p) for p, m in built.items()}
        self.normalised = _normalised(self.modules["critic"]) if spectral_norm else ()
        self.samplewise = True
        self.separable, self.why_not_separable = True, ""
        self._check()

    # -- the game -------------------------------------------------------------------------------

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """Each player's loss on draw = {real [B, ...], latent [B, ...], mix [B] if penalties need it}."""
        fake = self.generate(players, constants, draw["latent"])
        critic = self.critic(players, constants)
        losses = self.formulation.losses(critic, draw["real"], fake, only)
        if only != "generator":
            for penalty in self.penalties:
                paid = penalty(critic, draw["real"], fake, draw.get("mix"))
                losses["critic"] = losses["critic"] + paid
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
            renewed["generator"] = generator.statistics(
                players["generator"], renewed["generator"], draw["latent"]
            )
            with torch.no_grad():
                fake = self.generate(players, constants, draw["latent"])
            for x in (draw["real"], fake):
                params = self._seen(players, renewed)
                renewed["critic"] = critic.statistics(params, renewed["critic"], x)
        return renewed

    def project(self, players: Players) -> Players:
        """Every projection on its player."""
        for projection in self.projections:
            players = {**players, projection.player: projection(players[projection.player])}
        return players

    # -- its pieces ------------------------------------------------------------------------------

    def generate(self, players: Players, constants: Constants, latent: Tensor) -> Tensor:
        """Generated samples [B, ...]."""
        samples: Tensor = self._pure["generator"](
            players["generator"], constants["generator"], latent
        )
        return samples

    def critic(self, players: Players, constants: Constants) -> _Scores:
        """The critic as a function of samples, its weights normalised where that is asked for."""
        params = self._seen(players, constants)
        return _Scores(self._pure["critic"], params, constants["critic"], self.samplewise)

    def scale(self, players: Players, constants: Constants, draw: Draw) -> Tensor:
        """The formulation's yardstick for differences of losses, on one draw."""
        with torch.no_grad():
            fake = self.generate(players, constants, draw["latent"])
            return self.formulation.scale(self.critic(players, constants), draw["real"], fake)

    def draw(
        self,
        rng: np.random.Generator,
        source: Reals,
        batch: int,
        dtype: torch.dtype = torch.float32,
        device: Any = None,
    ) -> Draw:
        """One minibatch: real samples first, then latents, then mixing weights."""
        draw = {
            "real": source.sample(rng, batch).to(device, dtype),
            "latent": self.latent.sample(rng, batch, dtype, device),
        }
        if self._needs_mix:
            draw["mix"] = _draws.uniform(rng, (batch,), dtype, device)
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
                module = _built(
                    self._build[player],
                    _draws.generator(seed, Stream.INIT, index=index).integers(2**63).item(),
                )
            free = {k: p.detach().clone() for k, p in module.named_parameters() if p.requires_grad}
            frozen = {k: p.detach().clone() for k, p in module.named_parameters() if k not in free}
            players[player] = free
            constants[player] = frozen | {k: b.detach().clone() for k, b in module.named_buffers()}
        players, constants = (tree.to(t, device=device, dtype=dtype) for t in (players, constants))
        players = self.project(players)
        constants["critic"].update(spectral_norm.power_vectors(players["critic"], self.normalised))
        return Start(players, constants)

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

    # -- checks -----------------------------------------------------------------------------------

    def _seen(self, players: Players, constants: Constants) -> Mapping[str, Tensor]:
        if not self.normalised:
            return players["critic"]
        return spectral_norm.effective(players["critic"], constants["critic"], self.normalised)

    def _check(self) -> None:
        """Shapes, purity, and the claims on a probe of eight samples."""
        players, constants = self.init()
        anchor = next(iter(players["generator"].values()), None)
        if anchor is None or not players["critic"]:
            empty = "generator" if anchor is None else "critic"
            raise GameError(f"the {empty} has no parameters, so it has nothing to choose")
        rng = _draws.generator(0, Stream.INIT)
        latent = self.latent.sample(rng, 8, anchor.dtype, anchor.device)
        fake = self._run(
            "generator", players, constants, latent, f"latents of shape {list(latent.shape)}"
        )
        if not isinstance(fake, Tensor) or fake.ndim == 0 or len(fake) != 8:
            raise GameError(
                f"the generator maps latents {list(latent.shape)} to {_shape(fake)}: it must return one "
                "sample for each latent, [batch, ...]"
            )
        scores = self._run(
            "critic", players, constants, fake, f"the generator's samples {list(fake.shape)}"
        )
        if not isinstance(scores, Tensor) or scores.numel() != 8:
            raise GameError(
                f"the critic maps samples {list(fake.shape)} to {_shape(scores)}: it must return one score "
                "for each sample, [batch] or [batch, 1]"
            )
        # Distinct samples, and weights moved off their start: a last layer that begins at zero would
        # hide what mixes the samples of a batch.
        slope = torch.arange(8, device=fake.device).reshape(-1, *[1] * (fake.ndim - 1)) / 8
        real = torch.lerp(fake, fake.roll(1, 0), 0.5) + slope.to(fake.dtype)
        draw: Draw = {"real": real, "latent": latent}
        if self._needs_mix:
            draw["mix"] = _draws.uniform(rng, (8,), anchor.dtype, anchor.device)
        moved: Players = tree.map(
            lambda x: (
                x
                + 0.1 * (x.std(correction=0) + 0.1) * _draws.normal(rng, x.shape, x.dtype, x.device)
            ),
            players,
        )
        self.samplewise = self._scores_samplewise(moved, constants, real)
        if self.penalties and not self.samplewise:
            raise GameError(
                f"{self.penalties[0]} needs the gradient of each score by its own sample, but the critic's "
                "scores depend on the whole batch (batch norm?): use layer or group norm in the critic"
            )
        check_zero_sum(self, moved, constants, draw)
        self.separable, seen = check_separable(self, moved, constants, draw)
        self.why_not_separable = "" if self.separable else seen

    def _scores_samplewise(self, players: Players, constants: Constants, x: Tensor) -> bool:
        """Whether the scores of even and odd samples by themselves are those of all together."""

        def same(players: Players, constants: Constants, x: Tensor, tolerance: float) -> bool:
            critic = self.critic(players, constants)
            parts, whole = torch.cat([critic(x[::2]), critic(x[1::2])]), critic(x)
            together = torch.cat([whole[::2], whole[1::2]])
            return bool(torch.allclose(together, parts, rtol=tolerance, atol=1e-12))

        with torch.no_grad():
            try:
                wide, fixed = (tree.to(t, dtype=torch.float64) for t in (players, constants))
                return same(wide, fixed, x.double(), 1e-7)
            except RuntimeError:  # a module that insists on its own precision
                return same(players, constants, x, 1e-4)

    def _run(
        self, player: str, players: Players, constants: Constants, x: Tensor, what: str
    ) -> Any:
        pure = self._pure[player]
        params = self._seen(players, constants) if player == "critic" else players[player]
        try:
            return pure.check(params, constants[player], x)
        except GameError:
            raise
        except Exception as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise GameError(f"the {player} fails on {what}: {first_line}") from error


def _each(name: str, values: Any, attribute: str, example: str) -> None:
    if not isinstance(values, list | tuple):
        raise GameError(f"{name} must be a list: write {name}=[{example}]")
    for value in values:
        if isinstance(value, type) or not hasattr(value, attribute):
            shown = value.__name__ if isinstance(value, type) else type(value).__name__
            raise GameError(
                f"{name} holds {shown}, which does not belong there: write {name}=[{example}]"
            )


def _law(latent: Any) -> Latent:
    if isinstance(latent, Integral) and int(latent) > 0:
        return Normal(int(latent))
    if not hasattr(latent, "sample"):
        raise GameError(
            f"latent={latent!r} is neither a dimension (1, 2, ...) nor a law with a method sample"
        )
    law: Latent = latent
    return law


def _builder(player: nn.Module | Callable[[], nn.Module]) -> Any:
    if not callable(player):
        raise GameError(
            f"a player must be an nn.Module or a function that builds one, not {player!r}"
        )
    return player


def _built(build: Any, seed: int) -> nn.Module:
    if isinstance(build, nn.Module):
        return build
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        module = build()
    if not isinstance(module, nn.Module):
        raise GameError(
            f"a player's function must return an nn.Module, not {type(module).__name__}"
        )
    return module


def _normalised(critic: nn.Module) -> tuple[str, ...]:
    names = spectral_norm.normalised_names(critic)
    if not names:
        raise GameError(
            "spectral_norm=True, but the critic has no weight matrix to normalise: leave it out"
        )
    return names


def _shape(value: Any) -> str:
    return f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
