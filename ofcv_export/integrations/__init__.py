"""Bridges to other packages; nothing here is imported by the core."""
