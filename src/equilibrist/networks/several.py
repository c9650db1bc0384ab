"""Several players of one kind in one module: an ensemble of critics, a mixture of generators."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class CriticEnsemble(nn.Module):
    """K critics that score the same samples; `heads` is K.

    ensemble(x, *condition) gives all scores [B, K], ensemble(x, *condition, head=k) only the k-th
    critic's, [B], without running the others. Where some critic returns more than a score for each sample (a map, a
    tuple of score and features), both give what the critics return, as a list or as it is.
    """

    def __init__(self, critics: Iterable[nn.Module]) -> None:
        super().__init__()
        self.critics = nn.ModuleList(critics)
        self.heads = _count(self, self.critics, "critic")

    def forward(self, x: Tensor, *condition: Tensor, head: int | None = None) -> object:
        """Samples [B, ...] -> [B, K], or [B] for one head."""
        if head is not None and not 0 <= head < self.heads:
            raise ValueError(f"head {head} is outside 0..{self.heads - 1} of this CriticEnsemble")
        chosen = range(self.heads) if head is None else [head]
        scores = [self._scores(k, x, condition) for k in chosen]
        if head is not None:
            return scores[0]
        plain = [score for score in scores if isinstance(score, Tensor) and score.ndim == 1]
        return torch.stack(plain, 1) if len(plain) == len(scores) else scores

    def _scores(self, k: int, x: Tensor, condition: tuple[Tensor, ...]) -> object:
        scores: object = self.critics[k](x, *condition)
        if not isinstance(scores, Tensor):
            return scores
        if scores.numel() == len(x):
            return scores.reshape(-1)
        if scores.ndim > 2 and scores.shape[1] == 1:
            return scores
        raise ValueError(
            f"CriticEnsemble: critic {k} maps {len(x)} samples to {list(scores.shape)}: it must "
            "return one score for each, [batch] or [batch, 1], or a map [batch, 1, ...]"
        )


class GeneratorMixture(nn.Module):
    """The mixture of K generators with equal weights; `heads` is K.

    Latents [B, latent + 1]: the last coordinate z_last ~ N(0, 1) chooses the component k with
    k / K <= Phi(z_last) < (k + 1) / K, Phi the standard normal distribution function, and the
    others are that component's latent. Under z ~ N(0, I) each component has probability 1 / K
    exactly, independently of the rest: the law is the equal-weight mixture of the components' laws.

    Every sample is a function of its own latent (where the components' are: not with batch norm,
    for each component sees the whole batch). Only the chosen component receives a gradient from a
    sample. The samples are piecewise constant in z_last: no gradient goes there.
    """

    def __init__(self, generators: Iterable[nn.Module]) -> None:
        super().__init__()
        self.generators = nn.ModuleList(generators)
        self.heads = _count(self, self.generators, "generator")

    def component(self, z: Tensor) -> Tensor:
        """The chosen component of each latent, int64 [B]."""
        share: Tensor = torch.special.ndtr(z[:, -1].detach()) * self.heads
        return share.floor().clamp(0, self.heads - 1).long()  # Phi rounds to 1 far out

    def forward(self, z: Tensor, *condition: Tensor) -> Tensor:
        """[B, latent + 1] -> samples [B, ...]."""
        if z.ndim != 2 or z.shape[1] < 2:
            raise ValueError(
                "GeneratorMixture expects latent vectors of shape [batch, latent + 1], the last "
                f"coordinate choosing the component, got {list(z.shape)}"
            )
        samples: list[Tensor] = [g(z[:, :-1], *condition) for g in self.generators]
        shapes = [list(s.shape) for s in samples]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"GeneratorMixture needs components of one output shape, got {shapes}")
        every: Tensor = torch.stack(samples, 1)
        place = self.component(z).reshape(-1, *[1] * (every.ndim - 1))
        chosen: Tensor = every.take_along_dim(place, 1)
        return chosen.squeeze(1)


def _count(owner: nn.Module, players: nn.ModuleList, what: str) -> int:
    if len(players) < 1:
        raise ValueError(f"{type(owner).__name__} needs at least one {what}, got none")
    return len(players)
