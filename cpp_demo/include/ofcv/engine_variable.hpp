#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ofcv/atoms.hpp"
#include "ofcv/box.hpp"
#include "ofcv/engine_function.hpp"
#include "ofcv/error.hpp"
#include "ofcv/evaluator.hpp"
#include "ofcv/file.hpp"
#include "ofcv/lattice.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/units.hpp"
#include "ofcv/validation.hpp"
#include "ofcv/view.hpp"

namespace ofcv {

/// A collective variable, or a bias, in the units and on the atoms of an engine:
///
///     ofcv::EngineVariable variable("cv.pt2", {.n_atoms = n_atoms, .periodic = false});
///     variable.evaluate(positions, nullptr);  // those of variable.atoms(), at every step
///     variable.value(0), variable.derivatives(0);
///
class EngineVariable : public EngineFunction {
 public:
  /// Throws unless the artifact fits the engine's units, atoms and box.
  EngineVariable(const File& file, const EngineSystem& system)
      : model_(open(file, system.device, system.threads)),
        variable_(require_variable(metadata())),
        atoms_(atoms_of(metadata(), variable_.n_atoms)),
        length_(system.length_unit / length_in_nm(metadata().length_unit.value_or(""))) {
    make_memory(metadata().inputs, inputs_, input_views_);
    make_memory(metadata().outputs, outputs_, output_views_);
    require_sizes();
    call_ = model_.prepare(input_views_, output_views_);
    value_unit_ = value_unit(system.energy_unit);
    require_existing(system.n_atoms);
    require_elements(metadata(), atoms_, system.elements);
    if (takes_box() && !system.periodic) {
      throw Error("box", "a periodic system", "one without a box");
    }
    for (const auto& [name, values] : variable_.parameters) set_input(name, values);
    for (const auto& [name, values] : system.parameters) set_parameter(name, values);
  }

  const Metadata& metadata() const override { return model_.metadata; }

  const std::vector<std::int64_t>& atoms() const override { return atoms_; }

  std::size_t n_outputs() const override { return static_cast<std::size_t>(variable_.n_outputs); }

  std::optional<double> period(std::size_t output) const override {
    return variable_.periods.at(output);
  }

  bool takes_box() const override { return metadata().periodic() || !gives_strain(); }

  /// What a box that is part of the artifact contributes to strain derivatives is not known.
  bool gives_strain() const override { return variable_.box.fixed.empty(); }

  /// With a box every atom is taken at its image nearest to the atom before it, so that molecules
  /// are whole; without one as it is.
  void evaluate(const double* positions, const double* box) override {
    if (box != nullptr) {
      set_box(box);
    } else if (takes_box()) {
      throw Error("box", "shape (3, 3)", "none");
    }
    ofcv::require_finite("positions", positions, input_views_[0].shape);
    place(positions, box != nullptr);
    call_();
    const auto is_finite = [](const std::vector<double>& results) {
      return detail::all_finite(results.data(), static_cast<std::int64_t>(results.size()));
    };
    if (!std::ranges::all_of(outputs_, is_finite)) {
      throw Error("values", "finite values and derivatives", "NaN or infinity");
    }
    results_ = outputs_;
    for (std::size_t i = 0; i < results_.size(); ++i) {
      for (double& result : results_[i]) result *= value_unit_ * (i > 0 ? length_ : 1);
    }
  }

  double value(std::size_t output) const override { return results_.at(0).at(output); }

  std::span<const double> derivatives(std::size_t output) const override {
    const std::size_t size = 3 * atoms_.size();
    return std::span(results_.at(1)).subspan(output * size, size);
  }

  std::array<double, 9> strain_derivative(std::size_t output) const override {
    std::array<double, 9> strain{};
    const auto add = [&](const double* row, const double* derivative) {
      for (int i = 0; i < 9; ++i) strain[i] += row[i / 3] * derivative[i % 3] / length_;
    };
    for (std::size_t i = 0; i < inputs_[0].size(); i += 3) {
      add(&inputs_[0][i], &derivatives(output)[i]);
    }
    for (std::size_t row = 0; metadata().periodic() && row < 3; ++row) {
      add(&inputs_[1][3 * row], &results_.at(2)[9 * output + 3 * row]);
    }
    return strain;
  }

 protected:
  const Parameters& defaults_of_file() const override { return variable_.parameters; }

  const std::optional<std::string>& time_unit() const override { return variable_.time_unit; }

