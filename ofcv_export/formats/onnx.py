"""ONNX graphs (``.onnx``), which ONNX Runtime and many others run.

A file is the serialised model, then its metadata, then a digest of all before it. Protocol buffers
merge what is appended, so that every ONNX reader sees one model with two metadata properties.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from onnxscript import optimizer
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions

from ofcv_export.base.arrays import in_memory
from ofcv_export.base.validation import first_line
from ofcv_export.formats.equivalents import (
    BACKWARD,
    EQUIVALENTS,
    FLOAT64_EQUIVALENTS,
    subtract_from_products,
    transpose_apart_from_products,
)
from ofcv_export.formats.exact_numbers import (
    WRITTEN_OUT,
    exact_numbers,
    require_exact_numbers,
)
from ofcv_export.formats.example import dynamic, examples
from ofcv_export.formats.format import Format, Runner, damaged, foreign
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tracing import traced

OPSET = 18
# What opset 18 came with; readers refuse a version that they do not know.
IR_VERSION = 8
_METADATA = "ofcv"
_DIGEST = "ofcv.sha256"
_LARGEST_MODEL = 2**31 - 1
# Loggers of notes about packages and attributes that are no concern of the user's.
_NOTES = ("torch.onnx._internal.exporter._registration", "onnx_ir._convenience")


class Onnx(Format):
    """ONNX, run by ONNX Runtime."""

    name = "onnx"
    suffix = ".onnx"
    runtime = "ONNX Runtime"

    def target(self, graph: ExportGraph) -> dict[str, Any]:
        """Return what a file is made for: any device, and an opset."""
        return super().target(graph) | {"opset": OPSET}

    def compile(self, graph: ExportGraph) -> onnx.ModelProto:
        """Export the module through torch.export, names and symbolic sizes as in its specs."""
        n_bytes = sum(buffer.nbytes for buffer in graph.module.buffers())
        if n_bytes > _LARGEST_MODEL:
            raise ValueError(
                f"module: expected at most {_LARGEST_MODEL} bytes of frozen data in an ONNX file, "
                f"got {n_bytes}; a .pt file has no such limit"
            )
        module = _for_runtime(graph)
        try:
            program = _program(module, graph)
        except torch.onnx.OnnxExporterError as error:
            missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error))
            what = missing[1] if missing else first_line(error.__cause__ or error)
            raise ValueError(f"module: expected operators that ONNX has, got {what}") from error
        model: onnx.ModelProto = program.model_proto
        if is_float64(graph):
            require_exact_numbers(model, module)
        model.ir_version = IR_VERSION
        _name_sizes(model, graph)
        _drop_notes(model)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ValueError(
                f"module: expected a graph that ONNX's checker accepts, got {first_line(error)}"
            ) from error
        _require_default_domain(model)
        return model

    def write(self, compiled: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
        """Write the model with the metadata properties ``ofcv`` and ``ofcv.sha256``."""
        content = compiled.SerializeToString(deterministic=True)
        content += _property(_METADATA, metadata.to_json())
        path.write_bytes(content + _property(_DIGEST, hashlib.sha256(content).hexdigest()))

    def metadata(self, content: bytes, path: Path) -> Metadata:
        """Check the digest and return the metadata, see `Format.metadata`."""
        try:
            model = onnx.ModelProto.FromString(content)
        except DecodeError as error:
            raise foreign(path, "not an ONNX model, or truncated") from error
        properties = {entry.key: entry.value for entry in model.metadata_props}
        if _METADATA not in properties or _DIGEST not in properties:
            raise foreign(path, "no metadata of ours in the model, or truncated")
        digested = content[: -len(_property(_DIGEST, "0" * 64))]
        if hashlib.sha256(digested).hexdigest() != properties[_DIGEST]:
            raise damaged(path)
        return Metadata.from_json(properties[_METADATA])

    def load(self, content: bytes, path: Path, device: str) -> Runner:
        """Open a session with one thread, as an MD engine would."""
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        providers: list[Any] = ["CPUExecutionProvider"]
        if device != "cpu":
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        try:
            session = runtime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # the runtime's exceptions have no common base
            reason = first_line(error).rpartition(" : ")[2]
            raise foreign(path, f"ONNX Runtime cannot read it: {reason}") from error
        names = [entry.name for entry in session.get_inputs()]

        def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            arrays = [in_memory(tensor.cpu()).numpy() for tensor in inputs]
            outputs = session.run(None, dict(zip(names, arrays, strict=True)))
            return tuple(torch.from_numpy(output) for output in outputs)

        return run

    def devices(self, metadata: Metadata) -> list[str]:
        """Return ``cpu``, and ``cuda`` where ONNX Runtime was built for it and there is one."""
        providers = _onnxruntime().get_available_providers()
        with_cuda = "CUDAExecutionProvider" in providers and torch.cuda.is_available()
        return ["cpu", "cuda"] if with_cuda else ["cpu"]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's notes."""
    loggers = [logging.getLogger(name) for name in _NOTES]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


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


def _for_runtime(graph: ExportGraph) -> fx.GraphModule:
    """Return the graph in operators that every ONNX Runtime computes right."""
    table = dict(EQUIVALENTS) | get_decompositions(BACKWARD)
    if is_float64(graph):
        table |= get_decompositions(WRITTEN_OUT) | FLOAT64_EQUIVALENTS
    # Without operators that change their inputs, for which there are no equivalents.
    pure = torch.func.functionalize(graph.module.eval(), remove="mutations")
    module = traced(pure, graph.inputs, decompositions=table)
    if is_float64(graph):
        exact_numbers(module)
        subtract_from_products(module)
        transpose_apart_from_products(module)
    return module


def _program(module: nn.Module, graph: ExportGraph) -> torch.onnx.ONNXProgram:
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            examples(graph.inputs),
            dynamo=True,
            verbose=False,
            optimize=not is_float64(graph),
            opset_version=OPSET,
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            dynamic_shapes=tuple(dynamic(spec) for spec in graph.inputs),
        )
        assert program is not None
        if is_float64(graph):
            # Its rules would write operators with float32 numbers; folding alone has none.
            optimizer.inline(program.model)
            optimizer.fold_constants(program.model)
            optimizer.remove_unused_nodes(program.model)
    return program


def is_float64(graph: ExportGraph) -> bool:
    """Return whether a graph computes in float64."""
    return any(spec.dtype == "float64" for spec in graph.inputs)


def _name_sizes(model: onnx.ModelProto, graph: ExportGraph) -> None:
    """Give the graph's inputs and outputs the shapes of their specs, symbols included."""
    ends = [*zip(model.graph.input, graph.inputs, strict=True)]
    ends += [*zip(model.graph.output, graph.outputs, strict=True)]
    for value, spec in ends:
        shape = value.type.tensor_type.shape
        for axis, size in zip(shape.dim, spec.shape, strict=True):
            axis.Clear()
            if isinstance(size, str):
                axis.dim_param = size
            else:
                axis.dim_value = size
    del model.graph.value_info[:]


def _drop_notes(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about its source code."""
    model.doc_string = ""
    for entry in [model.graph, *model.graph.node, *model.graph.initializer]:
        entry.doc_string = ""
        del entry.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    del model.metadata_props[:]


def _require_default_domain(model: onnx.ModelProto) -> None:
    domains = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if domains or model.functions:
        raise ValueError(
            f"module: expected operators of the default ONNX domain, got {sorted(domains)}"
        )


def _property(key: str, value: str) -> bytes:
    """Return a metadata property as the bytes of a model that holds nothing else."""
    model = onnx.ModelProto()
    model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()
