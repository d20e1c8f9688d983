"""C source has the same bits from every compiler, with every option, on every processor."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ofcv_export as ofcv
from ofcv_export.descriptors import (
    RMSD,
    AdjacencyEigenvalues,
    Angles,
    Fermi,
    MultipleDescriptors,
    PairDistances,
    Torsions,
)
from tests.builders.systems import OPEN, all_pairs

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

# Under qemu larger variables take a second for a thousand frames.
N_FRAMES = {"pairs": 10_000, "some pairs": 10_000}
N_ATOMS = 8
MAIN = """
#include <stdio.h>
#include <stdlib.h>
int cv_evaluate(const REAL *positions, REAL *values, REAL *derivatives);
int main(void) {
  REAL positions[3 * N_ATOMS], out[N_OUTPUTS * (1 + 3 * N_ATOMS)];
  while (fread(positions, sizeof positions, 1, stdin) == 1) {
    if (cv_evaluate(positions, out, out + N_OUTPUTS) != 0) return 1;
    fwrite(out, sizeof out, 1, stdout);
  }
  return 0;
}
"""
CHAIN = torch.arange(4).unsqueeze(1)
REFERENCE = torch.tensor([[0.1, 0.5, -0.2], [0.7, -0.3, 0.1], [-0.4, 0.2, 0.6], [0.0, -0.6, -0.5]])
# With the activations between them, every elementary function but the logarithm is in one of them.
VARIABLES = {
    "pairs": (lambda: all_pairs(N_ATOMS), nn.Tanh),
    "some pairs": (lambda: PairDistances(all_pairs(N_ATOMS).pairs[::3], N_ATOMS), nn.Softplus),
    "angles": (
        lambda: MultipleDescriptors(
            [
                Angles(CHAIN + torch.arange(3), N_ATOMS, ("angle", "cos"), OPEN),
                Torsions(CHAIN + torch.arange(4), N_ATOMS, ("sin", "cos"), OPEN),
            ]
        ),
        nn.SiLU,
    ),
    "eigenvalues": (lambda: AdjacencyEigenvalues(N_ATOMS, Fermi(0.9, q=0.3)), nn.ELU),
    "rmsd": (lambda: RMSD(REFERENCE.double(), N_ATOMS, torch.tensor([5, 0, 3, 2])), nn.GELU),
}
# Without a processor the file takes AVX2 where there is one, unless it may not choose.
SSE2 = "-O3 -DOFCV_CLONES="
X86 = ["-O0", "-O2", "-O3", "-O3 -march=native", "-O3 -std=gnu11", SSE2]
LEVELS = {"avx2": "-O3 -mavx2 -mfma", "avx512f": "-O3 -mavx512f -mavx512vl -mavx512dq -mfma"}


def builds():
    """Return compiler, options and what runs the program, for all that there is here."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    options = X86 + [level for feature, level in LEVELS.items() if f" {feature}" in flags]
    found = [(compiler, each, []) for compiler in ("gcc", "clang") for each in options]
    found += [("aarch64-linux-gnu-gcc", f"{each} -static", ["qemu-aarch64"]) for each in X86[:3]]
    return found


@pytest.fixture(scope="module", params=["float", "double"])
def real(request):
    return request.param


@pytest.fixture(scope="module", params=list(VARIABLES))
def files(request, real, tmp_path_factory):
    """A folder with cv.c, main.c and frames, and the bits that Python gets."""
    folder = tmp_path_factory.mktemp("bits")
    dtype = torch.float32 if real == "float" else torch.float64
    make, activation = VARIABLES[request.param]
    descriptors = make()
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(descriptors.n_descriptors, 19), activation(), nn.Linear(19, 2)
    )
    cv = ofcv.CollectiveVariable(descriptors, network).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFCV_CACHE", str(folder / "cache"))
        ofcv.export(cv, folder / "cv.c")
        artifact = ofcv.load(folder / "cv.c")
    generator = torch.Generator().manual_seed(1)
    n_frames = N_FRAMES.get(request.param, 1000)
    sizes = 10 ** (2 * torch.rand(n_frames, 1, 1, generator=generator, dtype=dtype) - 1)
    positions = sizes * torch.randn(n_frames, N_ATOMS, 3, generator=generator, dtype=dtype)
    positions.numpy().tofile(folder / "frames.bin")
    rows = [
        np.concatenate([out.ravel() for out in artifact.run([x[None]])]) for x in positions.numpy()
    ]
    macros = f"#define REAL {real}\n#define N_ATOMS {N_ATOMS}\n#define N_OUTPUTS 2\n"
    (folder / "main.c").write_text(macros + MAIN)
    return folder, np.stack(rows)


@pytest.mark.parametrize("build", builds(), ids=lambda build: " ".join(build[:2]))
def test_the_bits_are_those_of_every_other_build(files, build):
    folder, expected = files
    compiler, options, runner = build
    for program in (compiler, *runner):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    command = [compiler, *options.split(), "-o", "program", "main.c", "cv.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    with (folder / "frames.bin").open("rb") as frames:
        out = subprocess.check_output([*runner, folder / "program"], stdin=frames)
    found = np.frombuffer(out, expected.dtype).reshape(expected.shape)
    assert np.isfinite(found).all()
    assert np.array_equal(found, expected)
