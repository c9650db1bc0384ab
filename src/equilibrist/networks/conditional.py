"""Class labels as conditions: embeddings beside the latent, and the projection critic.

Generators are called as generator(z, y) and critics as critic(x, y), with labels y int64 [B] in
0..K-1. The critic is that of Miyato and Koyama (cGANs with Projection Discriminator, ICLR 2018,
arXiv:1802.05637): score = psi(phi(x)) + <e_y, phi(x)>, with one vector e_y for each class.
"""

from __future__ import annotations

from typing import Unpack, cast

import torch
from torch import Tensor, nn

from equilibrist.networks._layers import Device, GlorotLinear, Placement, check_shape
from equilibrist.networks.digits_conv import DigitsCritic, DigitsGenerator


class LabelEmbedding(nn.Linear):
    """Labels [B] in 0..classes-1 to vectors [B, features]: one learned vector per class.

    A linear map of the one-hot code, without bias: weight [features, classes], whose column y is
    the vector of class y. Being an `nn.Linear` it takes part in spectral normalisation, as the
    label matrix of Miyato and Koyama's critics does in their code; an `nn.Embedding` would not.
    Weights are N(0, std^2).

    A label outside the range raises `ValueError` on the CPU. Where labels cannot be looked at
    (under `torch.func.vmap`, when compiled) or looking would stall the machine (on a GPU), its
    vector is NaN: no label ever stands for another class.
    """

    def __init__(
        self,
        classes: int,
        features: int,
        std: float = 1.0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if classes < 1:
            raise ValueError(f"LabelEmbedding needs at least 1 class, got {classes}")
        if not 0 <= std < float("inf"):
            raise ValueError(f"LabelEmbedding.std must be finite and not negative, not {std}")
        self.std = std  # before nn.Linear's constructor, which draws the weights
        super().__init__(classes, features, bias=False, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's default generator."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, input: Tensor) -> Tensor:
        """Labels [B] -> [B, features]."""
        if input.ndim != 1 or input.is_floating_point() or input.dtype == torch.bool:
            raise ValueError(
                f"labels must be integers of shape [batch], got {input.dtype} {list(input.shape)}"
            )
        # Not by indexing: under vmap over weights, torch.nn.functional.embedding takes class K of
        # one member for class 0 of the next.
        code = input[:, None] == torch.arange(self.in_features, device=input.device)
        known = code.any(1)
        self._refuse(input, known)
        return torch.where(known[:, None], code.to(self.weight.dtype) @ self.weight.mT, torch.nan)

    def _refuse(self, labels: Tensor, known: Tensor) -> None:
        if labels.device.type != "cpu" or torch.compiler.is_compiling():
            return
        try:
            fine = bool(known.all())
        except RuntimeError:  # a stack of label vectors under vmap has no single truth
            return
        if not fine:
            raise ValueError(
                f"label {int(labels[~known][0])} is outside 0..{self.in_features - 1}: correct the "
                f"labels, or build the networks for more than {self.in_features} classes"
            )


def label_vectors(
    owner: nn.Module, embedding: LabelEmbedding | None, y: Tensor | None, batch: int
) -> Tensor | None:
    """Vectors [batch, features] of the labels, or None for an unconditional network.

    Raises:
        ValueError: labels that are missing, not asked for, or not one for each sample.
    """
    name = type(owner).__name__
    if embedding is None:
        if y is not None:
            raise ValueError(f"{name} is unconditional: call it without labels")
        return None
    if y is None:
        raise ValueError(
            f"{name} is conditional: call it with labels 0..{embedding.in_features - 1} as well"
        )
    if y.shape != (batch,):
        raise ValueError(f"{name} expects labels of shape [{batch}], got {list(y.shape)}")
    return cast(Tensor, embedding(y))


def with_labels(
    owner: nn.Module, embedding: LabelEmbedding | None, z: Tensor, y: Tensor | None
) -> Tensor:
    """[z, e_y] for each latent vector [B, latent]; z alone for an unconditional network.

    Raises:
        ValueError: as `label_vectors`.
    """
    vectors = label_vectors(owner, embedding, y, len(z))
    return z if vectors is None else torch.cat([z, vectors], 1)


def projection_embedding(classes: int, width: int, **kind: Unpack[Placement]) -> LabelEmbedding:
    """The label vectors of a projection critic, of variance 2 / (classes + width) (Glorot)."""
    return LabelEmbedding(classes, width, (2 / (classes + width)) ** 0.5, **kind)


def projection_score(psi: nn.Module, phi: Tensor, vectors: Tensor | None) -> Tensor:
    """psi(phi) + <vectors, phi> for each sample, [B]; without vectors psi(phi) alone."""
    value: Tensor = psi(phi)
    value = value.squeeze(1)
    return value if vectors is None else value + (vectors * phi).sum(1)


class EmbeddingGenerator(nn.Module):
    """generator(z, y) = `generator`([z, e_y]): any generator, with a label's vector beside z.

    Args:
        generator: maps [B, latent + features] to samples.
        latent: coordinates of z.
        classes: K; labels are 0..K-1.
        features: coordinates of e_y; as many as z has unless given. e_y starts as N(0, I), like z.
    """

    def __init__(
        self,
        generator: nn.Module,
        latent: int,
        classes: int,
        features: int | None = None,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.generator, self.latent, self.conditions = generator, latent, classes
        width = latent if features is None else features
        self.embedding = LabelEmbedding(classes, width, device=device, dtype=dtype)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent], [B] -> samples [B, ...]."""
        check_shape(self, "latent vectors", z, (self.latent,))
        return cast(Tensor, self.generator(with_labels(self, self.embedding, z, y)))


class ProjectionCritic(nn.Module):
    """critic(x, y) = psi(phi(x)) + <e_y, phi(x)>, shape [B], for any features phi.

    Args:
        features: phi, maps samples to [B, width].
        width: coordinates of phi.
        classes: K; labels are 0..K-1.

    psi is affine. Initialisation: psi's weights have variance 2 / (width + 1) (uniform), e_y's
    2 / (K + width) (normal), psi's bias is 0; width (K + 1) + 1 parameters besides phi's.
    """

    def __init__(
        self,
        features: nn.Module,
        width: int,
        classes: int,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        self.features, self.width, self.conditions = features, width, classes
        self.linear = GlorotLinear(width, 1, **kind)
        self.embedding = projection_embedding(classes, width, **kind)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, ...], [B] -> [B]."""
        phi: Tensor = self.features(x)
        check_shape(self, "features", phi, (self.width,))
        return projection_score(self.linear, phi, label_vectors(self, self.embedding, y, len(phi)))


class ConditionalDigitsGenerator(EmbeddingGenerator):
    """Latent vectors [B, latent] and labels [B] to images [B, 1, 8, 8] with pixels in (0, 1).

    A `DigitsGenerator` on [z, e_y], with e_y of `latent` coordinates. 32 dim^2 + 42 dim +
    64 dim latent + 1 + classes latent parameters: 99,969 for dim 32, latent 32 and 10 classes.
    """

    def __init__(
        self,
        dim: int = 32,
        latent: int = 32,
        classes: int = 10,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = Placement(device=device, dtype=dtype)
        super().__init__(DigitsGenerator(dim, 2 * latent, **kind), latent, classes, **kind)
        self.dim = dim


class ProjectionDigitsCritic(DigitsCritic):
    """Images [B, 1, 8, 8] and labels [B] to one logit (or critic's value) each, shape [B].

    A `DigitsCritic`, whose last map is psi and whose 32 dim features before it are phi, plus
    <e_y, phi>. 32 dim^2 + 44 dim + 1 + 32 dim classes parameters: 44,417 for dim 32 and 10 classes.
    """

    def __init__(
        self,
        dim: int = 32,
        classes: int = 10,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = Placement(device=device, dtype=dtype)
        super().__init__(dim, **kind)
        self.conditions = classes
        self.embedding = projection_embedding(classes, 32 * dim, **kind)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, 1, 8, 8], [B] -> [B]."""
        phi = self.features(x)
        return projection_score(self.linear, phi, label_vectors(self, self.embedding, y, len(phi)))
