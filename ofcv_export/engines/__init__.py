"""Exported biases in molecular-dynamics engines, one file an engine."""
