"""Faces at 64x64, from a folder or an array file of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from equilibrist.data import Source
    from equilibrist.run import Recipe

ResNetMethod = Literal["consensus", "alternating"]


def faces64_sngan(
    data: str,
    steps: int = 20000,
    dim: int = 16,
    channels: int = 3,
    critic_steps: int = 1,
    batch: int = 64,
    lr: float = 2e-4,
    flip: bool = True,
    average: float = 0.0,
    limit: int = 0,
) -> Recipe:
    """Spectrally normalised GAN at 64x64 on any folder of images, or an array file (CelebA, LFW).

    data=PATH names the folder (cropped to squares at their centre, then resized) or a .npy, .npz or
    .safetensors file that holds [N, 64, 64] or [N, channels, 64, 64]. limit=N takes the first N
    images of a folder.
    """
    from equilibrist.data import Augmented
    from equilibrist.formulations import Vanilla
    from equilibrist.games import GAN
    from equilibrist.networks import DCGAN64Critic, DCGAN64Generator
    from equilibrist.optimizers import Adam
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist.solvers import Alternating, Averaged, Solver
    from equilibrist_recipes._references import MIYATO

    source = _images(data, channels, limit)
    solver: Solver = Alternating(critic_steps, Adam(lr, 0.5, 0.9))
    return Recipe(
        game=GAN(
            lambda: DCGAN64Generator(dim, channels=source.shape[0]),
            lambda: DCGAN64Critic(dim, channels=source.shape[0]),
            Vanilla(),
            latent=128,
            spectral_norm=True,
        ),
        data=Augmented(source, flip=True) if flip else source,
        solver=Averaged(solver, average) if average else solver,
        steps=steps,
        batch=batch,
        title=f"SN-GAN on faces (DIM {dim})",
        summary=f"The DCGAN pair at 64x64 and width {dim}, with a spectrally normalised critic, on images of "
        "the user's own.",
        scores=(Frechet(),),
        audit={"steps": 1000},
        references=(MIYATO,),
    )


def faces64_resnet(
    data: str,
    steps: int = 20000,
    dim: int = 16,
    method: ResNetMethod = "consensus",
    gamma: float = 10.0,
    channels: int = 3,
    batch: int = 64,
    lr: float = 1e-4,
) -> Recipe:
    """ResNet of constant width on faces by consensus (Mescheder et al. 2017). Their size: dim=128.

    data=PATH is a folder of images or an array file, as in faces64-sngan. Neither player has batch norm; the
    generator's loss is the non-saturating one and z has 256 coordinates, as in the authors' published code.
    """
    from equilibrist.formulations import Vanilla
    from equilibrist.games import GAN
    from equilibrist.networks import ResNetConstantCritic, ResNetConstantGenerator
    from equilibrist.optimizers import TFRMSProp
    from equilibrist.run import Recipe
    from equilibrist.scores import Frechet
    from equilibrist.solvers import Alternating, Consensus
    from equilibrist_recipes._references import MESCHEDER

    source = _images(data, channels)
    rule, latent, shown = TFRMSProp(lr), 256, source.shape[0]
    return Recipe(
        game=GAN(
            lambda: ResNetConstantGenerator(64, dim, latent, shown),
            lambda: ResNetConstantCritic(64, dim, shown),
            Vanilla(saturating=False),
            latent=latent,
        ),
        data=source,
        solver=Consensus(rule, gamma=gamma) if method == "consensus" else Alternating(1, rule),
        steps=steps,
        batch=batch,
        title=f"ResNet of constant width on faces (DIM {dim})",
        summary=f"Residual networks of {dim} filters in every layer, without batch norm, on images of the user's own.",
        scores=(Frechet(),),
        audit={"steps": 1000},
        references=(MESCHEDER,),
    )


def _images(data: str, channels: int, limit: int = 0) -> Source:
    """The 64x64 images of a folder or an array file, pixels in [-1, 1]."""
    from pathlib import Path

    from equilibrist.data import DataError, array_file, folder

    if not data.strip():
        raise DataError("data= is empty: name a folder of images or an array file")
    path = Path(data).expanduser()
    source: Source
    if path.suffix in (".npy", ".npz", ".safetensors"):
        source = array_file(path, value_range=(-1.0, 1.0))
    else:
        source = folder(path, 64, crop="center", channels=channels, limit=limit or None)
    if tuple(source.shape[1:]) != (64, 64):
        raise DataError(
            f"{data}: samples of shape {list(source.shape)}, but this recipe takes [channels, 64, 64]: "
            "resize them, or name the folder of the images"
        )
    return source
