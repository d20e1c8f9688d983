// Optimises the electron density of a molecule with an exported energy functional.

#include <ATen/ATen.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "array.hpp"
#include "atomic_file.hpp"
#include "density_optimisation.hpp"
#include "npy.hpp"
#include "ofcv/model.hpp"

namespace {

constexpr const char* usage =
    R"(usage: ofcv_density --model FILE --coulomb FILE --external FILE --integrals FILE --initial FILE
                    --electrons N [options]

Minimises E(p) = 1/2 p A p + b p + E_learned(p) over the density coefficients p of a molecule at
w p = N electrons, by projected gradient descent with momentum. Arrays are .npy files of float64,
energies are in Hartree.

  --model FILE           E_learned: an energy_functional of one molecule (.pt or .pt2)
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

/// Options by name, with the defaults above.
class Options {
 public:
  explicit Options(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (words[i] == "--help" || words[i] == "-h") {
        help = true;
        continue;
      }
      const auto known = values_.find(words[i]);
      if (known == values_.end()) {
        throw ofcv::Error("arguments", "an option that --help lists", "'" + words[i] + "'");
      }
      if (i + 1 == words.size() || words[i + 1].empty()) {
        throw ofcv::Error(words[i], "a value", "nothing");
      }
      known->second = words[++i];
    }
  }

  bool has(const std::string& name) const { return !values_.at(name).empty(); }

  const std::string& text(const std::string& name) const {
    if (!has(name)) throw ofcv::Error(name, "a value", "nothing");
    return values_.at(name);
  }

  /// A finite number in [low, high).
  double number(const std::string& name, double low, double high) const {
    const std::string& word = text(name);
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    const bool is_number = error == std::errc{} && end == word.data() + word.size();
    if (!is_number || !(value >= low && value < high)) {
      char range[64];
      std::snprintf(range, sizeof range, "a number in [%g, %g)", low, high);
      throw ofcv::Error(name, range, "'" + word + "'");
    }
    return value;
  }

  bool help = false;

 private:
  std::map<std::string, std::string> values_ = {
      {"--model", ""},          {"--coulomb", ""}, {"--external", ""},
      {"--integrals", ""},      {"--initial", ""}, {"--electrons", ""},
      {"--preconditioner", ""}, {"--step", "0.1"}, {"--momentum", "0.9"},
      {"--tolerance", "1e-8"},  {"--output", ""},  {"--max-iterations", "10000"},
      {"--history", ""},
  };
};

/// An array of float64 as a tensor of its own, checked.
at::Tensor read(const Options& options, const std::string& name, const ofcv::Shape& shape) {
  const Array array = npy::read(options.text(name));
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
  const bool is_functional = metadata.kind == "energy_functional" && metadata.inputs.size() == 1 &&
                             metadata.inputs[0].shape.size() == 1 &&
                             !metadata.inputs[0].shape[0].is_symbolic();
  if (!is_functional) {
    throw ofcv::Error(
        "--model", "an energy_functional of one molecule",
        metadata.kind + " with " + std::to_string(metadata.inputs.size()) + " inputs");
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

/// The iterations' energies and gradient norms, (k, 2).
Array history(const density::Result& result) {
  const std::size_t n_rows = result.energies.size();
  Array rows(ofcv::DType::float64, {static_cast<std::int64_t>(n_rows), 2});
  for (std::size_t i = 0; i < n_rows; ++i) {
    rows.data<double>()[2 * i] = result.energies[i];
    rows.data<double>()[2 * i + 1] = result.gradient_norms[i];
  }
  return rows;
}

void write(const std::string& path, const ofcv::View& values) {
  AtomicFile file(path);
  npy::write(file.stream(), values);
  file.close();
  file.commit();
}

int run(const Options& options) {
  const c10::InferenceMode inference;
  const density::Settings settings{
      .step_size = options.number("--step", 0, 1e6),
      .momentum = options.number("--momentum", 0, 1),
      .tolerance = options.number("--tolerance", 0, 1e6),
      .max_iterations = static_cast<std::int64_t>(options.number("--max-iterations", 0, 1e9)),
  };
  const ofcv::Model model(options.text("--model"));
  const std::int64_t n = n_coeffs(model.metadata());
  const density::Problem problem{
      .coulomb = read(options, "--coulomb", {n, n}),
      .external = read(options, "--external", {n}),
      .integrals = read(options, "--integrals", {n}),
      .preconditioner = options.has("--preconditioner") ? read(options, "--preconditioner", {n, n})
                                                        : at::eye(n, at::kDouble),
      .n_electrons = options.number("--electrons", 0, 1e6),
  };
  const at::Tensor initial = read(options, "--initial", {n});

  const auto start = std::chrono::steady_clock::now();
  const density::Result result =
      density::minimise(functional_of(model, n), problem, initial, settings);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;

  if (options.has("--output")) {
    write(options.text("--output"), {result.coeffs.const_data_ptr<double>(), {n}});
  }
  if (options.has("--history")) write(options.text("--history"), history(result).view());
  const std::size_t n_iterations = result.energies.size() - 1;
  std::printf("%s after %zu iterations in %.1f ms\n",
              result.converged ? "converged" : "not converged", n_iterations, time.count());
  std::printf("energy              %.10f Hartree\n", result.energies.back());
  std::printf("projected gradient  %.3e\n", result.gradient_norms.back());
  std::printf("electrons           %.12f\n", problem.integrals.dot(result.coeffs).item<double>());
  return result.converged ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options({argv + 1, argv + argc});
    if (!options.help) return run(options);
    std::cout << usage;
    return 0;
  } catch (const ofcv::Error& error) {
    std::cerr << "ofcv_density: " << error.what() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "ofcv_density: " << ofcv::detail::reason(error) << "\n";
  }
  return 2;
}
