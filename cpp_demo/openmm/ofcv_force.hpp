#pragma once

/// An exported bias as a force of OpenMM, with no Python in the loop:
///
///     #include <ofcv_force.hpp>
///
///     system.addForce(new ofcv::OpenMMForce("bias.so"));         // or .pt2, .pt
///     OpenMM::Context context(system, integrator, platform);     // everything is checked here
///     context.setParameter("centre", 0.3);                       // at any time
///
/// A run-time parameter of the bias is a global parameter of the context: one number under the
/// parameter's own name, several as name_0, name_1, ... Their defaults are the artifact's. The
/// `time` of a moving restraint is the context's time (ps) instead. Whatever goes wrong is an
/// `ofcv::Error` with one line. With CMake: add_subdirectory cpp_demo and link ofcv::openmm.

#include <openmm/Force.h>
#include <openmm/System.h>
#include <openmm/Vec3.h>
#include <openmm/internal/ContextImpl.h>
#include <openmm/internal/CustomCPPForceImpl.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ofcv/atoms.hpp"
#include "ofcv/engine_function.hpp"
#include "ofcv/error.hpp"
#include "ofcv/evaluator.hpp"
#include "ofcv/file.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/open_engine_function.hpp"

namespace ofcv {

/// How an OpenMMForce runs its artifact.
struct OpenMMOptions {
  Parameters parameters = {};  ///< other defaults than the file's
  std::string prefix = "";     ///< goes before the names of the global parameters
  std::string device = "cpu";
  Elements elements = {};  ///< chemical symbols of the system's particles, where they are known
};

class OpenMMForce : public OpenMM::Force {
 public:
  /// Reads the file, by its path, once; each context makes a graph of its own of these bytes.
  explicit OpenMMForce(File file, OpenMMOptions options = {})
      : file_(std::move(file)), options_(std::move(options)), metadata_(read_metadata(file_)) {
    setName("OpenMMForce");
  }

  const File& file() const { return file_; }
  const OpenMMOptions& options() const { return options_; }
  const Metadata& metadata() const { return metadata_; }

  /// Whether the artifact takes a box, be it at run time or a fixed one. One that takes none has
  /// positions as they are, as OpenMM's own forces without periodic boundaries. A graph of atoms is
  /// periodic where the system's other forces are.
  bool usesPeriodicBoundaryConditions() const override {
    const VariableDetails* variable = metadata_.variable();
    return variable != nullptr && (variable->box.run_time || !variable->box.fixed.empty());
  }

 protected:
  OpenMM::ForceImpl* createImpl() const override;

 private:
  File file_;
  OpenMMOptions options_;
  Metadata metadata_;
};

namespace detail {

/// Whether any other force of the system has a box.
inline bool is_periodic(const OpenMM::System& system) {
  for (int i = 0; i < system.getNumForces(); ++i) {
    const OpenMM::Force& force = system.getForce(i);
    const bool is_bias = dynamic_cast<const OpenMMForce*>(&force) != nullptr;
    if (!is_bias && force.usesPeriodicBoundaryConditions()) return true;
  }
  return false;
}

/// Throws unless the artifact's one value is an energy.
inline void require_bias(const EngineFunction& variable) {
  const auto unit = variable.metadata().output_units.find("values");
  if (!variable.is_energy()) {
    throw Error("model", "a bias, whose values are in " + names(energies),
                "a " + variable.metadata().kind() + " in " +
                    (unit == variable.metadata().output_units.end() ? "no unit" : unit->second));
  }
  if (variable.n_outputs() != 1) {
    throw Error("model", "a bias with one value", std::to_string(variable.n_outputs()));
  }
}

class OpenMMForceImpl : public OpenMM::CustomCPPForceImpl {
 public:
  explicit OpenMMForceImpl(const OpenMMForce& owner) : CustomCPPForceImpl(owner), owner_(owner) {}

  const OpenMMForce& getOwner() const override { return owner_; }

