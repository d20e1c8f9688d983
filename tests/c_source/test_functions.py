"""Elementary functions in C against exact ones, over all sizes of arguments."""

import ctypes
import math
import shutil
import subprocess
from importlib.resources import files

import mpmath
import numpy as np
import pytest

COMPILERS = [name for name in ("cc", "clang") if shutil.which(name)]
pytestmark = pytest.mark.skipif(not COMPILERS, reason="no C compiler")
HEAD = "#include <math.h>\n#include <stdint.h>\n#include <string.h>\n"
LOOP = """
void each_{name}(const {real} *x, {real} *y, int64_t n) {{
  for (int64_t i = 0; i < n; ++i) y[i] = ofcv_{name}(x[i]);
}}
"""
LOOP_OF_TWO = """
void each_{name}(const {real} *y, const {real} *x, {real} *out, int64_t n) {{
  for (int64_t i = 0; i < n; ++i) out[i] = ofcv_{name}(y[i], x[i]);
}}
"""
STRICT = "-std=c99 -pedantic -Wall -Wextra -Werror -ffp-contract=off -shared -fPIC"
# Without errno and traps, loops are vectorised.
OPTIONS = ("-O0", "-O2", "-O3 -march=native -fno-math-errno -fno-trapping-math")
# With other bits, and errors within the same bounds.
FUSED = "-O3 -march=native -fno-math-errno -fno-trapping-math -ffp-contract=fast"
SUFFIX = {"float": "", "double": "_d"}
KIND = {"float": np.float32, "double": np.float64}
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
PRECISE = {
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "acos": mpmath.acos,
    "erf": mpmath.erf,
}
FUNCTIONS = [("float", name) for name in EXACT] + [("double", name) for name in PRECISE]
# Where the double functions pass from one formula to another.
SEAMS = (
    1e-300, 2**-53, 0.33, math.log(2) / 2, 0.5, 0.55, 0.7, math.sqrt(0.5), 1, math.sqrt(2), 2, 6,
    36.7, 37.4, 40, 708.4, 709.78, 745.13, 2**20, 2**53,
)  # fmt: skip
# Arguments and values.
SPECIAL = {
    "exp": [(0.0, 1.0), (math.inf, math.inf), (-math.inf, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.inf), (-math.inf, -1.0)],
    "log": [(1.0, 0.0), (0.0, -math.inf), (-0.0, -math.inf), (math.inf, math.inf)],
    "log1p": [(0.0, 0.0), (math.inf, math.inf)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (math.inf, 1.0), (-math.inf, -1.0)],
    "sigmoid": [(0.0, 0.5), (math.inf, 1.0), (-math.inf, 0.0)],
    "softplus": [(math.inf, math.inf), (-math.inf, 0.0)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.nan), (-math.inf, math.nan)],
    "cos": [(0.0, 1.0), (math.inf, math.nan), (-math.inf, math.nan)],
    "acos": [(1.0, 0.0), (1.5, math.nan), (-math.inf, math.nan)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (math.inf, 1.0), (-math.inf, -1.0)],
}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Return the library of all functions, each over an array, by a compiler's options."""
    folder = tmp_path_factory.mktemp("functions")
    source = HEAD
    for real, suffix in SUFFIX.items():
        source += files("ofcv_export.c_source").joinpath(f"functions_{real}.c").read_text()
        source += LOOP_OF_TWO.format(name=f"atan2{suffix}", real=real)
    source += "".join(
        LOOP.format(name=name + SUFFIX[real], real=real) for real in KIND for name in PRECISE
    )
    (folder / "functions.c").write_text(source)

    def built(compiler, options):
        name = f"{compiler}{options.replace(' ', '')}.so"
        command = [compiler, *STRICT.split(), *options.split(), "-o", name, "functions.c", "-lm"]
        subprocess.run(command, cwd=folder, check=True)
        return ctypes.CDLL(str(folder / name))

    return built


@pytest.fixture(scope="module", params=["-O2", FUSED], ids=["as written", "fused"])
def library(request, build):
    return build(COMPILERS[0], request.param)


def called(library, real, name, *arguments):
    arguments = [np.ascontiguousarray(argument, dtype=KIND[real]) for argument in arguments]
    out = np.full_like(arguments[0], 5)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arguments, out)]
    getattr(library, f"each_{name}{SUFFIX[real]}")(*pointers, ctypes.c_int64(len(out)))
    return out


def in_last_places(found, exact, rest):
    """Return errors in units of the last place of a number of found's kind and the exact size."""
    limits = np.finfo(found.dtype)
    _, exponent = np.frexp(exact)
    place = np.ldexp(1.0, np.maximum(exponent, limits.minexp + 1) - limits.nmant - 1)
    with np.errstate(invalid="ignore"):
        return np.abs((found.astype(np.float64) - exact) - rest) / place


def precise(function, *arguments):
    """Return what a function of mpmath gives, as float64 and what they lack."""
    pairs = []
    with mpmath.workprec(140):
        for values in zip(*(argument.tolist() for argument in arguments), strict=True):
            value = function(*map(mpmath.mpf, values))
            value = mpmath.nan if isinstance(value, mpmath.mpc) else value
            nearest = float(value)
            pairs.append((nearest, float(value - nearest) if math.isfinite(nearest) else 0.0))
    return np.array(pairs).T


def every(step):
    """Every so many floats, finite ones."""
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    return x[np.isfinite(x)]


