"""Writing a module to a file, loading it again, and proving that it gives the module's numbers.

May import everything but `engines` and `integrations`.
"""

from ofcv_export.artifacts.exporting import VerificationError, export
from ofcv_export.artifacts.loading import Artifact, load, read_metadata
from ofcv_export.artifacts.verification import VerificationReport, verify

__all__ = [
    "Artifact",
    "VerificationError",
    "VerificationReport",
    "export",
    "load",
    "read_metadata",
    "verify",
]
