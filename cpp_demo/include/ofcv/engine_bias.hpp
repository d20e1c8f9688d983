#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "ofcv/box.hpp"
#include "ofcv/error.hpp"
#include "ofcv/frame.hpp"
#include "ofcv/frozen_boxes.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/units.hpp"

namespace ofcv {

/// Values of run-time parameters by their names.
using Parameters = std::map<std::string, std::vector<double>>;

/// What an engine tells about itself.
struct EngineSystem {
  std::string length_unit;     ///< one of ofcv::lengths
  std::string energy_unit;     ///< one of ofcv::energies
  std::int64_t n_atoms = 0;    ///< of the whole system
  bool periodic = false;       ///< whether it has a box
  Parameters parameters = {};  ///< others than the artifact's defaults
  std::string device = "cpu";  ///< cpu, cuda or cuda:<index>
  int threads = 1;             ///< of LibTorch during a call; 0 leaves the choice to LibTorch
};

/// A bias, an artifact whose one value is an energy, in the units and on the atoms of an engine:
///
///     ofcv::EngineBias bias("bias.pt2", {.length_unit = "nm", .energy_unit = "kJ/mol",
///                                        .n_atoms = n_atoms, .periodic = false});
///     energy += bias.evaluate(positions, nullptr, forces, nullptr);  // at every step
///
/// An artifact that knows no box takes positions as they are: the engine keeps its molecules whole.
/// Not to be called from several threads at once.
class EngineBias {
 public:
  /// Throws unless the artifact is an energy and fits the engine's units, atoms and box.
  EngineBias(const std::string& path, const EngineSystem& system)
      : frame_(path, system.device, system.threads), atoms_(atoms_of(metadata())) {
    const std::string unit = require_energy(metadata());
    length_ = length_factor(system.length_unit, metadata().length_unit.value_or(""));
    energy_ = energy_factor(unit, system.energy_unit);
    n_atoms_ = system.n_atoms;
    const std::int64_t last = *std::max_element(atoms_.begin(), atoms_.end());
    if (last >= n_atoms_) {
      throw Error("atoms", "indices below the system's " + std::to_string(n_atoms_) + " atoms",
                  std::to_string(last));
    }
    frozen_boxes_ = frozen_boxes(metadata());
    if (takes_box() && !system.periodic) {
      throw Error("box", "a periodic system", "one without a box");
    }
    read_parameters();
    for (const auto& [name, values] : system.parameters) set_parameter(name, values);
  }

  const Metadata& metadata() const { return frame_.metadata(); }

  /// Zero-based indices of the artifact's atoms in the engine.
  const std::vector<std::int64_t>& atoms() const { return atoms_; }

  /// Whether `evaluate` needs a box.
  bool takes_box() const { return metadata().periodic || !frozen_boxes_.empty(); }

  /// Names of the run-time parameters, in order.
  const std::vector<std::string>& parameter_names() const { return parameter_names_; }

  /// The artifact's default values of a parameter.
  const std::vector<double>& default_values(const std::string& name) const {
    return defaults_.at(parameter_index(name));
  }

  /// Unit of the parameter `time`; empty if the bias does not depend on time.
  std::string time_unit() const {
    const auto bias = metadata().details.value("bias", nlohmann::json::object());
    return bias.value("time_unit", std::string());
  }

  void set_parameter(const std::string& name, std::span<const double> values) {
    const std::size_t index = parameter_index(name);
    const std::size_t size = defaults_[index].size();
    if (values.size() != size) {
      throw Error(name, "shape (" + std::to_string(size) + ",)",
                  "(" + std::to_string(values.size()) + ",)");
    }
    frame_.set_input(first_parameter() + index, values);
  }

  /// Returns the energy and adds to the forces.
  ///
  /// `positions` (n_atoms, 3) are those of the whole system, `box` holds lattice vectors as rows or
  /// is null, `forces` (n_atoms, 3) are added to. `strain` is null, or gets the nine derivatives of
  /// the energy with respect to a strain of positions and box together (minus them are the virial),
  /// which an artifact with a frozen box does not know. Nothing is written when the call throws.
  double evaluate(const double* positions, const double* box, double* forces, double* strain) {
    gather(positions);
    Box vectors{};
    if (takes_box()) vectors = checked_box(box);
    if (metadata().periodic) frame_.set_input(1, vectors);
    if (strain != nullptr && !frozen_boxes_.empty()) {
      throw Error("strain", "none for an artifact with a frozen box", "one");
    }
    frame_.evaluate();
    const double value = frame_.output(0).at(0);
    const std::vector<double> gradient = frame_.output(1);
    if (!std::isfinite(value) ||
        !std::all_of(gradient.begin(), gradient.end(), [](double g) { return std::isfinite(g); })) {
      throw Error("values", "a finite energy and forces", "NaN or infinity");
    }
    for (std::size_t k = 0; k < atoms_.size(); ++k) {
      for (int dim = 0; dim < 3; ++dim) {
        forces[3 * atoms_[k] + dim] -= energy_ * length_ * gradient[3 * k + dim];
      }
    }
    if (strain != nullptr) write_strain(gradient, vectors, strain);
    return energy_ * value;
  }