def doubles(count):
    """Return arguments of all exponents, of middle size, near seams and multiples of pi / 2."""
    generator = np.random.default_rng(0)
    of_all = generator.integers(0, 2**64, count, dtype=np.uint64).view(np.float64)
    middle = 10.0 ** generator.uniform(-3, 3, count)
    seams = np.array(SEAMS)[:, None] * (1 + 2.0**-52 * generator.integers(-9, 10, (len(SEAMS), 20)))
    quarters = 2.0 ** generator.uniform(0, 1020, count // 10)
    quarters[::2] = generator.integers(1, 10**6, len(quarters[::2]))
    with mpmath.workprec(1200):
        quarters = [float(mpmath.nint(k) * mpmath.pi / 2) for k in quarters]
    # the last one is the double nearest to a multiple of pi / 2
    sizes = np.concatenate([middle, seams.ravel(), quarters, [6381956970095103 * 2.0**797]])
    return np.concatenate([of_all[np.isfinite(of_all)], sizes, -sizes])


def exact_of(real, name):
    """Return arguments, and the function's values in two parts."""
    if real == "float":
        x = every(4099)
        with np.errstate(all="ignore"):
            exact = EXACT[name](x.astype(np.float64))
        return x, exact, np.zeros_like(exact)
    x = doubles(6000)
    return x, *precise(PRECISE[name], x)


@pytest.mark.parametrize(("real", "name"), FUNCTIONS)
def test_errors_are_below_two_units_in_the_last_place(library, real, name):
    x, exact, rest = exact_of(real, name)
    found = called(library, real, name, x)
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(exact) & np.isfinite(exact.astype(found.dtype))
    is_infinite = ~is_finite & ~np.isnan(exact)
    assert np.array_equal(np.isnan(found), np.isnan(exact))
    assert np.array_equal(found[is_infinite], np.copysign(np.inf, exact[is_infinite]))
    assert in_last_places(found, exact, rest)[is_finite].max() <= 2


@pytest.mark.parametrize(("real", "largest"), [("float", 1), ("double", 2)])
def test_angles_of_vectors(library, real, largest):
    generator = np.random.default_rng(0)
    if real == "float":
        sizes = 10.0 ** generator.uniform(-6, 6, (2, 200_000))
    else:
        # of all sizes, both very small, both very large, and any two
        exponents = generator.uniform(
            [[-1000], [-1071], [1018]], [[1000], [-1020], [1020.99]], (3, 4000)
        )
        sizes = 2.0 ** (exponents.ravel() + generator.uniform(-3, 3, (2, 12_000)))
        any_two = generator.integers(0, 2**63, (2, 4000)).view(np.float64)
        sizes = np.hstack([sizes, any_two[:, np.isfinite(any_two).all(axis=0)]])
    y, x = (sizes * generator.choice([-1, 1], sizes.shape)).astype(KIND[real])
    if real == "float":
        exact, rest = np.arctan2(y.astype(np.float64), x.astype(np.float64)), 0.0
    else:
        exact, rest = precise(mpmath.atan2, y, x)
    assert in_last_places(called(library, real, "atan2", y, x), exact, rest).max() <= largest


@pytest.mark.parametrize("real", list(KIND))
def test_angles_of_axes_and_diagonals(library, real):
    sizes = [0.0, 1.0, np.inf]
    signed = np.array([sign * size for size in sizes for sign in (1, -1)], dtype=KIND[real])
    y, x = (grid.ravel() for grid in np.meshgrid(signed, signed))
    exact = np.arctan2(y.astype(np.float64), x.astype(np.float64)).astype(KIND[real])
    found = called(library, real, "atan2", y, x)
    assert np.array_equal(found, exact)
    assert np.array_equal(np.signbit(found), np.signbit(exact))


@pytest.mark.parametrize(("real", "name"), [(real, name) for real in KIND for name in SPECIAL])
def test_special_values(library, real, name):
    x, values = np.array(SPECIAL[name], dtype=KIND[real]).T
    found = called(library, real, name, x)
    assert np.array_equal(found, values, equal_nan=True)
    is_number = ~np.isnan(values)
    assert np.array_equal(np.signbit(found[is_number]), np.signbit(values[is_number]))


@pytest.mark.parametrize(("real", "name"), FUNCTIONS)
def test_what_is_no_number_stays_so(library, real, name):
    assert np.isnan(called(library, real, name, [np.nan]))[0]


@pytest.mark.parametrize("real", list(KIND))
def test_an_angle_of_no_number_is_none(library, real):
    nan = np.nan
    assert np.isnan(called(library, real, "atan2", [nan, 1, nan], [1, nan, nan])).all()


def test_all_compilers_and_options_give_the_same_bits(build):
    library = build(COMPILERS[0], "-O2")
    x = {"float": every(65537), "double": doubles(20_000)}
    for compiler in COMPILERS:
        for options in OPTIONS:
            other = build(compiler, options)
            for real, name in [*FUNCTIONS, *((real, "atan2") for real in KIND)]:
                arguments = (x[real], x[real][::-1]) if name == "atan2" else (x[real],)
                expected = called(library, real, name, *arguments)
                found = called(other, real, name, *arguments)
                is_number = ~np.isnan(expected)
                assert np.array_equal(np.isnan(found), ~is_number), (name, compiler, options)
                same = found[is_number].tobytes() == expected[is_number].tobytes()
                assert same, (name, compiler, options)