  void set_input(const std::string& name, std::span<const double> values) override {
    const auto& specs = metadata().inputs;
    const auto found = std::ranges::find(specs, name, &TensorSpec::name);
    if (found == specs.end()) throw Error("metadata", "an input for every parameter", name);
    std::vector<double>& input = inputs_[static_cast<std::size_t>(found - specs.begin())];
    if (values.size() != input.size()) {
      const std::int64_t got[] = {static_cast<std::int64_t>(values.size())};
      throw Error(name, "shape " + shape_text(found->shape), tuple_text(got));
    }
    std::ranges::copy(values, input.begin());
  }

 private:
  static const VariableDetails& require_variable(const Metadata& metadata) {
    const auto* variable = std::get_if<VariableDetails>(&metadata.details);
    if (variable == nullptr) throw Error("model", "a collective_variable", "a " + metadata.kind());
    require_positions(*variable);
    if (variable->time_unit.value_or("ps") != "ps") {
      throw Error("time_unit", "ps", *variable->time_unit);
    }
    return *variable;
  }

  /// Doubles for one frame of each tensor; their views are what the model is called with.
  template <typename AnyView>
  static void make_memory(const std::vector<TensorSpec>& specs,
                          std::vector<std::vector<double>>& memory, std::vector<AnyView>& views) {
    for (const TensorSpec& spec : specs) {
      Shape shape;
      for (const Dimension& size : spec.shape) shape.push_back(size.is_symbolic() ? 1 : size.size);
      auto& values = memory.emplace_back(static_cast<std::size_t>(count(shape)));
      views.emplace_back(values.data(), shape);
    }
  }

  /// What the details say has to be true of the tensors.
  void require_sizes() const {
    const std::size_t n_boxes = metadata().periodic() ? 1 : 0;
    const Shape& shape = input_views_.at(0).shape;
    if (shape.size() == 3 && shape[0] != 1) {
      throw Error("model", "an artifact for one frame or any number of them",
                  "one for " + std::to_string(shape[0]));
    }
    bool fits = inputs_.size() == 1 + n_boxes + variable_.parameters.size() &&
                outputs_.size() == 2 + n_boxes && inputs_[0].size() == 3 * atoms_.size() &&
                outputs_[0].size() == n_outputs() &&
                outputs_[1].size() == n_outputs() * inputs_[0].size();
    if (n_boxes > 0) fits &= inputs_[1].size() == 9 && outputs_.back().size() == 9 * n_outputs();
    fits &= variable_.periods.size() == n_outputs() &&
            std::ranges::all_of(variable_.periods, [](const std::optional<double>& period) {
              return !period || (*period > 0 && std::isfinite(*period));
            });
    if (!fits) throw Error("metadata", "inputs and outputs that fit the details", "others");
  }

  /// What is costly is done when the box changes.
  void set_box(const double* box) {
    if (nearest_image_ && std::equal(box, box + 9, given_box_.begin())) return;
    ofcv::require_finite("box", box, Shape{3, 3});
    const Lattice lattice = lattice_from(box, length_);
    require_box(lattice, variable_.box.run_time == BoxShape::orthorhombic);
    for (const Lattice& own : variable_.box.fixed) require_same_box(own, lattice);
    if (metadata().periodic()) std::copy_n(lattice[0].data(), 9, inputs_[1].begin());
    nearest_image_.emplace(lattice);
    std::copy_n(box, 9, given_box_.begin());
  }

  /// Brings the positions to the artifact's unit, makes molecules whole where there is a box, and
  /// puts the first atom at the origin, since float32 numbers are coarse far from it. Descriptors
  /// of the user's own, which have no description, may depend on the place of the molecule.
  void place(const double* positions, bool makes_whole) {
    Vector moved{}, before{};
    for (std::size_t k = 0; k < atoms_.size(); ++k) {
      Vector atom;
      for (int dim = 0; dim < 3; ++dim) atom[dim] = length_ * positions[3 * k + dim];
      if (k == 0) {
        if (variable_.descriptors) moved = detail::sum({}, -1, atom);
      } else if (makes_whole) {
        const Vector step = detail::sum(atom, -1, before);
        moved = detail::sum(detail::sum(moved, 1, (*nearest_image_)(step)), -1, step);
      }
      before = atom;
      for (int dim = 0; dim < 3; ++dim) inputs_[0][3 * k + dim] = atom[dim] + moved[dim];
    }
  }

  Evaluator model_;
  const VariableDetails& variable_;
  std::vector<std::int64_t> atoms_;
  double length_;          ///< the engine's unit in the artifact's
  double value_unit_ = 1;  ///< the artifact's unit of an energy in the engine's
  std::array<double, 9> given_box_{};
  std::optional<NearestImage> nearest_image_;                    ///< in that box
  std::vector<std::vector<double>> inputs_, outputs_, results_;  ///< the last in engine's units
  std::vector<View> input_views_;
  std::vector<MutableView> output_views_;
  std::function<void()> call_;  ///< on these
};

}  // namespace ofcv
