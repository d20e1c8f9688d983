"""The rotation that best superposes points on a reference, by plain arithmetic.

B. K. P. Horn, J. Opt. Soc. Am. A 4, 629 (1987): the unit quaternion of the rotation is the
eigenvector of a traceless symmetric 4 x 4 matrix N with the largest eigenvalue. As D. L. Theobald,
Acta Cryst. A 61, 478 (2005), this takes the eigenvalue as the largest root of the characteristic
polynomial, so the graph has no eigenvalue operator. All of it is done in float64, whatever the
dtype of the points.
"""

import torch
from torch import Tensor, nn

# The power method squares 3 * 10 times: a relative gap of 1e-7 between the two largest
# eigenvalues is enough for it.
_N_ROUNDS = 10
# Slope of the characteristic polynomial at its largest root, the product of the gaps to the other
# eigenvalues, below which the rotation counts as not unique; in units of (sum z^2)^(3/2).
_DEGENERATE = 1e-6


class OptimalRotation(nn.Module):
    r"""Rotations R that minimise :math:`\sum_i w_i |R x_i - y_i|^2`.

    The derivatives of R are exact, to the second order too. Where the best rotation is not unique,
    because the two largest eigenvalues coincide (collinear points, or points whose mirror image
    fits equally well), R is one of the best with derivatives 0. The minimum is then right, and so
    is its derivative: at a minimum over rotations that of R has no part in it.
    """

    quadratic_form: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.n_rounds = _N_ROUNDS
        self.degenerate = _DEGENERATE
        self.register_buffer("quadratic_form", _quadratic_form().reshape(9, 16), persistent=False)

    def forward(self, correlation: Tensor) -> Tensor:
        """Return the rotations.

        Parameters
        ----------
        correlation : torch.Tensor
            Sum of w_i y_i x_i^T over centred points, shape (batch, 3, 3).

        Returns
        -------
        torch.Tensor
            Shape (batch, 3, 3), in the dtype of `correlation`.
        """
        form = self.quadratic_form.to(device=correlation.device)
        key = torch.matmul(correlation.to(form.dtype).reshape(-1, 9), form).reshape(-1, 4, 4)
        squared = torch.matmul(key, key)

        # Characteristic polynomial z^4 + c2 z^2 + c1 z + c0 from the traces of powers of N.
        p2 = (key * key).sum((1, 2))
        p4 = (squared * squared).sum((1, 2))
        c2 = -0.5 * p2
        c1 = -(squared * key).sum((1, 2)) / 3.0
        c0 = 0.125 * p2 * p2 - 0.25 * p4
        power = _high_power(key.detach(), p2.detach(), self.n_rounds)
        root = (key.detach() * power).sum((1, 2))
        # Before Newton's method, whose steps lead anywhere from a double root.
        flat = _slope(root, c2.detach(), c1.detach())
        degenerate = flat <= self.degenerate * p2.detach() * torch.sqrt(p2.detach())
        # Two steps of Newton's method that are differentiated: the derivatives of an implicit
        # function of the coefficients, exact to the third order.
        root = _newton(root, c2, c1, c0, degenerate)
        root = _newton(root, c2, c1, c0, degenerate)

        # Product of N - z over the three other roots z: slope * (q q^T), q the unit quaternion.
        slope = _slope(root, c2, c1)
        z = root.reshape(-1, 1, 1)
        one = torch.eye(4, dtype=key.dtype, device=key.device)
        product = torch.matmul(squared + z * key + (z * z + c2.reshape(-1, 1, 1)) * one, key)
        product = product + ((root * root + c2) * root + c1).reshape(-1, 1, 1) * one
        quaternions = product / slope.masked_fill(degenerate, 1.0).reshape(-1, 1, 1)
        quaternions = torch.where(degenerate.reshape(-1, 1, 1), _eigenvector(power), quaternions)
        rotations = torch.matmul(quaternions.reshape(-1, 16), form.t()).reshape(-1, 3, 3)
        return rotations.to(correlation.dtype)


def _high_power(key: Tensor, p2: Tensor, n_rounds: int) -> Tensor:
    """Return a high power of N by repeated squaring, divided by its trace.

    It is the projector on the eigenspace of the largest eigenvalue, divided by its dimension. The
    shift is the largest number that an eigenvalue can be for the given sum of squares p2, so all
    eigenvalues of N + shift are positive. Where N is 0 it is a quarter of the identity.
    """
    identity = torch.eye(4, dtype=key.dtype, device=key.device)
    shift = torch.sqrt(0.75 * p2)
    shift = shift.masked_fill(shift == 0, 1.0).reshape(-1, 1, 1)
    power = key + shift * identity
    for _ in range(n_rounds):
        power = power / _trace(power)
        for _ in range(3):
            power = torch.matmul(power, power)
    return power / _trace(power)


def _trace(matrix: Tensor) -> Tensor:
    return torch.diagonal(matrix, dim1=1, dim2=2).sum(1).reshape(-1, 1, 1)


def _eigenvector(projector: Tensor) -> Tensor:
    """Return q q^T for a unit vector q of the space on which a matrix projects."""
    largest = torch.argmax(torch.diagonal(projector, dim1=1, dim2=2), dim=1)
    q = projector.gather(2, largest.reshape(-1, 1, 1).expand(-1, 4, 1))
    return torch.matmul(q, q.transpose(1, 2)) / (q * q).sum((1, 2)).reshape(-1, 1, 1)


def _slope(root: Tensor, c2: Tensor, c1: Tensor) -> Tensor:
    """Return the derivative of the quartic."""
    return (4.0 * root * root + 2.0 * c2) * root + c1


def _newton(root: Tensor, c2: Tensor, c1: Tensor, c0: Tensor, fixed: Tensor) -> Tensor:
    """Return the root of the quartic after a step of Newton's method, where it is not fixed."""
    value = ((root * root + c2) * root + c1) * root + c0
    slope = _slope(root, c2, c1)
    return root - (value / slope.masked_fill(fixed, 1.0)).masked_fill(fixed, 0.0)


def _rotation(q: Tensor) -> Tensor:
    """Return the rotation matrix of a quaternion (scalar first), |q|^2 times a rotation."""
    w, v = q[0], q[1:]
    x, y, z = v.tolist()
    skew = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=q.dtype)
    identity = torch.eye(3, dtype=q.dtype)
    return (w * w - v @ v) * identity + 2 * torch.outer(v, v) + 2 * w * skew


def _quadratic_form() -> Tensor:
    """Return C with R_ij = sum over p, q of C_ijpq q_p q_q, shape (3, 3, 4, 4)."""
    units = torch.eye(4, dtype=torch.float64)
    form = torch.zeros(3, 3, 4, 4, dtype=torch.float64)
    for p in range(4):
        for q in range(4):
            both = _rotation(units[p] + units[q])
            form[:, :, p, q] = (both - _rotation(units[p]) - _rotation(units[q])) / 2
    return form
