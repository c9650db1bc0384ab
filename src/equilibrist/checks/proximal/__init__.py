"""Proximal equilibria by search: V_prox, lambda*, the equilibrium profile, section 6.1's experiment."""
