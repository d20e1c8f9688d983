"""What every other package stands on: checks of arguments, files, units, elements, sums.

Nothing here knows of descriptors, graphs or artifacts. Every package may import it, and it imports
none of them.
"""
