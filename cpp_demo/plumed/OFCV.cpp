// OFCV: an exported collective variable or bias as an action of PLUMED, 2.9 or later.
//
//     LOAD FILE=OFCV.so
//     cv: OFCV MODEL=cv.pt2 ATOMS=5,7,9,15,17
//     METAD ARG=cv.node-0 SIGMA=0.1 HEIGHT=1 PACE=500
//
// How to build and use it: docs/engines/plumed.md.

#include <ATen/Parallel.h>
#include <core/ActionRegister.h>
#include <core/Colvar.h>
#include <core/PlumedMain.h>
#include <omp.h>
#include <tools/Pbc.h>
#include <tools/Tools.h>
#include <tools/Units.h>
#if __has_include(<core/Atoms.h>)
#include <core/Atoms.h>
#define OFCV_UNITS_BELONG_TO_ATOMS  // PLUMED 2.9
#endif

#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ofcv/error.hpp"
#include "ofcv/frame.hpp"
#include "ofcv/frozen_boxes.hpp"
#include "ofcv/units.hpp"

namespace PLMD {

namespace {

/// Lets LibTorch use `number` OpenMP threads for a while, and leaves the engine's setting as it
/// was.
class ThreadCount {
 public:
  explicit ThreadCount(int number) : before_(omp_get_max_threads()) {
    // LibTorch sets the count of a thread the first time it asks for it there: now, not later.
    at::get_num_threads();
    omp_set_num_threads(number);
  }
  ~ThreadCount() { omp_set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

using Parameters = std::map<std::string, std::vector<double>>;

/// Reads `name=value,value name=value`.
Parameters parse_parameters(const std::string& text) {
  Parameters parameters;
  for (const std::string& word : Tools::getWords(text)) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (equals == std::string::npos) {
      throw ofcv::Error("PARAMETERS", "name=value pairs", "'" + word + "'");
    }
    for (const std::string& number : Tools::getWords(word.substr(equals + 1), ",")) {
      parameters[name].emplace_back();
      if (!Tools::convertNoexcept(number, parameters[name].back())) {
        throw ofcv::Error("PARAMETERS", "numbers for " + name, "'" + number + "'");
      }
    }
  }
  return parameters;
}

/// The artifact's atoms, zero-based.
std::vector<std::int64_t> atom_indices(const ofcv::Metadata& metadata) {
  if (metadata.atoms) return *metadata.atoms;
  std::vector<std::int64_t> all(metadata.inputs.at(0).shape.at(1).size);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

std::string serial(std::int64_t index) { return std::to_string(index + 1); }

/// Throws unless `atoms` are those of the artifact, in its order.
void require_atoms(const std::vector<AtomNumber>& atoms,
                   const std::vector<std::int64_t>& expected) {
  if (atoms.size() != expected.size()) {
    throw ofcv::Error("ATOMS", std::to_string(expected.size()) + " atoms",
                      std::to_string(atoms.size()));
  }
  for (std::size_t i = 0; i < atoms.size(); ++i) {
    if (static_cast<std::int64_t>(atoms[i].index()) == expected[i]) continue;
    throw ofcv::Error("ATOMS", "serial " + serial(expected[i]) + " as number " + serial(i),
                      std::to_string(atoms[i].serial()));
  }
}

/// Throws unless the artifact is a collective variable or a bias that is called with one frame.
void require_collective_variable(const ofcv::Metadata& metadata) {
  if (metadata.kind != "collective_variable") {
    throw ofcv::Error("model", "a collective_variable", "a " + metadata.kind);
  }
  const ofcv::Dimension& batch = metadata.inputs.at(0).shape.at(0);
  if (!batch.is_symbolic() && batch.size != 1) {
    throw ofcv::Error("model", "an artifact for one frame or any number of them",
                      "one for " + std::to_string(batch.size));
  }
}

void require_finite(const std::vector<double>& results) {
  for (const double result : results) {
    if (!std::isfinite(result)) {
      throw ofcv::Error("values", "finite values and derivatives", "NaN or infinity");
    }
  }
}

/// Whether the artifact's value is an energy.
bool is_energy(const ofcv::Metadata& metadata) {
  const auto unit = metadata.output_units.find("values");
  return unit != metadata.output_units.end() && ofcv::is_energy_unit(unit->second);
}

}  // namespace

/// Components node-0, node-1, ... with the values of an artifact and their derivatives.
class OFCV : public Colvar {
 public:
  explicit OFCV(const ActionOptions& options);
  static void registerKeywords(Keywords& keys);
  void calculate() override;

 private:
  void set_up();
  void set_up_units();
  void set_up_parameters(const Parameters& given);
  void evaluate();
  void set_box();
  void require_frozen_boxes();
  void set_component(int number);

