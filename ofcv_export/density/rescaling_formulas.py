"""The formulas of dimension-wise rescaling, and the graphs that are exported.

With the scale lambda and the bias b of a coefficient's element and basis function::

    scaled coefficient = lambda (c - b)         scaled gradient = g / (lambda + epsilon)
"""

# TorchScript reads the classes' annotations, so they are not postponed here.

from torch import Tensor, nn


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


class _Graph(nn.Module):
    """The frozen buffers: lambda, bias, and lambda + epsilon where gradients are divided by it."""

    lambda_z: Tensor
    coeff_biases: Tensor

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__()
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)


class IndexedGraph(_Graph):
    """Scaled coefficients of any molecule."""

    def forward(self, coeffs: Tensor, basis_function_ind: Tensor) -> Tensor:
        """Return the outputs of the artifact."""
        scale = self.lambda_z.index_select(0, basis_function_ind)
        bias = self.coeff_biases.index_select(0, basis_function_ind)
        return scale_coeffs(coeffs, scale, bias)


class IndexedGradientGraph(_Graph):
    """Scaled coefficients and gradient of any molecule."""

    divisor: Tensor

    def forward(
        self, coeffs: Tensor, basis_function_ind: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs of the artifact."""
        scale = self.lambda_z.index_select(0, basis_function_ind)
        bias = self.coeff_biases.index_select(0, basis_function_ind)
        divisor = self.divisor.index_select(0, basis_function_ind)
        return scale_coeffs(coeffs, scale, bias), scale_gradient(gradient, divisor)


class MoleculeGraph(_Graph):
    """Scaled coefficients of one molecule."""

    def forward(self, coeffs: Tensor) -> Tensor:
        """Return the outputs of the artifact."""
        return scale_coeffs(coeffs, self.lambda_z, self.coeff_biases)


class MoleculeGradientGraph(_Graph):
    """Scaled coefficients and gradient of one molecule."""

    divisor: Tensor

    def forward(self, coeffs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the artifact."""
        return (
            scale_coeffs(coeffs, self.lambda_z, self.coeff_biases),
            scale_gradient(gradient, self.divisor),
        )
