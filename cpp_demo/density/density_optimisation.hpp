#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "ofcv/error.hpp"

/// The ground state of orbital-free DFT: the density coefficients p that minimise
///
///     E(p) = 1/2 p A p + b p + E_learned(p)    at    w p = N electrons,
///
/// by projected gradient descent with momentum. All tensors are float64 on the CPU.
namespace density {

/// A molecule's integrals over its n basis functions, in Hartree.
struct Problem {
  at::Tensor coulomb;         ///< A, (n, n): the Hartree energy is 1/2 p A p
  at::Tensor external;        ///< b, (n,): the energy in the field of the nuclei is b p
  at::Tensor integrals;       ///< w, (n,): integrals of the basis functions
  at::Tensor preconditioner;  ///< P, (n, n), symmetric and positive definite
  double n_electrons;
};

struct Settings {
  double step_size;
  double momentum;
  double tolerance;  ///< of the norm of the projected gradient
  std::int64_t max_iterations;
};

/// E_learned and its gradient (n,) at p.
using Functional = std::function<std::pair<double, at::Tensor>(const at::Tensor& coeffs)>;

struct Result {
  at::Tensor coeffs;
  std::vector<std::array<double, 2>> history;  ///< energy and gradient norm of every iteration
  bool converged = false;
};

/// The projection of the gradient g onto a fixed number of electrons, measured by P: the direction
/// is P (g - mu w) with the chemical potential mu = w P g / w P w, so that w d = 0. The norm is
/// that of g - mu w, the square root of (g - mu w) P (g - mu w).
inline Result minimise(const Functional& functional, const Problem& problem, at::Tensor coeffs,
                       const Settings& settings) {
  const at::Tensor& w = problem.integrals;
  const at::Tensor Pw = problem.preconditioner.mv(w);
  const double wPw = w.dot(Pw).item<double>();
  const double missing = problem.n_electrons - w.dot(coeffs).item<double>();
  coeffs = coeffs + Pw * (missing / wPw);
  at::Tensor velocity = at::zeros_like(coeffs);

  Result result;
  while (true) {
    const auto [learned, learned_gradient] = functional(coeffs);
    const at::Tensor potential = problem.coulomb.mv(coeffs);
    const at::Tensor gradient = learned_gradient + potential + problem.external;
    const double mu = Pw.dot(gradient).item<double>() / wPw;
    const at::Tensor projected = gradient - w * mu;
    const at::Tensor direction = problem.preconditioner.mv(projected);
    const double energy = learned + coeffs.dot(potential / 2 + problem.external).item<double>();
    const double squared_norm = projected.dot(direction).item<double>();
    if (!(squared_norm >= 0)) {
      throw ofcv::Error("preconditioner", "a positive definite matrix", "one that is not");
    }
    result.history.push_back({energy, std::sqrt(squared_norm)});
    result.converged = result.history.back()[1] <= settings.tolerance;
    const auto iterations = static_cast<std::int64_t>(result.history.size()) - 1;
    if (result.converged || iterations == settings.max_iterations) break;
    velocity = velocity * settings.momentum - direction * settings.step_size;
    coeffs = coeffs + velocity;
  }
  result.coeffs = coeffs;
  return result;
}

}  // namespace density
