"""ONNX graphs (``.onnx``), run by ONNX Runtime.

A file is the serialised model, then its metadata, then a digest of all before it. Both are found
without the package onnx.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ofcv_export.base.validation import first_line
from ofcv_export.graph.metadata import Metadata
from ofcv_export.runtimes.protobuf import Field, fields
from ofcv_export.runtimes.runtime import Runner, Runtime, damaged, foreign

METADATA = "ofcv"
DIGEST = "ofcv.sha256"
# Numbers of the fields of onnx.ModelProto and onnx.StringStringEntryProto.
_PROPERTIES, _KEY, _VALUE = 14, 1, 2


class OnnxRuntime(Runtime):
    """ONNX, run by ONNX Runtime."""

    name = "onnx"
    suffix = ".onnx"
    runtime = "ONNX Runtime"
    on_torch = False

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Runtime.metadata`."""
        try:
            found = list(fields(content))
            properties = dict(_entry(field) for field in found if field.number == _PROPERTIES)
        except ValueError as error:
            raise foreign(path, "not an ONNX model, or truncated") from error
        if METADATA not in properties or DIGEST not in properties:
            raise foreign(path, "no metadata of ours in the model, or truncated")
        # The digest is the last field, and of all before it.
        digest = hashlib.sha256(memoryview(content)[: found[-1].start]).hexdigest()
        if digest != properties[DIGEST]:
            raise damaged(path)
        return Metadata.from_json(properties[METADATA])

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Open a session with one thread, as an MD engine would."""
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        providers: list[Any] = ["CPUExecutionProvider"]
        if device != "cpu":
            if hasattr(runtime, "preload_dlls"):
                # Those of NVIDIA's Python packages, where there are some.
                runtime.preload_dlls()
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        try:
            session = runtime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # the runtime's exceptions have no common base
            reason = first_line(error).rpartition(" : ")[2]
            raise foreign(path, f"ONNX Runtime cannot read it: {reason}") from error
        if device != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
            raise ValueError(
                f"device: expected one that ONNX Runtime can load the libraries for, got {device!r}"
            )
        names = [entry.name for entry in session.get_inputs()]

        def run(inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
            return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

        return run

    def devices(self, metadata: Metadata) -> list[str]:
        """Return ``cpu``, and ``cuda`` where ONNX Runtime was built for it and there is one."""
        providers = _onnxruntime().get_available_providers()
        with_cuda = "CUDAExecutionProvider" in providers and _has_cuda()
        return ["cpu", "cuda"] if with_cuda else ["cpu"]


def _entry(field: Field) -> tuple[str, str]:
    """Return key and value of a metadata property."""
    texts = {part.number: bytes(part.value).decode() for part in fields(field.value)}
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _has_cuda() -> bool:
    """Return whether NVIDIA's driver knows a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return not failed and count.value > 0


def _onnxruntime() -> Any:
    """Return the onnxruntime module, an optional dependency."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "onnxruntime: expected to be installed to run ONNX files, got no such package; "
            "pip install 'ofcv-export[onnxruntime]' or 'ofcv-export[onnxruntime-gpu]'"
        ) from error
    return onnxruntime
