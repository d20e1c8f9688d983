"""Eigenvalues and eigenvectors of small symmetric matrices, in double precision."""

from __future__ import annotations

from ofcv_export.c_source.index import Index, linear
from ofcv_export.c_source.registry import Call, register
from ofcv_export.c_source.value import Value
from ofcv_export.graph.editing import row_major


@register("_linalg_eigh.default")
def _eigh(call: Call, x: Value, uplo: str = "L", compute_v: bool = True) -> list[Value]:
    if uplo != "L":
        raise ValueError("module: expected eigenvalues of lower triangles in C source, got upper")
    writer, n = call.writer, x.shape[-1]
    cast = f"({writer.real})"
    writer.need("eigenvalues.c")
    x = writer.in_memory(x)
    values = writer.declare(x.shape[:-1], "real")
    vectors = writer.declare(x.shape, "real")

    def matrix(outer: list[Index]) -> None:
        a, e, v = (writer.name("e") for _ in range(3))
        writer.line(f"double {a}[{n * n}], {e}[{n}], {v}[{n * n}];")

        def copied(ours: str, theirs: Value, n_axes: int, inwards: bool) -> None:
            def entry(inner: list[Index]) -> None:
                here = f"{ours}[{linear(inner, row_major([n] * n_axes))}]"
                there = f"{theirs.array}[{linear([*outer, *inner], row_major(theirs.shape))}]"
                writer.line(f"{here} = {there};" if inwards else f"{there} = {cast}{here};")

            writer.loops([n] * n_axes, entry)

        copied(a, x, 2, True)
        writer.line(f"ofcv_eigenvalues({n}, {a}, {e}, {v});")
        copied(e, values, 1, False)
        copied(v, vectors, 2, False)

    writer.line("{")
    writer.loops(x.shape[:-2], matrix)
    writer.line("}")
    return [values, vectors]