  void initialize(OpenMM::ContextImpl& context) override {
    const OpenMM::System& system = context.getSystem();
    const OpenMMOptions& options = owner_.options();
    const auto n_particles = static_cast<std::size_t>(system.getNumParticles());
    if (options.elements && options.elements->size() != n_particles) {
      throw Error("elements", "those of the system's " + std::to_string(n_particles) + " particles",
                  std::to_string(options.elements->size()));
    }
    const bool periodic = is_periodic(system);
    bias_ = open_engine_function(owner_.file(), EngineSystem{.n_atoms = system.getNumParticles(),
                                                             .elements = options.elements,
                                                             .periodic = periodic,
                                                             .parameters = options.parameters,
                                                             .device = options.device});
    hands_over_box_ =
        takes_graphs(owner_.metadata()) ? periodic : owner_.usesPeriodicBoundaryConditions();
    require_bias(*bias_);
    positions_.resize(bias_->atoms().size());
    name_parameters();
    CustomCPPForceImpl::initialize(context);
  }

  std::map<std::string, double> getDefaultParameters() override { return defaults_; }

  double computeForce(OpenMM::ContextImpl& context, const std::vector<OpenMM::Vec3>& positions,
                      std::vector<OpenMM::Vec3>& forces) override {
    static_assert(sizeof(OpenMM::Vec3) == 3 * sizeof(double), "Vec3 is three numbers in a row");
    follow(context);
    const std::vector<std::int64_t>& atoms = bias_->atoms();
    for (std::size_t k = 0; k < atoms.size(); ++k) positions_[k] = positions[atoms[k]];
    OpenMM::Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    bias_->evaluate(&positions_[0][0], hands_over_box_ ? &box[0][0] : nullptr);
    // OpenMM hands over the forces of the step before.
    std::fill(forces.begin(), forces.end(), OpenMM::Vec3());
    const std::span<const double> gradient = bias_->derivatives(0);
    for (std::size_t k = 0; k < atoms.size(); ++k) {
      forces[atoms[k]] -= OpenMM::Vec3(gradient[3 * k], gradient[3 * k + 1], gradient[3 * k + 2]);
    }
    return bias_->value(0);
  }

 private:
  /// Names the parameters in the context; the time is the context's own.
  void name_parameters() {
    current_ = bias_->parameters();
    for (auto& [name, values] : current_) {
      const auto given = owner_.options().parameters.find(name);
      if (given != owner_.options().parameters.end()) values = given->second;
      for (std::size_t k = 0; k < values.size(); ++k) {
        global_names_[name].push_back(global_name(name, k));
        defaults_[global_names_[name][k]] = values[k];
      }
    }
  }

  std::string global_name(const std::string& name, std::size_t k) const {
    std::string text = owner_.options().prefix + name;
    if (current_.at(name).size() > 1) text.append("_").append(std::to_string(k));
    return text;
  }

  /// Hands the context's time and parameters to the artifact, the latter where they have changed.
  void follow(OpenMM::ContextImpl& context) {
    bias_->set_time(context.getTime());
    const std::map<std::string, double>& globals = context.getParameters();
    for (auto& [name, values] : current_) {
      const std::vector<std::string>& names = global_names_.at(name);
      bool changed = false;
      for (std::size_t k = 0; k < values.size(); ++k) {
        const double value = globals.at(names[k]);
        changed |= value != values[k];
        values[k] = value;
      }
      if (changed) bias_->set_parameter(name, values);
    }
  }

  const OpenMMForce& owner_;
  std::unique_ptr<EngineFunction> bias_;
  bool hands_over_box_ = false;
  std::vector<OpenMM::Vec3> positions_;  ///< of the artifact's atoms
  Parameters current_;
  std::map<std::string, std::vector<std::string>> global_names_;  ///< of each parameter's values
  std::map<std::string, double> defaults_;
};

}  // namespace detail

inline OpenMM::ForceImpl* OpenMMForce::createImpl() const {
  return new detail::OpenMMForceImpl(*this);
}

}  // namespace ofcv
