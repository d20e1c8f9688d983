"""Bridges to other packages: mlcolvar's models, checkpoints and classes, and PyTorch Geometric's.

May import everything but `engines`; no other package imports it.
"""
