"""Packages that only some parts need: what is said where one is missing."""

from __future__ import annotations

# Their names and the extras that bring them, by the names of their modules.
_PACKAGES = {
    "torch": ("PyTorch", "export"),
    "onnx": ("ONNX", "export"),
    "onnxscript": ("ONNX Script", "export"),
    "zarr": ("Zarr", "export"),
    "vesin": ("vesin", "graphs"),
}


def missing_package(what: str, error: ModuleNotFoundError) -> ImportError:
    """Return the error for what cannot be had without a package.

    Parameters
    ----------
    what : str
        What was asked for.
    error : ModuleNotFoundError
        Why it could not be imported; one of another package is returned as it is.

    Examples
    --------
    >>> missing_package("a .pt file", ModuleNotFoundError(name="torch")).args[0]
    "torch: expected PyTorch for a .pt file, got none installed (pip install 'ofcv-export[export]')"
    """
    package = (error.name or "").partition(".")[0]
    if package not in _PACKAGES:
        return error
    name, extra = _PACKAGES[package]
    return ImportError(
        f"{package}: expected {name} for {what}, got none installed "
        f"(pip install 'ofcv-export[{extra}]')"
    )


def require_torch(what: str) -> None:
    """Raise ImportError unless PyTorch is installed, which `what` needs."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_package(what, error) from error
