"""Runnable examples that produce artifacts from real input: ``python -m export_scripts.demo``."""
