"""Modules as pure functions, stacks of them, and their derivatives: what touches torch's private parts."""
