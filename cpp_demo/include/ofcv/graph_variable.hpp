#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ofcv/atom_graph.hpp"
#include "ofcv/elements.hpp"
#include "ofcv/engine_function.hpp"
#include "ofcv/error.hpp"
#include "ofcv/evaluator.hpp"
#include "ofcv/file.hpp"
#include "ofcv/graph_atoms.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/neighbourhood.hpp"
#include "ofcv/units.hpp"
#include "ofcv/validation.hpp"
#include "ofcv/view.hpp"

namespace ofcv {

/// A collective variable of a graph of atoms, or a bias of one, in the units and on the atoms of an
/// engine. Every call finds the graph of the positions; neighbours are searched anew where atoms or
/// box have moved too far since the last search. A box may come or not, from call to call.
class GraphVariable : public EngineFunction {
 public:
  /// Throws unless the artifact fits the engine's units, atoms and elements.
  GraphVariable(const File& file, const EngineSystem& system, const GraphAtoms& atoms = {})
      : model_(open(file, system.device, system.threads)),
        details_(require_graph(metadata())),
        length_(system.length_unit / length_in_nm(metadata().length_unit.value_or(""))),
        value_unit_(value_unit(system.energy_unit)) {
    choose_atoms(atoms, system.n_atoms);
    require_existing(system.n_atoms);
    choose_elements(atoms, system.elements);
    for (const auto& [name, values] : details_.parameters) parameters_[name] = values;
    for (const auto& [name, values] : system.parameters) set_parameter(name, values);
  }

  const Metadata& metadata() const override { return model_.metadata; }

  const std::vector<std::int64_t>& atoms() const override { return atoms_; }

  std::size_t n_outputs() const override { return static_cast<std::size_t>(details_.n_outputs); }

  std::optional<double> period(std::size_t output) const override {
    return details_.periods.at(output);
  }

  bool takes_box() const override { return false; }

  bool gives_strain() const override { return true; }

  void evaluate(const double* positions, const double* box) override {
    const auto n_atoms = static_cast<std::int64_t>(atoms_.size());
    ofcv::require_finite("positions", positions, Shape{n_atoms, 3});
    for (std::size_t i = 0; i < places_.size(); ++i) places_[i] = length_ * positions[i];
    std::array<double, 9> vectors{};
    for (std::size_t i = 0; i < 9 && box != nullptr; ++i) vectors[i] = length_ * box[i];
    const AtomGraph& graph =
        neighbourhood_->find(places_.data(), n_atoms, box != nullptr ? vectors.data() : nullptr);
    describe(graph);
    run(graph, vectors);
    keep(graph, vectors);
  }

  double value(std::size_t output) const override { return values_.at(output); }

  std::span<const double> derivatives(std::size_t output) const override {
    const std::size_t size = places_.size();
    return std::span(derivatives_).subspan(output * size, size);
  }

  std::array<double, 9> strain_derivative(std::size_t output) const override {
    return strains_.at(output);
  }

  /// How often neighbours were searched.
  std::int64_t rebuilds() const { return neighbourhood_->rebuilds(); }

 protected:
  const Parameters& defaults_of_file() const override { return details_.parameters; }

  const std::optional<std::string>& time_unit() const override { return details_.time_unit; }

  void set_input(const std::string& name, std::span<const double> values) override {
    std::vector<double>& input = parameters_.at(name);
    if (values.size() != input.size()) {
      const std::int64_t expected[] = {static_cast<std::int64_t>(input.size())};
      const std::int64_t got[] = {static_cast<std::int64_t>(values.size())};
      throw Error(name, "shape " + tuple_text(expected), tuple_text(got));
    }
    input.assign(values.begin(), values.end());
  }

 private:
  using Atoms = std::vector<std::int64_t>;
  static constexpr double skin_in_nm = 0.1;  ///< atoms move half as far between two searches

  static const GraphVariableDetails& require_graph(const Metadata& metadata) {
    const auto* details = std::get_if<GraphVariableDetails>(&metadata.details);
    if (details == nullptr) {
      throw Error("model", "a graph_collective_variable", "a " + metadata.kind());
    }
    if (details->time_unit.value_or("ps") != "ps") {
      throw Error("time_unit", "ps", *details->time_unit);
    }
    const auto n_outputs = static_cast<std::size_t>(std::max<std::int64_t>(details->n_outputs, 0));
    if (n_outputs == 0 || details->periods.size() != n_outputs || metadata.outputs.size() != 3) {
      throw Error("metadata", "outputs that fit the details", "others");
    }
    return *details;
  }

