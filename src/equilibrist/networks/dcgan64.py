"""The reference DCGAN with one more level, for 64x64 images such as faces.

The layers, initialisation and batch norm of `cifar10_dcgan` at four levels instead of three. Farnia
and Ozdaglar (ICML 2020, sections 2 and 6) train 4-layer DCGANs on CelebA and state neither widths
nor initialisation. The 64x64 networks in the code of Gulrajani et al. (NeurIPS 2017,
arXiv:1704.00028) have the same layers, but draw all weights with standard deviation 0.02 and
normalise the generator's first layer by channel; here both follow their CIFAR-10 networks.
"""

from __future__ import annotations

import torch

from equilibrist.networks._layers import Device, Placement
from equilibrist.networks.dcgan import DCGANCritic, DCGANGenerator


class DCGAN64Generator(DCGANGenerator):
    """Latent vectors [B, latent] to images [B, channels, 64, 64] with pixels in (-1, 1).

    | layer                                     | output shape       |
    |-------------------------------------------|--------------------|
    | linear, (BN), ReLU                        | 8 dim x 4 x 4      |
    | transposed conv, (BN), ReLU               | 4 dim x 8 x 8      |
    | transposed conv, (BN), ReLU               | 2 dim x 16 x 16    |
    | transposed conv, (BN), ReLU               | dim x 32 x 32      |
    | transposed conv, tanh                     | channels x 64 x 64 |

    All transposed convolutions are 5x5, stride 2, SAME, with bias. 1050 dim^2 + 135 dim +
    128 dim latent + 25 dim channels + channels parameters, 270 dim more with BN: 5,380,099 for dim
    64, latent 128, 3 channels and BN. Statistics of BN are always those of the batch.

    `conditions` and the initialisation are as in `CIFAR10Generator`; K classes add
    (128 dim + K) latent parameters.
    """

    def __init__(
        self,
        dim: int = 64,
        latent: int = 128,
        channels: int = 3,
        batch_norm: bool = True,
        conditions: int = 0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = Placement(device=device, dtype=dtype)
        super().__init__(4, (channels, 64), dim, latent, batch_norm, conditions, **kind)


class DCGAN64Critic(DCGANCritic):
    """Images [B, channels, 64, 64] to one logit (or critic's value) each, shape [B].

    | layer                                     | output shape    |
    |-------------------------------------------|-----------------|
    | conv, LeakyReLU 0.2                       | dim x 32 x 32   |
    | conv, (BN), LeakyReLU 0.2                 | 2 dim x 16 x 16 |
    | conv, (BN), LeakyReLU 0.2                 | 4 dim x 8 x 8   |
    | conv, (BN), LeakyReLU 0.2                 | 8 dim x 4 x 4   |
    | linear                                    | 1               |

    All convolutions are 5x5, stride 2, SAME, with bias. 1050 dim^2 + 143 dim + 25 dim channels + 1
    parameters, 28 dim more with BN: 4,314,753 for dim 64 and 3 channels without BN.

    `batch_norm`, `conditions` and the initialisation are as in `CIFAR10Critic`; K classes add
    128 dim K parameters.
    """

    def __init__(
        self,
        dim: int = 64,
        channels: int = 3,
        batch_norm: bool = False,
        conditions: int = 0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = Placement(device=device, dtype=dtype)
        super().__init__(4, (channels, 64), dim, batch_norm, conditions, **kind)
