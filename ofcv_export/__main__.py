"""``python -m ofcv_export``."""

from ofcv_export.cli import app

app()