  const Units& units() const;
  bool units_are_natural() const;

  std::unique_ptr<ofcv::Frame> frame_;
  int n_threads_ = 1;
  bool takes_box_ = false;
  bool makes_whole_ = true;
  std::vector<ofcv::Box> frozen_boxes_;  ///< in the artifact's unit
  std::optional<std::size_t> time_;      ///< number of the input that is PLUMED's time
  double length_ = 1;                    ///< PLUMED's unit of length in the artifact's
  double value_ = 1;                     ///< the unit of the artifact's values in PLUMED's
  std::vector<double> positions_, values_, derivatives_, box_derivatives_;
};

PLUMED_REGISTER_ACTION(OFCV, "OFCV")

void OFCV::registerKeywords(Keywords& keys) {
  Colvar::registerKeywords(keys);
  keys.add("compulsory", "MODEL", "the exported file, .pt or .pt2");
  keys.add("atoms", "ATOMS",
           "the atoms of the artifact, in its order; by default those that the file names");
  keys.add("compulsory", "DEVICE", "cpu", "where the artifact runs: cpu, cuda or cuda:<index>");
  keys.add("compulsory", "THREADS", "1", "number of threads of LibTorch");
  keys.add("optional", "PARAMETERS",
           "run-time parameters of a bias, in the artifact's units, e.g. "
           "{centre=0.1,0.2 force_constant=100,200}; by default those in the file");
  keys.addOutputComponent("node", "default",
                          "the values of the artifact: node-0, node-1, ...; an energy is in the "
                          "energy unit of the input");
}

OFCV::OFCV(const ActionOptions& options) : PLUMED_COLVAR_INIT(options) {
  try {
    set_up();
  } catch (const ofcv::Error& failure) {
    error(failure.what());
  }
}

void OFCV::set_up() {
  std::string model, device, parameters;
  std::vector<AtomNumber> atoms;
  bool ignores_box = false;
  parse("MODEL", model);
  parse("DEVICE", device);
  parse("THREADS", n_threads_);
  parse("PARAMETERS", parameters);
  parseAtomList("ATOMS", atoms);
  parseFlag("NOPBC", ignores_box);
  checkRead();
  if (n_threads_ < 1) {
    throw ofcv::Error("THREADS", "a positive number", std::to_string(n_threads_));
  }

  const ThreadCount threads(n_threads_);
  frame_ = std::make_unique<ofcv::Frame>(model, device, 0);
  const ofcv::Metadata& metadata = frame_->metadata();
  require_collective_variable(metadata);
  const std::vector<std::int64_t> indices = atom_indices(metadata);
  if (atoms.empty()) {
    for (const std::int64_t index : indices) atoms.push_back(AtomNumber::index(index));
  }
  require_atoms(atoms, indices);
  takes_box_ = metadata.periodic;
  frozen_boxes_ = ofcv::frozen_boxes(metadata);
  makes_whole_ = !takes_box_ && frozen_boxes_.empty() && !ignores_box;
  if (!frozen_boxes_.empty()) {
    warning(
        "model: the box is part of the artifact, which gives no virial then: no pressure from it");
  }
  if (ignores_box && (takes_box_ || !frozen_boxes_.empty())) {
    throw ofcv::Error("NOPBC", "none for a periodic artifact", "NOPBC");
  }
  set_up_units();
  set_up_parameters(parse_parameters(parameters));

  const std::int64_t n_outputs = metadata.outputs.at(0).shape.at(1).size;
  for (std::int64_t k = 0; k < n_outputs; ++k) {
    const std::string name = "node-" + std::to_string(k);
    addComponentWithDerivatives(name);
    componentIsNotPeriodic(name);
  }
  requestAtoms(atoms);
  positions_.resize(3 * atoms.size());

  log.printf("  file %s (%s, %s), written %s\n", model.c_str(), metadata.format.c_str(),
             ofcv::dtype_name(metadata.inputs[0].dtype), metadata.created.c_str());
  log.printf("  %zu atoms, %d values, lengths in %s, %s\n", atoms.size(), int(n_outputs),
             metadata.length_unit->c_str(), takes_box_ ? "periodic" : "not periodic");
  log.printf("  on %s with %d threads of LibTorch %s\n", device.c_str(), n_threads_, TORCH_VERSION);
}

void OFCV::set_up_units() {
  const ofcv::Metadata& metadata = frame_->metadata();
  if (units_are_natural()) throw ofcv::Error("UNITS", "units that have a size", "NATURAL");
  length_ = units().getLength() * ofcv::length_factor("nm", metadata.length_unit.value_or(""));
  if (is_energy(metadata)) {
    const std::string& unit = metadata.output_units.at("values");
    value_ = ofcv::energy_factor(unit, "kJ/mol") / units().getEnergy();
  }
}

/// Parameters are the inputs after positions and box.
void OFCV::set_up_parameters(const Parameters& given) {
  const ofcv::Metadata& metadata = frame_->metadata();
  const bool depends_on_time =
      metadata.details.contains("bias") && metadata.details.at("bias").contains("time_unit");
  Parameters rest = given;
  std::string names;
  for (std::size_t input = takes_box_ ? 2 : 1; input < metadata.inputs.size(); ++input) {
    const std::string& name = metadata.inputs[input].name;
    if (depends_on_time && name == "time") {
      time_ = input;
      continue;
    }
    names += (names.empty() ? "" : ", ") + name;
    auto values = metadata.details.at("parameters").at(name).get<std::vector<double>>();
    if (const auto found = rest.extract(name)) values = found.mapped();
    if (values.size() != frame_->input_size(input)) {
      throw ofcv::Error("PARAMETERS",
                        std::to_string(frame_->input_size(input)) + " values of " + name,
                        std::to_string(values.size()));
    }
    frame_->set_input(input, values);
  }
  if (!rest.empty()) {
    throw ofcv::Error("PARAMETERS", names.empty() ? "none" : "some of " + names,
                      "'" + rest.begin()->first + "'");
  }
}

void OFCV::calculate() {
  if (makes_whole_) makeWhole();
  try {
    evaluate();
  } catch (const ofcv::Error& failure) {
    error(failure.what());
  }
  for (int k = 0; k < getNumberOfComponents(); ++k) set_component(k);
}

void OFCV::evaluate() {
  for (std::size_t i = 0; i < positions_.size(); ++i) {
    positions_[i] = getPosition(i / 3)[i % 3] * length_;
  }
  frame_->set_input(0, positions_);
  if (takes_box_) set_box();
  require_frozen_boxes();
  if (time_) frame_->set_input(*time_, std::vector<double>{getTime() * units().getTime()});
  const ThreadCount threads(n_threads_);
  frame_->evaluate();
  values_ = frame_->output(0);
  derivatives_ = frame_->output(1);
  if (takes_box_) box_derivatives_ = frame_->output(2);
  require_finite(values_);
  require_finite(derivatives_);
}

void OFCV::set_box() {
  if (!getPbc().isSet()) throw ofcv::Error("box", "one, because the artifact is periodic", "none");
  ofcv::Box box;
  for (int i = 0; i < 9; ++i) box[i] = getBox()(i / 3, i % 3) * length_;
  frame_->set_input(1, box);
}

void OFCV::require_frozen_boxes() {
  if (frozen_boxes_.empty()) return;
  if (!getPbc().isSet()) throw ofcv::Error("box", "the box frozen into the artifact", "none");
  ofcv::Box box;
  for (int i = 0; i < 9; ++i) box[i] = getBox()(i / 3, i % 3) * length_;
  for (const ofcv::Box& frozen : frozen_boxes_) ofcv::require_same_box(frozen, box);
}

/// The virial is minus the derivative with respect to the strain,
/// sum_i x_i (x) dV/dx_i + h^T dV/dh with the lattice vectors as the rows of h. What a box that is
/// part of the artifact contributes is not known.
void OFCV::set_component(int number) {
  const std::size_t n_atoms = getNumberOfAtoms();
  Value* component = getPntrToComponent(number);
  component->set(values_[number] * value_);
  const double slope = value_ * length_;
  Tensor strain;
  const double* derivative = derivatives_.data() + number * 3 * n_atoms;
  for (std::size_t i = 0; i < n_atoms; ++i, derivative += 3) {
    const Vector gradient = slope * Vector(derivative[0], derivative[1], derivative[2]);
    setAtomsDerivatives(component, static_cast<int>(i), gradient);
    strain += Tensor(getPosition(static_cast<int>(i)), gradient);
  }
  if (takes_box_) {
    Tensor by_box;
    for (int i = 0; i < 9; ++i) by_box(i / 3, i % 3) = slope * box_derivatives_[9 * number + i];
    strain += matmul(transpose(getBox()), by_box);
  }
  if (frozen_boxes_.empty()) setBoxDerivatives(component, -strain);
}

const Units& OFCV::units() const {
#ifdef OFCV_UNITS_BELONG_TO_ATOMS
  return plumed.getAtoms().getUnits();
#else
  return getUnits();
#endif
}

bool OFCV::units_are_natural() const {
#ifdef OFCV_UNITS_BELONG_TO_ATOMS
  return plumed.getAtoms().usingNaturalUnits();
#else
  return usingNaturalUnits();
#endif
}

}  // namespace PLMD
