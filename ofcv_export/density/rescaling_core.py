"""The formulas of dimension-wise rescaling, and the modules that hold nothing else.

With the scale lambda and the bias b of a coefficient's element and basis function::

    scaled coefficient = lambda (c - b)         scaled gradient = g / (lambda + epsilon)
"""

# TorchScript reads the classes' annotations, so they are not postponed here.

from torch import Tensor, nn

from ofcv_export.base.indexing import select


def scale_coeffs(coeffs: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return lambda (c - b)."""
    return scale * (coeffs - bias)


def unscale_coeffs(scaled_coeffs: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return the inverse of `scale_coeffs`."""
    return scaled_coeffs / scale + bias


def scale_gradient(gradient: Tensor, divisor: Tensor) -> Tensor:
    """Return g / (lambda + epsilon), with `divisor` = lambda + epsilon."""
    return gradient / divisor


def unscale_gradient(scaled_gradient: Tensor, divisor: Tensor) -> Tensor:
    """Return the inverse of `scale_gradient`."""
    return scaled_gradient * divisor


def gradient_to_original(gradient_wrt_scaled_coeffs: Tensor, scale: Tensor) -> Tensor:
    """Return dE/dc = lambda dE/d(scaled c), the chain rule through `scale_coeffs`."""
    return gradient_wrt_scaled_coeffs * scale


class _Scales(nn.Module):
    """The buffers of a rescaling; the parameters are those of its subclasses."""

    lambda_z: Tensor
    coeff_biases: Tensor

    def __init__(self, lambda_z: Tensor, coeff_biases: Tensor, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("lambda_z", lambda_z)
        self.register_buffer("coeff_biases", coeff_biases)


class MoleculeRescalingCore(_Scales):
    """The rescaling of given coefficients, as buffers and tensor operations.

    Parameters
    ----------
    lambda_z, coeff_biases : torch.Tensor, shape (n_coeffs,)
        Scale and bias of each coefficient.
    epsilon : float
        Added to lambda where gradients are divided by it.
    """

    def forward(self, coeffs: Tensor) -> Tensor:
        """Return the scaled coefficients, shape (n_coeffs,)."""
        return scale_coeffs(coeffs, self.lambda_z, self.coeff_biases)

    def with_gradient(self, coeffs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scaled coefficients and the scaled gradient, both of shape (n_coeffs,)."""
        scaled = scale_coeffs(coeffs, self.lambda_z, self.coeff_biases)
        return scaled, scale_gradient(gradient, self.lambda_z + self.epsilon)


class RescalingCore(_Scales):
    """The rescaling of coefficients by their basis functions, as buffers and tensor operations.

    Parameters
    ----------
    lambda_z, coeff_biases : torch.Tensor, shape (n_basis,)
        Scale and bias of every basis function.
    epsilon : float
        Added to lambda where gradients are divided by it.
    """

    def forward(self, coeffs: Tensor, basis_function_ind: Tensor) -> Tensor:
        """Return the scaled coefficients (n,) of coefficients and their basis functions (n,)."""
        return self.scaled(coeffs, basis_function_ind)

    def scaled(self, coeffs: Tensor, basis_function_ind: Tensor) -> Tensor:
        """Return what `forward` does, in a subclass with checks of its own too."""
        scale = select(self.lambda_z, basis_function_ind)
        bias = select(self.coeff_biases, basis_function_ind)
        return scale_coeffs(coeffs, scale, bias)

    def with_gradient(
        self, coeffs: Tensor, basis_function_ind: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the scaled coefficients and the scaled gradient, both of shape (n,)."""
        divisor = select(self.lambda_z + self.epsilon, basis_function_ind)
        return self.scaled(coeffs, basis_function_ind), scale_gradient(gradient, divisor)


class WithGradient(nn.Module):
    """A core that scales coefficients and a gradient.

    Parameters
    ----------
    core : RescalingCore or MoleculeRescalingCore
        The core.
    """

    def __init__(self, core: RescalingCore | MoleculeRescalingCore) -> None:
        super().__init__()
        self.core = core

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, see the core's `with_gradient`."""
        return self.core.with_gradient(*inputs)
