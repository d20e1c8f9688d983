"""Leaving nothing behind when a process is asked to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Terminated(BaseException):
    """Raised where the process was when SIGTERM came."""


@contextmanager
def stopping_tidily() -> Iterator[None]:
    """Let blocks within clean up when SIGTERM comes, as a queue sends it, before the process ends.

    By default a process ends where it is, and its temporary folders stay. Where the signal has a
    handler already, and in threads other than the main one, nothing is changed.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(*_: Any) -> None:
    # Once: another signal must not stop the cleaning up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated
