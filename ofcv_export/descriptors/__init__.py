"""Descriptors with analytic derivatives with respect to positions."""
