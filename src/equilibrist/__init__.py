"""Equilibrist: train GANs as the two-player games they are, and say which equilibrium they reached.

Names are loaded on first use, so that `import equilibrist` is quick and the command's help needs no
torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equilibrist import (  # noqa: F401
        auxiliary,
        checkpoints,
        compiled,
        contract,
        critics,
        data,
        diagnosis,
        formulations,
        games,
        interop,
        langevin,
        mixed,
        networks,
        optimizers,
        penalties,
        projections,
        schedules,
        scores,
        solvers,
        theory,
        tree,
        zoo,
    )
    from equilibrist.checks import Audit, Certificate, Verdict, audit, audit_pair
    from equilibrist.core.field import VectorField
    from equilibrist.core.game import Game
    from equilibrist.core.jacobian import JacobianOperator
    from equilibrist.data import ArraySource, Source, digits, eight_gaussians, mnist
    from equilibrist.errors import (
        DataError,
        EquilibristError,
        GameError,
        NonFiniteError,
        RecipeError,
        RecordError,
        RequirementError,
    )
    from equilibrist.formulations import WGAN, Vanilla
    from equilibrist.games import GAN, AdversarialGame, Quadratic
    from equilibrist.optimizers import SGD, Adam, RMSProp
    from equilibrist.penalties import GradientPenalty
    from equilibrist.projections import WeightClipping
    from equilibrist.recipe_lookup import resolve
    from equilibrist.report import write_report
    from equilibrist.run import Recipe, Reference, Run, load, train
    from equilibrist.solvers import Alternating, Simultaneous

_WHERE = {
    "errors": (
        "DataError",
        "EquilibristError",
        "GameError",
        "NonFiniteError",
        "RecipeError",
        "RecordError",
        "RequirementError",
    ),
    "core.field": ("VectorField",),
    "core.game": ("Game",),
    "core.jacobian": ("JacobianOperator",),
    "recipe_lookup": ("resolve",),
    "checks": ("Audit", "Certificate", "Verdict", "audit", "audit_pair"),
    "data": ("ArraySource", "Source", "digits", "eight_gaussians", "mnist"),
    "formulations": ("WGAN", "Vanilla"),
    "games": ("GAN", "AdversarialGame", "Quadratic"),
    "optimizers": ("SGD", "Adam", "RMSProp"),
    "penalties": ("GradientPenalty",),
    "projections": ("WeightClipping",),
    "report": ("write_report",),
    "run": ("Recipe", "Reference", "Run", "load", "train"),
    "solvers": ("Alternating", "Simultaneous"),
}
# Not among the names of `__all__`, and found here all the same: `eq.Hinge` is `eq.formulations.Hinge`.
_ALSO = {
    "auxiliary": ("Reconstruction", "Term"),
    "compiled": ("CompiledJacobian", "CompiledStep"),
    "checkpoints": ("Choice", "EnergyScore", "RowScore", "choose_checkpoint"),
    "checks": ("Settings", "Tolerance", "audit_game", "audit_mixed"),
    "checks.pair": ("Pair",),
    "critics": ("CriticAudit", "LoneCritic", "audit_critic"),
    "diagnosis": (
        "Diagnosis",
        "Finding",
        "Loop",
        "ResumeCheck",
        "Wiring",
        "check_resume",
        "check_wiring",
        "diagnose",
    ),
    "data": (
        "Augmented",
        "Gaussian",
        "array_file",
        "cifar10",
        "fashion_mnist",
        "folder",
        "source_of",
        "swiss_roll",
        "twenty_five_gaussians",
    ),
    "formulations": ("FGAN", "W2GAN", "Hinge", "LeastSquares", "Relativistic"),
    "games": (
        "Dirac",
        "FiniteGAN",
        "GaussianW2GAN",
        "Mixture",
        "Planar",
        "bilinear",
        "draw_of_rows",
    ),
    "interop": ("Heard", "Play", "TorchRule", "Watch", "lightning_callback", "listen"),
    "errors": ("CompilationError",),
    "langevin": ("SGLD", "RMSPropSGLD"),
    "optimizers": ("TFRMSProp",),
    "mixed": ("MatrixGame", "MirrorDescent", "MirrorProx", "OptimisticMirror", "PayoffGame"),
    "networks": ("LinearGenerator", "QuadraticCritic"),
    "penalties": ("R1", "R2"),
    "prescriptions": ("Prescription", "changes_of", "prescribe"),
    "projections": ("NormBall", "SpectralBall"),
    "run": ("ensemble",),
    "schedules": ("Clipped", "Cosine", "Piecewise", "Scheduled"),
    "scores": ("ClassScore", "FeatureNetwork", "Frechet", "KernelDistance", "PrecisionRecall"),
    "solvers": (
        "AnchoredExtragradient",
        "Averaged",
        "Competitive",
        "Consensus",
        "Extragradient",
        "FollowTheRidge",
        "Given",
        "Implicit",
        "Lookahead",
        "MirrorGAN",
        "MirrorProxGAN",
        "Optimistic",
        "PastExtragradient",
        "Proximal",
        "SymplecticAdjustment",
        "Unrolled",
        "iterate",
    ),
}
_MODULE = {
    name: module for table in (_WHERE, _ALSO) for module, names in table.items() for name in names
}

# Importable without being names of the package's own: eq.formulations.FGAN, eq.scores.Frechet.
_MODULES = (
    "auxiliary",
    "checkpoints",
    "checks",
    "compiled",
    "contract",
    "critics",
    "data",
    "diagnosis",
    "formulations",
    "games",
    "interop",
    "langevin",
    "mixed",
    "networks",
    "optimizers",
    "penalties",
    "prescriptions",
    "projections",
    "report",
    "schedules",
    "scores",
    "solvers",
    "spectra",
    "theory",
    "tree",
    "zoo",
)

__version__ = "0.1.0"

__all__ = [
    "GAN",
    "SGD",
    "WGAN",
    "Adam",
    "AdversarialGame",
    "Alternating",
    "ArraySource",
    "Audit",
    "Certificate",
    "DataError",
    "EquilibristError",
    "Game",
    "GameError",
    "GradientPenalty",
    "JacobianOperator",
    "NonFiniteError",
    "Quadratic",
    "RMSProp",
    "Recipe",
    "RecipeError",
    "RecordError",
    "Reference",
    "RequirementError",
    "Run",
    "Simultaneous",
    "Source",
    "Vanilla",
    "VectorField",
    "Verdict",
    "WeightClipping",
    "audit",
    "audit_pair",
    "digits",
    "eight_gaussians",
    "load",
    "mnist",
    "resolve",
    "train",
    "tree",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"equilibrist.{name}")
    if name not in _MODULE:
        raise AttributeError(f"module 'equilibrist' has no attribute {name!r}{_hint(name)}")
    value = getattr(importlib.import_module(f"equilibrist.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _hint(name: str) -> str:
    """Where a name is that is looked for here, or what it may be meant for."""
    if name.startswith("_") or importlib.util.find_spec(f"equilibrist.{name}") is not None:
        return ""  # the import system asks for submodules here before it imports them
    for module in _MODULES:
        try:
            if hasattr(importlib.import_module(f"equilibrist.{module}"), name):
                return f": it is equilibrist.{module}.{name}"
        except ImportError:
            return ""
    from equilibrist.errors import did_you_mean

    return did_you_mean(name, [*_MODULE, *_MODULES])
