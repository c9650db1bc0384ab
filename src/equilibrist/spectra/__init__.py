"""Eigenvalues of a game's Jacobian: dense where it fits, Krylov with residuals where not."""

from equilibrist.spectra.at_point import (
    Convergence,
    Jacobian,
    hessian,
    jacobian,
    lanczos_density,
    local_convergence,
)
from equilibrist.spectra.consensus import Forecast, forecast, suggested
from equilibrist.spectra.density import SpectralDensity, exact_density
from equilibrist.spectra.eigenvalues import Eigenvalues, eigenvalues
from equilibrist.spectra.krylov import extremes
from equilibrist.spectra.normality import HenriciBounds, abscissa, henrici, henrici_bounds
from equilibrist.spectra.of_run import spectrum_of
from equilibrist.spectra.spectrum import Spectrum, spectrum_at

__all__ = [
    "Convergence",
    "Eigenvalues",
    "Forecast",
    "HenriciBounds",
    "Jacobian",
    "SpectralDensity",
    "Spectrum",
    "abscissa",
    "eigenvalues",
    "exact_density",
    "extremes",
    "forecast",
    "henrici",
    "henrici_bounds",
    "hessian",
    "jacobian",
    "lanczos_density",
    "local_convergence",
    "spectrum_at",
    "spectrum_of",
    "suggested",
]
