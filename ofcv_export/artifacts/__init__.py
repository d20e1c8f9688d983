"""Writing a module to a file, loading it again, and proving that it gives the module's numbers.

Loading (`loading`, `inputs`, `trajectory`) needs no PyTorch. May import everything but `engines`
and `integrations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofcv_export.base.lazy import lazy_names

if TYPE_CHECKING:
    from ofcv_export.artifacts.exporting import VerificationError, export
    from ofcv_export.artifacts.loading import Artifact, load, read_metadata
    from ofcv_export.artifacts.verification import VerificationReport, verify
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Artifact": "ofcv_export.artifacts.loading",
            "VerificationError": "ofcv_export.artifacts.exporting",
            "VerificationReport": "ofcv_export.artifacts.verification",
            "export": "ofcv_export.artifacts.exporting",
            "load": "ofcv_export.artifacts.loading",
            "read_metadata": "ofcv_export.artifacts.loading",
            "verify": "ofcv_export.artifacts.verification",
        },
    )

__all__ = [
    "Artifact",
    "VerificationError",
    "VerificationReport",
    "export",
    "load",
    "read_metadata",
    "verify",
]
