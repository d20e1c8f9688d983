"""What an export hands over: names and shapes, metadata, the traced graph and its rewriting.

Imports `ofcv_export.base` only. Modules of `jacobian`, `variables` and `density` describe
themselves with it; formats and contracts take what it makes.
"""
