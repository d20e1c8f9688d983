"""Collective variables and biases: positions in, values and their derivatives out.

May import `base`, `descriptors` and `graph`.
"""
