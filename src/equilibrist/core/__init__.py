"""A game, its draws, its vector field and Jacobian."""
