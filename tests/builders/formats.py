"""Which formats tests go through."""

from ofcv_export.formats import FORMATS

# C source has a fixed number of frames, and is told the largest of other free sizes.
FREE_SIZES = [suffix for suffix, entry in FORMATS.items() if not entry.fixes_sizes]
