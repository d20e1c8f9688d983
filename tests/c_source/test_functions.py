"""Elementary functions in C against those of double precision, over all sizes of arguments."""

import ctypes
import math
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
HEAD = "#include <math.h>\n#include <stdint.h>\n#include <string.h>\n"
LOOP = """
void each_{name}(const float *x, float *y, int64_t n) {{
  for (int64_t i = 0; i < n; ++i) y[i] = ofcv_{name}(x[i]);
}}
"""
# In float64, which is exact beside float32.
EXACT = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "sin": np.sin,
    "cos": np.cos,
    "acos": np.arccos,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The functions, each over an array."""
    folder = tmp_path_factory.mktemp("functions")
    functions = files("ofcv_export.c_source").joinpath("functions_float.c").read_text()
    loops = "".join(LOOP.format(name=name) for name in EXACT)
    two = (
        "void each_atan2(const float *y, const float *x, float *out, int64_t n) {"
        "for (int64_t i = 0; i < n; ++i) out[i] = ofcv_atan2(y[i], x[i]); }"
    )
    (folder / "functions.c").write_text(f"{HEAD}{functions}{loops}{two}")
    command = [
        "cc",
        "-std=c99",
        "-O2",
        "-Wall",
        "-Wextra",
        "-shared",
        "-fPIC",
        "-o",
        "functions.so",
    ]
    subprocess.run([*command, "functions.c", "-lm"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "functions.so"))


def called(library, name, *arguments):
    out = np.full_like(arguments[0], 5)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arguments, out)]
    getattr(library, f"each_{name}")(*pointers, ctypes.c_int64(len(out)))
    return out


def in_last_places(found, exact):
    """Return errors in units of the last place of a float of the exact size."""
    _, exponent = np.frexp(exact)
    place = np.ldexp(1.0, np.maximum(exponent, -125) - 24)
    with np.errstate(invalid="ignore"):
        return np.abs(found.astype(np.float64) - exact) / place


def every(step):
    """Every so many floats, finite ones."""
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    return x[np.isfinite(x)]


@pytest.mark.parametrize("name", list(EXACT))
def test_errors_are_below_two_units_in_the_last_place(library, name):
    x = every(4099)
    found = called(library, name, x)
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.float64))
    with np.errstate(over="ignore"):
        is_float = np.isfinite(exact) & np.isfinite(exact.astype(np.float32))
    assert np.array_equal(np.isnan(found), np.isnan(exact))
    assert np.all(np.isinf(found[~is_float & ~np.isnan(exact)]))
    assert in_last_places(found[is_float], exact[is_float]).max() <= 2


def test_angles_of_vectors(library):
    generator = np.random.default_rng(0)
    sizes = 10.0 ** generator.uniform(-6, 6, (2, 200_000))
    y, x = (sizes * generator.choice([-1, 1], sizes.shape)).astype(np.float32)
    exact = np.arctan2(y.astype(np.float64), x.astype(np.float64))
    assert in_last_places(called(library, "atan2", y, x), exact).max() <= 1
    zero, one = np.float32(0), np.float32(1)
    corners = np.array([(zero, -one), (-zero, -one), (zero, zero), (one, zero), (-one, zero)]).T
    y, x = (np.ascontiguousarray(row, dtype=np.float32) for row in corners)
    assert np.array_equal(called(library, "atan2", y, x), np.arctan2(y, x).astype(np.float32))


@pytest.mark.parametrize("name", list(EXACT))
def test_what_is_no_number_stays_so(library, name):
    assert np.isnan(called(library, name, np.array([np.nan], dtype=np.float32)))[0]
