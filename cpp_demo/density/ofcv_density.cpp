// Optimises the electron density of a molecule with an exported energy functional.

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "common/array.hpp"
#include "common/npy.hpp"
#include "common/options.hpp"
#include "common/output_files.hpp"
#include "density/density_optimisation.hpp"
#include "ofcv/model.hpp"

namespace {

constexpr const char* usage =
    R"(usage: ofcv_density --model FILE --coulomb FILE --external FILE --integrals FILE --initial FILE
                    --electrons N [options]

Minimises E(p) = 1/2 p A p + b p + E_learned(p) over the density coefficients p of a molecule at
w p = N electrons, by projected gradient descent with momentum. Arrays are .npy files of float64,
energies are in Hartree.

  --model FILE           E_learned: an energy_functional of one molecule (.pt, .pt2 or .so)
  --coulomb FILE         A, (n, n)
  --external FILE        b, (n,)
  --integrals FILE       w, (n,)
  --initial FILE         p to start from, (n,)
  --electrons N          number of electrons
  --preconditioner FILE  P, (n, n), symmetric and positive definite (default: the unit matrix)
  --step X               step size (default: 0.1)
  --momentum X           in [0, 1) (default: 0.9)
  --tolerance X          largest norm of the projected gradient to stop at (default: 1e-8)
  --max-iterations N     (default: 10000)
  --output FILE          where the coefficients go, as .npy, (n,)
  --history FILE         where energy and gradient norm of every iteration go, as .npy, (k, 2)
  --help                 print this and stop

Exit code: 0; 1 when the largest number of iterations was not enough; 2 with one line on stderr
when something is wrong.
)";

/// A number in [low, high).
double number(const Options& options, const std::string& name, double absent, double low,
              double high) {
  char range[64];
  std::snprintf(range, sizeof range, "a number in [%g, %g)", low, high);
  const auto fits = [&](double value) { return value >= low && value < high; };
  return options.number(name, absent, range, fits);
}

/// An array of float64 as a tensor of its own, checked.
at::Tensor read(const Options& options, const std::string& name, const ofcv::Shape& shape) {
  const Array array = npy::read(options.required(name, "a value"));
  if (array.dtype != ofcv::DType::float64) {
    throw ofcv::Error(name, "dtype float64", ofcv::dtype_name(array.dtype));
  }
  if (array.shape != shape) {
    throw ofcv::Error(name, "shape " + ofcv::tuple_text(shape), ofcv::tuple_text(array.shape));
  }
  const auto* values = reinterpret_cast<const double*>(array.bytes.data());
  ofcv::require_finite(name, values, array.shape);
  return at::from_blob(const_cast<double*>(values), shape, at::kDouble).clone();
}

/// The number of coefficients of a functional of one molecule.
std::int64_t n_coeffs(const ofcv::Metadata& metadata) {
  const bool is_functional =
      std::holds_alternative<ofcv::EnergyFunctionalDetails>(metadata.details) &&
      metadata.inputs.size() == 1 && metadata.inputs[0].shape.size() == 1 &&
      !metadata.inputs[0].shape[0].is_symbolic();
  if (!is_functional) {
    throw ofcv::Error(
        "--model", "an energy_functional of one molecule",
        metadata.kind() + " with " + std::to_string(metadata.inputs.size()) + " inputs");
  }
  return metadata.inputs[0].shape[0].size;
}

density::Functional functional_of(const ofcv::Model& model, std::int64_t n) {
  return [&model, n](const at::Tensor& coeffs) {
    double energy = 0;
    at::Tensor gradient = at::empty_like(coeffs);
    model.evaluate({{coeffs.const_data_ptr<double>(), {n}}},
                   {{&energy, {1}}, {gradient.mutable_data_ptr<double>(), {n}}});
    return std::pair(energy, gradient);
  };
}

int run(const Options& options) {
  const c10::InferenceMode inference;
  const density::Settings settings{
      .step_size = number(options, "--step", 0.1, 0, 1e6),
      .momentum = number(options, "--momentum", 0.9, 0, 1),
      .tolerance = number(options, "--tolerance", 1e-8, 0, 1e6),
      .max_iterations =
          static_cast<std::int64_t>(number(options, "--max-iterations", 10000, 0, 1e9)),
  };
  const ofcv::Model model(options.required("--model", "a value"));
  const std::int64_t n = n_coeffs(model.metadata());
  const density::Problem problem{
      .coulomb = read(options, "--coulomb", {n, n}),
      .external = read(options, "--external", {n}),
      .integrals = read(options, "--integrals", {n}),
      .preconditioner = options.has("--preconditioner") ? read(options, "--preconditioner", {n, n})
                                                        : at::eye(n, at::kDouble),
      .n_electrons = number(options, "--electrons", 0, 0, 1e6),
  };
  options.required("--electrons", "a value");
  const at::Tensor initial = read(options, "--initial", {n});

  const auto start = std::chrono::steady_clock::now();
  const density::Result result =
      density::minimise(functional_of(model, n), problem, initial, settings);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;

  OutputFiles files;
  if (options.has("--output")) {
    npy::write(files.open(options.text("--output")), {result.coeffs.const_data_ptr<double>(), {n}});
  }
  if (options.has("--history")) {
    const auto n_rows = static_cast<std::int64_t>(result.history.size());
    npy::write(files.open(options.text("--history")), {result.history[0].data(), {n_rows, 2}});
  }
  files.commit();
  const std::size_t n_iterations = result.history.size() - 1;
  std::printf("%s after %zu iterations in %.1f ms\n",
              result.converged ? "converged" : "not converged", n_iterations, time.count());
  std::printf("energy              %.10f Hartree\n", result.history.back()[0]);
  std::printf("projected gradient  %.3e\n", result.history.back()[1]);
  std::printf("electrons           %.12f\n", problem.integrals.dot(result.coeffs).item<double>());
  return result.converged ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return run_program("ofcv_density", usage, argc, argv, run); }
