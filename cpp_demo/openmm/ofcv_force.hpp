#pragma once

/// An exported bias as a force of OpenMM, with no Python in the loop:
///
///     #include <ofcv_force.hpp>
///
///     system.addForce(new ofcv::OpenMMForce("bias.pt2"));        // or .pt
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
#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ofcv/engine_bias.hpp"
#include "ofcv/error.hpp"
#include "ofcv/frozen_boxes.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/model.hpp"

namespace ofcv {

/// How an OpenMMForce runs its artifact.
struct OpenMMOptions {
  Parameters parameters = {};  ///< other defaults than the file's
  std::string prefix = "";     ///< goes before the names of the global parameters
  std::string device = "cpu";
};

class OpenMMForce : public OpenMM::Force {
 public:
  /// Reads the artifact's metadata; each context loads the artifact for itself.
  explicit OpenMMForce(std::string path, OpenMMOptions options = {})
      : path_(std::move(path)),
        options_(std::move(options)),
        metadata_(read_metadata(path_)),
        takes_box_(metadata_.periodic || !frozen_boxes(metadata_).empty()) {
    setName("OpenMMForce");
  }

  const std::string& path() const { return path_; }
  const OpenMMOptions& options() const { return options_; }
  const Metadata& metadata() const { return metadata_; }

  /// Whether the artifact takes a box, be it at run time or a fixed one. One that takes none has
  /// positions as they are, as OpenMM's own forces without periodic boundaries.
  bool usesPeriodicBoundaryConditions() const override { return takes_box_; }

 protected:
  OpenMM::ForceImpl* createImpl() const override;

 private:
  std::string path_;
  OpenMMOptions options_;
  Metadata metadata_;
  bool takes_box_;
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

class OpenMMForceImpl : public OpenMM::CustomCPPForceImpl {
 public:
  explicit OpenMMForceImpl(const OpenMMForce& owner) : CustomCPPForceImpl(owner), owner_(owner) {}

  const OpenMMForce& getOwner() const override { return owner_; }

  void initialize(OpenMM::ContextImpl& context) override {
    const OpenMM::System& system = context.getSystem();
    const OpenMMOptions& options = owner_.options();
    bias_.emplace(owner_.path(), EngineSystem{.length_unit = "nm",
                                              .energy_unit = "kJ/mol",
                                              .n_atoms = system.getNumParticles(),
                                              .periodic = is_periodic(system),
                                              .parameters = {},
                                              .device = options.device});
    name_parameters();
    CustomCPPForceImpl::initialize(context);
  }

  std::map<std::string, double> getDefaultParameters() override {
    std::map<std::string, double> defaults;
    for (const Parameter& parameter : parameters_) {
      for (std::size_t k = 0; k < parameter.values.size(); ++k) {
        defaults[parameter.global_names[k]] = parameter.values[k];
      }
    }
    return defaults;
  }

  double computeForce(OpenMM::ContextImpl& context, const std::vector<OpenMM::Vec3>& positions,
                      std::vector<OpenMM::Vec3>& forces) override {
    static_assert(sizeof(OpenMM::Vec3) == 3 * sizeof(double), "Vec3 is three numbers in a row");
    follow(context);
    // OpenMM hands over the forces of the step before.
    std::fill(forces.begin(), forces.end(), OpenMM::Vec3());
    const auto* in = reinterpret_cast<const double*>(positions.data());
    auto* out = reinterpret_cast<double*>(forces.data());
    if (!owner_.usesPeriodicBoundaryConditions()) return bias_->evaluate(in, nullptr, out, nullptr);
    OpenMM::Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    return bias_->evaluate(in, &box[0][0], out, nullptr);
  }

 private:
  struct Parameter {
    std::string name;
    std::vector<std::string> global_names;
    std::vector<double> values;
  };

  /// Names the parameters in the context; the time is the context's own.
  void name_parameters() {
    const OpenMMOptions& options = owner_.options();
    is_moving_ = !bias_->time_unit().empty();
    if (is_moving_ && options.parameters.contains("time")) {
      throw Error("parameters", "none for time, the context's own", "one");
    }
    for (const auto& [name, values] : options.parameters) bias_->set_parameter(name, values);
    for (const std::string& name : bias_->parameter_names()) {
      if (is_moving_ && name == "time") continue;
      const auto given = options.parameters.find(name);
      const bool is_default = given == options.parameters.end();
      Parameter parameter{name, {}, is_default ? bias_->default_values(name) : given->second};
      const std::size_t size = parameter.values.size();
      for (std::size_t k = 0; k < size; ++k) {
        std::string global_name = options.prefix + name;
        if (size > 1) global_name.append("_").append(std::to_string(k));
        parameter.global_names.push_back(std::move(global_name));
      }
      parameters_.push_back(std::move(parameter));
    }
  }

  /// Hands the context's parameters to the artifact where they have changed.
  void follow(OpenMM::ContextImpl& context) {
    if (is_moving_) bias_->set_parameter("time", std::array{context.getTime()});
    const std::map<std::string, double>& globals = context.getParameters();
    for (Parameter& parameter : parameters_) {
      bool changed = false;
      for (std::size_t k = 0; k < parameter.values.size(); ++k) {
        const double value = globals.at(parameter.global_names[k]);
        changed |= value != parameter.values[k];
        parameter.values[k] = value;
      }
      if (changed) bias_->set_parameter(parameter.name, parameter.values);
    }
  }

  const OpenMMForce& owner_;
  std::optional<EngineBias> bias_;
  std::vector<Parameter> parameters_;
  bool is_moving_ = false;
};

}  // namespace detail

inline OpenMM::ForceImpl* OpenMMForce::createImpl() const {
  return new detail::OpenMMForceImpl(*this);
}

}  // namespace ofcv
