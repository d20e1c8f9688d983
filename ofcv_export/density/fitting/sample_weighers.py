"""The weight of every sample in a statistic: mldft's sample weighers, under mldft's keys.

A sample is one SCF step of one molecule. The `summary_string` of a weigher is the key that its
statistics are stored under.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ofcv_export.density.fitting.density_labels import DensityLabels, FloatArray


class SampleWeigher(Protocol):
    """What a fit of statistics needs of a weigher."""

    def summary_string(self) -> str:
        """Return the key of the statistics."""
        ...

    def get_weights(self, labels: DensityLabels) -> FloatArray:
        """Return the weight of every SCF step of a molecule, shape (n_samples,), not negative."""
        ...


@dataclass(frozen=True)
class ConstantSampleWeigher:
    """The same weight for every sample.

    Parameters
    ----------
    weight : float
        Not negative.

    Raises
    ------
    ValueError
        If the weight is negative or not finite.
    """

    weight: float = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight: expected a finite number of at least 0, got {self.weight}")

    def summary_string(self) -> str:
        """Return ``constant``, or e.g. ``constant_0.5``."""
        return "constant" if self.weight == 1 else f"constant_{self.weight}"

    def get_weights(self, labels: DensityLabels) -> FloatArray:
        """Return the weight, shape (n_samples,)."""
        return np.full(labels.n_samples, float(self.weight))


@dataclass(frozen=True)
class InitialGuessOnlySampleWeigher:
    """1 for the initial guess, 0 for every later SCF step."""

    def summary_string(self) -> str:
        """Return ``initial_guess_only``."""
        return "initial_guess_only"

    def get_weights(self, labels: DensityLabels) -> FloatArray:
        """Return the weights, shape (n_samples,)."""
        return (np.arange(labels.n_samples) == 0).astype(np.float64)


@dataclass(frozen=True)
class MinSCFIterationSampleWeigher:
    """1 from an SCF step on, 0 before; step 0 is the initial guess.

    Parameters
    ----------
    min_scf_iteration : int
        First step that counts.
    """

    min_scf_iteration: int

    def summary_string(self) -> str:
        """Return e.g. ``min_scf_iteration_3``."""
        return f"min_scf_iteration_{self.min_scf_iteration}"

    def get_weights(self, labels: DensityLabels) -> FloatArray:
        """Return the weights, shape (n_samples,)."""
        return (np.arange(labels.n_samples) >= self.min_scf_iteration).astype(np.float64)


@dataclass(frozen=True)
class HasEnergyLabelSampleWeigher:
    """1 for samples that have energies and gradients, 0 for others."""

    def summary_string(self) -> str:
        """Return ``has_energy_label``."""
        return "has_energy_label"

    def get_weights(self, labels: DensityLabels) -> FloatArray:
        """Return the weights, shape (n_samples,)."""
        return labels.has_energy_label.astype(np.float64)


@dataclass(frozen=True)
class GroundStateOnlySampleWeigher:
    """1 for samples whose coefficients are those of the last SCF step, 0 for others."""

    def summary_string(self) -> str:
        """Return ``ground_state_only``."""
        return "ground_state_only"

    def get_weights(self, labels: DensityLabels) -> FloatArray:
        """Return the weights, shape (n_samples,)."""
        return np.all(labels.coeffs == labels.coeffs[-1], axis=1).astype(np.float64)


class ProductSampleWeigher:
    """The product of several weighers.

    Parameters
    ----------
    *sample_weighers : SampleWeigher
        The factors.
    """

    def __init__(self, *sample_weighers: SampleWeigher) -> None:
        self.sample_weighers = sample_weighers

    def summary_string(self) -> str:
        """Return the factors' classes and keys, as mldft spells a product."""
        return "_times_".join(
            f"{type(weigher).__name__}({weigher.summary_string()})"
            for weigher in self.sample_weighers
        )

    def get_weights(self, labels: DensityLabels) -> FloatArray:
        """Return the weights, shape (n_samples,)."""
        weights = np.ones(labels.n_samples)
        for weigher in self.sample_weighers:
            weights = weights * weigher.get_weights(labels)
        return weights


def parse_weigher(text: str) -> SampleWeigher:
    """Return the weigher of a key; ``*`` joins factors.

    Parameters
    ----------
    text : str
        E.g. ``has_energy_label``, ``constant_0.5`` or ``has_energy_label*min_scf_iteration_3``.

    Raises
    ------
    ValueError
        If there is no such weigher.
    """
    factors = [_parse_factor(factor.strip()) for factor in text.split("*")]
    return factors[0] if len(factors) == 1 else ProductSampleWeigher(*factors)


def _parse_factor(text: str) -> SampleWeigher:
    plain: dict[str, SampleWeigher] = {
        weigher.summary_string(): weigher
        for weigher in (
            HasEnergyLabelSampleWeigher(),
            InitialGuessOnlySampleWeigher(),
            GroundStateOnlySampleWeigher(),
            ConstantSampleWeigher(),
        )
    }
    if text in plain:
        return plain[text]
    if match := re.fullmatch(r"constant_([0-9]+(?:\.[0-9]+)?)", text):
        return ConstantSampleWeigher(float(match[1]))
    if match := re.fullmatch(r"min_scf_iteration_([0-9]+)", text):
        return MinSCFIterationSampleWeigher(int(match[1]))
    raise ValueError(
        f"weigher: expected one of {', '.join(plain)}, constant_<weight>, "
        f"min_scf_iteration_<step> or a product of them, got {text!r}"
    )
