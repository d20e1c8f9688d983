"""Orbital-free DFT: density coefficients in, rescaled coefficients or energy and gradient out.

`density.fitting` makes the statistics of a data set from density labels. May import `base` and
`graph`.
"""
