"""Bridges to other packages: mlcolvar's models, checkpoints and classes.

May import everything but `engines`; no other package imports it.
"""
