"""Sums over data that need not fit into memory: moments, and least squares.

Each is taken of one part of the data and added to that of another; the order of the parts changes
no more than the last digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Weighted moments of every basis function over the values seen so far.

    The mean is ``origin + offset``, where the origin is one of the values. Merging two sets of
    values needs the difference of their means, which is taken of the two parts: no digits are lost
    where the spread is far below the mean. Formulas: T. F. Chan, G. H. Golub and R. J. LeVeque, Am.
    Stat. 37, 242 (1983).

    Attributes
    ----------
    weight : numpy.ndarray of float64, shape (n_basis,)
        Sum of the weights.
    origin, offset : numpy.ndarray of float64, shape (n_basis,)
    squares : numpy.ndarray of float64, shape (n_basis,)
        Weighted sum of squared deviations from the mean.
    abs_max : numpy.ndarray of float64, shape (n_basis,)
        Largest weight x absolute value.
    """

    weight: FloatArray
    origin: FloatArray
    offset: FloatArray
    squares: FloatArray
    abs_max: FloatArray

    @classmethod
    def of(
        cls, values: FloatArray, weights: FloatArray, index: NDArray[np.int64], n_basis: int
    ) -> Moments:
        """Return the moments of one molecule's samples, in two passes over them.

        Parameters
        ----------
        values : numpy.ndarray of float64, shape (n_samples, n)
        weights : numpy.ndarray of float64, shape (n_samples,)
            Positive.
        index : numpy.ndarray of int64, shape (n,)
            Basis function of each coefficient.
        n_basis : int
            Number of basis functions.
        """

        def total(terms: FloatArray) -> FloatArray:
            sums = np.bincount(index, weights=weights @ terms, minlength=n_basis)
            return sums.astype(np.float64)

        origin = np.zeros(n_basis)
        if len(values):
            origin[index] = values[0]
        weight = np.bincount(index, minlength=n_basis) * weights.sum()
        shifted = values - origin[index]
        offset = _ratio(total(shifted), weight)
        squares = total((shifted - offset[index]) ** 2)
        return cls(
            weight, origin, offset, squares, weighted_abs_max(values, weights, index, n_basis)
        )

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of values together."""
        origin = np.where(self.weight > 0, self.origin, other.origin)
        weight = self.weight + other.weight
        share = _ratio(other.weight, weight)
        difference = (other.origin - origin) + (other.offset - self.offset)
        return Moments(
            weight,
            origin,
            self.offset + share * difference,
            self.squares + other.squares + difference**2 * self.weight * share,
            np.maximum(self.abs_max, other.abs_max),
        )

    @property
    def mean(self) -> FloatArray:
        """Mean, 0 where there is no value, shape (n_basis,)."""
        return self.origin + self.offset

    @property
    def std(self) -> FloatArray:
        """Standard deviation of the population, 0 where there is no value, shape (n_basis,)."""
        return np.sqrt(_ratio(self.squares, self.weight))


@dataclass(frozen=True)
class LeastSquares:
    """Equations A x = B seen so far, reduced to a square system by orthogonal transformations.

    Equations may come in any number; with Q R of A, only R and the first rows of Q^T B are kept.

    Attributes
    ----------
    matrix : numpy.ndarray of float64, shape (m, n_unknowns), m <= n_unknowns
    targets : numpy.ndarray of float64, shape (m, n_targets)
    n_equations : int
    """

    matrix: FloatArray
    targets: FloatArray
    n_equations: int

    def __add__(self, other: LeastSquares) -> LeastSquares:
        """Return the system of both sets of equations."""
        matrix = np.concatenate([self.matrix, other.matrix])
        targets = np.concatenate([self.targets, other.targets])
        n_equations = self.n_equations + other.n_equations
        if len(matrix) <= matrix.shape[1]:
            return LeastSquares(matrix, targets, n_equations)
        orthogonal, triangular = np.linalg.qr(matrix)
        return LeastSquares(triangular, orthogonal.T @ targets, n_equations)

    def solve(self, combination: FloatArray) -> FloatArray:
        """Return the least-squares solution of smallest norm for a combination of the targets.

        Parameters
        ----------
        combination : numpy.ndarray of float64, shape (n_targets,)

        Returns
        -------
        numpy.ndarray of float64, shape (n_unknowns,)
        """
        # numpy's default, for the system before it was reduced.
        cutoff = np.finfo(np.float64).eps * max(self.n_equations, self.matrix.shape[1])
        solution = np.linalg.lstsq(self.matrix, self.targets @ combination, rcond=cutoff)[0]
        return solution.astype(np.float64)


def weighted_abs_max(
    values: FloatArray, weights: FloatArray, index: NDArray[np.int64], n_basis: int
) -> FloatArray:
    """Return the largest weight x absolute value of every basis function, 0 where there is none.

    Parameters
    ----------
    values, weights, index, n_basis
        See `Moments.of`.

    Returns
    -------
    numpy.ndarray of float64, shape (n_basis,)
    """
    largest = np.zeros(n_basis)
    np.maximum.at(largest, index, np.max(np.abs(values) * weights[:, None], axis=0, initial=0.0))
    return largest


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the ratio, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
