"""A critic with its samples: what every check of it reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from equilibrist.certificates import STATES, Json
from equilibrist.checks import Interval, Tolerance
from equilibrist.checks.context import Meter
from equilibrist.core.draws import Use
from equilibrist.critics._fresh import fresh_critic
from equilibrist.critics._groups import Columns
from equilibrist.critics._rates import share_ordered
from equilibrist.critics._result import CriticSettings
from equilibrist.critics._samples import Inputs, SampleSets, joined
from equilibrist.critics._train import Trained, train_critic
from equilibrist.critics.judge import CriticLoss, Judge
from equilibrist.nn.noise import GLOBAL, seeded
from equilibrist.projections import Projection

# Paired parts of the held-out samples, at most: the independent values behind an interval.
CHUNKS = 40
SHOWN = 2000  # held-out samples of each kind whose scores are looked at
TELLS = 0.6  # share of pairs ordered rightly from which on a critic tells real from generated


@dataclass(frozen=True)
class Measured:
    """A critic on the rows that score.

    Attributes:
        paid: what it minimises, penalties included, on each chunk.
        plain: the same without the penalties.
        advantage: by how much the plain loss is lower than if real and generated samples were mixed.
        real, fake: scores.
        spread: the standard deviation of all scores.
    """

    paid: Tensor
    plain: Tensor
    advantage: Tensor
    real: Tensor
    fake: Tensor
    spread: float


@dataclass
class CriticCase:
    """The critic under audit.

    Attributes:
        critic: a copy, in the mode that is audited.
        objective: what it minimises.
        samples: real and generated samples, and their parts.
        settings: the budget of trainings, the confidence and the tolerance.
        seed: of all draws.
        reward: what users make of scores, or None.
        fresh: makes an untrained critic, or None.
        projections: the critic's feasible set.
        columns: names of the input's entries, or groups of them.
        meter: counts gradients.
        noisy: whether the critic draws random numbers in this mode.
        normalised: whether its weights are divided by their spectral norms.
        kept: parameters that kept their trained values in a fresh critic.
        sign: 1 where higher scores mean real, -1 where they mean generated.
    """

    critic: nn.Module
    objective: CriticLoss
    samples: SampleSets
    settings: CriticSettings
    seed: int
    reward: Callable[..., object] | None
    fresh: Callable[[], nn.Module] | None
    projections: Sequence[Projection]
    columns: Columns | None
    meter: Meter
    noisy: bool = False
    normalised: bool = False
    kept: list[str] = field(default_factory=list)

    @property
    def judge(self) -> Judge:
        """Reads scores."""
        return self.objective.judge

    @property
    def dtype(self) -> torch.dtype:
        """The critic's precision."""
        return next(p.dtype for p in self.critic.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        """Where the critic lives."""
        return next(self.critic.parameters()).device

    @property
    def of_states(self) -> float:
        """The confidence of one state's interval, such that all states together have the stated one."""
        return 1 - (1 - self.settings.confidence) / len(STATES)

    # --- critics ------------------------------------------------------------------------------

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty that could be lifted."""
        return bool(self.objective.penalties)

    @cached_property
    def shares(self) -> dict[str, int]:
        """Gradients of each training."""
        parts = (
            {"continued": 0.25, "fresh": 0.3, "unpenalised": 0.2, "fresh unpenalised": 0.25}
            if self.penalised
            else {"continued": 0.4, "fresh": 0.6}
        )
        return {name: max(2, int(self.settings.gradients * part)) for name, part in parts.items()}

    @cached_property
    def continued(self) -> Trained:
        """The critic, trained further."""
        return train_critic(self, self.critic, True, self.shares["continued"], 0)

    @cached_property
    def untrained(self) -> nn.Module:
        """A critic of the class that has learnt nothing."""
        seed = int(Use.CRITIC_FRESH.at().generator(self.seed).integers(2**31))
        made, kept = fresh_critic(self.critic, self.fresh, seed)
        self.kept[:] = kept
        self.project(made)
        return made

    @cached_property
    def retrained(self) -> Trained:
        """A fresh critic of the class, trained under the same loss."""
        return train_critic(self, self.untrained, True, self.shares["fresh"], 1)

    @cached_property
    def unpenalised(self) -> Trained | None:
        """The best critic without the penalty, from the critic's weights or from new ones; None without penalties."""
        if not self.penalised:
            return None
        own = train_critic(self, self.critic, False, self.shares["unpenalised"], 2)
        return own.better(
            train_critic(self, self.untrained, False, self.shares["fresh unpenalised"], 3)
        )

    def of_class(self) -> list[tuple[str, Trained]]:
        """All trainings by name."""
        found = [("trained on", self.continued), ("fresh", self.retrained)]
        return found + (
            [("freed of its penalty", self.unpenalised)] if self.unpenalised is not None else []
        )

    def measured(self, name: str) -> Measured:
        """A critic on the rows that score: "own", or the name of a training."""
        if name not in self._measured:
            module = self.critic if name == "own" else dict(self.of_class())[name].module
            assert module is not None
            self._measured[name] = self._measure(module)
        return self._measured[name]

    def module(self, name: str) -> nn.Module:
        """The critic by this name, as in `measured`."""
        found = self.critic if name == "own" else dict(self.of_class())[name].module
        assert found is not None
        return found

    @cached_property
    def _measured(self) -> dict[str, Measured]:
        return {}

    @cached_property
    def sign(self) -> int:
        """Which way scores run: a formulation says it, of a user's loss the trained critics do."""
        if self.objective.formulation is not None:
            return 1
        apart = []
        for name, found in self.of_class():
            assert found.module is not None
            real, fake = (self.scores(found.module, b) for b in self.samples.parts["select"])
            apart.append((abs(float(share_ordered(real, fake, 0.9).mean) - 0.5), name))
        real, fake = (
            self.scores(self.module(max(apart)[1]), b) for b in self.samples.parts["select"]
        )
        return 1 if share_ordered(real, fake, 0.9).mean >= 0.5 else -1

    @cached_property
    def bounded(self) -> bool:
        """Whether the loss without penalties has a scale: else larger scores pay without end (WGAN)."""
        return self._bounded(False)

    @cached_property
    def scaled(self) -> bool:
        """Whether the game as it is trained has a scale: by its loss, a penalty or a feasible set."""
        return bool(self.projections) or self.normalised or self._bounded(True)

    def _bounded(self, penalised: bool) -> bool:
        name = max((name for name, _ in self.of_class()), key=self.order_on_select)
        module = self.module(name)
        real, fake = self.samples.parts["select"]
        value = float(self._loss_on(module, real, fake, penalised, 0))
        large = float(self._loss_on(_Scaled(module), real, fake, penalised, 0))
        return not large < value - 20 * (abs(value) + 1e-12)

    # --- numbers ------------------------------------------------------------------------------

    def scores(self, module: nn.Module, batch: Inputs) -> Tensor:
        """Scores of samples [n], in float64."""
        found = []
        with torch.no_grad(), self.noise():
            for rows in torch.arange(len(batch)).split(1024):
                found.append(self.judge.scores(module, batch.rows(rows)).double())
        return torch.cat(found)

    def noise(self, seed: int | None = None) -> AbstractContextManager[None]:
        """Where the user's code draws random numbers (dropout, a loss that mixes samples): under a seed, the same at
        each call unless one is given."""
        if not self.noisy and self.objective.loss is None:
            return nullcontext()
        return seeded(self.seed % 2**31 if seed is None else seed, GLOBAL)

    @cached_property
    def held_out(self) -> tuple[Inputs, Inputs]:
        """Held-out samples of both kinds, in random order: the critic under audit saw none of them."""
        both = []
        for k, kind in enumerate((self.samples.real, self.samples.fake)):
            index = torch.cat(
                [self.samples.indices[part][k] for part in ("score", "select", "optimise")]
            )
            both.append(kind.batch.rows(index[:SHOWN]))
        return both[0], both[1]

    @cached_property
    def own_scores(self) -> tuple[Tensor, Tensor]:
        """The critic's scores of `held_out`, higher for real."""
        a, b = (self.sign * self.scores(self.critic, batch) for batch in self.held_out)
        return a, b

    def separation(self, name: str, confidence: float | None = None) -> Interval:
        """The share of held-out pairs that a critic orders rightly."""
        confidence = self.of_states if confidence is None else confidence
        if name == "own":
            return share_ordered(*self.own_scores, confidence)
        found = self.measured(name)
        return share_ordered(self.sign * found.real, self.sign * found.fake, confidence)

    def order_on_select(self, name: str) -> float:
        """The separation on the rows that choose: the best critic is not chosen by the rows that score it."""
        real, fake = (
            self.sign * self.scores(self.module(name), b) for b in self.samples.parts["select"]
        )
        return share_ordered(real, fake, 0.9).mean

    def choose(self, module: nn.Module, penalised: bool) -> float:
        """The loss on the rows that choose."""
        return float(self._loss_on(module, *self.samples.parts["select"], penalised, 0))

    def _loss_on(
        self, module: nn.Module, real: Inputs, fake: Inputs, penalised: bool, place: int
    ) -> Tensor:
        """The loss on some samples, with the noise that belongs to the place."""
        if self.objective.paired:
            n = min(len(real), len(fake))
            real, fake = real.rows(slice(n)), fake.rows(slice(n))
        seed = int(Use.CRITIC_NOISE.at(place=place).generator(self.seed).integers(2**31))
        mix = torch.from_numpy(
            Use.CRITIC_NOISE.at(place=place).generator(self.seed).random(len(real))
        ).to(self.device, self.dtype)
        graph = self.objective.loss is not None or (penalised and self.objective.needs_graph)
        with torch.set_grad_enabled(graph), self.noise(seed):
            return self.objective(module, real, fake, mix, penalised).detach().double()

    @cached_property
    def chunks(self) -> list[tuple[Inputs, Inputs, Inputs, Inputs]]:
        """The rows that score, in paired parts: real, generated, and the same two with halves exchanged."""
        real, fake = self.samples.parts["score"]
        if self.objective.paired:
            n = min(len(real), len(fake))
            real, fake = real.rows(slice(n)), fake.rows(slice(n))
        count = max(2, min(CHUNKS, len(real) // 6, len(fake) // 6))
        rng = Use.CRITIC_MIXED.at().generator(self.seed)
        found = []
        for r, f in zip(
            torch.arange(len(real)).tensor_split(count),
            torch.arange(len(fake)).tensor_split(count),
            strict=True,
        ):
            a, b = real.rows(r), fake.rows(f)
            n = min(len(a), len(b)) // 2
            keep = [torch.from_numpy(rng.permutation(len(t))) for t in (a, b)]
            first = joined(b.rows(keep[1][:n]), a.rows(keep[0][n:]))
            second = joined(a.rows(keep[0][:n]), b.rows(keep[1][n:]))
            found.append((a, b, first, second))
        return found

    def _measure(self, module: nn.Module) -> Measured:
        paid, plain, mixed = [], [], []
        for place, (real, fake, first, second) in enumerate(self.chunks, 1):
            plain.append(self._loss_on(module, real, fake, False, place))
            mixed.append(self._loss_on(module, first, second, False, place))
            paid.append(
                self._loss_on(module, real, fake, True, place) if self.penalised else plain[-1]
            )
        scores = [self.scores(module, b) for b in self.samples.parts["score"]]
        a, b = torch.stack(plain), torch.stack(mixed)
        spread = float(torch.cat(scores).std())
        return Measured(torch.stack(paid), a, b - a, scores[0], scores[1], spread)

    def advantage(self, name: str, scaled: bool) -> Tensor:
        """The critic's advantage over chance, by chunk: in the loss's unit where it has a scale (`scaled`),
        else in standard deviations of the critic's scores."""
        found = self.measured(name)
        if scaled:
            return found.advantage
        return found.advantage / found.spread if found.spread > 0 else 0 * found.advantage

    @cached_property
    def tolerance(self) -> Tolerance:
        """Differences up to which count as none."""
        unit = self.unit
        if self.settings.absolute > 0:
            return Tolerance(self.settings.absolute, unit, "as set")
        formulation = self.objective.formulation
        if formulation is not None:
            real, fake = self.samples.parts["select"]
            with torch.no_grad():
                views = self.objective.views(self.critic, real, fake)
                scale = float(
                    torch.stack(
                        [formulation.scale(v, real.x, fake.x).double() for v in views]
                    ).mean()
                )
            why = f"{self.settings.tolerance:.0%} of the formulation's scale, {scale:.4g} {unit}"
        else:
            worth = [float(self.measured(name).advantage.mean()) for name in ("own", "trained on")]
            scale = max(*worth, 0.1 * abs(float(self.measured("own").plain.mean())))
            why = f"{self.settings.tolerance:.0%} of the critic's advantage over chance, {scale:.4g} {unit}"
        if not 0 < scale < math.inf:
            return Tolerance(math.nan, unit, "the loss has no scale here: set absolute")
        return Tolerance(self.settings.tolerance * scale, unit, why)

    @property
    def unit(self) -> str:
        """The loss's unit."""
        formulation = self.objective.formulation
        return formulation.unit if formulation is not None else "units of the loss"

    @torch.no_grad()
    def project(self, module: nn.Module) -> None:
        """Put the weights back into the critic's feasible set."""
        for ball in self.projections:
            params = {name: p.detach() for name, p in module.named_parameters()}
            for name, value in ball(params).items():
                params[name].copy_(value)

    def scope(self) -> Json:
        """What every certificate is about."""
        formulation = self.objective.formulation
        loss = str(formulation) if formulation is not None else "the loss that was given"
        return {
            "game": f"the critic of {loss}, samples as they were given",
            "real samples": len(self.samples.real),
            "generated samples": len(self.samples.fake),
            "precision": str(self.dtype).removeprefix("torch."),
        }


class _Scaled(nn.Module):
    """A critic whose scores are a thousand times as large."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> object:
        return _times(self.module(*inputs), 1000.0)


def _times(output: object, factor: float) -> object:
    if isinstance(output, Tensor):
        return output * factor if output.is_floating_point() else output
    if isinstance(output, tuple | list):
        return type(output)(_times(part, factor) for part in output)
    return output