 private:
  /// Returns the unit of the energy.
  static std::string require_energy(const Metadata& metadata) {
    const auto found = metadata.output_units.find("values");
    const std::string unit = found == metadata.output_units.end() ? "" : found->second;
    if (metadata.kind != "collective_variable" || !is_energy_unit(unit)) {
      throw Error("model", "a bias, whose values are in " + detail::names(energies),
                  "a " + metadata.kind + " in " + (unit.empty() ? "no unit" : unit));
    }
    if (metadata.details.contains("contract")) {
      throw Error("model", "a bias without a contract",
                  "one for " + metadata.details["contract"].dump());
    }
    const Dimension& batch = metadata.inputs.at(0).shape.at(0);
    if (!batch.is_symbolic() && batch.size != 1) {
      throw Error("model", "a bias for one frame or any number", std::to_string(batch.size));
    }
    if (metadata.outputs.at(0).shape.at(1).size != 1) {
      throw Error("model", "a bias with one value",
                  std::to_string(metadata.outputs[0].shape[1].size));
    }
    return unit;
  }

  static std::vector<std::int64_t> atoms_of(const Metadata& metadata) {
    if (metadata.atoms && !metadata.atoms->empty()) return *metadata.atoms;
    std::vector<std::int64_t> atoms(metadata.details.value("n_atoms", std::size_t{1}));
    std::iota(atoms.begin(), atoms.end(), 0);
    return atoms;
  }

  std::size_t first_parameter() const { return metadata().periodic ? 2 : 1; }

  std::size_t parameter_index(const std::string& name) const {
    const auto found = std::find(parameter_names_.begin(), parameter_names_.end(), name);
    if (found != parameter_names_.end()) return found - parameter_names_.begin();
    std::string known;
    for (const std::string& entry : parameter_names_) known += (known.empty() ? "" : ", ") + entry;
    throw Error("parameters", known.empty() ? "none" : known, name);
  }

  /// The order is that of the inputs; JSON objects have none.
  void read_parameters() {
    const auto defaults = metadata().details.value("parameters", nlohmann::json::object());
    for (std::size_t i = first_parameter(); i < metadata().inputs.size(); ++i) {
      const std::string& name = metadata().inputs[i].name;
      parameter_names_.push_back(name);
      defaults_.push_back(defaults.at(name).get<std::vector<double>>());
      frame_.set_input(i, defaults_.back());
    }
  }

  void gather(const double* positions) {
    places_.resize(3 * atoms_.size());
    for (std::size_t k = 0; k < atoms_.size(); ++k) {
      for (int dim = 0; dim < 3; ++dim) {
        places_[3 * k + dim] = length_ * positions[3 * atoms_[k] + dim];
      }
    }
    frame_.set_input(0, places_);
  }

  Box checked_box(const double* box) const {
    if (box == nullptr) throw Error("box", "shape (3, 3)", "none");
    Box vectors;
    for (int i = 0; i < 9; ++i) vectors[i] = length_ * box[i];
    for (const Box& frozen : frozen_boxes_) require_same_box(frozen, vectors);
    return vectors;
  }

  void write_strain(std::span<const double> gradient, const Box& box, double* strain) const {
    const std::vector<double> by_box =
        metadata().periodic ? frame_.output(2) : std::vector<double>(9);
    for (int a = 0; a < 3; ++a) {
      for (int b = 0; b < 3; ++b) {
        double sum = 0;
        for (std::size_t k = 0; k < atoms_.size(); ++k) {
          sum += places_[3 * k + a] * gradient[3 * k + b];
        }
        for (int row = 0; row < 3; ++row) sum += box[3 * row + a] * by_box[3 * row + b];
        strain[3 * a + b] = energy_ * sum;
      }
    }
  }

  Frame frame_;
  std::vector<std::int64_t> atoms_;
  std::int64_t n_atoms_ = 0;
  double length_ = 1;  ///< the engine's unit to the artifact's
  double energy_ = 1;  ///< the artifact's unit to the engine's
  std::vector<Box> frozen_boxes_;
  std::vector<std::string> parameter_names_;
  std::vector<std::vector<double>> defaults_;
  std::vector<double> places_;  ///< the artifact's atoms, in its unit
};

}  // namespace ofcv