  /// Sets the atoms, those of the system first, and the search on them.
  void choose_atoms(const GraphAtoms& given, std::int64_t n_atoms) {
    std::optional<Atoms> system = given.system ? given.system : details_.system;
    const bool has_environment = details_.environment.has_value();
    std::optional<Atoms> environment = given.environment ? given.environment : details_.environment;
    if (environment && !has_environment) throw Error("environment", "none, as in the file", "some");
    if (!system) {
      if (n_atoms == std::numeric_limits<std::int64_t>::max()) {
        throw Error("system", "its atoms, which the file does not name", "none");
      }
      system.emplace(static_cast<std::size_t>(n_atoms));
      std::iota(system->begin(), system->end(), 0);
    }
    atoms_ = *system;
    if (environment) atoms_.insert(atoms_.end(), environment->begin(), environment->end());
    if (atoms_.empty()) throw Error("system", "at least one atom", "none");

    NeighbourhoodSettings settings;
    settings.cutoff = details_.cutoff;
    settings.n_atoms = static_cast<std::int64_t>(atoms_.size());
    settings.system = rows(0, system->size());
    if (environment) settings.environment = rows(system->size(), atoms_.size());
    settings.buffer = details_.buffer;
    settings.long_range_cutoff = details_.long_range_cutoff;
    if (details_.subsystem) {
      settings.subsystem.emplace();
      for (const std::int64_t atom : given.subsystem ? *given.subsystem : *details_.subsystem) {
        const auto place = std::ranges::find(*system, atom) - system->begin();
        if (place == std::ssize(*system)) {
          throw Error("subsystem", "atoms of system", std::to_string(atom));
        }
        settings.subsystem->push_back(place);
      }
    }
    settings.skin = skin_in_nm / length_in_nm(*metadata().length_unit);
    neighbourhood_.emplace(settings);
    places_.resize(3 * atoms_.size());
    derivatives_.resize(n_outputs() * places_.size());
    values_.resize(n_outputs());
    strains_.resize(n_outputs());
  }

  static Atoms rows(std::size_t begin, std::size_t end) {
    Atoms rows(end - begin);
    std::iota(rows.begin(), rows.end(), static_cast<std::int64_t>(begin));
    return rows;
  }

  /// Sets the atomic numbers: those given, the engine's, or the file's.
  void choose_elements(const GraphAtoms& given, const Elements& of_engine) {
    std::vector<std::int64_t> known;
    for (const std::string& symbol : details_.known_elements) known.push_back(number_of(symbol));
    const bool is_moved = given.system || given.environment;
    if (!is_moved) require_elements(metadata(), atoms_, of_engine);
    for (std::size_t k = 0; k < atoms_.size(); ++k) {
      std::string symbol;
      if (given.elements) {
        if (given.elements->size() != atoms_.size()) {
          throw Error("elements", std::to_string(atoms_.size()) + " chemical symbols",
                      std::to_string(given.elements->size()));
        }
        symbol = (*given.elements)[k];
      } else if (of_engine) {
        symbol = of_engine->at(static_cast<std::size_t>(atoms_[k]));
      } else if (metadata().elements && metadata().elements->size() == atoms_.size()) {
        symbol = (*metadata().elements)[k];
      } else {
        throw Error("elements", "chemical symbols of the atoms", "none");
      }
      numbers_.push_back(number_of(symbol));
      if (std::ranges::find(known, numbers_.back()) != known.end()) continue;
      throw unknown_element(known, symbol, atoms_[k]);
    }
  }

  /// Takes what the nodes are from the atoms. Float32 numbers are coarse far from the origin, and
  /// only differences of positions matter.
  void describe(const AtomGraph& graph) {
    const auto first = static_cast<std::size_t>(graph.nodes.at(0));
    node_places_.clear();
    node_numbers_.clear();
    for (const std::int64_t row : graph.nodes) {
      for (std::size_t dim = 0; dim < 3; ++dim) {
        node_places_.push_back(places_[3 * static_cast<std::size_t>(row) + dim] -
                               places_[3 * first + dim]);
      }
      node_numbers_.push_back(numbers_[static_cast<std::size_t>(row)]);
    }
    shifts_.assign(graph.cell_shifts.begin(), graph.cell_shifts.end());
  }

