#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ofcv/atoms.hpp"
#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/units.hpp"

namespace ofcv {

/// Values of run-time parameters by their names.
using Parameters = std::map<std::string, std::vector<double>>;

/// What an engine tells about itself.
struct EngineSystem {
  double length_unit = 1;                                           ///< in nm
  double energy_unit = 1;                                           ///< in kJ/mol
  std::int64_t n_atoms = std::numeric_limits<std::int64_t>::max();  ///< of the whole system
  Elements elements = {};      ///< chemical symbols of all its atoms, where it knows them
  bool periodic = true;        ///< whether it has a box
  Parameters parameters = {};  ///< others than the artifact's defaults
  std::string device = "cpu";  ///< cpu, cuda or cuda:<index>
  int threads = 1;             ///< of LibTorch during a call; 0 leaves the choice to it
};

/// An artifact in the units and on the atoms of an engine: a function of positions, a box and
/// parameters, with derivatives. Results are those of the last call of `evaluate`. A value that is
/// an energy is in the engine's unit, any other in its own. Not to be called from several threads
/// at once.
class EngineFunction {
 public:
  EngineFunction() = default;
  EngineFunction(const EngineFunction&) = delete;
  EngineFunction& operator=(const EngineFunction&) = delete;
  virtual ~EngineFunction() = default;

  virtual const Metadata& metadata() const = 0;

  /// Zero-based indices of the artifact's atoms in the engine.
  virtual const std::vector<std::int64_t>& atoms() const = 0;

  virtual std::size_t n_outputs() const = 0;

  /// The period of a value, nothing where it has none.
  virtual std::optional<double> period(std::size_t output) const = 0;

  /// Whether `evaluate` needs a box.
  virtual bool takes_box() const = 0;

  /// Whether there are strain derivatives.
  virtual bool gives_strain() const = 0;

  /// Evaluates the artifact at the positions (n, 3) of its atoms, in its order. `box` is null or
  /// holds lattice vectors as rows. A call that throws leaves the results of the one before.
  virtual void evaluate(const double* positions, const double* box) = 0;

  virtual double value(std::size_t output) const = 0;

  /// Derivatives of a value with respect to the positions, (n, 3).
  virtual std::span<const double> derivatives(std::size_t output) const = 0;

  /// Derivative of a value with respect to a strain of positions and box together,
  /// sum_i x_i (x) dV/dx_i + h^T dV/dh with the lattice vectors as the rows of h; minus it is the
  /// virial. The place of the molecule is of no matter, since the gradients add up to zero.
  virtual std::array<double, 9> strain_derivative(std::size_t output) const = 0;

  /// Whether the values are energies.
  bool is_energy() const {
    const auto unit = metadata().output_units.find("values");
    return unit != metadata().output_units.end() && is_energy_unit(unit->second);
  }

  /// Names and default values of the run-time parameters; the time is none of them.
  Parameters parameters() const {
    Parameters defaults = defaults_of_file();
    if (time_unit()) defaults.erase("time");
    return defaults;
  }

  void set_parameter(const std::string& name, std::span<const double> values) {
    const Parameters known = parameters();
    if (!known.contains(name)) {
      std::string names;
      for (const auto& [entry, defaults] : known) names += (names.empty() ? "" : ", ") + entry;
      throw Error("parameters", names.empty() ? "none" : names, name);
    }
    set_input(name, values);
  }

  /// Sets the simulation's time, in ps, for what depends on it.
  void set_time(double time) {
    if (time_unit()) set_input("time", std::array{time});
  }

 protected:
  virtual const Parameters& defaults_of_file() const = 0;
  virtual const std::optional<std::string>& time_unit() const = 0;
  virtual void set_input(const std::string& name, std::span<const double> values) = 0;

  /// The artifact's unit of an energy in the engine's, 1 for what is no energy.
  double value_unit(double energy_unit) const {
    if (!is_energy()) return 1;
    return energy_in_kj_per_mol(metadata().output_units.at("values")) / energy_unit;
  }

  /// Throws unless all atoms are of the system.
  void require_existing(std::int64_t n_atoms) const {
    const std::int64_t last = std::ranges::max(atoms());
    if (last < n_atoms) return;
    throw Error("atoms", "indices below the system's " + std::to_string(n_atoms) + " atoms",
                std::to_string(last));
  }
};

}  // namespace ofcv
