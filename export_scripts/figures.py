"""The demo's figures, PNG, in colours that colour-blind readers can tell apart (Okabe-Ito)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from export_scripts.cases import DTYPES
from export_scripts.replay import CPP_RUNTIMES, RUNTIMES, TOLERANCE, Result
from ofcv_export import SparsityPattern

# Label, colour and marker.
RUNTIME_STYLES = {
    CPP_RUNTIMES[".pt2"]: ("AOTInductor from C++", "#CC79A7", "D"),
    CPP_RUNTIMES[".pt"]: ("LibTorch from C++", "#D55E00", "s"),
    RUNTIMES[".pt2"]: ("AOTInductor from Python", "#E69F00", "v"),
    RUNTIMES[".pt"]: ("LibTorch from Python", "#0072B2", "o"),
    RUNTIMES[".onnx"]: ("ONNX Runtime from Python", "#009E73", "^"),
    RUNTIMES[".c"]: ("C99 from Python", "#56B4E9", "P"),
}
HEAVY_ATOM_NAMES = (
    "CH$_3$", "C", "O", "N", "C$_\\alpha$", "C$_\\beta$", "C", "O", "N", "CH$_3$",
)  # fmt: skip
# Names of the sampled regions, and where on the Ramachandran plot to write them.
BASINS = {
    r"$\alpha_\mathrm{R}$": (-30, -30),
    r"$\beta$": (-30, 150),
    r"$\alpha_\mathrm{L}$": (90, 25),
}
# Where an error of exactly zero is drawn on a logarithmic axis.
EXACT = 3e-18
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
}


@contextmanager
def figure(path: Path, n_columns: int, size: tuple[float, float]) -> Iterator[np.ndarray]:
    """Yield a row of axes, shape (n_columns,), and write the figure at the end."""
    with plt.rc_context(STYLE):
        made, axes = plt.subplots(1, n_columns, figsize=size, layout="constrained", squeeze=False)
        yield axes[0]
        made.savefig(path)
        plt.close(made)


def plot_ramachandran(path: Path, phi: np.ndarray, psi: np.ndarray, z: np.ndarray) -> None:
    """Plot the sampled torsions, degrees, coloured by the collective variable z."""
    with figure(path, 1, (5.0, 4.0)) as (axes,):
        dots = axes.scatter(phi, psi, c=z, s=7, cmap="cividis", linewidths=0)
        for name, place in BASINS.items():
            axes.text(*place, name, fontsize=12)
        ticks = np.arange(-180, 181, 60)
        axes.set(
            xlabel=r"$\phi$ (degrees)",
            ylabel=r"$\psi$ (degrees)",
            xlim=(-180, 180),
            ylim=(-180, 180),
            xticks=ticks,
            yticks=ticks,
        )
        axes.set_aspect("equal")
        axes.figure.colorbar(dots, ax=axes, label="collective variable $z$", shrink=0.9)


def plot_sparsity(path: Path, pattern: SparsityPattern, blocks: np.ndarray) -> None:
    """Plot the Jacobian of the descriptors in one frame, with its structural zeros left grey.

    Parameters
    ----------
    path : Path
        File to write.
    pattern : SparsityPattern
        Structure of the Jacobian.
    blocks : numpy.ndarray
        Values of one frame, shape (n_blocks, 3).
    """
    jacobian = np.full((pattern.n_descriptors, pattern.n_atoms, 3), np.nan)
    jacobian[pattern.descriptor_index.numpy(), pattern.atom_index.numpy()] = blocks
    n_columns = 3 * pattern.n_atoms
    share = pattern.nnz / jacobian.size
    with figure(path, 1, (6.0, 6.4)) as (axes,):
        axes.set_facecolor("0.88")
        image = axes.imshow(
            jacobian.reshape(pattern.n_descriptors, n_columns),
            cmap="RdBu_r",
            norm=Normalize(-1, 1),
            aspect="auto",
            interpolation="none",
        )
        for atom in range(1, pattern.n_atoms):
            axes.axvline(3 * atom - 0.5, color="white", linewidth=1.5)
        names = [f"{name}\n{atom}" for atom, name in enumerate(HEAVY_ATOM_NAMES)]
        axes.set_xticks(3 * np.arange(pattern.n_atoms) + 1, names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(
            xlabel="heavy atom and its index; columns x, y, z",
            ylabel="descriptor (distance of a pair of atoms)",
            title=f"{pattern.nnz} of {jacobian.size} entries are stored ({share:.0%}); "
            "grey: structural zeros",
        )
        axes.figure.colorbar(
            image, ax=axes, label=r"$\partial d / \partial r$ in the first frame", shrink=0.6
        )


def plot_parity(path: Path, results: Sequence[Result]) -> None:
    """Plot outputs against float64, and the largest error of every artifact."""
    by_runtime = {(result.case.name, result.runtime): result for result in results}
    derivatives = by_runtime["sparse_chain_rule", CPP_RUNTIMES[".pt"]]
    rescaled = by_runtime["rescaling_with_gradient", CPP_RUNTIMES[".pt"]]
    with figure(path, 3, (13.5, 4.2)) as (left, middle, right):
        plot_outputs(left, derivatives, {"output_wrt_positions": "#0072B2"})
        left.set(
            xlabel=r"float64 autograd (nm$^{-1}$)",
            ylabel=r"artifact in C++, float32 (nm$^{-1}$)",
            title=r"position derivatives $\partial z/\partial r$",
        )
        plot_outputs(
            middle,
            rescaled,
            {"scaled_coeffs": "#D55E00", "scaled_gradient": "#009E73"},
            absolute=True,
        )
        middle.set(
            xscale="log",
            yscale="log",
            xlabel="float64, eq. (4) of M-OFDFT, absolute value",
            ylabel="artifact in C++, float32, absolute value",
            title="rescaled density of one molecule",
        )
        middle.legend(loc="upper left", markerscale=2)
        plot_errors(right, results)
        handles, labels = right.get_legend_handles_labels()
        right.figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def plot_outputs(
    axes: Axes, result: Result, colours: dict[str, str], absolute: bool = False
) -> None:
    """Scatter float32 outputs against the expected ones, or their absolute values."""
    for name, colour in colours.items():
        pair = result.case.expected[name].ravel(), result.outputs["float32"][name].ravel()
        expected, found = map(np.abs, pair) if absolute else pair
        label = name.replace("_", " ")
        axes.scatter(expected, found, s=9, color=colour, linewidths=0, label=label)
    axes.axline((1, 1), (2, 2), color="black", linewidth=0.8, zorder=0)


def plot_errors(axes: Axes, results: Sequence[Result]) -> None:
    """Plot the largest relative error of every artifact, runtime and dtype."""
    titles, places = layout(results, spacing=0.16)
    for runtime, (label, colour, marker) in RUNTIME_STYLES.items():
        shown = [result for result in results if result.runtime == runtime]
        for dtype in DTYPES:
            axes.scatter(
                np.maximum([result.errors[dtype] for result in shown], EXACT),
                [places[result.case.title, runtime] for result in shown],
                marker=marker,
                s=30,
                edgecolors=colour,
                facecolors=colour if dtype == "float32" else "none",
                label=label if dtype == "float32" else None,
            )
    for dtype, tolerance in TOLERANCE.items():
        axes.axvline(tolerance, color="0.4", linewidth=0.8, linestyle="--")
        axes.text(tolerance, -0.55, f"{dtype} limit ", fontsize=8, ha="right")
    exponents = (-15, -12, -9, -6)
    axes.set(
        xscale="log",
        xlim=(EXACT / 3, 1e-4),
        ylim=(len(titles) - 0.5, -0.7),
        xlabel="largest relative error",
        title="filled: float32, open: float64",
    )
    axes.set_xticks(
        [EXACT, *(10.0**exponent for exponent in exponents)],
        ["0", *(f"$10^{{{exponent}}}$" for exponent in exponents)],
    )
    axes.minorticks_off()
    axes.set_yticks(range(len(titles)), titles)


def plot_timing(path: Path, results: Sequence[Result]) -> None:
    """Plot the time per call of every artifact in every runtime."""
    height = 0.19
    titles, places = layout(results, spacing=height)
    with figure(path, 1, (8.0, 5.4)) as (axes,):
        for runtime, (label, colour, _) in RUNTIME_STYLES.items():
            shown = [result for result in results if result.runtime == runtime]
            rows = [places[result.case.title, runtime] for result in shown]
            times = [result.microseconds for result in shown]
            bars = axes.barh(rows, times, height=0.92 * height, color=colour, label=label)
            axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axes.set_yticks(range(len(titles)), titles)
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.set_xlabel("time per call (µs): one frame or molecule, float32, one thread")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)


def layout(
    results: Sequence[Result], spacing: float
) -> tuple[list[str], dict[tuple[str, str], float]]:
    """Return the artifacts' titles and a height for each runtime of each artifact around them."""
    titles = list(dict.fromkeys(result.case.title for result in results))
    places = {}
    for row, title in enumerate(titles):
        present = {result.runtime for result in results if result.case.title == title}
        ordered = [runtime for runtime in RUNTIME_STYLES if runtime in present]
        for place, runtime in enumerate(ordered):
            places[title, runtime] = row + spacing * (place - (len(ordered) - 1) / 2)
    return titles, places
