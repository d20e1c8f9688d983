"""Exported biases in molecular-dynamics engines, one file an engine, on one shared part.

`engine_bias` knows units, atoms, elements and boxes; an engine's file binds it. May import
everything but `integrations`. Nothing here is imported before it is asked for, since each file
needs its engine.
"""
