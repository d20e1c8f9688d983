"""Attention in plain operators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel

# The choice of how attention is computed is one for the whole process.
_LOCK = threading.RLock()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Let attention be computed by operators that can be traced and differentiated twice."""
    with _LOCK, sdpa_kernel(SDPBackend.MATH):
        yield