  void run(const AtomGraph& graph, const std::array<double, 9>& vectors) {
    const Shape nodes{graph.n_nodes()}, edges{graph.n_edges()};
    std::vector<View> inputs;
    for (const TensorSpec& spec : metadata().inputs) {
      const std::string& name = spec.name;
      if (name == "positions") {
        inputs.emplace_back(node_places_.data(), Shape{nodes[0], 3});
      } else if (name == "elements") {
        inputs.emplace_back(node_numbers_.data(), nodes);
      } else if (name == "edge_index") {
        inputs.emplace_back(graph.edge_index.data(), Shape{2, edges[0]});
      } else if (name == "cell_shifts") {
        inputs.emplace_back(shifts_.data(), Shape{edges[0], 3});
      } else if (name == "box") {
        inputs.emplace_back(vectors.data(), Shape{3, 3});
      } else if (name == "system_mask") {
        inputs.emplace_back(graph.system_mask.data(), nodes);
      } else if (name == "long_range_mask") {
        inputs.emplace_back(graph.long_range_mask.data(), edges);
      } else {
        const auto found = parameters_.find(name);
        if (found == parameters_.end()) throw Error("metadata", "inputs of a graph", name);
        const auto size = static_cast<std::int64_t>(found->second.size());
        inputs.emplace_back(found->second.data(), Shape{size});
      }
    }
    const std::int64_t n = details_.n_outputs;
    raw_values_.resize(n_outputs());
    raw_derivatives_.resize(n_outputs() * node_places_.size());
    raw_box_derivatives_.resize(9 * n_outputs());
    model_.evaluate(inputs, {MutableView(raw_values_.data(), Shape{n}),
                             MutableView(raw_derivatives_.data(), Shape{n, nodes[0], 3}),
                             MutableView(raw_box_derivatives_.data(), Shape{n, 3, 3})});
    for (const auto* results : {&raw_values_, &raw_derivatives_, &raw_box_derivatives_}) {
      if (detail::all_finite(results->data(), static_cast<std::int64_t>(results->size()))) continue;
      throw Error("values", "finite values and derivatives", "NaN or infinity");
    }
  }

  /// Brings the results to the engine's units and atoms.
  void keep(const AtomGraph& graph, const std::array<double, 9>& vectors) {
    std::ranges::fill(derivatives_, 0);
    for (std::size_t k = 0; k < n_outputs(); ++k) {
      values_[k] = value_unit_ * raw_values_[k];
      std::array<double, 9>& strain = strains_[k];
      strain.fill(0);
      const auto add = [&](const double* row, const double* derivative) {
        for (int i = 0; i < 9; ++i) strain[i] += value_unit_ * row[i / 3] * derivative[i % 3];
      };
      const double* slopes = raw_derivatives_.data() + k * node_places_.size();
      for (std::size_t node = 0; node < graph.nodes.size(); ++node) {
        add(&node_places_[3 * node], slopes + 3 * node);
        const auto row = static_cast<std::size_t>(graph.nodes[node]);
        for (std::size_t dim = 0; dim < 3; ++dim) {
          derivatives_[k * places_.size() + 3 * row + dim] =
              value_unit_ * length_ * slopes[3 * node + dim];
        }
      }
      for (std::size_t row = 0; row < 3; ++row) {
        add(&vectors[3 * row], &raw_box_derivatives_[9 * k + 3 * row]);
      }
    }
  }

  Evaluator model_;
  const GraphVariableDetails& details_;
  double length_;      ///< the engine's unit in the artifact's
  double value_unit_;  ///< the artifact's unit of an energy in the engine's
  Atoms atoms_, numbers_;
  Parameters parameters_;
  std::optional<Neighbourhood> neighbourhood_;
  std::vector<double> places_, node_places_, shifts_;  ///< in the artifact's unit
  std::vector<std::int64_t> node_numbers_;
  std::vector<double> raw_values_, raw_derivatives_, raw_box_derivatives_;
  std::vector<double> values_, derivatives_;
  std::vector<std::array<double, 9>> strains_;
};

}  // namespace ofcv
