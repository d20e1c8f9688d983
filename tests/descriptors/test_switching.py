"""Switching functions against their formulas, at the cutoff, and in graphs."""

import pytest
import torch

from ofcv_export.descriptors.switching import CustomSwitching, Fermi, Rational, Step

DISTANCES = torch.linspace(0.0, 5.0, 2001, dtype=torch.float64)


def rational(r, cutoff, n, m, eps):
    return (1 - (r / cutoff) ** n + eps) / (1 - (r / cutoff) ** m + 2 * eps)


@pytest.mark.parametrize(("n", "m"), [(6, 12), (2, 6), (4, 9), (12, 6)])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_rational_equals_its_formula(n, m, eps):
    switch = Rational(0.7, n, m, eps, prefactor_cutoff=1.3)
    away = DISTANCES[(DISTANCES - 0.91).abs() > 1e-3]
    torch.testing.assert_close(switch(away), rational(away, 0.91, n, m, eps), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(6, 12), (2, 6), (5, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rational_is_smooth_at_the_cutoff(n, m, dtype):
    # s = n/m, s' = n (n - m) / (2 m r0), by expanding numerator and denominator around x = 1.
    r = torch.tensor([0.25], dtype=dtype, requires_grad=True)
    s = Rational(0.25, n, m)(r)
    (slope,) = torch.autograd.grad(s.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), r)
    assert s.item() == pytest.approx(n / m, rel=1e-6)
    assert slope.item() == pytest.approx(n * (n - m) / (2 * m * 0.25), rel=1e-5)
    assert torch.isfinite(second).all()


@pytest.mark.parametrize(
    "switch",
    [Rational(1.0), Rational(1.0, dmax=2.0), Rational(1.0, eps=1e-8), Fermi(1.0), Step(1.0)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_everywhere(switch, dtype):
    r = torch.tensor([0.0, 1e-30, 1.0, 1e3, 1e8], dtype=dtype, requires_grad=True)
    s = switch(r)
    (slope,) = torch.autograd.grad(s.sum(), r)
    assert torch.isfinite(torch.cat([s, slope])).all()
    assert s.dtype == dtype


@pytest.mark.parametrize("switch", [Rational(0.8, dmax=1.7), Fermi(0.8, q=0.4, dmax=1.7)])
def test_dmax_is_where_the_function_ends(switch):
    assert switch(torch.tensor([1.7], dtype=torch.float64)).item() == pytest.approx(0.0, abs=1e-15)
    plain = type(switch)(
        **{k: v for k, v in switch.specification().items() if k not in ("type", "dmax")}
    )
    end = plain(torch.tensor(1.7, dtype=torch.float64))
    torch.testing.assert_close(switch(DISTANCES), (plain(DISTANCES) - end) / (1 - end))


def test_fermi_and_step_equal_their_formulas():
    fermi = Fermi(0.8, q=0.2, prefactor_cutoff=1.5)
    expected = 1 / (1 + torch.exp((DISTANCES - 1.2) / 0.2))
    torch.testing.assert_close(fermi(DISTANCES), expected)
    assert Step(1.0)(torch.tensor([0.5, 1.0, 1.5])).tolist() == [1.0, 0.0, 0.0]


def test_custom_function_sees_a_vector():
    switch = CustomSwitching(lambda r: torch.exp(-r) * (r.dim() == 1))
    r = torch.rand(3, 4)
    assert torch.equal(switch(r), torch.exp(-r))
    assert switch.specification() is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fermi(0.0), "cutoff: expected a positive number, got 0.0"),
        (lambda: Fermi(1.0, q=float("nan")), "q: expected a positive number, got nan"),
        (lambda: Rational(1.0, 6, 6), "n, m: expected two different positive integers, got 6, 6"),
        (lambda: Rational(1.0, 6.5, 12), "n, m: expected two different positive integers"),
        (lambda: Rational(1.0, eps=-1.0), "eps: expected a number of at least 0, got -1.0"),
        (lambda: Step(-1.0), "cutoff: expected a positive number, got -1.0"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
