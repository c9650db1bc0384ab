"""Eigenvalues of a game's Jacobian: dense where it fits, Krylov with residuals where not."""

from equilibrist.spectra.spectrum import (
    Eigenvalues,
    Spectrum,
    eigenvalues,
    extremes,
    spectrum_at,
    spectrum_of,
)

__all__ = ["Eigenvalues", "Spectrum", "eigenvalues", "extremes", "spectrum_at", "spectrum_of"]
