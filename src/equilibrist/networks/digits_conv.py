"""A small convolutional pair for 8x8 grey images, such as scikit-learn's digits.

Made for this project: cheap enough to train in about a minute on two CPU cores. Shape and
initialisation follow the reference pair for MNIST (`mnist_dcgan`), with smaller kernels. The
critic's first convolution has stride 1, as in the spectrally normalised critics of Miyato et al.
(ICLR 2018, arXiv:1802.05957).
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
    check_shape,
)


class DigitsGenerator(nn.Module):
    """Latent vectors [B, latent] to images [B, 1, 8, 8] with pixels in (0, 1).

    | layer                              | output shape  |
    |------------------------------------|---------------|
    | linear, ReLU                       | 2 dim x 4 x 4 |
    | transposed conv 4x4, stride 2, ReLU| dim x 8 x 8   |
    | conv 3x3, stride 1, sigmoid        | 1 x 8 x 8     |

    SAME padding and biases throughout. 32 dim^2 + 42 dim + 32 dim latent + 1 parameters: 66,881 for
    dim 32 and latent 32.

    Initialisation: weights uniform on +-sqrt(3) s, biases 0; s^2 = 2 / (in + out) in the linear
    layer, 4 / (16 in / 4 + 16 out) in the transposed convolution, 4 / (9 in + 9 out) in the last.
    """

    def __init__(
        self,
        dim: int = 32,
        latent: int = 32,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        self.dim, self.latent = dim, latent
        self.linear = GlorotLinear(latent, 32 * dim, **kind)
        self.deconv = SameConvTranspose2d(2 * dim, dim, 4, 2, **kind)
        self.conv = SameConv2d(dim, 1, 3, 1, **kind)

    def forward(self, z: Tensor) -> Tensor:
        """[B, latent] -> [B, 1, 8, 8]."""
        check_shape(self, "latent vectors", z, (self.latent,))
        h = torch.relu(self.linear(z)).reshape(-1, 2 * self.dim, 4, 4)
        return torch.sigmoid(self.conv(torch.relu(self.deconv(h))))


class DigitsCritic(nn.Module):
    """Images [B, 1, 8, 8] to one logit (or critic's value) each, shape [B].

    | layer                               | output shape  |
    |-------------------------------------|---------------|
    | conv 3x3, stride 1, LeakyReLU 0.2   | dim x 8 x 8   |
    | conv 4x4, stride 2, LeakyReLU 0.2   | 2 dim x 4 x 4 |
    | linear                              | 1             |

    SAME padding and biases throughout. 32 dim^2 + 44 dim + 1 parameters: 34,177 for dim 32.

    Initialisation: weights uniform on +-sqrt(3) s, biases 0; s^2 = 4 / (9 in + 9 out) in the first
    convolution, 4 / (16 in + 16 out / 4) in the second and 2 / (in + out) in the linear layer.
    """

    def __init__(
        self, dim: int = 32, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        self.conv1 = SameConv2d(1, dim, 3, 1, **kind)
        self.conv2 = SameConv2d(dim, 2 * dim, 4, 2, **kind)
        self.linear = GlorotLinear(32 * dim, 1, **kind)

    def features(self, x: Tensor) -> Tensor:
        """[B, 1, 8, 8] -> what the last map reads, [B, 32 dim]."""
        check_shape(self, "images", x, (1, 8, 8))
        h = leaky_relu(self.conv1(x), 0.2)
        return leaky_relu(self.conv2(h), 0.2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 8, 8] -> [B]."""
        value: Tensor = self.linear(self.features(x))
        return value.squeeze(1)
