"""The reference pair for 32x32 colour images, after the code of Gulrajani et al.

Improved Training of Wasserstein GANs, NeurIPS 2017, arXiv:1704.00028; Farnia and Ozdaglar (ICML
2020, section 6.2) report Inception scores on CIFAR-10 with this pair at dim 64 and 128. Pixels are
in [-1, 1].
"""

from __future__ import annotations

import torch

from equilibrist.networks._layers import Device
from equilibrist.networks.dcgan import DCGANCritic, DCGANGenerator


class CIFAR10Generator(DCGANGenerator):
    """Latent vectors [B, latent] to images [B, 3, 32, 32] with pixels in (-1, 1).

    | layer                                     | output shape  |
    |-------------------------------------------|---------------|
    | linear, (BN), ReLU                        | 4 dim x 4 x 4 |
    | transposed conv, (BN), ReLU               | 2 dim x 8 x 8 |
    | transposed conv, (BN), ReLU               | dim x 16 x 16 |
    | transposed conv, tanh                     | 3 x 32 x 32   |

    All transposed convolutions are 5x5, stride 2, SAME, with bias. The reference has the three
    normalisations in every mode: 1,565,955 parameters for dim 64 and 5,179,907 for dim 128 with
    latent 128, of which 134 dim are BN's (1,557,379 and 5,162,755 with `batch_norm=False`).
    The first has one mean, variance, scale and shift for each of the 64 dim features, the others
    for each channel. Statistics are always those of the batch, in evaluation mode too: one image
    depends on the others of its batch, and no running estimate is kept.

    With `conditions=K` it is called with labels [B] as well, whose vectors e_y of `latent`
    coordinates, N(0, I) at first, stand beside z; that adds (64 dim + K) latent parameters.

    Initialisation: weights uniform on +-sqrt(3) s, biases 0; s^2 = 2 / (in + out) in the linear
    layer and s^2 = 4 / (25 in / 4 + 25 out) in the transposed convolutions (in, out: features or
    channels); BN's scales 1, shifts 0.
    """

    def __init__(
        self,
        dim: int = 64,
        latent: int = 128,
        batch_norm: bool = True,
        conditions: int = 0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            3, (3, 32), dim, latent, batch_norm, conditions, device=device, dtype=dtype
        )


class CIFAR10Critic(DCGANCritic):
    """Images [B, 3, 32, 32] to one logit (or critic's value) each, shape [B].

    | layer                                     | output shape  |
    |-------------------------------------------|---------------|
    | conv, LeakyReLU 0.2                       | dim x 16 x 16 |
    | conv, (BN), LeakyReLU 0.2                 | 2 dim x 8 x 8 |
    | conv, (BN), LeakyReLU 0.2                 | 4 dim x 4 x 4 |
    | linear                                    | 1             |

    All convolutions are 5x5, stride 2, SAME, with bias: padding (1, 2). Without BN, as the
    reference is with its gradient penalty, 1,033,345 parameters for dim 64 and 4,114,689 for dim
    128; `batch_norm=True` puts BN on the second and third convolution and adds 12 dim parameters
    (1,034,113 and 4,116,225). Its statistics are always those of the batch, one image's value then
    depends on the others, and the critic has no Lipschitz bound: spectral norm wants it off.

    With `conditions=K` it is called with labels [B] as well and scores psi(phi) + <e_y, phi>, phi
    the 64 dim features before the last map psi (Miyato and Koyama, ICLR 2018): 64 dim K more
    parameters.

    Initialisation: weights uniform on +-sqrt(3) s, biases 0; s^2 = 4 / (25 in + 25 out / 4) in the
    convolutions and s^2 = 2 / (in + out) in the linear layer; e_y normal of variance
    2 / (K + 64 dim); BN's scales 1, shifts 0.
    """

    def __init__(
        self,
        dim: int = 64,
        batch_norm: bool = False,
        conditions: int = 0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(3, (3, 32), dim, batch_norm, conditions, device=device, dtype=dtype)
