"""Farnia and Ozdaglar 2020 in closed form: the analytic games, and the paper's statements on numbers."""

from equilibrist.theory.fgan import FGaussian
from equilibrist.theory.w2gan import W2Gaussian
from equilibrist.theory.wgan1d import WGaussian1d

__all__ = ["FGaussian", "W2Gaussian", "WGaussian1d"]
