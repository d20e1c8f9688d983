"""Writing a module to a file, loading it again, and proving that it gives the module's numbers.

May import everything but `engines` and `integrations`.
"""
