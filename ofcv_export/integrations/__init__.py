"""Bridges to other packages: mlcolvar's models, checkpoints and classes, PyTorch Geometric's models.

May import everything but `engines`; no other package imports it.
"""
