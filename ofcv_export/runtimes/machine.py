"""Whether this machine can run code that PyTorch compiled for another one."""

from __future__ import annotations

from ofcv_export.graph.metadata import Metadata


def cpu_features() -> set[str]:
    """Return what this CPU has, as PyTorch names it, e.g. ``x86_64``, ``avx2``, ``fma3``."""
    import torch

    features = set()
    for name, value in torch.cpu.get_capabilities().items():
        if isinstance(value, bool):
            features |= {name} if value else set()
        else:
            features.add(value if isinstance(value, str) else f"{name}={value}")
    return features


def devices() -> list[str]:
    """Return ``cpu``, and ``cuda`` where there is one."""
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def require_this_machine(metadata: Metadata) -> None:
    """Raise ValueError unless compiled code can run here, by this version of PyTorch."""
    import torch

    ours, theirs = _release(torch.__version__), _release(metadata.versions["torch"])
    if ours != theirs:
        raise ValueError(
            f"path: expected an artifact compiled by PyTorch {ours}, "
            f"got one compiled by PyTorch {theirs}"
        )
    if metadata.device not in devices():
        raise ValueError(
            f"path: expected an artifact for {' or '.join(devices())}, "
            f"got one for {metadata.device}"
        )
    here = cpu_features()
    missing = [name for name in (metadata.instruction_set or "").split() if name not in here]
    if missing:
        raise ValueError(
            f"path: expected an artifact for this CPU, got one that needs {' '.join(missing)}"
        )


def _release(version: str) -> str:
    """Return the major and minor version, within which compiled code can be loaded."""
    return ".".join(version.split(".")[:2])
