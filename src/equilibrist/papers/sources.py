"""The three papers."""

from __future__ import annotations

from equilibrist.run.recipe import Reference

FARNIA = Reference("Farnia and Ozdaglar, Do GANs always have Nash equilibria?, ICML 2020")
MESCHEDER = Reference("Mescheder, Nowozin and Geiger, The numerics of GANs, NeurIPS 2017")
HSIEH = Reference("Hsieh, Liu and Cevher, Finding mixed Nash equilibria of GANs, ICML 2019")
OPEN = Reference("Open questions")
