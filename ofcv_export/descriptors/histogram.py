"""A continuous histogram of the values of another descriptor."""

import math

import torch
from torch import Tensor

from ofcv_export.base.validation import require_positive_number
from ofcv_export.descriptors.descriptor import Descriptor
from ofcv_export.descriptors.sparsity_pattern import SparsityPattern


class ContinuousHistogram(Descriptor):
    r"""Sum of Gaussians at each centre: :math:`h_k = \sum_i \exp(-(x_i - c_k)^2 / 2 \sigma^2)`.

    The centres are evenly spaced and include both ends. The formula is that of mlcolvar's
    ``ContinuousHistogram``, which however mistakes a batch of as many frames as there are values
    for a single frame; here every frame has a histogram of its own.

    Parameters
    ----------
    descriptor : Descriptor
        Gives the values x.
    minimum, maximum : float
        First and last centre, in the unit of the values.
    n_bins : int
        Number of centres, at least 2.
    sigma_to_center : float
        :math:`\sigma` in units of the distance of neighbouring centres.
    """

    type_name = "continuous_histogram"
    facts = ("descriptor", "minimum", "maximum", "n_bins", "sigma_to_center")
    centres: Tensor
    sigma: Tensor

    def __init__(
        self,
        descriptor: Descriptor,
        minimum: float,
        maximum: float,
        n_bins: int,
        sigma_to_center: float = 1.0,
    ) -> None:
        if not (math.isfinite(minimum) and math.isfinite(maximum) and minimum < maximum):
            raise ValueError(
                f"minimum, maximum: expected two ascending numbers, got {minimum!r}, {maximum!r}"
            )
        if isinstance(n_bins, bool) or not isinstance(n_bins, int) or n_bins < 2:
            raise ValueError(f"n_bins: expected an integer of at least 2, got {n_bins!r}")
        require_positive_number("sigma_to_center", sigma_to_center)
        super().__init__(descriptor.n_atoms, n_bins, descriptor.takes_box)
        centres = torch.linspace(minimum, maximum, n_bins, dtype=torch.float64)
        self.register_buffer("centres", centres, persistent=False)
        self.descriptor = descriptor
        self.minimum = float(minimum)
        self.maximum = float(maximum)
        self.n_bins = n_bins
        self.sigma_to_center = float(sigma_to_center)
        sigma = (centres[1] - centres[0]) * sigma_to_center
        self.register_buffer("sigma", sigma, persistent=False)

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return the histogram, shape (batch, n_bins)."""
        values = self.descriptor(positions, box).unsqueeze(1)
        deviations = (values - self.centres.to(values).unsqueeze(1)) / self.sigma.to(values)
        return torch.exp(-0.5 * deviations * deviations).sum(2)

    def pattern(self) -> SparsityPattern:
        """Return the pattern in which every bin depends on all atoms of the inner descriptor."""
        used = self.descriptor.pattern().dependence().any(dim=0)
        return SparsityPattern.from_dependence(used.expand(self.n_descriptors, -1))
