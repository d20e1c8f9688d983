"""ONNX graphs (``.onnx``), which ONNX Runtime and many others run.

A file is the serialised model, then its metadata, then a digest of all before it. Protocol buffers
merge what is appended, so that every ONNX reader sees one model with two metadata properties.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import optimizer
from torch import fx, nn
from torch._decomp import get_decompositions

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
from ofcv_export.formats.format import Format
from ofcv_export.graph.export_graph import ExportGraph
from ofcv_export.graph.metadata import Metadata
from ofcv_export.graph.tracing import traced
from ofcv_export.runtimes.onnx import DIGEST, METADATA, OnnxRuntime

OPSET = 18
# What opset 18 came with; readers refuse a version that they do not know.
IR_VERSION = 8
_LARGEST_MODEL = 2**31 - 1
# Loggers of notes about packages and attributes that are no concern of the user's.
_NOTES = ("torch.onnx._internal.exporter._registration", "onnx_ir._convenience")


class Onnx(OnnxRuntime, Format):
    """ONNX, run by ONNX Runtime."""

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
        content += _property(METADATA, metadata.to_json())
        path.write_bytes(content + _property(DIGEST, hashlib.sha256(content).hexdigest()))


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


def _for_runtime(graph: ExportGraph) -> fx.GraphModule:
    """Return the graph in operators that every ONNX Runtime computes right."""
    table = dict(EQUIVALENTS) | get_decompositions(BACKWARD)
    if is_float64(graph):
        table |= get_decompositions(WRITTEN_OUT) | FLOAT64_EQUIVALENTS
    # Without operators that change their inputs, for which there are no equivalents.
    pure = torch.func.functionalize(graph.module.eval(), remove="mutations")
    module = traced(pure, graph.inputs, decompositions=table, outputs=graph.outputs)
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
