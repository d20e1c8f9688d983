"""Kernels of the chain rule on frozen frames, written in Triton; see `triton_chain_rule`.

Their arguments are pointers to tensors, numbers, and in capitals the sizes of the tile that a
program looks at in one go. Rows are frames times outputs.
"""

import triton
import triton.language as tl


@triton.jit
def _frame_of(row, frames, n_outputs, n_frames, missing):
    """Return the frame of a row, 0 and a note in `missing` where there is none, and whether."""
    frame = tl.load(frames + row // n_outputs).to(tl.int64)
    exists = (frame >= 0) & (frame < n_frames)
    tl.store(missing, 1, mask=exists == 0)
    return tl.where(exists, frame, 0), exists


@triton.jit
def _store_sums(out, row, n_atoms, atom, mask, exists, sx, sy, sz):
    """Write the sums by atom, shape (..., n_atoms, 3)."""
    place = out + (row * n_atoms + atom) * 3
    nan = float("nan")
    tl.store(place, tl.where(exists, sx, nan), mask=mask)
    tl.store(place + 1, tl.where(exists, sy, nan), mask=mask)
    tl.store(place + 2, tl.where(exists, sz, nan), mask=mask)


@triton.jit
def run_product(
    x, values, frames, rows, missing, out, n_frames, n_outputs, n_pairs, n_rows: tl.constexpr,
    n_atoms: tl.constexpr, all_pairs: tl.constexpr, ROWS: tl.constexpr, ATOMS: tl.constexpr,
):  # fmt: skip
    """Sum x[p] u[p] by atom over rows of two runs of pairs: first atom by row, second by column."""
    row = tl.program_id(0).to(tl.int64)
    frame, exists = _frame_of(row, frames, n_outputs, n_frames, missing)
    u = values + frame * 3 * n_pairs
    factor = x + row * n_pairs
    place = tl.arange(0, ATOMS)[None, :]
    ax = tl.zeros([ROWS, ATOMS], values.dtype.element_ty)
    ay = tl.zeros([ROWS, ATOMS], values.dtype.element_ty)
    az = tl.zeros([ROWS, ATOMS], values.dtype.element_ty)
    bx = tl.zeros([ROWS, ATOMS], values.dtype.element_ty)
    by = tl.zeros([ROWS, ATOMS], values.dtype.element_ty)
    bz = tl.zeros([ROWS, ATOMS], values.dtype.element_ty)
    for start in range(0, n_rows, ROWS):
        number = (start + tl.arange(0, ROWS))[:, None]
        known = number < n_rows
        if all_pairs:
            own, base, lowest, highest = _run_of_all(number, n_atoms)
            other = n_atoms - 2 - number
            other_own, other_base, other_lowest, other_highest = _run_of_all(other, n_atoms)
            # The same run backwards, but for the one in the middle.
            other_own = n_atoms - 1 - other_own
            other_base += n_atoms - 1
            other_highest = tl.where(other == number, 0, n_atoms - other_lowest)
            other_lowest = tl.zeros_like(other_highest)
            highest = tl.where(known, highest, 0)
            other_highest = tl.where(known, other_highest, 0)
        else:
            run = rows + 8 * number
            own = tl.load(run, mask=known, other=-1)
            base = tl.load(run + 1, mask=known, other=0)
            lowest = tl.load(run + 2, mask=known, other=0)
            highest = tl.load(run + 3, mask=known, other=0)
            other_own = tl.load(run + 4, mask=known, other=-1)
            other_base = tl.load(run + 5, mask=known, other=0)
            other_lowest = tl.load(run + 6, mask=known, other=0)
            other_highest = tl.load(run + 7, mask=known, other=0)
        is_here = (place >= lowest) & (place < highest)
        mask = is_here | ((place >= other_lowest) & (place < other_highest))
        pair = tl.where(is_here, base + place, other_base - place)
        f = tl.load(factor + pair, mask=mask, other=0)
        fx = f * tl.load(u + pair, mask=mask, other=0)
        fy = f * tl.load(u + n_pairs + pair, mask=mask, other=0)
        fz = f * tl.load(u + 2 * n_pairs + pair, mask=mask, other=0)
        ax += _with_own(tl.where(is_here, fx, 0), place == own)
        ay += _with_own(tl.where(is_here, fy, 0), place == own)
        az += _with_own(tl.where(is_here, fz, 0), place == own)
        bx += _with_own(tl.where(is_here, 0, fx), place == other_own)
        by += _with_own(tl.where(is_here, 0, fy), place == other_own)
        bz += _with_own(tl.where(is_here, 0, fz), place == other_own)
    atoms = tl.arange(0, ATOMS)
    backwards = tl.where(atoms < n_atoms, n_atoms - 1 - atoms, atoms)
    sx = tl.sum(ax, 0) + tl.gather(tl.sum(bx, 0), backwards, 0)
    sy = tl.sum(ay, 0) + tl.gather(tl.sum(by, 0), backwards, 0)
    sz = tl.sum(az, 0) + tl.gather(tl.sum(bz, 0), backwards, 0)
    _store_sums(out, row, n_atoms, atoms, atoms < n_atoms, exists, sx, sy, sz)


@triton.jit
def _run_of_all(first, n_atoms):
    """Return what `folded_runs` has for the run of an atom among all pairs, without reading it."""
    base = first * n_atoms - first * (first + 1) // 2 - first - 1
    return first, base, first + 1, tl.zeros_like(first) + n_atoms


@triton.jit
def _with_own(terms, is_own):
    """Put minus a run's sum at the place of its first atom, which is no pair's."""
    return tl.where(is_own, -tl.sum(terms, 1)[:, None], terms)


@triton.jit
def product(
    x, values, frames, start, vector, descriptor, missing, out, n_frames, n_outputs,
    n_vectors, n_descriptors, n_atoms, width: tl.constexpr, n_tiles,
    ATOMS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sum x[descriptor] times a vector by atom over its entries, which lie together."""
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    frame, exists = _frame_of(row, frames, n_outputs, n_frames, missing)
    v = values + frame * 3 * n_vectors
    factor = x + row * n_descriptors
    atom = tl.program_id(0) % n_tiles * ATOMS + tl.arange(0, ATOMS)
    known = atom < n_atoms
    begin = tl.load(start + atom, mask=known, other=0)
    end = tl.load(start + atom + 1, mask=known, other=0)
    ax = tl.zeros([ATOMS, WIDTH], values.dtype.element_ty)
    ay = tl.zeros([ATOMS, WIDTH], values.dtype.element_ty)
    az = tl.zeros([ATOMS, WIDTH], values.dtype.element_ty)
    for offset in range(0, width, WIDTH):
        entry = begin[:, None] + offset + tl.arange(0, WIDTH)[None, :]
        mask = entry < end[:, None]
        number = tl.load(vector + entry, mask=mask, other=0)
        f = tl.load(factor + tl.load(descriptor + entry, mask=mask, other=0), mask=mask, other=0)
        # Vectors are counted from 1; a negative number is that of minus the vector.
        f = tl.where(number < 0, -f, f)
        place = v + tl.abs(number) - 1
        ax += f * tl.load(place, mask=mask, other=0)
        ay += f * tl.load(place + n_vectors, mask=mask, other=0)
        az += f * tl.load(place + 2 * n_vectors, mask=mask, other=0)
    _store_sums(out, row, n_atoms, atom, known, exists, tl.sum(ax, 1), tl.sum(ay, 1), tl.sum(az, 1))


@triton.jit
def pair_projection(
    gradient, values, frames, first, second, missing, out, n_rows, n_frames, n_outputs,
    n_pairs, n_atoms, n_tiles, PAIRS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Take u[p] . (g[second[p]] - g[first[p]])."""
    pair = tl.program_id(0) % n_tiles * PAIRS + tl.arange(0, PAIRS)
    mask = pair < n_pairs
    from_atom = 3 * tl.load(first + pair, mask=mask, other=0)
    to_atom = 3 * tl.load(second + pair, mask=mask, other=0)
    for each in tl.static_range(ROWS):
        row = (tl.program_id(0) // n_tiles).to(tl.int64) * ROWS + each
        if row < n_rows:
            frame, exists = _frame_of(row, frames, n_outputs, n_frames, missing)
            u = values + frame * 3 * n_pairs + pair
            g = gradient + row * 3 * n_atoms
            gx = tl.load(g + to_atom) - tl.load(g + from_atom)
            gy = tl.load(g + to_atom + 1) - tl.load(g + from_atom + 1)
            gz = tl.load(g + to_atom + 2) - tl.load(g + from_atom + 2)
            dot = gx * tl.load(u, mask=mask, other=0)
            dot += gy * tl.load(u + n_pairs, mask=mask, other=0)
            dot += gz * tl.load(u + 2 * n_pairs, mask=mask, other=0)
            dot = tl.where(exists, dot, float("nan"))
            tl.store(out + row * n_pairs + pair, dot, mask=mask)


@triton.jit
def projection(
    gradient, values, frames, start, vector, atom, missing, out, n_frames, n_outputs,
    n_vectors, n_descriptors, n_atoms, width: tl.constexpr, n_tiles,
    DESCRIPTORS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sum v . g[atom] by descriptor over its entries, which lie together."""
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    frame, exists = _frame_of(row, frames, n_outputs, n_frames, missing)
    v = values + frame * 3 * n_vectors
    g = gradient + row * 3 * n_atoms
    descriptor = tl.program_id(0) % n_tiles * DESCRIPTORS + tl.arange(0, DESCRIPTORS)
    known = descriptor < n_descriptors
    begin = tl.load(start + descriptor, mask=known, other=0)
    end = tl.load(start + descriptor + 1, mask=known, other=0)
    total = tl.zeros([DESCRIPTORS, WIDTH], values.dtype.element_ty)
    for offset in range(0, width, WIDTH):
        entry = begin[:, None] + offset + tl.arange(0, WIDTH)[None, :]
        mask = entry < end[:, None]
        place = v + tl.load(vector + entry, mask=mask, other=0)
        pull = g + 3 * tl.load(atom + entry, mask=mask, other=0)
        total += tl.load(place, mask=mask, other=0) * tl.load(pull)
        total += tl.load(place + n_vectors, mask=mask, other=0) * tl.load(pull + 1)
        total += tl.load(place + 2 * n_vectors, mask=mask, other=0) * tl.load(pull + 2)
    dot = tl.where(exists, tl.sum(total, 1), float("nan"))
    tl.store(out + row * n_descriptors + descriptor, dot, mask=known)
