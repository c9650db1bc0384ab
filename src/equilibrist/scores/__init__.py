"""Scores of generated samples, through any feature network, each with its real-against-real floor."""

from equilibrist.scores._base import FeatureScore, Floored, Result, Score, with_floor
from equilibrist.scores.class_score import ClassScore, ClassScores, class_score
from equilibrist.scores.frechet import Frechet, frechet_distance, frechet_from_moments
from equilibrist.scores.kernel import Kernel, KernelDistance, kernel_distance, squared_mmd
from equilibrist.scores.manifold import ManifoldScores, PrecisionRecall, precision_recall
from equilibrist.scores.mixtures import MixtureQuality, ModeFigures, mode_figures, wasserstein2
from equilibrist.scores.network import (
    FeatureNetwork,
    coordinates,
    from_safetensors,
    inception,
    pixels,
)

__all__ = [
    "ClassScore",
    "ClassScores",
    "FeatureNetwork",
    "FeatureScore",
    "Floored",
    "Frechet",
    "Kernel",
    "KernelDistance",
    "ManifoldScores",
    "MixtureQuality",
    "ModeFigures",
    "PrecisionRecall",
    "Result",
    "Score",
    "class_score",
    "coordinates",
    "frechet_distance",
    "frechet_from_moments",
    "from_safetensors",
    "inception",
    "kernel_distance",
    "mode_figures",
    "pixels",
    "precision_recall",
    "squared_mmd",
    "wasserstein2",
    "with_floor",
]
