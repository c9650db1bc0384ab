"""The reference pair for 28x28 grey images, after the code of Gulrajani et al.

Improved Training of Wasserstein GANs, NeurIPS 2017, arXiv:1704.00028; the architecture is a small
DCGAN (Radford, Metz and Chintala, ICLR 2016, arXiv:1511.06434).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from equilibrist.networks._layers import (
    Device,
    GlorotLinear,
    Placement,
    SameConv2d,
    SameConvTranspose2d,
    batch_statistics,
    check_shape,
)


class MNISTGenerator(nn.Module):
    """Latent vectors [B, latent] to images [B, 1, 28, 28] with pixels in (0, 1).

    | layer                                     | output shape  |
    |-------------------------------------------|---------------|
    | linear, (BN), ReLU                        | 4 dim x 4 x 4 |
    | transposed conv, (BN), ReLU               | 2 dim x 8 x 8 |
    | crop the last row and column              | 2 dim x 7 x 7 |
    | transposed conv, (BN), ReLU               | dim x 14 x 14 |
    | transposed conv, sigmoid                  | 1 x 28 x 28   |

    All transposed convolutions are 5x5, stride 2, SAME, with bias. 1,554,177 parameters for dim 64
    and latent 128.

    With `batch_norm=True` (the reference code does so for weight clipping only) the three
    normalisations marked above are present: the first has one mean, variance, scale and shift for
    each of the 64 dim features, the others for each channel, and the second sees the 8x8 image
    before the crop. Statistics are always those of the batch, in evaluation mode too, so that no
    running estimate is kept. It adds 134 dim parameters.

    Initialisation: weights uniform on +-sqrt(3) s, biases 0; s^2 = 2 / (in + out) in the linear
    layer and s^2 = 4 / (25 in / 4 + 25 out) in the transposed convolutions (in, out: features or
    channels); BN's scales 1, shifts 0.
    """

    def __init__(
        self,
        dim: int = 64,
        latent: int = 128,
        batch_norm: bool = False,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        self.dim, self.latent = dim, latent
        self.linear = GlorotLinear(latent, 64 * dim, **kind)
        self.deconv1 = SameConvTranspose2d(4 * dim, 2 * dim, **kind)
        self.deconv2 = SameConvTranspose2d(2 * dim, dim, **kind)
        self.deconv3 = SameConvTranspose2d(dim, 1, **kind)
        self.norm1 = batch_statistics(nn.BatchNorm1d, 64 * dim, batch_norm, kind)
        self.norm2 = batch_statistics(nn.BatchNorm2d, 2 * dim, batch_norm, kind)
        self.norm3 = batch_statistics(nn.BatchNorm2d, dim, batch_norm, kind)

    def forward(self, z: Tensor) -> Tensor:
        """[B, latent] -> [B, 1, 28, 28]."""
        check_shape(self, "latent vectors", z, (self.latent,))
        h = torch.relu(self.norm1(self.linear(z))).reshape(-1, 4 * self.dim, 4, 4)
        h = torch.relu(self.norm2(self.deconv1(h)))[..., :7, :7]
        h = torch.relu(self.norm3(self.deconv2(h)))
        return torch.sigmoid(self.deconv3(h))


class MNISTCritic(nn.Module):
    """Images [B, 1, 28, 28] to one logit (or critic's value) each, shape [B].

    | layer                                     | output shape  |
    |-------------------------------------------|---------------|
    | conv, LeakyReLU 0.2                       | dim x 14 x 14 |
    | conv, (BN), LeakyReLU 0.2                 | 2 dim x 7 x 7 |
    | conv, (BN), LeakyReLU 0.2                 | 4 dim x 4 x 4 |
    | linear                                    | 1             |

    All convolutions are 5x5, stride 2, SAME, with bias: padding (1, 2) at 28 and 14 pixels, (2, 2)
    at 7. 1,030,145 parameters for dim 64.

    With `batch_norm=True` (weight clipping only) the two normalisations marked above are present,
    always with the statistics of the batch; they add 12 dim parameters, and one image's value then
    depends on the others in its batch.

    Initialisation: weights uniform on +-sqrt(3) s, biases 0; s^2 = 4 / (25 in + 25 out / 4) in the
    convolutions and s^2 = 2 / (in + out) in the linear layer; BN's scales 1, shifts 0.
    """

    def __init__(
        self,
        dim: int = 64,
        batch_norm: bool = False,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        self.conv1 = SameConv2d(1, dim, **kind)
        self.conv2 = SameConv2d(dim, 2 * dim, **kind)
        self.conv3 = SameConv2d(2 * dim, 4 * dim, **kind)
        self.linear = GlorotLinear(64 * dim, 1, **kind)
        self.norm2 = batch_statistics(nn.BatchNorm2d, 2 * dim, batch_norm, kind)
        self.norm3 = batch_statistics(nn.BatchNorm2d, 4 * dim, batch_norm, kind)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 28, 28] -> [B]."""
        check_shape(self, "images", x, (1, 28, 28))
        h = leaky_relu(self.conv1(x), 0.2)
        h = leaky_relu(self.norm2(self.conv2(h)), 0.2)
        h = leaky_relu(self.norm3(self.conv3(h)), 0.2)
        value: Tensor = self.linear(h.flatten(1))
        return value.squeeze(1)
